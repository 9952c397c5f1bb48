"""One execution of a recording, in a replica of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from crane import launch, layers, native, ownership
from crane.checkpoint import processes
from crane.child import Child, describe_exit
from crane.errors import CraneError
from crane.registry import run_root
from crane.verify import disturbance, places, traces
from crane.verify.disturbance import Disturbance
from crane.verify.recording import Recording

if TYPE_CHECKING:
    from crane._core import Replayer

_SANDBOX_SECONDS = 3.0
_WAIT_SECONDS = 0.1
# The end of the program comes by two ways, its own last words and the kernel's.
_LAST_WORDS_SECONDS = 1.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution came to. Everything but ``seconds`` and ``beside`` must be equal."""

    run: int
    beside: str
    """What was done to its timing."""
    seconds: float
    epochs: int
    epoch: int
    """Log index of the last epoch."""
    clock: int
    schedule_hash: str
    output_hash: str
    connections: int
    complete: bool
    """Whether it came to the end of the log."""
    end: str
    """How the program ended, empty when it still ran."""
    files: str | None
    """Digest of the files it wrote; ``None`` when they cannot be seen."""
    entries: int
    """How many files, directories and links those are."""
    said: str
    """Digest of what it wrote to standard output and error."""


@dataclass(kw_only=True)
class Execution:
    """An outcome with what is needed to look closer."""

    outcome: Outcome
    hashes: Path
    files: layers.Files | None
    said: Path
    trace: Path | None
    images: places.Images
    messages: list[str]


@dataclass(kw_only=True)
class _Happened:
    """What the sandbox reported."""

    init: int = 0
    end: str = ""
    failed: str = ""
    warnings: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    on_server: Callable[[int], None] | None = None
    """Told the first process of the namespace when the program runs, not before: while
    it is being restored nobody may look at it."""

    def report(self, event: dict[str, Any]) -> None:
        match event.get("event"):
            case "init":
                self.init = event["pid"]
            case "server":
                if self.on_server is not None:
                    self.on_server(self.init)
            case "warning":
                self.warnings.append(event["message"])
            case "failed":
                self.failed = event["message"]
                self.over.set()
            case "ended":
                self.end = describe_exit(event["code"])
                self.over.set()

    def exited(self, code: int) -> None:
        if not self.over.is_set():
            self.failed = f"the replica's sandbox ended unexpectedly ({describe_exit(code)})"
            self.over.set()


async def execute(  # noqa: PLR0915 - one life after another, in their order
    recording: Recording,
    directory: Path,
    number: int,
    treatment: Disturbance,
    *,
    base: Path,
    timeout: float,
    window: traces.Window | None = None,
    park_after: int | None = None,
    witness: Path | None = None,
) -> Execution:
    """Execute ``recording`` as run ``number``; with ``window``, with a trace of it.

    With ``park_after`` the program is saved to a checkpoint after so many epochs,
    ended, and restored from it in another replica, where it goes on. ``witness`` is
    a file for what every connection carried.

    ``directory`` is made for it; ``base`` is the directory that the program
    must not see, because it differs between runs.

    Raises:
        CraneError: when it cannot be started or takes longer than ``timeout`` seconds.
    """
    directory.mkdir(mode=0o700, parents=True)
    # At the same place as in a live replica, as the program can read it.
    (directory / ownership.DIRECTORY).symlink_to(recording.private)
    config = structs.replace(recording.config, state_dir=str(directory))
    hidden = sorted(
        {str(base), str(run_root()), recording.config.state_dir, *recording.config.hide}
        - {os.devnull}
    )
    said = directory / "server.log"
    shared = launch.SharedDir(secrets.token_hex(16), number % 256)
    began = time.monotonic()
    core = native.core()
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    child: Child | None = None
    replayer: Replayer | None = None
    messages: list[str] = []
    checkpoint: Path | None = None
    try:
        shared.create(native.interposer_path())
        if window is not None:
            traces.create(shared.trace, window)
        replayer = core.Replayer(
            shared.segment,
            recording.epochs,
            quantum=config.quantum,
            trace=window is not None,
            objects=recording.has_objects,
            hashes=directory / "hashes",
            preempt=bool(config.engine.get("preempt", config.preempt)),
            park_after=park_after,
            witness=witness,
        )
        assert replayer is not None
        with disturbance.applied(treatment), (directory / "sandbox.log").open("wb") as errors:
            while True:
                happened = _Happened()
                happened.on_server = replayer.program_started
                shared.open_to_program()
                child = launch.start(
                    config,
                    shared,
                    layers=directory / "files",
                    output=said,
                    hidden=hidden,
                    lock=lock,
                    errors=errors,
                    on_report=happened.report,
                    on_exit=happened.exited,
                    checkpoint=checkpoint,
                )
                disturbance.place(child.pid, treatment)
                result = await _finish(replayer, happened, timeout)
                messages += happened.warnings
                if not result.get("parked"):
                    break
                checkpoint = directory / "checkpoint"
                await _take(checkpoint, replayer, happened.init, directory / "files", shared)
                await child.end(_SANDBOX_SECONDS)
                await _begin_again(checkpoint, replayer, shared)
            seconds = time.monotonic() - began
            images = places.Images()
            trace: Path | None = None
            if window is not None:
                # Before the end: the sandbox takes the shared directory with it.
                images = places.snapshot(happened.init)
                trace = traces.keep(shared.trace, directory / "trace")
            await child.end(_SANDBOX_SECONDS)
    except core.EngineError as error:
        raise CraneError(str(error)) from error
    finally:
        if child is not None and child.running:
            await child.end(_SANDBOX_SECONDS)
        if replayer is not None:
            replayer.stop()
        shared.remove()
        os.close(lock)
    found = layers.written(directory / "files")
    outcome = Outcome(
        run=number,
        beside=str(treatment),
        seconds=round(seconds, 2),
        epochs=result["epochs"],
        epoch=result["epoch"],
        clock=result["clock"],
        schedule_hash=result["schedule_hash"],
        output_hash=result["output_hash"],
        connections=result["connections"],
        complete=result["complete"],
        end=happened.end,
        files=layers.digest(found),
        entries=len(found or ()),
        said=layers.digest_of(said),
    )
    return Execution(
        outcome=outcome,
        hashes=directory / "hashes",
        files=found,
        said=said,
        trace=trace,
        images=images,
        messages=[*messages, *result["messages"]],
    )


async def _take(
    target: Path, replayer: Replayer, init: int, files: Path, shared: launch.SharedDir
) -> None:
    """Make the checkpoint ``target`` of a program that stands still."""
    target.mkdir(mode=0o700)
    library = shared.inside / native.interposer_path().name
    seen = await asyncio.to_thread(replayer.seen_files)
    await asyncio.to_thread(processes.save, init, files, library, seen, target)
    await asyncio.to_thread(replayer.save, target / processes.SEGMENT)
    if shared.trace.exists():
        traces.keep(shared.trace, target / shared.trace.name)


async def _begin_again(checkpoint: Path, replayer: Replayer, shared: launch.SharedDir) -> None:
    """Make everything ready for the program to be restored."""
    shared.create(checkpoint / processes.INTERPOSER)
    if (checkpoint / shared.trace.name).exists():
        traces.keep(checkpoint / shared.trace.name, shared.trace)
    await asyncio.to_thread(replayer.resume, checkpoint / processes.SEGMENT)


async def _finish(replayer: Replayer, happened: _Happened, timeout: float) -> dict[str, Any]:
    """Wait for the end of the log or of the program."""
    deadline = time.monotonic() + timeout
    text: str | None = None
    while text is None and not happened.over.is_set():
        if time.monotonic() > deadline:
            replayer.stop()
            stopped = msgspec.json.decode(replayer.wait(0) or "{}", type=dict[str, Any])
            busy = places.running_threads(happened.init)
            raise CraneError(
                f"the program has not come to the end of its log after {timeout:g} s; it ended"
                f" epoch {stopped.get('epoch')} at clock {stopped.get('clock')}"
                + (f", and {busy} runs on without an operation" if busy else "")
                + "; give more with --timeout if it was still busy"
            )
        text = await asyncio.to_thread(replayer.wait, _WAIT_SECONDS)
    if text is None:
        text = await asyncio.to_thread(replayer.wait, _LAST_WORDS_SECONDS)
    if happened.failed:
        raise CraneError(happened.failed)
    if text is None:
        replayer.stop()
        text = replayer.wait(0)
    result: dict[str, Any] = msgspec.json.decode(text or "{}", type=dict[str, Any])
    if result.get("exited"):
        # Its end code comes from the kernel, shortly after its own last words.
        with_end = asyncio.wait_for(happened.over.wait(), _LAST_WORDS_SECONDS * 5)
        try:
            await with_end
        except TimeoutError:
            raise CraneError(
                "the program said that it ends, and goes on; it cannot be compared"
            ) from None
    return result
