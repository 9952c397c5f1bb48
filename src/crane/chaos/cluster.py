"""A cluster for a trial: started by ``crane run`` in a directory of its own, ended with it.

The demo, the benchmarks and the scenario tests all use this, so what they show
is what a user gets from the command line.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from crane import control
from crane.chaos.watched import Address, Watched, wait_for
from crane.cluster import is_free
from crane.config import Durability
from crane.errors import CraneError
from crane.registry import ClusterRunDir

__all__ = ["Address", "Cluster", "connect", "free_port", "trial_dir", "wait_for"]

_START_SECONDS = 60.0
_END_SECONDS = 30.0
# Below the range from which kernels choose ports for outgoing connections and
# apart from the replicas' own.
_PORTS = range(10_000, 20_000)


def free_port(
    hosts: Sequence[str] = ("127.0.0.1", "127.0.0.2", "127.0.0.3"), ports: range = _PORTS
) -> int:
    """A port of ``ports`` that nothing uses now on any of these addresses.

    Raises:
        CraneError: when none is found.
    """
    source = random.SystemRandom()
    for _ in range(200):
        port = source.choice(ports)
        if all(is_free(host, port) for host in hosts):
            return port
    raise CraneError(f"no port between {ports.start} and {ports.stop} is free")


def trial_dir(kind: str) -> Path:
    """A new directory on a real disk: ``/tmp`` may be memory, where syncing costs nothing."""
    base = os.environ.get("TMPDIR")
    return Path(tempfile.mkdtemp(prefix=f"crane-{kind}-", dir=base or "/var/tmp"))  # noqa: S108


class Cluster(Watched):
    """A running cluster; leaving the ``with`` block ends it and removes its state.

    Not for several threads, except that faults and status may be asked from any.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        base: Path,
        name: str,
        durability: Durability = "disk",
        replicas: int = 3,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """``base`` holds the state and is removed at the end; nothing is started yet.

        ``environment`` is added to this process's own, ``options`` to those of
        ``crane run``.
        """
        self.command = list(command)
        self.base = base
        self.name = name
        self.state = base / "state"
        self.log = base / "run.log"
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._options = ["--replicas", str(replicas), "--durability", durability, *options]
        self.size = replicas
        self._cwd = cwd
        root = self.environment.get("CRANE_RUN_DIR")
        self.directory = ClusterRunDir(name, Path(root) if root else None)

    def start(self) -> None:
        """Start ``crane run`` and wait until every replica serves clients.

        Raises:
            CraneError: with what it said when it ended, or when it takes too long.
        """
        begin = self.launch()

        def serves() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise CraneError(f"`crane run` ended: {self.said(begin)}")
            return "Ctrl-C stops it" in self.said(begin)

        wait_for(f"the start of `{self.command[0]}`", serves, _START_SECONDS)

    def change(self, *options: str) -> None:
        """Have further options of ``crane run`` from the next start on."""
        self._options += options

    def launch(self) -> int:
        """Start ``crane run``, no more; where in :attr:`log` its words begin."""
        self.base.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "crane", "run", "--name", self.name]
        words += ["--state", str(self.state), *self._options, "--", *self.command]
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self._cwd,
                # A Ctrl-C is for us; we end it.
                start_new_session=True,
            )
        return begin

    def said(self, begin: int = 0) -> str:
        """What ``crane run`` wrote, from byte ``begin`` on."""
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace").strip()

    def stop(self) -> int:
        """End it as Ctrl-C does; the exit code of ``crane run``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(_END_SECONDS)

    def close(self) -> None:
        """End it however that goes, and remove its state."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def restart(self, number: int) -> None:
        """Start a killed replica again; returns when it takes part."""
        control.restart(self.directory, number)


def connect(address: Address, seconds: float = 10.0) -> socket.socket:
    """A TCP connection whose reads and writes end after ``seconds``."""
    client = socket.create_connection(address, timeout=seconds)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client
