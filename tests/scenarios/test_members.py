"""Replicas that are added, replaced, removed and restarted while clients write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scenario import CRANE, Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.chaos.failover import read_list
from crane.chaos.journal import examine
from crane.chaos.load import Load


def members(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.crane("member", "list", "--json").stdout)
    return found


def voters(cluster: Cluster) -> list[int]:
    return [one["id"] for one in members(cluster)["members"] if one["role"] == "voter"]


@contextmanager
def under_load(cluster: Cluster) -> Iterator[Load]:
    """Clients write all the time; afterwards every replica has all that was acknowledged."""
    load = Load(cluster.addresses())
    load.start()
    try:
        goes_on(load)
        yield load
        goes_on(load)
    finally:
        load.stop()
    assert [fault for journal in load.journals for fault in journal.faults] == []
    for number in cluster.addresses():
        with cluster.redis(number) as redis:
            for journal in load.journals:
                found = examine(journal, read_list(redis, journal.key))
                assert found.good, (number, found)
    cluster.must_settle()


def goes_on(load: Load) -> None:
    count = len(load.answers)
    wait_for("more answers", lambda: len(load.answers) > count + 100)


def test_three_become_five_and_three_others(redis: Cluster) -> None:
    with under_load(redis) as load:
        for number in (4, 5):
            said = redis.crane("member", "add", "--timeout", "60").stdout
            assert f"replica {number} takes part" in said
            load.addresses.update(redis.addresses())
            goes_on(load)
        assert voters(redis) == [1, 2, 3, 4, 5]
        assert "replica 4 leads" in redis.crane("transfer", "4").stdout
        assert members(redis)["leader"] == 4
        goes_on(load)
        before = len(load.breaks)
        for number in (1, 2):
            redis.crane("member", "remove", str(number), "--purge")
            assert not (redis.state / "replicas" / str(number)).exists()
        assert {one.replica for one in load.breaks[before:]} <= {1, 2}
        assert voters(redis) == [3, 4, 5]
        redis.size = 3
    # The same cluster goes on after all of it was stopped.
    digest = [row["output_hash"] for row in redis.rows()]
    assert redis.stop() == 0
    redis.start()
    assert [row["id"] for row in redis.rows()] == [3, 4, 5]
    with redis.redis(5) as client:
        assert client.ask("SET", "k", "v") == "OK"
    assert len(set(digest)) == 1


def test_a_new_replica_takes_the_place_of_a_dead_one(redis: Cluster) -> None:
    dead = redis.follower()
    redis.kill(dead)
    with under_load(redis) as load:
        said = redis.crane("member", "replace", str(dead), "--timeout", "60").stdout
        assert "replica 4 takes part" in said
        assert f"replica {dead} was removed" in said
        load.addresses.update(redis.addresses())
    assert dead not in voters(redis)
    assert 4 in voters(redis)
    # It is refused when it comes back, and says why.
    node = redis.state / "replicas" / str(dead) / "node.toml"
    done = subprocess.run(
        [str(CRANE), "node", "--config", str(node)],
        env=redis.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"replica {dead} was removed from the cluster" in done.stderr
    # Nothing is done twice, and its number is not used again.
    again = redis.crane("member", "remove", str(dead)).stdout
    assert f"replica {dead} was removed" in again
    taken = redis.crane("member", "add", f"{dead}=127.0.0.9:{free_port()}", good=False)
    assert "never given again" in taken.stderr
    unknown = redis.crane("member", "remove", "9", good=False)
    assert (unknown.returncode, "has no replica 9" in unknown.stderr) == (2, True)


def test_all_are_restarted_in_turn(redis: Cluster) -> None:
    leader = redis.leader()
    pids = {row["id"]: row["node_pid"] for row in redis.rows()}
    with under_load(redis):
        said = redis.crane("restart", "--rolling").stdout.splitlines()
        order = [int(line.split()[2]) for line in said if "is back and agrees" in line]
        assert sorted(order) == [1, 2, 3]
        assert order[-1] == leader
    assert all(row["node_pid"] != pids[row["id"]] for row in redis.rows())


def test_a_replica_that_does_not_come_is_taken_out_again(redis: Cluster) -> None:
    port = free_port()
    config = redis.base / "node.toml"
    command = ["member", "add", f"7=127.0.0.7:{port}", "--config", str(config), "--timeout"]
    done = redis.crane(*command, "1", good=False)
    assert done.returncode == 1
    assert "was taken out again" in done.stderr
    assert voters(redis) == [1, 2, 3]
    assert 7 in members(redis)["used"]
    # One that is started elsewhere with the file that was written takes part.
    command[2] = f"8=127.0.0.8:{port}"
    with subprocess.Popen(
        [str(CRANE), *command, "60"], env=redis.environment, stdout=subprocess.DEVNULL
    ) as adding:
        wait_for("its file", lambda: config.exists() and "id = 8" in config.read_text())
        config.write_text(config.read_text().replace("/replicas/1", "/replicas/8"))
        redis.crane("init", "--renew", str(redis.state), "--replica", "8")
        with subprocess.Popen(
            [str(CRANE), "node", "--config", str(config)], env=redis.environment
        ) as node:
            try:
                assert adding.wait(60) == 0
                assert voters(redis) == [1, 2, 3, 8]
                with redis.redis(8) as client:
                    assert client.ask("SET", "k", "through 8") == "OK"
                redis.crane("member", "remove", "8")
                assert node.wait(20) == 1
            finally:
                node.kill()


def test_a_change_that_would_lose_the_majority_is_refused(redis: Cluster) -> None:
    one, other = sorted(set(redis.addresses()) - {redis.leader()})
    redis.kill(one)
    refused = redis.crane("member", "remove", str(other), good=False)
    assert "fewer than the 2 that are needed" in refused.stderr
    redis.kill(other)
    # The leader notices that it is alone after an election time-out.
    wait_for(
        "the leader to step down",
        lambda: "majority" in redis.crane("member", "list", good=False).stderr,
    )
    for number in (one, other):
        redis.restart(number)
    redis.must_settle()
