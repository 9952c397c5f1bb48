"""Threads that wait without an operation: the schedule is the same every time."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from verification import HERE, identical, load, verify

pytestmark = pytest.mark.timeout(300)


def _spinner(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    program = tmp_path / "spinner"
    source = HERE.parent / "scenarios" / "programs" / "spinner.c"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(program), str(source), "-lpthread"], check=True
    )
    return program


def test_spinning_threads_are_determined(tmp_path: Path) -> None:
    program = _spinner(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    options = ["--runs", "4", "--load", load("spinner_load.py", 10, 3)]
    identical(verify(work, options, [str(program), "7000"], tmp_path), 4)


def test_the_time_stamp_counter_is_virtual(tmp_path: Path) -> None:
    program = _spinner(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    options = ["--runs", "3", "--load", load("counter_load.py", 40, 0)]
    identical(verify(work, options, [str(program), "7000"], tmp_path), 3)


def test_threads_that_leave_the_schedule_come_back_by_agreement(tmp_path: Path) -> None:
    program = _spinner(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
        options = ["--runs", "3", "--share", f"{shared}:rw"]
        options += ["--load", load("sync_load.py", 6, 2)]
        identical(verify(work, options, [str(program), f"{shared}/file", "7000"], tmp_path), 3)


def test_redis_with_io_threads(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    benchmark = "redis-benchmark -h {host} -p {port} -c 50 -n 200 -t set,get -q"
    redis = ["redis-server", "--port", "6379", "--save", ""]
    threads = ["--io-threads", "4", "--io-threads-do-reads", "yes"]
    options = ["--runs", "3", "--load", benchmark]
    identical(verify(work, options, [*redis, *threads], tmp_path), 3)
