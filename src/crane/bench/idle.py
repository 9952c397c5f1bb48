"""The processor time of processes, to nanoseconds."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from crane import procfs
from crane.bench.targets import Target
from crane.chaos.cluster import wait_for

_LOOK_SECONDS = 0.5
_CALM_PERCENT = 10.0
_CALM_WITHIN_SECONDS = 30.0


def cpu_seconds(pids: list[int]) -> float:
    """What these processes and all below them have used since they began.

    Threads that have ended are not counted, so this is for calm times.
    """
    processes = procfs.all_processes()
    whole = set(pids)
    for pid in pids:
        whole.update(one.pid for one in procfs.descendants(pid, processes))
    total = 0
    for pid in whole:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e9


def wait_calm(targets: list[Target]) -> None:
    """Wait until start-up work and first elections have ended.

    Raises:
        CraneError: when a target stays busy for long.
    """

    def calm() -> bool:
        return max(shares(targets, _LOOK_SECONDS).values()) < _CALM_PERCENT

    wait_for("the end of start-up work", calm, _CALM_WITHIN_SECONDS)


def shares(targets: list[Target], seconds: float) -> dict[str, float]:
    """The percentage of one core that each target uses while nobody asks for anything."""
    before = {target.name: cpu_seconds(target.pids) for target in targets}
    begin = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begin
    return {
        target.name: 100 * (cpu_seconds(target.pids) - before[target.name]) / passed
        for target in targets
    }
