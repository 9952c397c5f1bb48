"""What several unit tests need."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FAKE_CORE = Path(__file__).parent / "fake_core"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


class Cranes:
    """Runs ``crane`` commands with a stand-in for the engine, apart from everything else."""

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.state = base / "state"
        self.run_dir = base / "run"
        library = base / "libcrane_interposer.so"
        shutil.copyfile(_harmless_library(), library)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(base),
            "PYTHONPATH": str(FAKE_CORE),
            "CRANE_RUN_DIR": str(self.run_dir),
            "CRANE_INTERPOSER": str(library),
        }
        self.started: list[subprocess.Popen[str]] = []

    def crane(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "crane", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        options = ["--name", self.name, "--state", str(self.state)]
        return [sys.executable, "-m", "crane", "run", *options, *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A run that ends by itself."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A run in the background, when it serves clients."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C" in line:
                return process
        raise AssertionError(f"it did not start: {process.communicate()[1]}")

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def _harmless_library() -> Path:
    """Some library that does nothing when it is preloaded."""
    found = sorted(Path("/lib").glob("*-linux-gnu/libutil.so.1"))
    return found[0] if found else next(Path("/lib64").glob("libutil.so.1"))


@pytest.fixture
def cranes(request: pytest.FixtureRequest) -> Iterator[Cranes]:
    # Not pytest's own directory: its path is too long for a socket's.
    base = Path(tempfile.mkdtemp(prefix="crane-test-"))
    cranes = Cranes(base, f"test-{os.getpid()}")
    try:
        yield cranes
    finally:
        cranes.end()
        shutil.rmtree(base, ignore_errors=True)
