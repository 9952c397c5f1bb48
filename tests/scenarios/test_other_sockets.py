"""Clients that come by UDP and by Unix sockets: through every replica, also without the leader."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from scenario import Cluster

from crane.chaos.cluster import free_port

_PROGRAM = Path(__file__).parent / "programs" / "other_sockets.py"
_PATH = "/run/crane-test.socket"
_SECONDS = 20.0


def ask_unix(cluster: Cluster, number: int, times: int) -> list[int]:
    """The numbers of ``times`` answers over one connection."""
    place = cluster.state / "replicas" / str(number) / "sockets" / "run-crane-test.socket"
    numbers = []
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(_SECONDS)
        client.connect(str(place))
        for turn in range(times):
            client.sendall(b"turn %d" % turn)
            number_, _, rest = client.recv(4096).partition(b" ")
            assert rest == b"turn %d" % turn
            numbers.append(int(number_))
    return numbers


def ask_udp(cluster: Cluster, number: int) -> int:
    """The number of one answer, which comes from where the question went."""
    host = f"127.0.0.{number}"
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(_SECONDS / 10)
        for attempt in range(10):
            client.sendto(b"attempt %d" % attempt, (host, cluster.port))
            try:
                answer, peer = client.recvfrom(4096)
            except TimeoutError:
                continue  # as any datagram, it may be lost
            assert peer == (host, cluster.port)
            return int(answer.split()[0])
    raise AssertionError(f"no answer through replica {number}")


@pytest.fixture
def cluster(clusters: Callable[..., Cluster]) -> Cluster:
    port = free_port()
    made = clusters(["/usr/bin/python3", str(_PROGRAM), _PATH, str(port)], port)
    made.start()
    return made


def test_unix_and_udp_clients_survive_the_leader(cluster: Cluster) -> None:
    seen = [ask_udp(cluster, number) for number in (1, 2, 3)]
    for number in (1, 2, 3):
        seen += ask_unix(cluster, number, 20)
    leader = cluster.leader()
    others = [number for number in (1, 2, 3) if number != leader]
    cluster.kill(leader)
    for number in others:
        seen.append(ask_udp(cluster, number))
        seen += ask_unix(cluster, number, 20)
    # One program counts them all, and forgets none.
    assert seen == sorted(set(seen))
    cluster.restart(leader)
    cluster.must_settle()
    assert ask_unix(cluster, leader, 1)[0] > seen[-1]
