"""Many clients, bad clients, and what they cost: memory of each part and the others' latency."""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

from scenario import Cluster

from crane.chaos.cluster import Address, connect
from crane.chaos.resp import Redis

MIB = 1 << 20
_SAMPLE_SECONDS = 0.2
_PROBE_SECONDS = 0.02


def allow_descriptors() -> int:
    """Raise this process's limit of descriptors as far as it goes; the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        most = max(most, 65536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def private_bytes(pid: int) -> int:
    """Memory that a process has for itself alone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


@dataclass(slots=True)
class Memory:
    """The most that each part of any replica had, in bytes."""

    node: int = 0
    segment: int = 0
    program: int = 0

    def __str__(self) -> str:
        parts = (f"{name} {getattr(self, name) / MIB:.0f}" for name in self.__slots__)
        return ", ".join(parts) + " MiB"


class Watch:
    """Samples memory and asks each replica small things, from a thread each, in a ``with`` block.

    ``latencies`` are those of the small questions, in seconds, by replica.
    """

    def __init__(self, cluster: Cluster, replicas: Sequence[int] = (1, 2, 3)) -> None:
        self._cluster = cluster
        self._replicas = replicas
        rows = cluster.rows()
        self._nodes = {row["id"]: row["node_pid"] for row in rows}
        self._programs = {row["id"]: row["server_pid"] for row in rows}
        self.most = Memory()
        self.latencies: dict[int, list[float]] = {one: [] for one in replicas}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def _segment(self, number: int) -> int:
        with suppress(OSError):
            for line in Path(f"/proc/{self._nodes[number]}/maps").read_text().splitlines():
                place = line.split(maxsplit=5)[-1]
                if place.startswith("/dev/shm/crane-"):
                    return Path(place).stat().st_blocks * 512
        return 0

    def _sample(self) -> None:
        while not self._stop.is_set():
            for number in self._nodes:
                with suppress(OSError):
                    self.most.node = max(self.most.node, private_bytes(self._nodes[number]))
                    used = private_bytes(self._programs[number])
                    self.most.program = max(self.most.program, used)
                self.most.segment = max(self.most.segment, self._segment(number))
            self._stop.wait(_SAMPLE_SECONDS)

    def ask(self, client: object) -> None:
        """One small question."""
        assert isinstance(client, Redis)
        client.ask("PING")

    def connect(self, number: int) -> Redis:
        """A connection for small questions."""
        return self._cluster.redis(number, seconds=60.0)

    def _probe(self, number: int) -> None:
        try:
            with self.connect(number) as client:
                while not self._stop.is_set():
                    begin = time.monotonic()
                    self.ask(client)
                    self.latencies[number].append(time.monotonic() - begin)
                    self._stop.wait(_PROBE_SECONDS)
        except OSError as error:
            self.failures.append(f"replica {number}: {error!r}")

    def __enter__(self) -> Self:
        jobs = [(self._sample, ())] + [(self._probe, (one,)) for one in self._replicas]
        for target, words in jobs:
            thread = threading.Thread(target=target, args=words, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(70.0)

    def line(self, what: str) -> str:
        """What was seen, for people."""
        every = sorted(one for some in self.latencies.values() for one in some)
        if not every:
            return f"{what}: {self.most}"
        high = every[int(len(every) * 0.99)]
        times = f"others median {median(every) * 1e3:.1f}, p99 {high * 1e3:.0f}, "
        return f"{what}: {self.most}; {times}worst {every[-1] * 1e3:.0f} ms of {len(every)}"


class EchoWatch(Watch):
    """Asks a server that sends back lines."""

    def connect(self, number: int) -> socket.socket:  # type: ignore[override]
        return connect((f"127.0.0.{number}", self._cluster.port), 60.0)

    def ask(self, client: object) -> None:
        assert isinstance(client, socket.socket)
        client.sendall(b"PING\r\n")
        data = b""
        while not data.endswith(b"\n"):
            data += client.recv(4096)


class Crowd:
    """Connections of one thread that each send a request now and then, or never."""

    def __init__(self, addresses: Sequence[Address], count: int) -> None:
        """Connect them, spread over ``addresses``; returns when all are connected."""
        self.sockets: list[socket.socket] = []
        for number in range(count):
            self.sockets.append(socket.create_connection(addresses[number % len(addresses)], 60.0))

    def ask_all(self, request: bytes, answer: bytes, seconds: float = 120.0) -> float:
        """All of them ask once, at the same time; the seconds until all were answered.

        Raises:
            AssertionError: for a wrong answer, or none in time.
        """
        begin = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for one in self.sockets:
                one.sendall(request)
                selector.register(one, selectors.EVENT_READ, bytearray())
            left = len(self.sockets)
            while left and time.monotonic() < begin + seconds:
                for key, _ in selector.select(1.0):
                    key.data.extend(key.fileobj.recv(4096))  # type: ignore[union-attr]
                    assert answer.startswith(bytes(key.data)), key.data
                    if len(key.data) == len(answer):
                        selector.unregister(key.fileobj)
                        left -= 1
        assert not left, f"{left} of {len(self.sockets)} clients got no answer"
        return time.monotonic() - begin

    def close(self) -> None:
        for one in self.sockets:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
