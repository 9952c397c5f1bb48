"""A run of all benchmarks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

from crane import terminal
from crane.bench import driver, idle, redis_benchmark, results, targets
from crane.bench.etcd import value_of
from crane.bench.results import Results, Row
from crane.bench.targets import Target
from crane.bench.wire import KEY, VALUE, EtcdWire, RedisWire
from crane.chaos.cluster import trial_dir
from crane.errors import CraneError

CONNECTIONS = (1, 50)
_TESTS = ("set", "get")
_WARM_UP_REQUESTS = 500
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - `mkdtemp` makes the directory
# What keeps as much is compared with what keeps as much, and all with the bare program.
_NATIVE = {
    "native-fsync": ["native"],
    "crane-memory": ["native", "crane-memory-plain"],
    "crane-disk": ["native", "native-fsync", "crane-disk-plain"],
}
_ETCD = {"crane-disk": ["etcd"], "crane-memory": ["etcd-memory", "etcd"]}

Run = Callable[[], driver.Speed]


def run(
    rounds: int, seconds: float, idle_seconds: float, *, with_etcd: bool, with_plain: bool
) -> Results:
    """Measure everything; ``seconds`` is the length of one round of one test.

    Raises:
        CraneError: when a program is missing or fails.
    """
    for program in ("redis-server", "redis-benchmark", *(["etcd"] if with_etcd else [])):
        if shutil.which(program) is None:
            raise CraneError(
                f"{program} is missing; on Debian: apt-get install redis-server redis-tools"
                " etcd-server"
            )
    base = trial_dir("bench")
    memory = Path(tempfile.mkdtemp(prefix="crane-bench-", dir=_SHARED_MEMORY))
    try:
        with terminal.bar() as bar:
            bar(0.0, "starting Redis, three replicas of it, and etcd")
            with targets.everything(
                base, memory, with_etcd=with_etcd, with_plain=with_plain
            ) as all_of:
                return _measure(all_of, rounds, seconds, idle_seconds, bar)
    finally:
        for directory in (base, memory):
            shutil.rmtree(directory, ignore_errors=True)


def _measure(
    all_of: list[Target], rounds: int, seconds: float, idle_seconds: float, bar: terminal.Bar
) -> Results:
    servers = [target for target in all_of if not target.is_etcd]
    whole = rounds + 1.0
    bar(0.02, "measuring what idle clusters use")
    idle.wait_calm(all_of)
    idle_percent = idle.shares(all_of, idle_seconds)
    native: dict[tuple[str, int, str], Run] = {}
    for test, connections, target in product(_TESTS, CONNECTIONS, servers):
        native[test, connections, target.name] = _own_tool(target, test, connections, seconds)
    writes: dict[tuple[str, int, str], Run] = {}
    for connections, target in product(CONNECTIONS, all_of):
        if target.is_etcd or target.name.startswith("crane-"):
            writes["put", connections, target.name] = _write(target, connections, seconds)
    speeds: dict[tuple[str, int, str], list[driver.Speed]] = {}
    for number in range(rounds):
        tests = {**native, **writes}
        for done, (what, measure) in enumerate(tests.items()):
            test, connections, name = what
            share = (number + 1 + done / len(tests)) / whole
            bar(share, f"round {number + 1} of {rounds}: {test} x {connections}, {name}")
            speeds.setdefault(what, []).append(measure())
    for target in all_of:
        if target.is_etcd and value_of(target.address, KEY) != VALUE:
            raise CraneError(f"{target.name} does not have what was written")
    own = [results.row(*what, speeds[what]) for what in native]
    results.compare(own, _NATIVE)
    small = [results.row(*what, speeds[what]) for what in writes]
    results.compare(small, _ETCD)
    return Results(
        machine=results.machine(),
        rounds=rounds,
        seconds=seconds,
        redis_benchmark=own,
        writes=small,
        idle_percent={name: round(share, 3) for name, share in idle_percent.items()},
    )


def _own_tool(target: Target, test: str, connections: int, seconds: float) -> Run:
    """``redis-benchmark``, with as many requests as take about ``seconds``."""
    requests = _WARM_UP_REQUESTS

    def measure() -> driver.Speed:
        nonlocal requests
        if requests == _WARM_UP_REQUESTS:
            warm = redis_benchmark.run(target.address, test, connections, requests)
            requests = max(_WARM_UP_REQUESTS + 1, int(warm.rate * seconds))
        return redis_benchmark.run(target.address, test, connections, requests)

    return measure


def _write(target: Target, connections: int, seconds: float) -> Run:
    wire = EtcdWire if target.is_etcd else RedisWire
    return lambda: driver.measure(target.address, wire, connections, seconds)


def show(found: Results) -> None:
    """Write the results for a person."""
    terminal.out("\nredis-benchmark, through the leader; ratios to redis-server alone\n")
    terminal.table(results.HEADS, results.cells(found.redis_benchmark))
    terminal.out(
        "\nsmall writes (32 bytes), the same driver for all, through the leader; ratios to etcd\n"
    )
    terminal.table(results.HEADS, results.cells(_sorted(found.writes)))
    terminal.out("\nidle: percent of one core, all processes of a target together\n")
    terminal.table(
        ("TARGET", "PERCENT"), [(name, f"{v:.2f}") for name, v in found.idle_percent.items()]
    )


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda one: one.connections)
