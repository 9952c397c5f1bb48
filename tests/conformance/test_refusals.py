"""What cannot be kept in step is refused by an error, and the user is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import CASES, compile_case, interposed, write_log

REFUSED = CASES.with_name("refused")


@pytest.mark.timeout(120)
def test_threads_by_clone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 1)
    monkeypatch.chdir(place)
    program = compile_case(REFUSED / "threads.c", place)
    said, run = interposed(program, tmp_path / "log", base, 1, 100)
    results = [line for line in said if not line.endswith("begins")]
    assert len(results) == 6
    assert all(line.endswith("= -1 ENOSYS") for line in results), results
    assert run.outcome.end == "exit status 0"
    assert len(run.messages) == 1
    assert "calls clone(2) with flags 0x" in run.messages[0]


@pytest.mark.timeout(120)
def test_calls_with_other_ways_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 1)
    monkeypatch.chdir(place)
    program = compile_case(REFUSED / "descriptors.c", place)
    said, run = interposed(program, tmp_path / "log", base, 1, 100)
    results = [line for line in said if not line.endswith("begins")]
    assert len(results) == 6
    assert all(line.endswith("= -1 ENOSYS") for line in results), results
    assert run.outcome.end == "exit status 0"


@pytest.mark.timeout(120)
def test_named_pipes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 1)
    monkeypatch.chdir(place)
    program = compile_case(REFUSED / "fifos.c", place)
    said, run = interposed(program, tmp_path / "log", base, 1, 100)
    results = [line for line in said if not line.endswith("begins")]
    assert len(results) == 4
    assert all(line.endswith("= -1 EOPNOTSUPP") for line in results), results
    assert run.outcome.end == "exit status 0"
