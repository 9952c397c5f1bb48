"""What every cluster for a trial can be asked and have done to it, however it was started."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from crane import control, status
from crane.config import split_address
from crane.errors import CraneError
from crane.registry import ClusterRunDir
from crane.status import ClusterStatus, ReplicaStatus

Address = tuple[str, int]

_POLL_SECONDS = 0.02


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> float:
    """Wait until a condition holds; how many seconds it took.

    Raises:
        CraneError: when it does not hold in time.
    """
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise CraneError(f"{what} did not happen within {seconds:g} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - begin


class Watched(ABC):
    """A cluster whose processes run on this machine.

    Not for several threads, except that faults and status may be asked from any.
    """

    directory: ClusterRunDir
    size: int
    """How many replicas it has."""

    @abstractmethod
    def said(self, begin: int = 0) -> str:
        """What was said about it, from byte ``begin`` on."""

    @abstractmethod
    def restart(self, number: int) -> None:
        """Start a killed replica again; returns when it takes part."""

    @abstractmethod
    def start(self) -> object:
        """Start it; returns when every replica serves."""

    @abstractmethod
    def close(self) -> None:
        """End it and remove everything."""

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.close()

    # What it is like

    def status(self) -> ClusterStatus:
        """What ``crane status`` shows."""
        return status.collect(self.directory)

    def replica(self, number: int) -> ReplicaStatus:
        """One replica's row of the status."""
        rows = {one.id: one for one in self.status().replicas}
        return rows.get(number) or ReplicaStatus(id=number, role="down")

    def leader(self, seconds: float = 15.0) -> int:
        """The number of the replica that leads, waiting for one if need be.

        Of several that believe it, the one with the highest term does.

        Raises:
            CraneError: when there is none in time.
        """
        found: list[ReplicaStatus] = []

        def exists() -> bool:
            found[:] = [one for one in self.status().replicas if one.role == "leader"]
            return bool(found)

        wait_for("an election", exists, seconds)
        return max(found, key=lambda one: one.term or 0).id

    def addresses(self) -> dict[int, Address]:
        """Where clients reach the replicas that are up."""
        return {
            one.id: split_address(one.address)
            for one in self.status().replicas
            if one.address is not None
        }

    def wait_settled(self, seconds: float = 30.0) -> None:
        """Wait until all replicas are healthy and have done what any of them has by now.

        Not until they are at the same epoch: while a program's own timers go on,
        followers are always a little behind.
        """
        before = self.status().replicas
        applied = max(one.applied or 0 for one in before)
        epoch = max(one.epoch or 0 for one in before)
        rows: list[ReplicaStatus] = []

        def settled() -> bool:
            rows[:] = self.status().replicas
            return (
                len(rows) == self.size
                and all(one.healthy and one.agrees is not False for one in rows)
                and all((one.applied or 0) >= applied for one in rows)
                and all((one.epoch or 0) >= epoch for one in rows)
                and len({one.output_hash for one in rows}) == 1
            )

        try:
            wait_for("every replica's doing the same", settled, seconds)
        except CraneError as error:
            raise CraneError(f"{error}: {_states(rows, applied)}; {self.said()}") from error

    def wait_whole(self, seconds: float = 60.0) -> float:
        """Wait until all replicas serve and have done what was agreed when this was called.

        Returns the seconds it took.

        Raises:
            CraneError: with what is missing when it takes longer.
        """
        goal = max((one.commit or 0 for one in self.status().replicas), default=0)
        rows: list[ReplicaStatus] = []

        def whole() -> bool:
            rows[:] = self.status().replicas
            return len(rows) == self.size and all(
                one.healthy
                and one.agrees is not False
                and one.address is not None
                and (one.applied or 0) >= goal
                for one in rows
            )

        try:
            return wait_for("full strength", whole, seconds)
        except CraneError as error:
            raise CraneError(f"{error}: {_states(rows, goal)}; {self.said()}") from error

    # What is done to it

    def kill(self, number: int) -> None:
        """End a replica by SIGKILL."""
        control.kill(self.directory, number)

    def pause(self, number: int) -> None:
        """Stop a replica where it is."""
        control.pause(self.directory, number)

    def resume(self, number: int) -> None:
        """Let a paused replica go on."""
        control.resume(self.directory, number)

    def wait_caught_up(self, number: int, seconds: float = 60.0) -> float:
        """Wait until a replica has done all that was agreed when this was called.

        Returns the seconds it took.

        Raises:
            CraneError: when it takes longer, or the replica ends.
        """
        rows = self.status().replicas
        goal = max(one.commit or 0 for one in rows)

        def reached() -> bool:
            one = self.replica(number)
            if one.state == "down":
                raise CraneError(f"replica {number} ended: {self.said()}")
            return one.healthy and one.address is not None and (one.applied or 0) >= goal

        return wait_for(f"replica {number}'s catching up", reached, seconds)


def _states(rows: list[ReplicaStatus], goal: int) -> str:
    """What each replica is doing, for somebody who waited in vain."""
    return ", ".join(
        f"replica {one.id} {one.state} at {one.applied} of {goal}, epoch {one.epoch},"
        f" output {one.output_hash}{f', {one.reason}' if one.reason else ''}"
        for one in rows
    )
