"""Processes by identity: what ``/proc`` says, and signals that cannot miss.

A pid alone may have been given to somebody else since it was written down; a
pid with its start time names one process for as long as the machine is up.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec


class ProcessStat(msgspec.Struct, frozen=True):
    """The parts of ``/proc/PID/stat`` used here."""

    pid: int
    state: str
    """One letter: R, S, D running or sleeping, T stopped, Z ended and not yet reaped."""
    parent: int
    start_time: int
    """Clock ticks since the machine's start."""

    @property
    def alive(self) -> bool:
        """Whether the process still executes (a zombie does not)."""
        return self.state not in "ZX"

    @property
    def stopped(self) -> bool:
        """Whether the process is paused by a signal."""
        return self.state in "Tt"


def parse_stat(text: str) -> ProcessStat:
    """Parse one ``/proc/PID/stat`` line.

    The command name may hold spaces and brackets, so fields are counted from
    the last closing bracket.
    """
    pid, _, rest = text.partition(" ")
    fields = rest[rest.rindex(")") + 2 :].split()
    return ProcessStat(
        pid=int(pid), state=fields[0], parent=int(fields[1]), start_time=int(fields[19])
    )


def stat(pid: int) -> ProcessStat | None:
    """The state of a process, or ``None`` when there is none of that pid."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process for as long as this machine is up."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a living process."""
        found = stat(pid)
        return None if found is None else cls(pid=pid, start_time=found.start_time)

    @classmethod
    def own(cls) -> ProcessIdentity:
        """The calling process."""
        identity = cls.of(os.getpid())
        assert identity is not None, "/proc is not mounted"
        return identity

    def stat(self) -> ProcessStat | None:
        """The state of this very process, ``None`` once it is gone or its pid is reused."""
        found = stat(self.pid)
        if found is None or found.start_time != self.start_time:
            return None
        return found

    def alive(self) -> bool:
        """Whether this very process still executes."""
        found = self.stat()
        return found is not None and found.alive

    def open(self) -> int | None:
        """A pidfd of this very process (readable when it ends); the caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # The pid may have been reused before it was opened; afterwards it cannot.
        if self.stat() is None:
            os.close(fd)
            return None
        return fd

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; false when it is gone."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


def all_processes() -> list[ProcessStat]:
    """Every process this process can see."""
    found = (stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [process for process in found if process is not None]


def descendants(root: int, processes: list[ProcessStat]) -> list[ProcessStat]:
    """The processes below ``root`` in ``processes``, parents before children."""
    children: dict[int, list[ProcessStat]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    order: list[ProcessStat] = []
    queue = [root]
    while queue:
        for child in sorted(children.get(queue.pop(0), ()), key=lambda one: one.pid):
            order.append(child)
            queue.append(child.pid)
    return order


def namespace_pid(pid: int) -> int | None:
    """The pid that a process has in its own, innermost pid namespace."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None


def signal_tree(root: int, number: int, *, skip: frozenset[int] = frozenset()) -> int:
    """Send a signal to every process below ``root``, and count them.

    The tree is read again until nothing new appears, because a process that was
    not yet stopped may have forked in between.
    """
    done: set[tuple[int, int]] = set()
    while True:
        fresh = [
            process
            for process in descendants(root, all_processes())
            if process.pid not in skip and (process.pid, process.start_time) not in done
        ]
        if not fresh:
            return len(done)
        for process in fresh:
            done.add((process.pid, process.start_time))
            ProcessIdentity(process.pid, process.start_time).signal(number)
