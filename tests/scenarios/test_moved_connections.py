"""Connections through the virtual address go on when their leader dies.

Clients know nothing of it: they keep their sockets, with requests and answers under
way, and get every answer once, in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import pytest
from virtual_hosts import PORT, VirtualHosts, through, virtual_redis

from crane.chaos.resp import request
from crane.members import leader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")

_CLIENTS = 50
_AT_ONCE = 16
_LARGE = random.Random(5).randbytes(50 << 20)
# How long a client waits for an answer before the connection counts as lost.
_PATIENCE = 30.0


class Crowd:
    """Clients that each count up a key of their own, many requests at once."""

    def __init__(self, hosts: VirtualHosts, run: str) -> None:
        self._address = hosts.virtual
        self._keys = [f"{run}:{number}" for number in range(_CLIENTS)]
        self._stop = False
        self.counts = [0] * _CLIENTS
        self.faults: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop = True
        self._thread.join()

    async def _main(self) -> None:
        await asyncio.gather(*(self._count(number) for number in range(_CLIENTS)))

    async def _count(self, number: int) -> None:
        requests = request("INCR", self._keys[number]) * _AT_ONCE
        try:
            reader, writer = await asyncio.open_connection(self._address, PORT)
            while not self._stop:
                writer.write(requests)
                for _ in range(_AT_ONCE):
                    line = await asyncio.wait_for(reader.readuntil(b"\r\n"), _PATIENCE)
                    self.counts[number] += 1
                    # Neither lost, nor doubled, nor another's.
                    assert line == b":%d\r\n" % self.counts[number], line
            writer.close()
        except (OSError, EOFError, AssertionError) as error:
            self.faults.append(f"client {number} at {self.counts[number]}: {error!r}")

    def wait_progress(self) -> None:
        """Wait until every client has had answers to requests made from now on."""
        before = list(self.counts)
        deadline = time.monotonic() + _PATIENCE

        def behind() -> list[int]:
            pairs = enumerate(zip(before, self.counts, strict=True))
            return [number for number, (old, new) in pairs if new <= old + 2 * _AT_ONCE]

        while behind() and not self.faults:
            assert time.monotonic() < deadline, f"clients {behind()} wait for answers"
            time.sleep(0.05)
        assert not self.faults


@pytest.fixture(scope="module")
def started() -> Iterator[VirtualHosts]:
    with virtual_redis() as hosts:
        yield hosts


@pytest.fixture
def hosts(started: VirtualHosts) -> Iterator[VirtualHosts]:
    """Three hosts that are whole, whatever the test before did."""
    through(started).close()
    yield started
    started.mend()


def strike(hosts: VirtualHosts, how: str) -> int:
    """Let the leader come to harm; which it was."""
    victim = hosts.leads()
    match how:
        case "kill":
            os.kill(hosts.node_pid(victim), signal.SIGKILL)
        case "end":
            os.kill(hosts.node_pid(victim), signal.SIGTERM)
        case "stand still":
            os.kill(hosts.node_pid(victim), signal.SIGSTOP)
        case "lose power":
            hosts.network.cut(hosts.network.isolate(victim, clients=True))
        case "lose the others":
            hosts.network.cut(hosts.network.isolate(victim, clients=False))
        case "lose the program":
            pid = hosts.replica(victim).server_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        case "hand over":
            leader.transfer(hosts.directory, None)
    return victim


_HARM = [
    "kill",
    "end",
    "lose the program",
    "stand still",
    "lose power",
    "lose the others",
    "hand over",
]


@pytest.mark.parametrize("how", _HARM)
def test_clients_go_on(hosts: VirtualHosts, how: str) -> None:
    with Crowd(hosts, how) as crowd:
        crowd.wait_progress()
        pids = {number: hosts.node_pid(number) for number in hosts.numbers}
        victim = strike(hosts, how)
        # Longer than until a gateway that is not heard of counts as down.
        time.sleep(3.0)
        crowd.wait_progress()
        if how == "stand still":
            os.kill(pids[victim], signal.SIGCONT)
        hosts.mend()
        crowd.wait_progress()
    assert not crowd.faults


def test_clients_go_on_again_and_again(hosts: VirtualHosts) -> None:
    with Crowd(hosts, "again") as crowd:
        for how in ("kill", "lose power", "kill", "hand over", "end"):
            strike(hosts, how)
            crowd.wait_progress()
            hosts.mend()
            crowd.wait_progress()
    assert not crowd.faults


def test_a_silent_client_goes_on(hosts: VirtualHosts) -> None:
    with through(hosts) as client:
        assert client.ask("SET", "silent", 1) == "OK"
        victim = strike(hosts, "kill")
        time.sleep(3.0)
        assert client.ask("INCR", "silent") == 2
        assert victim not in hosts.holders()


def test_a_transaction_goes_on(hosts: VirtualHosts) -> None:
    # The program's state of the connection is as much part of it as TCP's.
    with through(hosts) as client:
        client.ask("SET", "begun", 0)
        assert client.ask("MULTI") == "OK"
        assert client.ask("INCR", "begun") == "QUEUED"
        strike(hosts, "kill")
        assert client.ask("INCR", "begun") == "QUEUED"
        assert client.ask("EXEC") == [1, 2]


def upload(hosts: VirtualHosts, key: str, halfway: Callable[[], object]) -> None:
    head = request("SET", key, "").rsplit(b"$", 1)[0] + b"$%d\r\n" % len(_LARGE)
    with socket.create_connection((hosts.virtual, PORT), _PATIENCE) as connection:
        half = len(_LARGE) // 2
        connection.sendall(head + _LARGE[:half])
        halfway()
        connection.sendall(_LARGE[half:] + b"\r\n")
        assert connection.recv(100) == b"+OK\r\n"


def download(hosts: VirtualHosts, key: str, halfway: Callable[[], object]) -> str:
    with socket.create_connection((hosts.virtual, PORT), _PATIENCE) as connection:
        connection.sendall(request("GET", key))
        stream = connection.makefile("rb")
        assert stream.readline() == b"$%d\r\n" % len(_LARGE)
        half = len(_LARGE) // 2
        content = stream.read(half)
        halfway()
        content += stream.read(len(_LARGE) - half)
        assert stream.read(2) == b"\r\n"
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("how", ["kill", "lose power", "hand over"])
def test_large_transfers_go_on(hosts: VirtualHosts, how: str) -> None:
    upload(hosts, "large", lambda: strike(hosts, how))
    hosts.mend()
    found = download(hosts, "large", lambda: strike(hosts, how))
    assert found == hashlib.sha256(_LARGE).hexdigest()
    with through(hosts) as client:
        client.ask("DEL", "large")


def test_what_is_closed_is_closed(hosts: VirtualHosts) -> None:
    # A client that says that it is done gets the rest and then the end.
    with socket.create_connection((hosts.virtual, PORT), _PATIENCE) as connection:
        connection.sendall(request("PING") + request("QUIT"))
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(4096):
            got += piece
    assert got == b"+PONG\r\n+OK\r\n"
    # One that vanishes is gone for the program, too.
    with through(hosts) as other:
        with socket.create_connection((hosts.virtual, PORT), _PATIENCE) as connection:
            connection.sendall(request("CLIENT", "SETNAME", "vanishing"))
            assert connection.recv(100) == b"+OK\r\n"
            strike(hosts, "kill")
            connection.sendall(request("PING"))
            assert connection.recv(100) == b"+PONG\r\n"
        deadline = time.monotonic() + _PATIENCE
        while "vanishing" in str(other.ask("CLIENT", "LIST")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
