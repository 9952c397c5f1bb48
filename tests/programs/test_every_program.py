"""Every program of ``servers/``: deterministic, and nothing lost when the leader dies."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import programs
from killing import kill_the_leader
from program import Program
from verifying import verify

pytestmark = pytest.mark.timeout(300)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HERE = [one for one in programs() if one.ci is not None]
IDS = [one.name for one in HERE]


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory on a real disk, with a path that is short enough for a socket's."""
    made = Path(tempfile.mkdtemp(prefix="crane-p-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(autouse=True)
def _program_is_there(program: Program) -> None:
    for command, _, package in (pair.partition(":") for pair in program.packages):
        is_there = Path(command).exists() if "/" in command else shutil.which(command, path=_PATH)
        assert is_there, f"{command} of the package {package} is missing; `make test` installs it"


@pytest.mark.parametrize("program", HERE, ids=IDS)
def test_it_does_the_same_every_time(program: Program, base: Path) -> None:
    assert program.ci is not None
    result = verify(program, program.ci, base)
    assert result.problems == []
    assert result.identical == program.ci.runs


@pytest.mark.parametrize("program", HERE, ids=IDS)
def test_nothing_is_lost_when_the_leader_dies(program: Program, base: Path) -> None:
    assert program.ci is not None
    result = kill_the_leader(program, program.ci, base)
    assert result.problems == []
    assert result.lost == 0
    assert result.acknowledged >= program.ci.writes * 2
