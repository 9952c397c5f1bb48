"""Threads that load libraries while others ask the dynamic linker."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from oracle import CASES, compile_case, interposed, native, write_log

LOADING = CASES.with_name("loading")


@pytest.mark.timeout(120)
def test_loading_as_natively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, base = tmp_path / "program", tmp_path / "base"
    libraries = place / "libraries"
    libraries.mkdir(parents=True)
    base.mkdir()
    write_log(tmp_path / "log", 5)
    monkeypatch.chdir(place)
    compiler = shutil.which("cc")
    assert compiler is not None
    library = libraries / "liblibrary.so"
    build = [compiler, "-shared", "-fPIC", "-o", library, LOADING / "library.c"]
    subprocess.run(build, check=True)
    # Not among the places where everybody's libraries are.
    program = compile_case(LOADING / "program.c", place, f"-Wl,-rpath,{libraries}")
    expected = native(program, place)
    for number, quantum in ((1, 100), (2, 1)):
        said, run = interposed(program, tmp_path / "log", base, number, quantum)
        assert said == expected, f"quantum {quantum}, {run.outcome.end or 'it still waits'}"
        assert run.outcome.end == "exit status 0"
