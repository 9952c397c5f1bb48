"""System calls that no function stands before: wherever the program lies, and those refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import CASES, compile_case, interposed, native, write_log

REFUSED = CASES.with_name("refused")


@pytest.mark.timeout(120)
def test_a_program_at_a_fixed_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 5)
    monkeypatch.chdir(place)
    program = compile_case(CASES / "instructions.c", place, "-no-pie")
    expected = native(program, place)
    said, run = interposed(program, tmp_path / "log", base, 1, 100)
    assert said == expected, run.outcome.end or "it still waits"
    assert run.outcome.end == "exit status 0"
    assert not run.messages


@pytest.mark.timeout(120)
def test_calls_that_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 1)
    monkeypatch.chdir(place)
    # From a library, too, where most other calls are not looked at.
    library = compile_case(REFUSED / "asynchronous.c", place, "-shared", "-fPIC", "-DLIBRARY")
    library.rename(place / "libasynchronous.so")
    linked = ["-L.", "-lasynchronous", f"-Wl,-rpath,{place}"]
    program = compile_case(REFUSED / "asynchronous.c", place, *linked)
    said, run = interposed(program, tmp_path / "log", base, 1, 100)
    results = [line for line in said if not line.endswith("begins")]
    assert len(results) == 6
    assert all(line.endswith("= -38") for line in results), results
    assert run.outcome.end == "exit status 0"
