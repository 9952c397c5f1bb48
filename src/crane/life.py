"""One life of a replica: an engine with the program under it.

A node begins another life when its replica has to begin anew in one process: from
a checkpoint, because the others' logs do not reach back to where it is, or because
its program came to other results than the others'.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from crane import config as configuration
from crane import launch, native, procfs
from crane.checkpoint.store import SAID, Checkpoint
from crane.config import NodeConfig
from crane.errors import CraneError
from crane.registry import run_root

if TYPE_CHECKING:
    from crane._core import Engine
    from crane.child import Child

_SANDBOX_SECONDS = 3.0

Events = Callable[[dict[str, Any]], None]


class Life:
    """An engine and a sandbox from their start to their end. Belongs to the event loop."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        agreed: str,
        lock: int,
        origin: Checkpoint | None,
        share: Path | None = None,
        on_engine: Events,
        on_report: Events,
        on_exit: Callable[[int], None],
    ) -> None:
        """Prepare.

        ``agreed`` is what replicas compare; ``lock`` is inherited by the sandbox;
        ``origin`` is the checkpoint to begin from, ``None`` for the beginning of the
        log; ``share`` is where the log says that the program begins anew, with its files
        as they are. The callbacks get the engine's events, the sandbox's reports and the
        sandbox's end.
        """
        self.config = config
        self.state = Path(config.state_dir)
        self.origin = origin
        self.share = share
        self.shared = launch.SharedDir(config.cluster_id, config.id)
        self.output = self.state / "server.log"
        self.layers = self.state / "files"
        self.init = 0
        """The first process of the program's pid namespace; 0 before there is one."""
        self.server: procfs.ProcessIdentity | None = None
        self.engine: Engine | None = None
        self.sandbox: Child | None = None
        """``None`` in a life without a program."""
        self._ending = False
        self._agreed = agreed
        self._lock = lock
        self._on_engine = on_engine
        self._on_report = on_report
        self._on_exit = on_exit

    def start(self, *, program: bool = True) -> None:
        """Start the engine, then the program, unless only the others are to be reached.

        Raises:
            CraneError: when the engine cannot be started.
        """
        self._start_engine()
        if not program:
            return
        if self.origin is not None:
            place_output(self.output, self.origin)
        self.sandbox = launch.start(
            self.config,
            self.shared,
            layers=self.layers,
            output=self.output,
            hidden=sorted({self.config.state_dir, str(run_root()), *self.config.hide}),
            lock=self._lock,
            errors=sys.stderr.buffer,
            on_report=self._report,
            on_exit=self._exited,
            checkpoint=None if self.origin is None else self.origin.path,
            keep=self.share is not None,
        )

    def _start_engine(self) -> None:
        core = native.core()
        log_dir = self.state / "log"
        log_dir.mkdir(mode=0o700, exist_ok=True)
        origin = self.origin
        self.shared.create(native.interposer_path() if origin is None else origin.interposer)
        text = configuration.engine_config(
            self.config,
            agreed=self._agreed,
            log_dir=log_dir,
            segment=self.shared.segment,
            checkpoint=origin,
            share=self.share,
        )
        try:
            self.engine = core.Engine(text)
            assert self.engine is not None
            self.shared.open_to_program()
            asyncio.get_running_loop().add_reader(self.engine.event_fd(), self._engine_events)
            self.engine.start()
        except core.EngineError as error:
            raise CraneError(str(error)) from error

    def _engine_events(self) -> None:
        while self.engine is not None and (text := self.engine.next_event()) is not None:
            self._on_engine(msgspec.json.decode(text, type=dict[str, Any]))

    def _exited(self, code: int) -> None:
        if not self._ending:
            self._on_exit(code)

    def _report(self, report: dict[str, Any]) -> None:
        if self._ending:
            return
        match report.get("event"):
            case "init":
                self.init = report["pid"]
                # Before it is restored nobody may look at it; see the engine.
                if self.engine is not None and self.origin is None:
                    self.engine.program_started(self.init)
            case "server":
                if self.engine is not None and self.origin is not None:
                    self.engine.program_started(self.init)
                self.server = launch.program_process(self.init)
        self._on_report(report)

    def status(self) -> dict[str, Any]:
        """The engine's state; empty without one."""
        if self.engine is None:
            return {}
        return msgspec.json.decode(self.engine.status(), type=dict[str, Any])

    def threads(self) -> list[dict[str, Any]]:
        """The program's threads as the engine has them."""
        if self.engine is None:
            return []
        return msgspec.json.decode(self.engine.threads(), type=list[dict[str, Any]])

    async def end(self) -> None:
        """Leave nothing behind; the program goes first, then what it talked to."""
        self._ending = True
        if self.sandbox is not None:
            await self.sandbox.end(_SANDBOX_SECONDS)
        if self.engine is not None:
            asyncio.get_running_loop().remove_reader(self.engine.event_fd())
            engine, self.engine = self.engine, None
            await asyncio.to_thread(engine.stop)
        self.shared.remove()


def place_output(output: Path, origin: Checkpoint) -> None:
    """Make the file of the program's output as long as it was at a checkpoint.

    The restored program has it open at that length. What this replica wrote after
    that is written again; what it did not write itself is a hole, with the last of
    the other replica's in front of the end.
    """
    length = origin.manifest.said
    with output.open("ab") as file:
        present = file.seek(0, os.SEEK_END)
        file.truncate(length)
    if present < length:
        tail = (origin.path / SAID).read_bytes()
        with output.open("r+b") as file:
            file.seek(length - len(tail))
            file.write(tail)
