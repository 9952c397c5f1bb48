"""Networks that lose everything between some replicas, on hosts of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from scenario import wait_for

from crane import procfs, wish
from crane.chaos.failover import redis_command
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.network import CLIENTS, Link, Network, remove_left_behind
from crane.chaos.resp import Redis, Reply

_PORT = 6379

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


@pytest.fixture(scope="module")
def started() -> Iterator[Hosts]:
    wanted, _ = wish.wanted(redis_command(_PORT), name="partitions")
    with Hosts(wanted, base=new_base()) as hosts:
        yield hosts
        network, base = hosts.network, hosts.base
    assert not base.exists()
    assert not list(Path("/run/netns").glob(f"{network.name}*"))


@pytest.fixture
def hosts(started: Hosts) -> Iterator[Hosts]:
    """Three hosts; whatever the test cut is whole again afterwards, and nothing was lost."""
    yield started
    started.network.cut([])
    started.wait_settled()


def redis(hosts: Hosts, number: int, seconds: float = 20.0) -> Redis:
    return Redis((hosts.network.address(number), _PORT), seconds)


def afterwards(hosts: Hosts, number: int, *words: str | int) -> Reply:
    """Ask something that may be asked twice, again if the connection is closed."""
    for _ in range(50):
        with suppress(ConnectionError), redis(hosts, number) as client:
            return client.ask(*words)
        time.sleep(0.1)
    raise AssertionError(f"replica {number} closes every connection")


def roles(hosts: Hosts) -> tuple[int, int, int]:
    """The leader and the two others."""
    leader = hosts.leader()
    one, two = (number for number in hosts.numbers if number != leader)
    return leader, one, two


def must_be_silent(client: Redis) -> None:
    with pytest.raises(TimeoutError):
        client.receive()


def test_a_leader_cut_off_from_the_others_answers_nobody_wrongly(hosts: Hosts) -> None:
    leader, one, _ = roles(hosts)
    with (
        redis(hosts, leader, 1.0) as old,
        redis(hosts, leader) as writer,
        redis(hosts, one) as new,
    ):
        assert old.ask("SET", "k", "before") == "OK"
        hosts.network.cut(hosts.network.isolate(leader, clients=False))
        # Its clients still reach it, but it cannot have their requests agreed.
        old.send("GET", "k")
        writer.send("APPEND", "late", "x")
        assert new.ask("SET", "k", "after") == "OK"
        must_be_silent(old)
        assert hosts.leader() != leader
        hosts.network.cut([])
        assert afterwards(hosts, leader, "GET", "k") == "after"
        try:
            assert writer.receive() == 1
        except OSError:
            # Cut off for longer than two seconds, a gateway loses its clients. Done or not.
            assert afterwards(hosts, leader, "GET", "late") in (None, "x")
        else:
            assert afterwards(hosts, leader, "GET", "late") == "x"


def test_a_follower_unplugged_from_everything_catches_up(hosts: Hosts) -> None:
    leader, one, two = roles(hosts)
    hosts.network.cut(hosts.network.isolate(one, clients=True))
    with pytest.raises(OSError, match="timed out"):
        redis(hosts, one, 0.5)
    with redis(hosts, two) as client:
        for number in range(200):
            assert client.ask("SET", "k", number) == "OK"
    assert hosts.leader() == leader
    hosts.network.cut([])
    assert afterwards(hosts, one, "GET", "k") == "199"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_leader_that_hears_or_is_heard_only(hosts: Hosts, deaf: bool) -> None:
    leader, one, two = roles(hosts)
    lost: list[Link] = [(other, leader) if deaf else (leader, other) for other in (one, two)]
    with redis(hosts, one) as client, redis(hosts, leader, 1.0) as old:
        assert client.ask("SET", "k", "before") == "OK"
        hosts.network.cut(lost)
        old.send("GET", "k")
        assert client.ask("SET", "k", f"{deaf}") == "OK"
        assert hosts.leader() != leader
        must_be_silent(old)
    hosts.network.cut([])
    hosts.wait_settled()
    assert afterwards(hosts, leader, "GET", "k") == f"{deaf}"


def test_a_link_between_leader_and_one_follower_lost(hosts: Hosts) -> None:
    """The third sees both; whoever leads, there is a majority, and it stays with it."""
    leader, one, two = roles(hosts)
    hosts.network.cut([(leader, one), (one, leader)])
    with redis(hosts, two) as client:
        for number in range(100):
            assert client.ask("SET", "k", number) == "OK"
        term = max(row.term or 0 for row in hosts.status().replicas)
        for number in range(400):
            assert client.ask("SET", "k", number) == "OK"
    # No tug of war: the one that hears nothing does not raise the term again and again.
    assert max(row.term or 0 for row in hosts.status().replicas) <= term + 1
    hosts.network.cut([])
    assert afterwards(hosts, one, "GET", "k") == "399"


def test_no_majority_anywhere(hosts: Hosts) -> None:
    leader, one, two = roles(hosts)
    everything = [*hosts.network.isolate(leader, clients=False), (one, two), (two, one)]
    clients = {number: redis(hosts, number, 0.7) for number in hosts.numbers}
    for client in clients.values():
        assert client.ask("PING") == "PONG"
    hosts.network.cut(everything)
    for number, client in clients.items():
        client.send("RPUSH", "parted", number)
    for client in clients.values():
        must_be_silent(client)
    hosts.network.cut([])
    # Done, or lost with its client's connection when its gateway was cut off for long.
    acknowledged = []
    for number, client in clients.items():
        with suppress(OSError):
            client.receive()
            acknowledged.append(str(number))
    found = afterwards(hosts, one, "LRANGE", "parted", 0, -1)
    assert isinstance(found, list)
    assert set(acknowledged) <= set(found)
    assert len(set(found)) == len(found)
    for client in clients.values():
        client.close()


def test_a_thin_line_to_a_follower_slows_nobody_else(hosts: Hosts) -> None:
    leader, one, two = roles(hosts)
    hosts.network.limit(one, 64)
    try:
        with redis(hosts, two) as client:
            for number in range(300):
                assert client.ask("SET", "k", f"{number}:" + "x" * 1000) == "OK"
        assert hosts.leader() == leader
    finally:
        hosts.network.limit(one, None)


def test_hosts_of_a_killed_runner_are_removed() -> None:
    program = (
        "from crane.chaos.network import Network; import signal, subprocess;"
        "made = Network(2);"
        "left = subprocess.Popen([*made.inside(1), 'sleep', '600'], stdout=subprocess.DEVNULL);"
        "print(made.name, left.pid, flush=True); signal.pause()"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    name, pid = runner.stdout.readline().split()
    left = procfs.ProcessIdentity.of(int(pid))
    assert left is not None
    runner.kill()
    runner.wait()
    runner.stdout.close()
    assert len(list(Path("/run/netns").glob(f"{name}*"))) == 3
    remove_left_behind()
    assert not list(Path("/run/netns").glob(f"{name}*"))
    wait_for("the end of what ran there", lambda: not left.alive())


def test_a_network_loses_what_it_is_told_to_and_no_more() -> None:
    network = Network(2)
    try:
        assert passes(network, 1, 2)
        network.cut([(1, 2)])
        assert not passes(network, 1, 2)
        network.cut([(1, CLIENTS)])
        assert passes(network, 1, 2)
        assert not passes(network, 1, CLIENTS)
        network.cut([])
        assert passes(network, 1, CLIENTS)
    finally:
        network.close()
    assert not list(Path("/run/netns").glob(f"{network.name}*"))


_REFUSED = "import socket, sys; socket.create_connection((sys.argv[1], 9), 1.0)"


def passes(network: Network, sender: int, to: int) -> bool:
    """Whether an answer comes back, if only a refusal."""
    words = [*network.inside(sender), sys.executable, "-c", _REFUSED, network.address(to)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "ConnectionRefusedError" in done.stderr
