"""Adding, replacing and removing replicas, and restarting one after the other.

Each is a row of steps of which the leader, `crane run` and the new replica each
know what was done, so that a command which was interrupted may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from crane import control, status
from crane.admin import request
from crane.errors import CraneError, UsageError
from crane.members import leader
from crane.members.leader import LaterError
from crane.registry import RUN, ClusterRunDir

Sayer = Callable[[str], None]

_RUN_SECONDS = 30.0
_SERVE_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_NO_NEWS_SECONDS = 5.0


def add_here(
    directory: ClusterRunDir, listen: str | None, seconds: float, say: Sayer, replaces: int | None
) -> int:
    """Have ``crane run`` add a replica on this machine; its number.

    ``replaces`` is removed in the moment in which the new one begins to decide.

    Raises:
        CraneError: when it cannot; what was begun is undone, or can be repeated.
    """
    wanted = {} if listen is None else {"listen": listen}
    new = _run(directory, "reserve", **wanted)
    number = int(new["id"])
    leader.insist(directory, {"ask": "add", "id": number, "address": new["address"]})
    leader.settle(directory, lambda now: now.get(number) is not None)
    say(f"replica {number} gets the log")
    _run(directory, "start", replica=number)
    promote(
        directory,
        number,
        seconds,
        say,
        replaces=replaces,
        undo=lambda: _undo_here(directory, number),
    )
    _run(directory, "joined", replica=number)
    _serves(directory, number)
    return number


def _undo_here(directory: ClusterRunDir, number: int) -> None:
    leader.insist(directory, {"ask": "remove", "id": number})
    _run(directory, "left", replica=number, purge=True)


def promote(
    directory: ClusterRunDir,
    number: int,
    seconds: float,
    say: Sayer,
    *,
    replaces: int | None,
    undo: Callable[[], None],
) -> None:
    """Wait until a learner has caught up, and have it decide.

    Raises:
        CraneError: when it does not catch up within ``seconds``; the change is undone then.
    """
    if replaces is None:
        question: dict[str, Any] = {"ask": "promote", "id": number}
    else:
        question = {"ask": "replace", "old": replaces, "new": number}
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        if time.monotonic() > told + _NO_NEWS_SECONDS:
            told = time.monotonic()
            now = leader.find(directory)
            new = now.get(number)
            if new is not None:
                say(f"replica {number} has {new.matched} of {now.last_index} entries")

    try:
        leader.insist(directory, question, seconds, tell)
    except CraneError as error:
        undo()
        raise CraneError(
            f"replica {number} was not made a voter within {seconds:g} s and was taken out again:"
            f" {error}"
            if isinstance(error, LaterError)
            else f"replica {number} was taken out again: {error}"
        ) from error
    gone = replaces
    leader.settle(
        directory,
        lambda now: number in now.voters and (gone is None or now.get(gone) is None),
    )


def remove(directory: ClusterRunDir, number: int, *, purge: bool, say: Sayer) -> None:
    """Remove a replica from the cluster, and end it if it is on this machine.

    Raises:
        UsageError: when there is no such replica.
        CraneError: when it cannot be.
    """
    now = leader.find(directory)
    if now.get(number) is None and number not in now.used:
        names = ", ".join(str(one.id) for one in now.members)
        raise UsageError(f"cluster `{directory.name}` has no replica {number}; it has {names}")
    leader.insist(directory, {"ask": "remove", "id": number})
    leader.settle(directory, lambda now: now.get(number) is None)
    left(directory, number, purge=purge, say=say)


def left(directory: ClusterRunDir, number: int, *, purge: bool, say: Sayer) -> None:
    """End what is left of a removed replica on this machine."""
    where = None
    if directory.run() is not None:
        where = _run(directory, "left", replica=number, purge=purge)["directory"]
    if where is None:
        say(
            f"replica {number} was removed; its node ends by itself, and its state directory may"
            " be thrown away"
        )
    elif purge:
        say(f"replica {number} was removed; {where} was thrown away")
    else:
        say(f"replica {number} was removed; {where} is kept, of no further use to the cluster")


def _run(directory: ClusterRunDir, step: str, **arguments: Any) -> dict[str, Any]:
    if directory.run() is None:
        raise CraneError(
            f"no `crane run` keeps cluster `{directory.name}` here; give ID=HOST:PORT for a replica"
            " on another machine"
        )
    return request(
        directory.socket(RUN), "POST", f"/v1/member/{step}", arguments, timeout=_RUN_SECONDS
    )


def _serves(directory: ClusterRunDir, number: int) -> None:
    """Wait until a replica on this machine serves clients and agrees with the others."""
    deadline = time.monotonic() + _SERVE_SECONDS
    quiet: float | None = None
    row = None
    while time.monotonic() < deadline:
        rows = {one.id: one for one in status.collect(directory).replicas}
        row = rows.get(number)
        if row is not None and row.agrees is False:
            raise CraneError(f"replica {number}: {row.reason or 'its results differ'}")
        serves = row is not None and row.healthy and row.role != "candidate" and row.caught_up
        if not serves or row is None:
            quiet = None
        elif row.agrees:
            return
        else:
            # Nothing to compare while the program does nothing.
            quiet = quiet or time.monotonic()
            if time.monotonic() > quiet + _NO_NEWS_SECONDS:
                return
        time.sleep(_LOOK_SECONDS)
    reason = (row and row.reason) or "it has not caught up"
    raise CraneError(
        f"replica {number} does not serve after {_SERVE_SECONDS:g} s: {reason}; see"
        f" `crane status --name {directory.name}`"
    )


def rolling_restart(directory: ClusterRunDir, say: Sayer) -> None:
    """Restart all replicas of this machine, one after the other, the leader last.

    Raises:
        CraneError: when one does not come back; the rest is left as it is.
    """
    now = leader.find(directory)
    run = directory.run()
    if run is None:
        raise CraneError(
            f"no `crane run` keeps cluster `{directory.name}` here; restart the nodes one after the"
            " other, the leader last, each when `crane status` shows the one before healthy"
        )
    missing = [one.id for one in now.members if not one.there]
    if missing:
        raise CraneError(
            f"replica {missing[0]} does not run; `crane restart {missing[0]}` first, so that a"
            " majority remains while others are restarted"
        )
    for number in run.replicas:
        if number != now.leader:
            _restart_one(directory, number, say)
    if now.leader not in run.replicas:
        return
    if leader.find(directory).leader == now.leader and len(now.voters) > 1:
        next_one = leader.transfer(directory, None)
        say(f"replica {next_one} leads now")
    _restart_one(directory, now.leader, say)


def _restart_one(directory: ClusterRunDir, number: int, say: Sayer) -> None:
    control.restart(directory, number)
    _serves(directory, number)
    say(f"replica {number} is back and agrees")
