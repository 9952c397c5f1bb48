"""How long an input waits beside a thread that never waits: alone and on three replicas."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from crane.chaos.cluster import Address, Cluster, connect, free_port, trial_dir, wait_for
from crane.errors import CraneError

_SOURCE = Path(__file__).with_suffix(".c")
_REQUESTS = 300
_PAUSE_SECONDS = 0.005
_START_SECONDS = 30.0
_KINDS = {
    "nothing": "nobody",
    "locks": "a thread that locks and unlocks",
    "clocks": "a thread that reads the clock",
    "works": "a thread that computes for about 1 ms between two operations",
}


@dataclass(frozen=True)
class Latency:
    """Round trips of one small message, in milliseconds of real time."""

    beside: str
    native: tuple[float, float]
    """The median, and what 99 of 100 took at most."""
    replicated: tuple[float, float]


def measure() -> list[Latency]:
    """Compile the server and ask it both ways, beside each kind of thread.

    Raises:
        CraneError: when there is no compiler or a message is not answered.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CraneError("cc is missing; on Debian: apt-get install build-essential")
    base = trial_dir("admission")
    try:
        program = base / "admission"
        subprocess.run([compiler, "-O2", "-pthread", "-o", program, _SOURCE], check=True)
        return [
            Latency(text, _alone(program, kind), _replicated(program, kind, base / kind))
            for kind, text in _KINDS.items()
        ]
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _alone(program: Path, kind: str) -> tuple[float, float]:
    port = free_port()
    process = subprocess.Popen([program, str(port), kind], stdin=subprocess.DEVNULL)
    try:
        return _round_trips(("127.0.0.1", port))
    finally:
        process.kill()
        process.wait()


def _replicated(program: Path, kind: str, base: Path) -> tuple[float, float]:
    port = free_port()
    environment = {"CRANE_RUN_DIR": str(base / "run")}
    command = [str(program), str(port), kind]
    with Cluster(command, base=base, name="admission", environment=environment) as cluster:
        return _round_trips((f"127.0.0.{cluster.leader()}", port))


def _round_trips(address: Address) -> tuple[float, float]:
    with _client(address) as client:
        taken = []
        for number in range(_REQUESTS):
            message = b"%08d" % number
            begin = time.perf_counter()
            client.sendall(message)
            answer = b""
            while len(answer) < len(message):
                part = client.recv(64)
                if not part:
                    raise CraneError(f"{address[0]}:{address[1]} closed the connection")
                answer += part
            taken.append((time.perf_counter() - begin) * 1e3)
            # At another moment of an epoch each time.
            time.sleep(_PAUSE_SECONDS * (1 + number % 7 / 7))
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100]


@contextmanager
def _client(address: Address) -> Iterator[socket.socket]:
    found: list[socket.socket] = []

    def reached() -> bool:
        with suppress(OSError):
            found.append(connect(address))
        return bool(found)

    wait_for(f"service on {address[0]}:{address[1]}", reached, _START_SECONDS)
    with found[0] as client:
        yield client
