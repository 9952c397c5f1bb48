"""Replicas that die, stop and come back while clients are at work."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command, trial
from crane.chaos.load import Load


@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_leaders_killed_under_load(clusters: Callable[..., Cluster], durability: str) -> None:
    port = free_port()
    cluster = clusters(redis_command(port), port, durability=durability)
    cluster.start()
    outcome = trial(cluster, kills=3, steady=0.5)
    assert outcome.problems() == []
    assert outcome.lost == 0
    assert outcome.acknowledged > 100
    # Far above what it takes, so that a busy machine does not fail it.
    assert max(outcome.gaps) < 10.0
    cluster.must_settle()


def test_a_follower_killed_under_load(redis: Cluster) -> None:
    leader, follower = redis.leader(), redis.follower()
    load = Load(redis.addresses())
    load.start()
    wait_for("some answers", lambda: len(load.answers) > 100)
    redis.kill(follower)
    count = len(load.answers)
    wait_for("more answers", lambda: len(load.answers) > count + 200)
    redis.restart(follower)
    redis.wait_caught_up(follower)
    load.stop()
    assert redis.leader() == leader
    assert {one.replica for one in load.breaks} <= {follower}
    assert [fault for journal in load.journals for fault in journal.faults] == []
    redis.must_settle()


def test_a_paused_follower_catches_up(redis: Cluster) -> None:
    follower = redis.follower()
    with redis.redis(follower) as through, redis.redis(redis.leader()) as other:
        assert through.ask("SET", "k", "before") == "OK"
        redis.pause(follower)
        paused = redis.rows()[follower - 1]
        assert (paused["role"], paused["state"], paused["healthy"]) == ("down", "paused", False)
        for number in range(200):
            assert other.ask("SET", "k", number) == "OK"
        redis.resume(follower)
        # The connection through it has never been broken.
        assert through.ask("GET", "k") == "199"
    redis.must_settle()


def test_a_paused_leader_is_replaced_and_follows_when_it_is_back(redis: Cluster) -> None:
    leader, follower = redis.leader(), redis.follower()
    with redis.redis(leader) as through, redis.redis(follower) as other:
        assert through.ask("SET", "k", "before") == "OK"
        redis.pause(leader)
        # Asked while nobody leads: the answer comes from the next leader.
        assert other.ask("SET", "k", "after") == "OK"
        assert redis.leader() != leader
        redis.resume(leader)
        assert through.ask("GET", "k") == "after"
        assert redis.rows()[leader - 1]["role"] == "follower"
    redis.must_settle()


def test_what_is_asked_of_a_paused_replica_is_answered_once(redis: Cluster) -> None:
    leader = redis.leader()
    with redis.redis(leader) as through:
        assert through.ask("INCR", "n") == 1
        redis.pause(leader)
        through.send("INCR", "n")
        others = [number for number in (1, 2, 3) if number != leader]
        with redis.redis(others[0]) as other:
            assert other.ask("GET", "n") in ("1", "2")
        redis.resume(leader)
        assert through.receive() == 2
        assert through.ask("INCR", "n") == 3
    redis.must_settle()


def test_without_a_majority_nothing_is_acknowledged(redis: Cluster) -> None:
    leader = redis.leader()
    one, two = (number for number in (1, 2, 3) if number != leader)
    with redis.redis(leader, seconds=60.0) as client:
        assert client.ask("SET", "k", "majority") == "OK"
        redis.kill(one)
        redis.kill(two)
        client.send("SET", "k", "late")
        with pytest.raises(TimeoutError):
            silent(redis, leader)
        # One comes back, and what waited is done.
        redis.restart(one)
        assert client.receive() == "OK"
        assert client.ask("GET", "k") == "late"
    redis.restart(two)
    redis.wait_caught_up(two)
    redis.must_settle()


def silent(redis: Cluster, replica: int) -> None:
    """Ask something that cannot be answered now."""
    with redis.redis(replica, seconds=1.5) as other:
        other.ask("PING")


def test_all_replicas_killed_and_brought_back(redis: Cluster) -> None:
    """A loss of power to everything at once: the disks have all that was acknowledged."""
    with redis.redis(1) as client:
        for number in range(300):
            assert client.ask("RPUSH", "list", number) == number + 1
    for number in (1, 2, 3):
        redis.kill(number)
    for number in (1, 2, 3):
        # Alone it reports in, but nobody is served before there is a majority.
        redis.restart(number)
    wait_for("service", lambda: len(redis.addresses()) == 3 and serves(redis), 60.0)
    for number in (1, 2, 3):
        with redis.redis(number) as client:
            assert client.ask("LLEN", "list") == 300
    redis.must_settle()


def serves(redis: Cluster) -> bool:
    try:
        with redis.redis(1, seconds=5.0) as client:
            return client.ask("PING") == "PONG"
    except OSError:
        return False


def test_a_client_that_vanishes_is_noticed_everywhere(redis: Cluster) -> None:
    with redis.redis(2) as stays:
        gone = socket.create_connection(("127.0.0.1", redis.port))
        wait_for("the connection", lambda: "connected_clients:2" in str(stays.ask("INFO")))
        # A reset instead of a good-bye.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        wait_for("its end", lambda: "connected_clients:1\r" in str(stays.ask("INFO")))


def test_connections_of_a_dead_replica_are_closed_in_the_program(redis: Cluster) -> None:
    follower = redis.follower()
    with redis.redis(redis.leader()) as stays:
        lost = [redis.redis(follower) for _ in range(3)]
        for one in lost:
            assert one.ask("PING") == "PONG"
        assert "connected_clients:4" in str(stays.ask("INFO"))
        redis.kill(follower)
        wait_for("their end", lambda: "connected_clients:1\r" in str(stays.ask("INFO")), 30.0)
        for one in lost:
            with pytest.raises(OSError, match=r"closed|reset"):
                one.ask("PING")
            one.close()


def test_a_restart_of_a_living_replica(redis: Cluster) -> None:
    """A rolling restart, the leader included: the service goes on."""
    with redis.redis(1) as client:
        assert client.ask("SET", "k", "v") == "OK"
    for number in (1, 2, 3):
        redis.restart(number)
        redis.wait_caught_up(number)
        with redis.redis(1 + number % 3) as client:
            assert client.ask("GET", "k") == "v"
    redis.must_settle()
    begin = time.monotonic()
    assert redis.stop() == 0
    assert time.monotonic() - begin < 15.0
