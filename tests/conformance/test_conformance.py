"""Every family of calls does under the interposer what it does natively."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from oracle import CASES, compile_case, interposed, native, write_log

FAMILIES = sorted([*CASES.glob("*.c"), *CASES.glob("*.cc")])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "epochs"
    write_log(path)
    return path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", FAMILIES, ids=[one.stem for one in FAMILIES])
def test_as_natively(
    source: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    program = compile_case(source, place)
    expected = native(program, place)
    monkeypatch.chdir(place)
    outcomes = []
    for number, quantum in ((1, 100), (2, 1), (3, 1)):
        said, run = interposed(program, log, base, number, quantum)
        diff = difflib.unified_diff(expected, said, "natively", "interposed", n=1, lineterm="")
        difference = "\n".join(diff)
        end = run.outcome.end or "it still waits"
        assert not difference, f"quantum {quantum}, {end}\n{difference}"
        assert run.outcome.end == "exit status 0", run.outcome
        assert not run.messages
        outcomes.append(run.outcome)
    hashes = [(one.clock, one.schedule_hash, one.output_hash) for one in outcomes]
    assert hashes[1] == hashes[2]
