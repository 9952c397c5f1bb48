"""One address for all clients: it goes with the leadership."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from msgspec import structs
from scenario import wait_for

from crane import config as configuration
from crane import wish
from crane.chaos.failover import redis_command
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.resp import Redis

_PORT = 6379

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


class VirtualHosts(Hosts):
    """Hosts 1 to 3, and an address that the leader's has besides its own."""

    @property
    def virtual(self) -> str:
        return self.network.address(100)

    def configure(self, number: int) -> None:
        super().configure(number)
        node = self.state.node_config(self.cluster, number)
        node = structs.replace(node, virtual_address=f"{self.virtual}/24", virtual_interface="eth0")
        (self.place(number) / "node.toml").write_text(configuration.dump(node))


@pytest.fixture(scope="module")
def started() -> Iterator[VirtualHosts]:
    wanted, _ = wish.wanted(redis_command(_PORT), name="virtual")
    with VirtualHosts(wanted, base=new_base()) as hosts:
        yield hosts


@pytest.fixture
def hosts(started: VirtualHosts) -> Iterator[VirtualHosts]:
    """Three hosts; whatever the test did is mended afterwards, and nothing was lost."""
    yield started
    started.network.cut([])
    for number in started.numbers:
        if not started.runs(number):
            started.restart(number)
    started.wait_settled()


def through(hosts: VirtualHosts, seconds: float = 20.0) -> Redis:
    """A connection through the virtual address, as soon as there is one."""
    found: list[Redis] = []

    def connected() -> bool:
        try:
            with Redis((hosts.virtual, _PORT), 1.0) as client:
                client.ask("PING")
        except OSError:
            return False
        found.append(Redis((hosts.virtual, _PORT), seconds))
        return True

    wait_for("an answer through the virtual address", connected, 30.0)
    return found[0]


def holders(hosts: VirtualHosts) -> list[int]:
    """Which hosts have the address, by their own tables."""
    found = []
    for number in hosts.numbers:
        words = [*hosts.network.inside(number), "ip", "-4", "-o", "address"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if f"{hosts.virtual}/" in said:
            found.append(number)
    return found


def test_it_is_where_the_leader_is(hosts: VirtualHosts) -> None:
    with through(hosts) as client:
        assert client.ask("SET", "k", "v") == "OK"
    assert holders(hosts) == [hosts.leader()]


def must_end(client: Redis, value: str) -> None:
    """Ask until the connection ends."""
    while client.ask("GET", "k") == value:
        pass


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_it_goes_to_the_next_leader(hosts: VirtualHosts, how: str) -> None:
    with through(hosts) as client:
        assert client.ask("SET", "k", how) == "OK"
        leader = hosts.leader()
        pid = hosts.replica(leader).node_pid
        assert pid is not None
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
        # Its own connections end, and no answer is a wrong one.
        with pytest.raises(OSError, match=r"closed|reset|timed out"):
            must_end(client, how)
    with through(hosts) as client:
        assert client.ask("GET", "k") == how
    assert time.monotonic() - begin < 20.0
    wait_for("one holder", lambda: len(holders(hosts)) == 1)
    assert holders(hosts) == [hosts.leader()] != [leader]


def test_a_leader_that_stood_still_gives_it_up(hosts: VirtualHosts) -> None:
    leader = hosts.leader()
    pid = hosts.replica(leader).node_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        # Its machine has the address still, but the network was told of another.
        wait_for("another holder", lambda: len(holders(hosts)) == 2)
        with through(hosts) as client:
            assert client.ask("SET", "k", "meanwhile") == "OK"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("its giving up", lambda: leader not in holders(hosts))
    with through(hosts) as client:
        assert client.ask("GET", "k") == "meanwhile"


def test_a_leader_cut_off_gives_it_up(hosts: VirtualHosts) -> None:
    leader = hosts.leader()
    with through(hosts) as client:
        assert client.ask("SET", "k", "before") == "OK"
        hosts.network.cut(hosts.network.isolate(leader, clients=False))
        wait_for("its giving up", lambda: leader not in holders(hosts))
        with through(hosts) as other:
            assert other.ask("SET", "k", "after") == "OK"
        # The old one's clients are told, not left waiting.
        with pytest.raises(OSError, match=r"closed|reset"):
            client.ask("GET", "k")
    hosts.network.cut([])
    with through(hosts) as client:
        assert client.ask("GET", "k") == "after"
    hosts.wait_settled()
    assert holders(hosts) == [hosts.leader()]
