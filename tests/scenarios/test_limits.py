"""Crowds, hogs and sleepers: memory stays bounded and the others are served.

Small sizes by default; ``CRANE_LIMITS=full`` (``make limits``) takes the sizes that
docs/operating.md tells of, and prints what it saw.
"""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from crowd import MIB, Crowd, EchoWatch, Watch, allow_descriptors
from scenario import PYTHON, Cluster, wait_for

from crane.chaos.cluster import Address, connect, free_port
from crane.chaos.failover import redis_command

FULL = os.environ.get("CRANE_LIMITS") == "full"
PROGRAMS = Path(__file__).with_name("programs")
PING, PONG = b"PING\r\n", b"+PONG\r\n"
# Longest that a small question may take while the worst is going on. A busy machine
# must not fail it; that somebody is held up for as long as the bad client likes does.
PATIENCE = 20.0


def pick(small: int, full: int) -> int:
    return full if FULL else small


def show(watch: Watch, what: str) -> None:
    """Print what was seen and check that everybody else was served."""
    sys.stdout.write(f"\n{watch.line(what)}\n")
    assert watch.failures == []
    for number, latencies in watch.latencies.items():
        assert latencies, f"replica {number} answered nobody"
        assert max(latencies) < PATIENCE


def addresses(port: int) -> list[Address]:
    return [(f"127.0.0.{number}", port) for number in (1, 2, 3)]


@pytest.fixture(autouse=True, scope="module")
def _descriptors() -> None:
    allow_descriptors()


@pytest.fixture
def big_redis(clusters: Callable[..., Cluster]) -> Cluster:
    port = free_port()
    cluster = clusters([*redis_command(port), "--maxclients", "16000"], port)
    cluster.start()
    return cluster


@pytest.fixture
def nginx(clusters: Callable[..., Cluster]) -> tuple[Cluster, Path]:
    """A web server that takes uploads, with a file of 100 MB (20 when small)."""
    port = free_port()
    cluster = clusters([], port)
    place = cluster.base / "web"
    (place / "site").mkdir(parents=True)
    for path in (cluster.base, place, place / "site"):
        path.chmod(0o755)
    big = bytes(range(251)) * (pick(20, 100) * MIB // 251)
    (place / "site" / "big").write_bytes(big)
    (place / "site" / "ping").write_bytes(b"pong")
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; user root; pid {place}/pid; error_log {place}/log;
        events {{ worker_connections 4096; }}
        http {{ {temporary} access_log off; client_max_body_size 0;
          send_timeout 600s; client_body_timeout 600s; client_header_timeout 600s;
          server {{ listen {port} backlog=4096; root {place}/site; dav_methods PUT; }} }}"""
    )
    cluster.command = ["nginx", "-c", str(place / "nginx.conf")]
    cluster.start()
    return cluster, place


class HttpWatch(Watch):
    """Asks for a small page."""

    def connect(self, number: int) -> socket.socket:  # type: ignore[override]
        return connect((f"127.0.0.{number}", self._cluster.port), 60.0)

    def ask(self, client: object) -> None:
        assert isinstance(client, socket.socket)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while not data.endswith(b"pong"):
            data += client.recv(4096)


def fetch(address: Address, request: bytes) -> bytes:
    """The body of an HTTP answer after which the server closes."""
    with connect(address, 120.0) as client:
        client.sendall(request)
        parts = []
        while part := client.recv(1 << 20):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 20"), head
    return body


def test_idle_and_busy_connections(big_redis: Cluster) -> None:
    idle, busy = pick(1500, 10_000), pick(150, 1000)
    places = addresses(big_redis.port)
    with Watch(big_redis) as watch, Crowd(places, idle):
        wait_for("their admission", lambda: total(big_redis) >= idle, 60.0)
    show(watch, f"{idle} connections come")
    with Crowd(places, idle), Crowd(places, busy) as crowd:
        wait_for("their admission", lambda: total(big_redis) >= idle + busy, 60.0)
        with Watch(big_redis) as watch:
            took = [crowd.ask_all(PING, PONG) for _ in range(pick(3, 20))]
        show(watch, f"{busy} of {idle + busy} ask at once, {max(took):.2f} s at worst")
        assert watch.most.node < 128 * MIB
        assert watch.most.segment < 256 * MIB
    wait_for("their end", lambda: total(big_redis) < 10, 60.0)
    big_redis.must_settle()


def total(cluster: Cluster) -> int:
    return sum(row["connections"] or 0 for row in cluster.rows())


def test_clients_that_do_not_read(nginx: tuple[Cluster, Path]) -> None:
    cluster, _ = nginx
    count = pick(60, 1000)
    with ExitStack() as stack, HttpWatch(cluster) as watch:
        for number in range(count):
            hog = socket.socket()
            # So that the system takes little on the client's behalf.
            hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            hog.settimeout(60.0)
            hog.connect(addresses(cluster.port)[number % 3])
            stack.enter_context(hog)
            hog.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(pick(3, 20))
    show(watch, f"{count} clients do not read what they asked for")
    # 256 MiB for all replicas' clients together and a little for each.
    assert watch.most.node < (320 + count // 4) * MIB
    cluster.must_settle()


def test_large_requests_and_answers(nginx: tuple[Cluster, Path]) -> None:
    cluster, place = nginx
    big = (place / "site" / "big").read_bytes()
    digest = hashlib.sha256(big).digest()
    head = f"PUT /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(big)}\r\n\r\n"
    for number in (cluster.leader(), cluster.follower()):
        address = (f"127.0.0.{number}", cluster.port)
        with HttpWatch(cluster) as watch:
            begin = time.monotonic()
            fetch(address, head.encode() + big)
            middle = time.monotonic()
            again = fetch(address, b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            took = f"{middle - begin:.1f} s up, {time.monotonic() - middle:.1f} s down"
        show(watch, f"{len(big) // MIB} MB over HTTP, {took}")
        assert hashlib.sha256(again).digest() == digest
        assert watch.most.node < 256 * MIB
        assert watch.most.segment < 128 * MIB
    cluster.must_settle()


def test_a_large_value_in_redis(big_redis: Cluster) -> None:
    size = pick(20, 100) * MIB
    value = b"crane" * (size // 5)
    for number in (big_redis.leader(), big_redis.follower()):
        with Watch(big_redis) as watch, connect(("127.0.0.1", big_redis.port), 120.0) as client:
            client.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(value), value))
            assert client.recv(100) == b"+OK\r\n"
            client.sendall(b"GET k\r\n")
            want = b"$%d\r\n%b\r\n" % (len(value), value)
            got = bytearray()
            while len(got) < len(want):
                got += client.recv(1 << 20)
            assert got == want
        show(watch, f"SET and GET of {size // MIB} MB through replica {number}")
        assert watch.most.node < 256 * MIB
        assert watch.most.segment < 128 * MIB
    big_redis.must_settle()


def test_clients_that_say_nothing_or_half(nginx: tuple[Cluster, Path]) -> None:
    cluster, _ = nginx
    count = pick(150, 1000)
    with HttpWatch(cluster) as watch, Crowd(addresses(cluster.port), 3 * count) as crowd:
        for number, one in enumerate(crowd.sockets):
            if number % 3 == 1:
                one.sendall(b"GET /ping HTTP/1.1\r\nHo")
            elif number % 3 == 2:
                one.sendall(b"PUT /half HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nhalf")
        time.sleep(pick(2, 10))
    show(watch, f"{3 * count} clients: silent, half a head, half a body")
    assert watch.most.node < 128 * MIB
    cluster.must_settle()


def test_a_program_that_does_not_read(clusters: Callable[..., Cluster]) -> None:
    port, count = free_port(), pick(90, 1200)
    cluster = clusters([PYTHON, str(PROGRAMS / "stalling.py"), str(port)], port)
    cluster.start()
    sent = 0
    with Crowd(addresses(port), count) as crowd, EchoWatch(cluster) as watch:
        for one in crowd.sockets:
            one.setblocking(False)
            one.send(b"STALL")
        for _ in range(pick(20, 100)):
            for one in crowd.sockets:
                with suppress(BlockingIOError):
                    sent += one.send(bytes(256 << 10))
            time.sleep(0.02)
    show(watch, f"{count} clients offered {sent // MIB} MiB that the program does not read")
    assert watch.most.segment < 600 * MIB
    assert watch.most.node < 320 * MIB
    cluster.must_settle()


def test_connections_that_come_and_go(big_redis: Cluster) -> None:
    made, begin = 0, time.monotonic()
    with Watch(big_redis) as watch:
        while time.monotonic() < begin + pick(3, 20):
            for address in addresses(big_redis.port):
                one = connect(address, 30.0)
                if made % 3 == 0:
                    one.sendall(PING)
                if made % 2 == 0:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.close()
                made += 1
    show(watch, f"{made / (time.monotonic() - begin):.0f} connections a second come and go")
    assert watch.most.node < 128 * MIB
    wait_for("their end", lambda: total(big_redis) < 10, 60.0)
    big_redis.must_settle()


def test_no_descriptors_for_more_clients(big_redis: Cluster) -> None:
    """Those who are there are served, those who wait are when there is room; nothing spins."""
    follower = big_redis.follower()
    node = next(row["node_pid"] for row in big_redis.rows() if row["id"] == follower)
    held = len(list(Path(f"/proc/{node}/fd").iterdir()))
    limits = resource.prlimit(node, resource.RLIMIT_NOFILE)
    resource.prlimit(node, resource.RLIMIT_NOFILE, (held + 20, limits[1]))
    place = [(f"127.0.0.{follower}", big_redis.port)]
    with Crowd(place, 10) as served:
        served.ask_all(PING, PONG)
        with Crowd(place, 30) as waiting:
            wait_for("the warning", lambda: "no file descriptors are left" in big_redis.said())
            begin = cpu_seconds(node)
            time.sleep(2.0)
            assert cpu_seconds(node) - begin < 0.6
            served.ask_all(PING, PONG)
            served.close()
            # All of those who waited are let in as others go.
            resource.prlimit(node, resource.RLIMIT_NOFILE, limits)
            waiting.ask_all(PING, PONG)
    big_redis.must_settle()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(400)
def test_a_follower_that_stands_still_under_load(big_redis: Cluster) -> None:
    follower = big_redis.follower()
    others = [number for number in (1, 2, 3) if number != follower]
    value = b"v" * 100_000
    write = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(value), value)
    sent, begin = 0, time.monotonic()
    with connect((f"127.0.0.{big_redis.leader()}", big_redis.port), 60.0) as client:
        big_redis.pause(follower)
        with Watch(big_redis, others) as watch:
            while time.monotonic() < begin + pick(8, 60):
                client.sendall(write * 10)
                for _ in range(10):
                    assert client.recv(5, socket.MSG_WAITALL) == b"+OK\r\n"
                sent += 10 * len(value)
        begin = time.monotonic()
        big_redis.resume(follower)
        big_redis.wait_caught_up(follower, 180.0)
    took = time.monotonic() - begin
    show(
        watch, f"{sent // MIB} MiB written beside a follower that slept, caught up in {took:.1f} s"
    )
    assert watch.most.node < 400 * MIB
    big_redis.must_settle()
