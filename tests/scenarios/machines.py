"""Replicas as on machines of their own, made by `crane init`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from scenario import CRANE, wait_for

from crane import procfs
from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command
from crane.chaos.resp import Redis

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Machines:
    """What `crane init` made for three machines, run on this one."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]] = redis_command,
        options: Sequence[str] = (),
    ) -> None:
        """``command`` makes the program's from its port; ``options`` are more of `crane init`."""
        self.base = Path(tempfile.mkdtemp(prefix="crane-i-", dir="/var/tmp"))
        self.mark = uuid.uuid4().hex
        self.environment = {
            **os.environ,
            "CRANE_RUN_DIR": str(self.base / "run"),
            "SCENARIO": self.mark,
        }
        self.port, peers, self.admin = (free_port(HOSTS) for _ in range(3))
        self.made = self.base / "made"
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        words = ["-m", ",".join(f"{host}:{peers}" for host in HOSTS), "-o", str(self.made)]
        words += ["--name", "scenario", "--admin-port", str(self.admin), "--state", "/STATE"]
        self.said = self.crane("init", *words, *options, "--", *command(self.port)).stdout
        for number in (1, 2, 3):
            # As if copied to the state directory of another machine each.
            file = self.place(number) / "node.toml"
            file.write_text(file.read_text().replace("/STATE", str(self.place(number))))

    def place(self, number: int) -> Path:
        return self.made / "replicas" / str(number)

    def crane(self, *words: str, good: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(CRANE), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not good or done.returncode == 0, done.stderr
        return done

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """A ``crane`` command that takes its time."""
        return subprocess.Popen(
            [str(CRANE), *words], env=self.environment, stdout=subprocess.DEVNULL
        )

    def start(self, number: int, *before: str) -> None:
        """Start a node; ``before`` are words in front of its command."""
        with self.log(number).open("ab") as log:
            self.nodes[number] = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    "-m",
                    "crane",
                    "node",
                    "-c",
                    str(self.place(number) / "node.toml"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def stop(self, number: int) -> None:
        self.nodes[number].terminate()
        self.nodes.pop(number).wait(20)

    def log(self, number: int) -> Path:
        return self.base / f"node-{number}.log"

    def serves(self, number: int) -> bool:
        assert self.nodes[number].poll() is None, self.log(number).read_text()
        try:
            with Redis((HOSTS[number - 1], self.port), 5) as client:
                return client.ask("PING") == "PONG"
        except OSError:
            return False

    def wait_serving(self, number: int) -> None:
        wait_for(f"replica {number}", lambda: self.serves(number), 60)

    def status(self, *words: str, good: bool = True) -> subprocess.CompletedProcess[str]:
        options = {
            "--connect": ",".join(f"{host}:{self.admin}" for host in HOSTS),
            "--token-file": str(self.made / "admin" / "admin.token"),
            "--ca": str(self.made / "admin" / "ca.crt"),
        }
        options.update(zip(words[::2], words[1::2], strict=True))
        flat = [word for option in options.items() for word in option]
        return self.crane("status", "--json", *flat, good=good)

    def processes(self) -> list[int]:
        found = []
        for process in procfs.all_processes():
            with suppress(OSError):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if process.alive and f"SCENARIO={self.mark}".encode() in environ:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        for number in list(self.nodes):
            self.stop(number)
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left
        subprocess.run(["rm", "-r", str(self.base)], check=True)
