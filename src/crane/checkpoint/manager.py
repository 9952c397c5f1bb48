"""The checkpoints of a replica that runs: when, from where, and what follows.

The manager takes checkpoints, copies those of other replicas, gives up the log behind
them, and finds the one from which the replica can begin anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crane import native
from crane.checkpoint import criu, exchange, schedule, taking
from crane.checkpoint.store import Checkpoint, Manifest, Store
from crane.errors import CraneError

if TYPE_CHECKING:
    from crane.config import NodeConfig
    from crane.life import Life
    from crane.mail import Header, Post

_LOOK_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 1.0

Events = Callable[[dict[str, Any]], None]


class Manager:
    """See the module. Belongs to the event loop, and lasts as long as the node."""

    def __init__(self, config: NodeConfig, store: Store, post: Post, events: Events) -> None:
        """``post`` reaches the other replicas; ``events`` is told what happens."""
        self._config = config
        self._policy = config.checkpoints
        self.store = store
        self.agreed = ""
        """What replicas compare; to be set before anything else is done."""
        self._events = events
        self._life: Life | None = None
        self._parking = taking.Parking()
        self._post = post
        self._fetcher = exchange.Fetcher(post.send, post.others)
        post.route(("list", "get"), self._asked)
        post.route(("have", "piece", "gone"), self._fetcher.mail)
        self._busy = asyncio.Lock()
        self._began = time.time()
        self._failed: float | None = None
        self._failure: str | None = None
        self.impossible = criu.why_not()
        """Why none can be taken or restored here; ``None`` when they can."""

    # One life after another

    def begin(self, life: Life) -> None:
        """A life of the replica has begun."""
        self._life = life

    def end(self) -> None:
        """It ends."""
        self._life = None

    def _replicas(self) -> list[int]:
        """Who takes part as far as this replica knows, itself included."""
        return sorted({self._config.id, *self._post.others()})

    # What the engine says

    def event(self, event: dict[str, Any]) -> None:
        """Take the engine's events ``parked`` and ``unparked``."""
        self._parking.event(event)

    def _asked(self, sender: int, header: Header, _: bytes) -> None:
        self._post.spawn(self._answer(sender, header))

    async def _answer(self, sender: int, header: Header) -> None:
        found = await asyncio.to_thread(exchange.answer, self.store, header)
        if found is not None:
            self._post.send(sender, found)

    # Taking them

    async def watch(self) -> None:
        """Take or copy one whenever it is due; ends with the task."""
        if not self._policy.is_on or self.impossible is not None:
            return
        pause = _LOOK_SECONDS
        if self._policy.interval > 0:
            pause = min(pause, self._policy.interval / 4)
        while True:
            await asyncio.sleep(pause)
            step = self._due()
            if step is not None:
                await self._try(step)

    def _due(self) -> schedule.Step | None:
        if self._life is None or self._busy.locked():
            return None
        status = self._life.status()
        if not status.get("caught_up") or status.get("agrees") is False:
            return None
        newest = self.store.newest()
        return schedule.decide(
            self._policy,
            schedule.Situation(
                now=time.time(),
                own=self._config.id,
                leader=status.get("leader"),
                replicas=self._replicas(),
                behind=status["log_behind"],
                last_index=status["applied"],
                newest=None if newest is None else newest.manifest,
                began=self._began,
                failed=self._failed,
            ),
        )

    async def _try(self, step: schedule.Step) -> None:
        try:
            if step == "take":
                await self.take()
            else:
                await self.copy()
        except (CraneError, OSError) as error:
            # Whatever the disk does, the next attempt comes.
            self._failed = time.time()
            why = str(error)
            if isinstance(error, OSError):
                why = f"no checkpoint: {error.filename or self.store.path}: {error.strerror}"
            if why != self._failure:
                self._events({"kind": "warning", "message": why})
            self._failure = why
        else:
            self._failed = self._failure = None

    async def take(self) -> Checkpoint:
        """Take one now.

        Raises:
            CraneError: when that is not possible, in one line.
        """
        if self.impossible is not None:
            raise CraneError(self.impossible)
        if self._life is None:
            raise CraneError("no checkpoint: the replica is beginning anew")
        if self._life.status().get("agrees") is False:
            raise CraneError("no checkpoint: this replica's results differ from the others'")
        async with self._busy:
            made = await taking.take(self._life, self._parking, self.store, self.agreed)
        self._events({"kind": "checkpoint", **made.summary()})
        await self._use(made)
        return made

    async def copy(self) -> Checkpoint | None:
        """Copy the newest one of the others, if it is newer than the own ones."""
        newest = self.store.newest()
        have = newest.index if newest is not None else 0
        async with self._busy:
            copied = await self._fetch(lambda one: one.index > have, needed=False)
        if copied is not None:
            await self._use(copied)
        return copied

    async def _use(self, made: Checkpoint) -> None:
        """Give up what it makes superfluous: the log before the oldest that is kept."""
        await asyncio.to_thread(self.store.keep, max(1, self._policy.keep))
        engine = self._life.engine if self._life is not None else None
        if engine is not None:
            engine.checkpointed(made.index)
            engine.cut(self.store.all()[-1].index)

    async def _fetch(self, fits: Callable[[Manifest], bool], *, needed: bool) -> Checkpoint | None:
        return await self._fetcher.fetch(
            self.store,
            fits=lambda one: self._is_ours(one) and fits(one),
            progress=lambda state: self._events({"kind": "copying", **exchange.describe(state)}),
            needed=needed,
        )

    def _is_ours(self, one: Manifest) -> bool:
        return one.cluster_id == self._config.cluster_id and one.agreed == taking.agreed_digest(
            self.agreed
        )

    # Beginning anew

    def origin(self) -> Checkpoint | None:
        """The checkpoint with which the replica starts: the newest that is as it was made.

        Those that are not are set aside, which is told.
        """
        if self.impossible is not None:
            if self.store.newest() is not None:
                message = f"this replica's checkpoints cannot be used: {self.impossible}"
                self._events({"kind": "warning", "message": message})
            return None
        for one in self.store.all():
            try:
                one.verify()
            except CraneError as error:
                bad = self.store.reject(one)
                message = f"{error}; it is set aside as {bad.name}"
                self._events({"kind": "warning", "message": message})
                continue
            return one
        return None

    def reject(self, origin: Checkpoint, why: str) -> None:
        """Set one aside from which the program could not be restored."""
        bad = self.store.reject(origin)
        message = f"{why}; the checkpoint is set aside as {bad.name}"
        self._events({"kind": "warning", "message": message})

    async def fetch_at_least(self, index: int) -> Checkpoint:
        """A checkpoint of the others of entry ``index`` or later, however long it takes."""
        told = ""
        while True:
            try:
                async with self._busy:
                    found = await self._fetch(lambda one: one.index >= index, needed=True)
                if found is not None:
                    return found
                why = f"no replica that answers has a checkpoint of entry {index} or later"
            except CraneError as error:
                why = str(error)
            if why != told:
                told = why
                self._events({"kind": "warning", "message": f"{why}; asking on"})
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def status(self) -> dict[str, Any]:
        """What ``crane status`` shows."""
        newest = self.store.newest()
        copying = self._fetcher.copying
        return {
            "impossible": self.impossible,
            "automatic": self._policy.is_on,
            "failure": self._failure,
            "newest": newest and newest.summary(),
            "copying": exchange.describe(copying) if copying is not None else None,
        }


async def ending(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, CraneError, native.core().EngineError):
            await task
