"""What is done to an execution to change its timing, and must not change anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

HOGS = 2
"""Busy processes beside a disturbed run."""

# Ends by itself when its parent did not live to end it.
_HOG = "import os\np = os.getppid()\nwhile os.getppid() == p: sum(range(9999))"


class Disturbance(msgspec.Struct, frozen=True):
    """How one execution is treated."""

    hogs: int = 0
    """Busy processes beside it."""
    nice: int = 0
    cpu: int | None = None
    """The only processor it may use; ``None``: any."""

    def __str__(self) -> str:
        """In words, for a table."""
        words = [f"{self.hogs} hogs"] if self.hogs else []
        if self.cpu is not None:
            words.append(f"cpu {self.cpu}")
        if self.nice:
            words.append(f"nice {self.nice}")
        return ", ".join(words) or "-"


def plan(number: int, *, hogs: bool) -> Disturbance:
    """The treatment of run ``number``, counted from 1: no two in a row are alike."""
    processors = sorted(os.sched_getaffinity(0))
    return Disturbance(
        hogs=HOGS if hogs and number % 2 == 0 else 0,
        nice=(0, 0, 0, 10, 5)[(number - 1) % 5],
        cpu=processors[number % len(processors)] if number % 3 == 0 else None,
    )


@contextmanager
def applied(disturbance: Disturbance) -> Iterator[None]:
    """Busy processes for as long as the body runs."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        while len(started) < disturbance.hogs:
            started.append(subprocess.Popen([sys.executable, "-c", _HOG], stdin=subprocess.DEVNULL))
        yield
    finally:
        for one in started:
            one.send_signal(signal.SIGKILL)
            one.wait()


def place(pid: int, disturbance: Disturbance) -> None:
    """Put a process that has just started, and so what it starts, where it is to run."""
    with suppress(ProcessLookupError, PermissionError):
        if disturbance.cpu is not None:
            os.sched_setaffinity(pid, {disturbance.cpu})
        if disturbance.nice:
            os.setpriority(os.PRIO_PROCESS, pid, disturbance.nice)
