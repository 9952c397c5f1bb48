"""Who takes part in a cluster, as its leader says it, and changes of that.

Every question goes to any node on this machine, which passes it to the leader
wherever that is. A change that the leader cannot do at the moment (another one
is under way, the leadership moves) is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from crane.admin import UnreachableError, request
from crane.errors import CraneError
from crane.registry import ClusterRunDir

_AGAIN_SECONDS = 0.1
_FIND_SECONDS = 10.0
_CHANGE_SECONDS = 30.0
_REQUEST_SECONDS = 5.0


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that takes part."""

    id: int
    role: Literal["voter", "learner", "leaving"]
    address: str | None
    """Where the others reach it."""
    matched: int
    """The last log entry that it is known to have."""
    there: bool
    """Whether the leader has a connection to it."""
    leads: bool


class Members(msgspec.Struct, frozen=True, kw_only=True):
    """All who take part, as the leader knows it to be agreed."""

    index: int
    """The log entry from which on it is so."""
    settled: bool
    """Whether the last change has been carried through."""
    last_index: int
    """The last entry of the leader's log."""
    term: int
    leader: int
    used: list[int]
    """Every number that a replica ever had."""
    members: list[Member]

    def get(self, number: int) -> Member | None:
        """A replica that takes part."""
        return next((one for one in self.members if one.id == number), None)

    @property
    def voters(self) -> list[int]:
        """The numbers of those that decide."""
        return [one.id for one in self.members if one.role == "voter"]


class LaterError(CraneError):
    """What was asked for cannot be done now and may be a moment later."""


def ask(directory: ClusterRunDir, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the leader by way of any node on this machine.

    Raises:
        LaterError: when it makes sense to ask again.
        CraneError: with the leader's reason when it refuses.
    """
    later = LaterError(f"no replica of cluster `{directory.name}` runs here")
    for number in directory.nodes():
        try:
            answer = request(
                directory.socket(str(number)), "POST", "/v1/ask", question, timeout=_REQUEST_SECONDS
            )
        except CraneError as error:
            later = LaterError(str(error))
            continue
        if answer.get("again"):
            later = LaterError(str(answer.get("error", "the leadership moves")))
            continue
        if "error" in answer:
            raise CraneError(str(answer["error"]))
        return answer
    raise later


def insist(
    directory: ClusterRunDir,
    question: dict[str, Any],
    seconds: float = _CHANGE_SECONDS,
    while_waiting: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Ask until the leader does it, for so long; ``while_waiting`` is called in between.

    Raises:
        LaterError: with the last reason when the time is over.
        CraneError: when it refuses.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask(directory, question)
        except LaterError:
            if time.monotonic() > deadline:
                raise
        while_waiting()
        time.sleep(_AGAIN_SECONDS)


def find(directory: ClusterRunDir, seconds: float = _FIND_SECONDS) -> Members:
    """Who takes part.

    Raises:
        CraneError: when no leader says so within ``seconds``.
    """
    return msgspec.convert(insist(directory, {"ask": "members"}, seconds), Members)


def settle(directory: ClusterRunDir, done: Callable[[Members], bool]) -> Members:
    """Wait until a change that was taken has been carried through.

    Raises:
        CraneError: when that takes too long.
    """
    deadline = time.monotonic() + _CHANGE_SECONDS
    while True:
        found = find(directory)
        if found.settled and done(found):
            return found
        if time.monotonic() > deadline:
            raise CraneError(
                "the change was proposed and is not agreed yet; `crane member list` shows when it"
                " is, and the command may be repeated"
            )
        time.sleep(_AGAIN_SECONDS)


def transfer(directory: ClusterRunDir, number: int | None) -> int:
    """Have another replica lead: this one, or whichever is furthest; the new leader.

    Raises:
        CraneError: when it cannot, or does not come to it.
    """
    before = find(directory).leader
    if number == before:
        return before
    deadline = time.monotonic() + _CHANGE_SECONDS
    question: dict[str, Any] = {"ask": "transfer", "to": number}
    while time.monotonic() < deadline:
        insist(directory, question)
        again = time.monotonic() + 2
        while time.monotonic() < again:
            now = find(directory).leader
            if now == number or (number is None and now != before):
                return now
            time.sleep(_AGAIN_SECONDS)
    raise CraneError(
        f"replica {before} still leads; `crane status` shows whether the others have caught up"
    )


def config(directory: ClusterRunDir) -> dict[str, Any]:
    """The configuration of a node on this machine.

    Raises:
        CraneError: when none answers.
    """
    for number in directory.nodes():
        try:
            return request(directory.socket(str(number)), "GET", "/v1/config")
        except UnreachableError:
            continue
    raise CraneError(f"no replica of cluster `{directory.name}` runs here")
