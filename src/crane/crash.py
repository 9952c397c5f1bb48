"""A program that ended by its own fault, and when it may begin anew.

It ends at the same logical place on every replica, and begins anew at a place of the
log (``crates/engine/src/data_plane/restart.rs``). How long that waits is up to the
leader's node, so it is agreed: it grows while the program ends again and again.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from crane.checkpoint.manager import ending
from crane.child import describe_exit

if TYPE_CHECKING:
    from crane.config import NodeConfig
    from crane.life import Life

_FIRST_SECONDS = 0.1
_LAST_SECONDS = 10.0
_CALM_SECONDS = 60.0
# How long a program's end in the order, and the others', are waited for.
_END_SECONDS = 1.0
_OTHERS_SECONDS = 10.0
SHARE = "restart.json"
"""Where a replica keeps what the log says up to where the program last began anew."""


class Crashes:
    """The crashes of one replica's program."""

    def __init__(self) -> None:
        self.times = 0
        """How many so far."""
        self._row = 0
        self._last = float("-inf")

    def note(self) -> float:
        """Note one; how many seconds to wait before the program begins anew."""
        now = time.monotonic()
        self._row = self._row + 1 if now < self._last + _CALM_SECONDS else 0
        self._last = now
        self.times += 1
        return min(_LAST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._row, 10))


def write_share(state: Path, share: dict[str, Any]) -> Path:
    """Keep what the engine told; where it lies."""
    path = state / SHARE
    path.write_bytes(msgspec.json.encode(share))
    path.chmod(0o600)
    return path


class Replica(Protocol):
    """What a crash may do to its replica."""

    def begin_with(self, share: Path) -> None:
        """Begin another life where the log says so, with the files as they are."""

    async def heal(self, epoch: int) -> None:
        """Begin anew from before ``epoch``: what happened then was wrong."""

    def end_with_program(self, code: int) -> None:
        """End, because the program has."""

    def tell(self, event: dict[str, Any]) -> None:
        """Tell what happens."""


class Crashing:
    """A program's end in one life of a replica, and what follows. Belongs to the event loop."""

    def __init__(self, config: NodeConfig, crashes: Crashes, replica: Replica) -> None:
        """``crashes`` are those of all lives."""
        self._config = config
        self._crashes = crashes
        self._replica = replica
        self._life: Life | None = None
        self._fresh = False
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._anew: asyncio.Future[Path]

    def begin(self, life: Life, *, fresh: bool) -> None:
        """A life begins; ``fresh`` says that its program has never served, as far as is known."""
        self._life = life
        self._fresh = fresh
        self._ended.clear()
        self._anew = asyncio.get_running_loop().create_future()

    async def end(self) -> None:
        """It ends."""
        task, self._task = self._task, None
        await ending(task)
        self._life = None

    @property
    def is_under_way(self) -> bool:
        """Whether the program has crashed, or is about to."""
        return self._task is not None

    def served(self) -> None:
        """The program takes clients."""
        self._fresh = False

    def ended_in_order(self) -> None:
        """The engine knows of the program's end."""
        self._ended.set()

    def program_ended(self, code: int, lost: str) -> None:
        """The program has ended; ``lost`` is what it kept in memory."""
        if code != 0 and self._config.on_crash == "restart":
            self._task = asyncio.create_task(self._crash(code, lost))
        else:
            self._replica.end_with_program(code)

    def log_says(self, share: dict[str, Any]) -> None:
        """The log has come to where the program begins anew; here it must have ended."""
        if not self._anew.done():
            self._anew.set_result(write_share(Path(self._config.state_dir), share))
        if self._task is None:
            self._task = asyncio.create_task(self._must_end())

    async def _crash(self, code: int, lost: str) -> None:
        """The program ended by its own fault: it begins anew where the log says so."""
        if not await self._has_served():
            self._replica.end_with_program(code)
            return
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            # Not in the order: somebody ended it from outside, here alone.
            self._replica.end_with_program(code)
            return
        how, delay = describe_exit(code), self._crashes.note()
        life = self._life
        if life is None or life.engine is None:
            return
        # In a replay the log may have it already, or the whole cluster was stopped before.
        replays = not life.status().get("caught_up")
        if not replays:
            self._tell(how, delay, lost)
        await asyncio.wait([self._anew], timeout=delay)
        life.engine.restart()
        await asyncio.wait([self._anew], timeout=None if replays else _OTHERS_SECONDS)
        if self._anew.done():
            self._replica.begin_with(self._anew.result())
            return
        await self._is_wrong(
            life, f"the program ended here alone ({how}): it begins anew from an earlier state"
        )

    def _tell(self, how: str, delay: float, lost: str) -> None:
        times = self._crashes.times
        self._replica.tell({"kind": "crashed", "times": times, "status": how, "delay": delay})
        if lost:
            program = Path(self._config.program).name
            message = f"`{program}` begins anew without what it kept in memory: {lost}"
            self._replica.tell({"kind": "warning", "message": message})

    async def _has_served(self) -> bool:
        """Whether the program got so far that it is worth beginning anew."""
        if not self._fresh:
            return True
        if self._life is None or self._life.status().get("caught_up"):
            return False
        # A replica that is new executes what the others did, and the log has what followed.
        await asyncio.wait([self._anew], timeout=_END_SECONDS)
        return self._anew.done()

    async def _must_end(self) -> None:
        """The program comes to its end, however much it was given before, or is wrong."""
        life = self._life
        seen, since = -1, time.monotonic()
        while life is not None and not self._ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._ended.wait()
            ticks = int(life.status().get("ticks", 0))
            if ticks != seen:
                seen, since = ticks, time.monotonic()
            elif time.monotonic() > since + _OTHERS_SECONDS and not self._ended.is_set():
                await self._is_wrong(
                    life, "the program does not end where the others' did: it begins anew"
                )
                return

    async def _is_wrong(self, life: Life, message: str) -> None:
        self._replica.tell({"kind": "warning", "message": message})
        # Not from a checkpoint behind its last whole epoch.
        await self._replica.heal(life.status().get("epoch", 0) + 1)
