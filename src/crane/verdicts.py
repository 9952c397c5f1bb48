"""What follows on a replica when replicas differ: in results, in files or in settings.

The engines compare and judge (``crates/engine/src/agreement``). Here the verdict is told,
evidence of it kept, what was saved of a wrong program set aside, and a replica that is
wrong begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crane import divergence

if TYPE_CHECKING:
    from crane.checkpoint.manager import Manager
    from crane.checkpoint.store import Checkpoint

_HEALED_AT_MOST = 3


class Replica(Protocol):
    """What a verdict may do to its replica."""

    def again(self, origin: Checkpoint | None) -> None:
        """Begin another life."""

    def fail(self, message: str) -> None:
        """End because of an error."""


class Verdicts:
    """See the module. Belongs to the event loop, and lasts as long as the node."""

    def __init__(
        self,
        own: int,
        state: Path,
        checkpoints: Manager,
        replica: Replica,
        events: Callable[[dict[str, Any]], None],
    ) -> None:
        """``own`` is this replica, ``state`` its state directory."""
        self._own = own
        self._state = state
        self._checkpoints = checkpoints
        self._replica = replica
        self._events = events
        self._diverged = 0
        self._keeping: asyncio.Task[None] | None = None

    def results_differ(
        self, event: dict[str, Any], status: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        """The program of this replica, or of another, came to other results.

        ``status`` tells the node's, for the evidence.
        """
        own, verdict = self._own, event["verdict"]
        place = divergence.place(event, self._state) if verdict != "other_diverged" else None
        told = {
            "kind": "diverged",
            "verdict": verdict,
            "replicas": divergence.diverged(event, own),
            "epoch": event["epoch"],
            "message": divergence.line(event, own) + divergence.advice(event, self._state, place),
        }
        self._events(told)
        self._reject_wrong(divergence.diverged(event, own), event["epoch"])
        if place is not None:
            self._keeping = asyncio.create_task(self._keep_evidence(event, status))

    async def _keep_evidence(
        self, event: dict[str, Any], status: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        known = await status()
        try:
            await asyncio.to_thread(divergence.keep, event, self._state, known)
        except OSError as error:
            self._events({"kind": "warning", "message": f"no evidence was kept: {error}"})
        if event["verdict"] == "diverged":
            await self.heal(event["epoch"])

    def _reject_wrong(self, replicas: list[int], epoch: int) -> None:
        """Set aside what these replicas saved of their programs when they had diverged."""
        for one in self._checkpoints.store.all():
            if one.manifest.taken_by in replicas and one.manifest.epoch >= epoch:
                self._checkpoints.reject(one, "it was taken after the program had diverged")

    async def heal(self, epoch: int) -> None:
        """This replica's program came to other results in ``epoch``: begin anew before it did."""
        self._diverged += 1
        if self._diverged > _HEALED_AT_MOST:
            self._replica.fail(
                f"its program came to other results than the majority's {self._diverged} times;"
                " this machine or its files are not as the others'"
            )
            return
        self._reject_wrong([self._own], epoch)
        self._replica.again(await asyncio.to_thread(self._checkpoints.origin))

    def files_differ(self, event: dict[str, Any]) -> None:
        """Another replica has other files or settings."""
        other, names = event["replica"], ", ".join(event["names"])
        if event["outvoted"]:
            self._replica.fail(
                f"not the same here as on replica {other}: {names}; make them equal and start it"
                " again"
            )
            return
        if event["refused"]:
            message = f"replica {other} is refused, it has not the same: {names}"
        else:
            message = (
                f"the current directory is not the same as on replica {other}: {names}; what the"
                " program reads there must be"
            )
        self._events({"kind": "warning", "message": message})
