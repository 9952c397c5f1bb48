"""A cluster of a real program, started and asked by the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crane import procfs
from crane.chaos import cluster as trial
from crane.chaos.resp import Redis

CRANE = Path(sys.executable).with_name("crane")
EXAMPLES = Path(__file__).parents[2] / "examples"
# Not a version manager's shell script.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def wait_for(what: str, condition: Callable[[], object], seconds: float = 20.0) -> None:
    trial.wait_for(what, condition, seconds)


class Cluster(trial.Cluster):
    """A cluster whose faults and status go through the command line, as a user's do."""

    def __init__(self, command: Sequence[str], port: int, **options: Any) -> None:
        # Short, because admin sockets' paths must be, and on a real disk.
        base = Path(tempfile.mkdtemp(prefix="crane-s-", dir="/var/tmp"))
        # Names it in its processes' environment, so that none can hide.
        self.mark = uuid.uuid4().hex
        self.run_dir = base / "run"
        environment = {"CRANE_RUN_DIR": str(self.run_dir), "SCENARIO": self.mark}
        super().__init__(command, base=base, name="scenario", environment=environment, **options)
        self.port = port

    def crane(self, *words: str, good: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a ``crane`` command; with ``good`` it must succeed."""
        done = subprocess.run(
            [str(CRANE), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not good or done.returncode == 0, f"crane {' '.join(words)}: {done.stderr}"
        return done

    def rows(self) -> list[dict[str, Any]]:
        """The replicas as ``crane status --json`` tells them."""
        found: list[dict[str, Any]] = json.loads(self.crane("status", "--json").stdout)["replicas"]
        return found

    def follower(self) -> int:
        """A replica that does not lead."""
        leader = self.leader()
        return next(one for one in self.addresses() if one != leader)

    def kill(self, number: int) -> None:
        self.crane("kill", str(number))

    def restart(self, number: int) -> None:
        self.crane("restart", str(number))

    def pause(self, number: int) -> None:
        self.crane("pause", str(number))

    def resume(self, number: int) -> None:
        self.crane("resume", str(number))

    def redis(self, number: int, seconds: float = 20.0) -> Redis:
        """A connection to Redis through a replica."""
        return Redis((f"127.0.0.{number}", self.port), seconds)

    def must_settle(self) -> None:
        """All replicas are healthy and have done the same."""
        self.wait_settled()

    def processes(self) -> list[int]:
        """Every living process of this cluster, the programs' included."""
        found = []
        for process in procfs.all_processes():
            with suppress(OSError):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if process.alive and f"SCENARIO={self.mark}".encode() in environ:
                    found.append(process.pid)
        return found

    def remains(self) -> list[str]:
        """Everything that a cluster which has ended must not leave behind."""
        left = [f"process {pid}: {_command(pid)}" for pid in self.processes()]
        left += [str(path) for path in self.run_dir.glob("*")]
        mounts = Path("/proc/mounts").read_text().splitlines()
        left += [line for line in mounts if str(self.base) in line]
        with suppress(FileNotFoundError):
            name = json.loads((self.state / "cluster.json").read_text())["cluster_id"][:12]
            left += [str(path) for path in Path("/dev/shm").glob(f"crane-{name}-*")]
        return left

    def close(self) -> None:
        """End it, see that nothing is left, and remove its state."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            left = self.remains()
            assert not left, left
        finally:
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            super().close()


def _command(pid: int) -> str:
    """A process's state and command line, for a message."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"{procfs.stat(pid)} {b' '.join(words).decode(errors='replace')}"
    return "gone by now"
