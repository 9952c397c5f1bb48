"""Faults and their repair, done to a replica by its processes.

Pausing stops the node and everything in the replica, but not the keeper and
init of its sandbox: those must still notice when the node is killed.
"""

from __future__ import annotations

import os
import select
import signal

from crane import procfs
from crane.admin import UnreachableError, request
from crane.errors import CraneError, UsageError
from crane.registry import RUN, ClusterRunDir, NodeEntry

_END_SECONDS = 15.0
_RESTART_SECONDS = 75.0


def node(directory: ClusterRunDir, number: int) -> NodeEntry:
    """The living node of a replica.

    Raises:
        UsageError: when there is no such replica.
        CraneError: when it is down.
    """
    nodes, run = directory.nodes(), directory.run()
    known = {*nodes, *(run.replicas if run else ())}
    if number not in known:
        names = ", ".join(str(one) for one in sorted(known))
        raise UsageError(f"cluster `{directory.name}` has no replica {number} here; it has {names}")
    if number not in nodes:
        raise CraneError(f"replica {number} is down; `crane restart {number}` starts it")
    return nodes[number]


def kill(directory: ClusterRunDir, number: int) -> None:
    """End a replica as a power failure would, and wait until it is gone."""
    entry = node(directory, number)
    ended = [one.open() for one in (entry.process, entry.sandbox) if one is not None]
    entry.process.signal(signal.SIGKILL)
    for fd in ended:
        if fd is not None:
            _wait(fd, f"replica {number}")


def pause(directory: ClusterRunDir, number: int) -> None:
    """Stop a replica's processes where they are."""
    entry = node(directory, number)
    entry.process.signal(signal.SIGSTOP)
    procfs.signal_tree(entry.process.pid, signal.SIGSTOP, skip=_guards(entry))


def resume(directory: ClusterRunDir, number: int) -> None:
    """Let a paused replica go on: the program first, so that the node finds it running."""
    entry = node(directory, number)
    procfs.signal_tree(entry.process.pid, signal.SIGCONT, skip=_guards(entry))
    entry.process.signal(signal.SIGCONT)


def _guards(entry: NodeEntry) -> frozenset[int]:
    """The pids of a sandbox's keeper and init."""
    if entry.sandbox is None:
        return frozenset()
    keeper = entry.sandbox.pid
    children = (one.pid for one in procfs.all_processes() if one.parent == keeper)
    return frozenset({keeper, *children})


def restart(directory: ClusterRunDir, number: int) -> None:
    """Have ``crane run`` start a replica's node again; returns when it takes part."""
    run = directory.run()
    if run is None:
        raise CraneError(
            f"no `crane run` keeps cluster `{directory.name}` here; start its node again with"
            " `crane node --config FILE`"
        )
    if number not in run.replicas:
        names = ", ".join(str(one) for one in run.replicas)
        raise UsageError(f"cluster `{directory.name}` has no replica {number}; it has {names}")
    request(
        directory.socket(RUN),
        "POST",
        "/v1/restart",
        {"replica": number},
        timeout=_RESTART_SECONDS,
    )


def signal_number(text: str) -> int:
    """The number of a signal by its name, with or without SIG, or by its number.

    Raises:
        UsageError: when there is none.
    """
    name = text.upper().removeprefix("SIG")
    if name.isdecimal() and 1 <= int(name) <= signal.SIGRTMAX:
        return int(name)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise UsageError(f"there is no signal `{text}`; `kill -l` lists them") from None


def send_signal(directory: ClusterRunDir, number: int) -> None:
    """Send a signal to the program by whichever replica takes it.

    Raises:
        CraneError: with the last one's reason when none does.
    """
    reason = CraneError(f"cluster `{directory.name}` has no replica here that runs")
    for replica in sorted(directory.nodes()):
        try:
            request(directory.socket(str(replica)), "POST", "/v1/signal", {"number": number})
        except CraneError as error:
            reason = error
        else:
            return
    raise reason


def stop(directory: ClusterRunDir) -> None:
    """Stop all of a cluster's processes on this machine, and wait until they are gone."""
    run = directory.run()
    if run is not None:
        processes = {RUN: run.process}
    else:
        processes = {str(number): entry.process for number, entry in directory.nodes().items()}
    ends = {who: process.open() for who, process in processes.items()}
    for who, process in processes.items():
        try:
            request(directory.socket(who), "POST", "/v1/stop")
        except UnreachableError:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)
    for fd in ends.values():
        if fd is not None:
            _wait(fd, f"cluster `{directory.name}`")


def _wait(pidfd: int, what: str) -> None:
    """Wait until the process behind ``pidfd`` has ended; closes it."""
    try:
        if not select.select([pidfd], [], [], _END_SECONDS)[0]:
            raise CraneError(f"{what} has not ended after {_END_SECONDS:g} s")
    finally:
        os.close(pidfd)
