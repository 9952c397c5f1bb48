"""Real programs do the same every time their log is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import verification
from verification import identical, verify

from crane.checkpoint import criu

ROOT = Path(__file__).parents[2]
# The machine's own interpreter: the one that runs the tests may be a shell script.
PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.timeout(300)


def test_redis_with_time_chance_threads_and_children(tmp_path: Path) -> None:
    work, cwd = tmp_path / "work", tmp_path / "cwd"
    work.mkdir()
    cwd.mkdir()
    options = "--appendonly yes --save 1#10 --enable-debug-command yes --maxmemory 4mb"
    options += " --maxmemory-policy allkeys-lfu --lazyfree-lazy-expire yes"
    result = verify(
        work,
        ["--runs", "3", "--load", verification.load("redis_load.py", 1000)],
        ["redis-server", "--port", "6379", *(one.replace("#", " ") for one in options.split())],
        cwd,
    )
    identical(result, 3)
    # The append-only files with their directory, and a dump.
    assert result.verdict["runs"][0]["entries"] >= 4


def test_redis_under_the_built_in_load_of_lines(tmp_path: Path) -> None:
    result = verify(
        tmp_path,
        ["--runs", "3", "--requests", "1000"],
        ["redis-server", "--port", "6379"],
        tmp_path,
    )
    identical(result, 3)
    assert result.verdict["requests"] >= 1000


@pytest.mark.skipif(criu.why_not() is not None, reason=str(criu.why_not()))
def test_redis_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    options = "--appendonly yes --save 1#10 --maxmemory 4mb --maxmemory-policy allkeys-lfu"
    result = verify(
        tmp_path,
        ["--checkpoint", "--runs", "3", "--load", verification.load("redis_load.py", 1000)],
        ["redis-server", "--port", "6379", *(one.replace("#", " ") for one in options.split())],
        tmp_path,
    )
    identical(result, 3)


@pytest.mark.skipif(criu.why_not() is not None, reason=str(criu.why_not()))
def test_a_restored_program_sees_the_files_that_it_saw(tmp_path: Path) -> None:
    program = Path(__file__).parent / "programs" / "files.py"
    work, cwd = tmp_path / "work", tmp_path / "cwd"
    work.mkdir()
    cwd.mkdir()
    result = verify(
        work,
        ["--checkpoint", "--runs", "3", "--load", verification.load("files_load.py", 200, 4)],
        [PYTHON, str(program), "8123"],
        cwd,
    )
    identical(result, 3)


def test_http_server_under_the_built_in_load_of_http(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "below").mkdir(parents=True)
    (site / "below" / "page.html").write_text("<p>hello</p>" * 2000)
    (site / "new.txt").write_text("written in the second in which the program starts")
    work = tmp_path / "work"
    work.mkdir()
    result = verify(
        work,
        ["--runs", "3", "--requests", "500"],
        [PYTHON, "-m", "http.server", "8000"],
        site,
    )
    identical(result, 3)
    assert result.verdict["requests"] >= 500


def test_the_notes_example_with_three_replicas_while_recording(tmp_path: Path) -> None:
    work, cwd = tmp_path / "work", tmp_path / "cwd"
    work.mkdir()
    cwd.mkdir()
    result = verify(
        work,
        ["--runs", "3", "--replicas", "3", "--load", verification.load("notes_load.py", 500, 10)],
        [PYTHON, str(ROOT / "examples" / "notes" / "notes.py"), "--port", "8080"],
        cwd,
    )
    identical(result, 3)
