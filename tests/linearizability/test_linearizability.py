"""Faults from a seed, and every answer checked: by the log, and by a search for an order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crane.chaos import examination
from crane.chaos.failover import redis_command
from crane.chaos.faults import FAULTS
from crane.chaos.histories import check, pieces
from crane.chaos.registers import Dialect, Lines, Operation, RedisStrings
from crane.errors import CraneError

_ROOT = Path(__file__).parents[2]
CHECKER = _ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/crane-linearizable"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"

PROGRAMS: dict[str, tuple[list[str], Callable[[], Dialect]]] = {
    "register": ([PYTHON, str(_ROOT / "examples/register/register.py"), "--port", "7100"], Lines),
    "redis": (redis_command(6379), RedisStrings),
}
QUICK = ("kill-node", "kill-program", "pause", "partition", "mute", "lost-link", "clock-ahead")


@pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_answer_under_faults(name: str) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "20151004"))
    seconds = float(os.environ.get("CHAOS_SECONDS", "6"))
    command, dialect = PROGRAMS[name]
    faults = [FAULTS[one] for one in QUICK]
    found = examination.examine(
        command, dialect(), CHECKER, faults=faults, seed=seed, seconds=seconds
    )
    assert found.problems == []
    assert found.report.strikes
    assert found.compared == found.answered > 200
    assert found.searched >= found.answered


def test_the_checker_says_what_is_not_linearizable() -> None:
    write = Operation(0, "r", "write", 1, begin=0.0, end=1.0)
    stale = Operation(1, "r", "read", 0, begin=2.0, end=3.0)
    assert check(CHECKER, pieces([write, stale])) != []
    assert check(CHECKER, pieces([write, Operation(1, "r", "read", 1, begin=2.0, end=3.0)])) == []
    # A write that nobody answered and somebody saw cannot be unseen again.
    unsure = Operation(2, "r", "write", 2, begin=1.5)
    seen = Operation(1, "r", "read", 2, begin=2.0, end=3.0)
    again = Operation(1, "r", "read", 1, begin=4.0, end=5.0)
    assert check(CHECKER, pieces([write, unsure, seen])) == []
    assert check(CHECKER, pieces([write, unsure, seen, again])) != []
    # One that nobody saw may be why a swap failed.
    failed = Operation(3, "r", "cas", 3, old=1, begin=4.0, end=5.0)
    assert check(CHECKER, pieces([write, failed])) != []
    assert check(CHECKER, pieces([write, unsure, failed])) == []


def test_the_checker_refuses_what_it_does_not_understand(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("#!/bin/sh\nexit 3\n")
    wrong.chmod(0o755)
    with pytest.raises(CraneError, match="failed"):
        check(wrong, pieces([Operation(0, "r", "write", 1, begin=0.0, end=1.0)]))


def test_a_long_history_is_cut_where_nothing_overlaps() -> None:
    mine = [
        Operation(0, "r", "write", number, begin=number, end=number + 0.5)
        for number in range(1, 200)
    ]
    cut = pieces(mine, longest=50)
    assert [len(one.operations) for one in cut] == [50, 50, 50, 49]
    began = time.monotonic()
    assert check(CHECKER, cut) == []
    assert time.monotonic() - began < 20.0
