"""What a program sees of a machine's file systems and kernel is equal everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import CASES, compile_case, interposed, write_log

EQUAL = CASES.with_name("equal")


@pytest.mark.timeout(120)
def test_listings_inodes_and_the_kernels_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    place.mkdir()
    base.mkdir()
    write_log(tmp_path / "log", 2)
    monkeypatch.chdir(place)
    program = compile_case(EQUAL / "program.c", place)
    runs = [interposed(program, tmp_path / "log", base, number, 100)[0] for number in (1, 2)]
    listing, reused, random = runs[0]
    names = listing.split()
    assert names[:2] == [".", ".."]
    assert names[2:] == sorted(str(number) for number in range(100))
    # A number that the file system gives again is shown as another.
    assert reused == "the number comes again: 0"
    assert len(set(random)) > 2
    assert runs[0] == runs[1]
