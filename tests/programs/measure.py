"""``make bench``, second part: what replication costs each program, in docs/performance.md.

With names of programs only their rows are measured again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from catalogue import named, programs
from killing import random_hosts
from program import Address, Program

from crane.admin import request
from crane.bench import admission, costs
from crane.bench.results import machine
from crane.chaos.cluster import Cluster, connect, free_port, wait_for
from crane.errors import CraneError

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
_IDLE_SECONDS = 5.0
_SETTLE_SECONDS = 2.0
_START_SECONDS = 30.0
_CLIENT_SECONDS = 120.0
_ROUNDS = 3

Result = TypeVar("Result")

HEADS = (
    "program",
    "alone, req/s",
    "1 replica",
    "3 replicas",
    "operations a request",
    "hand-overs a request",
    "bubbles/s idle",
    "bubbles/s under load",
)


@dataclass(frozen=True)
class Rate:
    requests: float
    rate: float


def main() -> None:
    """Measures, writes the page when everything was measured, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PROGRAM", help="all if none is given")
    parser.add_argument("--no-costs", action="store_true", help="the programs alone")
    wanted = parser.parse_args()
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [named(one) for one in wanted.names] or programs()
    if wanted.no_costs:
        micro, waits = list(_known("operation").values()), list(_known("beside").values())
    else:
        micro = [_cost(one) for one in costs.measure()]
        waits = [_wait(one) for one in admission.measure()]
    rows, failures = _known("program"), []
    for program in chosen:
        if program.speed(("127.0.0.1", 1), Path("/")) is None:
            continue
        try:
            row = _row(program)
            rows[row[0]] = row
            print(*row, sep="  ", flush=True)
        except (CraneError, OSError, subprocess.SubprocessError) as error:
            failures.append(f"{program.name}: {error}")
    PAGE.write_text(page(micro, waits, [rows[name] for name in sorted(rows)]))
    print(f"\n{PAGE.read_text()}")
    for one in failures:
        print(one)
    sys.exit(1 if failures else 0)


def _cost(one: costs.Cost) -> tuple[str, ...]:
    return (one.what, f"{one.native:,.0f}", f"{one.replicated:,.0f}")


def _wait(one: admission.Latency) -> tuple[str, ...]:
    def both(found: tuple[float, float]) -> str:
        return f"{found[0]:.2f}, {found[1]:.2f}"

    return (one.beside, both(one.native), both(one.replicated))


def _known(head: str) -> dict[str, tuple[str, ...]]:
    """The rows of the page's table that begins with ``head``."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    tables = [number for number, line in enumerate(lines) if line.startswith(f"| {head} |")]
    found = {}
    for line in lines[tables[0] + 2 :] if tables else ():
        if not line.startswith("|"):
            break
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        found[cells[0]] = cells
    return found


def page(
    micro: Sequence[tuple[str, ...]],
    waits: Sequence[tuple[str, ...]],
    rows: Sequence[tuple[str, ...]],
) -> str:
    """The page in Markdown."""
    found, load = machine(), os.getloadavg()[2]
    parts = [
        "# Performance",
        "",
        "<!-- Written by `make bench`; edit tests/programs/measure.py, not this file. -->",
        "",
        f"Measured on a virtual machine with {found['cores']} cores (kernel {found['kernel']}), on",
        "which clients, replicas and everything else run together: with three replicas each",
        f"program has less than a core. Load average of the last 15 minutes: {load:.1f}.",
        "",
    ]
    if micro:
        parts += [
            "## Single operations",
            "",
            "One replica; the best of several batches, in nanoseconds of real time.",
            "",
            "| operation | alone | replicated |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in micro),
            "",
        ]
    if waits:
        parts += [
            "## Inputs of a busy program",
            "",
            "A round trip of 8 bytes to a thread beside another one that never waits; three",
            "replicas, logs on disk. Milliseconds: half of them, and 99 of 100, took at most.",
            "",
            "| beside | alone | replicated |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in waits),
            "",
        ]
    parts += [
        "## Programs",
        "",
        f"The usual client of each, median of {_ROUNDS} rounds; logs on disk. A bubble is an",
        "entry of the log without inputs; when it is idle, those are the program's own timers.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "`make bench` measures it again; `.venv/bin/crane bench` is Redis beside etcd.",
        "",
    ]
    return "\n".join(parts)


def _row(program: Program) -> tuple[str, ...]:
    alone = _in_a_directory(lambda base: _native(program, base))
    one, single = _in_a_directory(lambda base: _replicated(program, base, 1))
    three, triple = _in_a_directory(lambda base: _replicated(program, base, 3))
    return (
        program.name,
        f"{alone.rate:,.0f}",
        f"{one.rate:,.0f} ({one.rate / alone.rate:.2f})",
        f"{three.rate:,.0f} ({three.rate / alone.rate:.2f})",
        f"{single.operations / one.requests:.1f}",
        f"{single.handovers / one.requests:.2f}",
        f"{triple.idle_bubbles:.1f}",
        f"{triple.bubbles:.1f}",
    )


@dataclass(frozen=True)
class Counted:
    """What the engine counted while the client ran."""

    operations: int
    handovers: int
    bubbles: float
    """Entries without inputs, a second."""
    idle_bubbles: float
    """The same while nobody asked, 0 unless measured."""


def _replicated(program: Program, base: Path, replicas: int) -> tuple[Rate, Counted]:
    place = base / "program"
    place.mkdir()
    hosts = random_hosts()[:replicas]
    port = free_port(hosts)
    setup = program.configure(place, port)
    run_dir = base / "run"
    cluster = Cluster(
        setup.argv,
        base=base / "cluster",
        name="measured",
        replicas=replicas,
        options=["--listen", ",".join(hosts), *setup.options],
        environment={**setup.environment, "CRANE_RUN_DIR": str(run_dir)},
        cwd=place,
    )
    with cluster:
        leader = cluster.leader()
        address = (hosts[leader - 1], port)
        _wait_served(address)

        def engine() -> dict[str, Any]:
            answer = request(cluster.directory.socket(str(leader)), "GET", "/v1/status")
            found: dict[str, Any] = answer["engine"]
            return found

        time.sleep(_SETTLE_SECONDS)
        before = engine()
        time.sleep(_IDLE_SECONDS)
        after = engine()
        idle = (after["bubbles_proposed"] - before["bubbles_proposed"]) / _IDLE_SECONDS
        before, begin = engine(), time.monotonic()
        rates = [_client(program, address, place) for _ in range(_ROUNDS)]
        seconds, after = time.monotonic() - begin, engine()
        # Per request of all rounds together.
        whole = sum(one.requests for one in rates)
        return Rate(whole, _median(rates)), Counted(
            operations=after["clock"] - before["clock"],
            handovers=after["handovers"] - before["handovers"],
            bubbles=(after["bubbles_proposed"] - before["bubbles_proposed"]) / seconds,
            idle_bubbles=idle,
        )


def _native(program: Program, base: Path) -> Rate:
    place = base / "program"
    place.mkdir()
    port = free_port()
    with _alone(program, place, port):
        address = ("127.0.0.1", port)
        _wait_served(address)
        rates = [_client(program, address, place) for _ in range(_ROUNDS)]
        return Rate(sum(one.requests for one in rates), _median(rates))


@contextmanager
def _alone(program: Program, place: Path, port: int) -> Iterator[None]:
    setup = program.configure(place, port)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with (place.parent / "native.log").open("wb") as log:
        process = subprocess.Popen(
            setup.argv,
            cwd=place,
            env={**os.environ, "PATH": path, **setup.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        # It leads a session of its own; what it started is in it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _client(program: Program, address: Address, place: Path) -> Rate:
    command = program.speed(address, place)
    assert command is not None
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=_CLIENT_SECONDS,
        check=False,
    )
    words = done.stdout.split()
    if done.returncode or len(words) < 2:
        raise CraneError(f"its client ended with {done.returncode}: {done.stderr[-200:]}")
    return Rate(float(words[-2]), float(words[-1]))


def _wait_served(address: Address) -> None:
    def served() -> bool:
        try:
            connect(address).close()
        except OSError:
            return False
        return True

    wait_for(f"service on {address[0]}:{address[1]}", served, _START_SECONDS)


def _median(rates: list[Rate]) -> float:
    return sorted(one.rate for one in rates)[len(rates) // 2]


def _in_a_directory(check: Callable[[Path], Result]) -> Result:
    base = Path(tempfile.mkdtemp(prefix="crane-m-", dir="/var/tmp"))
    try:
        return check(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
