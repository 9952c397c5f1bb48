"""What is said of a replica whose results differ, and what is kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from crane import divergence
from crane.crash import Crashes

OUTPUT: dict[str, Any] = {
    "verdict": "diverged",
    "epoch": 7,
    "exact": True,
    "output": True,
    "peer": 2,
    "others": [2, 3],
    "first": {
        "clock": 41,
        "what": "output",
        "connection": "2.1.5",
        "ours": {"thread": 3, "operation": 81, "object": 0},
        "theirs": {"thread": 3, "operation": 81, "object": 0},
    },
    "hashes": {"ours": [41, "aa", "bb"], "theirs": {"2": [41, "ac", "bb"]}},
    "ours": {
        "operations": [[40, 3, 80, 0], [41, 3, 81, 0x7000]],
        "outputs": [[41, "2.1.5", 1, 3, "aa"]],
    },
    "theirs": None,
}


def other(**fields: Any) -> dict[str, Any]:
    return copy.deepcopy(OUTPUT) | fields


def test_another_answer_is_one_line() -> None:
    assert divergence.line(OUTPUT, 1) == (
        "replica 1 diverged from replicas 2 and 3 in epoch 7: thread 3 sent other bytes to"
        " connection 2.1.5 (a client of replica 2) in its Write at clock 41"
    )
    assert divergence.diverged(OUTPUT, 1) == [1]


def test_another_operation_is_told_from_the_side_that_is_wrong() -> None:
    first = {
        "clock": 9,
        "what": "operation",
        "connection": None,
        "ours": {"thread": 1, "operation": 16, "object": 0},
        "theirs": {"thread": 1, "operation": 17, "object": 0},
    }
    seen = other(verdict="other_diverged", others=[1], first=first, exact=False)
    assert divergence.line(seen, 2) == (
        "replica 1 diverged from the majority in epoch 7 or before: at clock 9 thread 1 does"
        " MutexTryLock and on the others MutexLock"
    )
    assert divergence.diverged(seen, 2) == [1]
    first["theirs"] = None
    assert "at clock 9 it does nothing where thread 1 does MutexLock" in divergence.line(seen, 2)


def test_what_is_forgotten_and_what_is_open_is_said(tmp_path: Path) -> None:
    assert "not remembered any more, `crane verify --log`" in divergence.line(other(first=None), 1)
    open_ = other(verdict="undecided", others=[2])
    assert divergence.line(open_, 3).startswith("replicas 2 and 3 differ from epoch 7 on: ")
    assert "no majority says who is right" in divergence.advice(open_, tmp_path, tmp_path / "e")
    assert divergence.diverged(open_, 3) == []


def test_evidence_is_kept_and_bounded(tmp_path: Path) -> None:
    for epoch in range(1, 8):
        divergence.keep(other(epoch=epoch), tmp_path, {"id": 1})
    kept = sorted(one.name for one in tmp_path.glob("diverged-*"))
    assert len(kept) == 4
    place = divergence.place(other(epoch=7), tmp_path)
    assert json.loads((place / "difference.json").read_text())["hashes"]["ours"][0] == 41
    lines = (place / "operations-ours.txt").read_text().splitlines()
    assert [line.startswith(">") for line in lines] == [False, True]
    assert "Write" in lines[1]
    assert "0x7000" in lines[1]
    assert "2.1.5" in (place / "output-ours.txt").read_text()


def test_a_program_that_crashes_again_waits_longer() -> None:
    crashes = Crashes()
    waits = [crashes.note() for _ in range(12)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 10.0
