"""One address for all clients: it goes with the leadership."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from scenario import wait_for
from virtual_hosts import VirtualHosts, through, virtual_redis

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


@pytest.fixture(scope="module")
def started() -> Iterator[VirtualHosts]:
    with virtual_redis() as hosts:
        yield hosts


@pytest.fixture
def hosts(started: VirtualHosts) -> Iterator[VirtualHosts]:
    """Three hosts; whatever the test did is mended afterwards, and nothing was lost."""
    yield started
    started.mend()


def test_it_is_where_the_leader_is(hosts: VirtualHosts) -> None:
    with through(hosts) as client:
        assert client.ask("SET", "k", "v") == "OK"
    assert hosts.holders() == [hosts.leader()]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_it_goes_to_the_next_leader(hosts: VirtualHosts, how: str) -> None:
    with through(hosts) as client:
        assert client.ask("SET", "k", how) == "OK"
        leader = hosts.leader()
        pid = hosts.replica(leader).node_pid
        assert pid is not None
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
        # Its own connections go on.
        while hosts.holders() in ([], [leader]):
            assert client.ask("GET", "k") == how
    with through(hosts) as client:
        assert client.ask("GET", "k") == how
    assert time.monotonic() - begin < 20.0
    wait_for("one holder", lambda: len(hosts.holders()) == 1)
    assert hosts.holders() == [hosts.leader()] != [leader]


def test_a_leader_that_stood_still_gives_it_up(hosts: VirtualHosts) -> None:
    leader = hosts.leader()
    pid = hosts.replica(leader).node_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        # Its machine has the address still, but the network was told of another.
        wait_for("another holder", lambda: len(hosts.holders()) == 2)
        with through(hosts) as client:
            assert client.ask("SET", "k", "meanwhile") == "OK"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("its giving up", lambda: leader not in hosts.holders())
    with through(hosts) as client:
        assert client.ask("GET", "k") == "meanwhile"


def test_a_leader_cut_off_gives_it_up(hosts: VirtualHosts) -> None:
    leader = hosts.leader()
    with through(hosts) as client:
        assert client.ask("SET", "k", "before") == "OK"
        hosts.network.cut(hosts.network.isolate(leader, clients=False))
        wait_for("its giving up", lambda: leader not in hosts.holders())
        with through(hosts) as other:
            assert other.ask("SET", "k", "after") == "OK"
        # The old one's clients go on as well.
        assert client.ask("GET", "k") == "after"
    hosts.network.cut([])
    with through(hosts) as client:
        assert client.ask("GET", "k") == "after"
    hosts.wait_settled()
    assert hosts.holders() == [hosts.leader()]
