"""Write docs/reliability.md from runs of every fault on this machine. Needs root.

``python tools/reliability.py [--runs N] [--seconds S] [FAULT...]``; with faults, only
their rows are made anew (``registers``: the second table's). The exit code is 1 when
anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from msgspec import structs

from crane import wish
from crane.chaos.crowd import Crowd
from crane.chaos.examination import Examination, examine
from crane.chaos.failover import conclude, redis_command
from crane.chaos.faults import FAULTS, Fault, Needs, Scene
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.load import Load
from crane.chaos.registers import Lines, RedisStrings
from crane.chaos.resp import Redis, request
from crane.chaos.strike import strike
from crane.chaos.watched import wait_for
from crane.checkpoint.schedule import Policy
from crane.errors import CraneError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
CHECKER = ROOT / "target" / "release" / "crane-linearizable"

_PORT = 6379
_HOLD = 2.0
_STEADY = 1.0
_PATIENCE = 3.0
_BLOB = 1 << 20

HEAD = """\
# Reliability

Made by `make reliability` from runs on one machine ({cores} cores, Linux {kernel}, {date}): real
nodes on hosts of their own (network namespaces, each with a disk and a wall clock of
its own), three replicas, `durability = "disk"`. Other work ran on the machine.

## Faults under load

Six clients write unique values to lists of Redis through all three replicas, and read each
other's. A fault is made, lasts {hold:g} s, and is healed; then every list is read from every
replica. The victim is the leader in the first, third... run and another in the second, fourth...

* **lost**: acknowledged writes that any replica does not have. A write that is there twice or
  out of order, a stale read, memory that differs (`DEBUG DIGEST`) counts as wrong.
* **gap**: the longest time in which no client got an answer, from the fault until full
  strength.
* **whole**: from the beginning of the healing until every replica serves and
  has done all that was agreed: replaying its log included.

| fault | of | runs | acknowledged | lost | wrong | gap: median | worst | whole: median | worst |
|---|---|---|---|---|---|---|---|---|---|
"""

LINEAR = """\

## Every answer checked

Clients read, write, and compare and swap four registers with unique values through all
replicas, while faults are drawn from a seed. The log is the witness: it is executed once more,
and every byte that a client received must be what the program says to the requests in the
log's order, and that order must keep to real time. Beside that, the histories of each
register are cut into pieces and searched for an order that explains them, by
[todc-utils](https://docs.rs/todc-utils)' checker (Wing, Gong and Lowe's algorithm).

| program | seed | faults | answers | compared with the log | operations searched | pieces | wrong |
|---|---|---|---|---|---|---|---|
"""

TAIL = """\

## Not here

* A program that crashes by its own bug on all replicas: all of this is made from outside.
* Checkpoints by time and size: none was taken in these runs. `tests/scenarios/test_checkpoints.py`
  has them.
"""


@dataclass
class Row:
    """The runs of one fault."""

    fault: Fault
    acknowledged: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)

    def line(self) -> str:
        """The row of the table."""
        cells = [
            f"`{self.fault.name}`",
            self.fault.says.format(victim="N").replace("replica N", "a replica"),
            str(len(self.gaps)),
            f"{self.acknowledged:,}",
            str(self.lost),
            str(len(self.wrong)),
            *(f"{one:.2f} s" for one in (median(self.gaps), max(self.gaps))),
            *(f"{one:.1f} s" for one in (median(self.recoveries), max(self.recoveries))),
        ]
        return f"| {' | '.join(cells)} |"


def measure(fault: Fault, runs: int) -> Row:
    """Make a fault ``runs`` times in one cluster."""
    row = Row(fault)
    # Only where it must: what the library of wrong clocks does to other programs is its own.
    clocks = Needs.CLOCKS in fault.needs
    wanted, _ = wish.wanted(redis_command(_PORT), name="reliability")
    # Only where it is asked for, so that runs of one fault are alike.
    wanted = structs.replace(wanted, checkpoints=Policy(interval=0, log_mib=0))
    with Hosts(wanted, base=new_base(), own_disks=True, own_clocks=clocks) as hosts:
        for number in range(runs):
            try:
                _once(hosts, row, number)
            except CraneError as error:
                row.wrong.append(str(error))
                row.gaps.append(float("inf"))
                row.recoveries.append(float("inf"))
                return row
    return row


def _once(hosts: Hosts, row: Row, number: int) -> None:
    leader = hosts.leader()
    others = [one for one in hosts.numbers if one != leader]
    leads = row.fault.leads and number % 2 == 0
    victim = leader if leads else others[number % len(others)]
    load = Load(hosts.addresses(), interval=0.002, name=f"run{number}", patience=_PATIENCE)
    scene = Scene(
        cluster=hosts,
        victim=victim,
        leader=leader,
        crowd=Crowd(request("GET", "blob")),
        pick=random.Random(number),  # noqa: S311 - to be repeated
        grow=lambda: _grow(hosts, victim),
    )
    load.start()
    try:
        time.sleep(_STEADY)
        done = strike(scene, row.fault, _HOLD)
        time.sleep(_STEADY)
        count = len(load.answers)
        wait_for("answers afterwards", lambda: len(load.answers) > count, 30.0)
    finally:
        load.stop()
    inside = [at for at in load.answers if done.begin < at < done.whole]
    after = next(at for at in load.answers if at >= done.whole)
    row.gaps.append(max(b - a for a, b in pairwise([done.begin, *inside, after])))
    row.recoveries.append(done.recovery)
    outcome = conclude(hosts, load, [])
    row.acknowledged += outcome.acknowledged
    row.lost += outcome.lost
    row.wrong += outcome.problems()
    sys.stdout.write(
        f"{row.fault.name} {number + 1}: {outcome.acknowledged} acknowledged, {outcome.lost} lost,"
        f" gap {row.gaps[-1]:.2f} s, full strength after {done.recovery:.1f} s"
        f" {'; '.join(outcome.problems())}\n"
    )
    sys.stdout.flush()


def _grow(hosts: Hosts, victim: int) -> None:
    """Have so much agreed that the log needs more than what is on the disk already."""
    other = next(one for one in hosts.numbers if one != victim)
    with Redis((hosts.network.address(other), _PORT), 60.0) as redis:
        for number in range(48):
            redis.ask("SET", "blob", f"{number:04}" * (_BLOB // 4))


def linear(seconds: float) -> tuple[list[str], bool]:
    """The rows of the second table, and whether all was well."""
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    register = [python, str(ROOT / "examples/register/register.py"), "--port", "7100"]
    programs = [
        ("`examples/register`", register, Lines()),
        ("Redis", redis_command(_PORT), RedisStrings()),
    ]
    # Nothing that makes the log long, which is executed once more.
    left_out = Needs.CHECKPOINTS  # what sets clocks gets in the way of CRIU
    faults = [
        one for one in FAULTS.values() if one.name != "full-disk" and not one.needs & left_out
    ]
    rows, good = [], True
    for seed, (name, command, dialect) in enumerate(programs, 2015):
        found = examine(
            command, dialect, CHECKER, faults=faults, seed=seed, seconds=seconds, tell=_tell
        )
        good &= not found.problems
        for problem in found.problems:
            _tell(problem)
        rows.append(_linear_row(name, seed, found))
    return rows, good


def _linear_row(name: str, seed: int, found: Examination) -> str:
    cells = [
        name,
        str(seed),
        str(len(found.report.strikes)),
        f"{found.answered:,}",
        f"{found.compared:,}",
        f"{found.searched:,}",
        str(found.histories),
        str(len(found.problems)),
    ]
    return f"| {' | '.join(cells)} |"


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each program's registers")
    parser.add_argument("faults", nargs="*", metavar="FAULT")
    options = parser.parse_args()
    named = [name for name in options.faults if name != "registers"]
    chosen = [FAULTS[name] for name in named] or list(FAULTS.values()) * (not options.faults)
    rows = [measure(fault, options.runs) for fault in chosen]
    for row in rows:
        for problem in row.wrong:
            _tell(f"{row.fault.name}: {problem}")
    bad = any(row.lost or row.wrong for row in rows)
    linears: list[str] = []
    good = True
    if not named:
        linears, good = linear(options.seconds)
    if options.faults:
        PAGE.write_text(_renewed(PAGE.read_text(), [*(row.line() for row in rows), *linears]))
        return int(bad or not good)
    page = HEAD.format(
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release().split("-")[0],
        date=time.strftime("%Y-%m-%d"),
        hold=_HOLD,
    )
    page += "\n".join(row.line() for row in rows) + "\n"
    page += LINEAR + "\n".join(linears) + "\n" + TAIL
    PAGE.write_text(page)
    return int(bad or not good)


def _renewed(page: str, rows: list[str]) -> str:
    """The page with these rows in place of the ones that begin as they do."""
    lines = page.splitlines()
    for row in rows:
        begin = row[: row.index("|", 2) + 1]
        lines = [row if line.startswith(begin) else line for line in lines]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
