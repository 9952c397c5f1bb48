"""``crane status`` as scripts use it: the JSON is a contract."""

from __future__ import annotations

import json
import os
from pathlib import Path

from scenario import Cluster

FIELDS = {
    "id": int,
    "role": str,
    "address": str,
    "term": int,
    "commit": int,
    "applied": int,
    "epoch": int,
    "clock": int,
    "connections": int,
    "output_hash": str,
    "agrees": bool,
    "node_pid": int,
    "server_pid": int,
    "healthy": bool,
}


def test_the_json_contract(redis: Cluster) -> None:
    clients = [redis.redis(number) for number in (1, 2, 3)]
    for client in clients:
        assert client.ask("PING") == "PONG"
    redis.must_settle()
    # Replicas compare themselves a few times a second; `agrees` is null before.
    found = json.loads(redis.crane("status", "--json", "--name", redis.name).stdout)
    assert list(found) == ["name", "replicas"]
    assert found["name"] == redis.name
    assert [row["id"] for row in found["replicas"]] == [1, 2, 3]
    roles = sorted(row["role"] for row in found["replicas"])
    assert roles == ["follower", "follower", "leader"]
    for row in found["replicas"]:
        assert {name: type(row[name]) for name in FIELDS} == FIELDS
        assert row["address"] == f"127.0.0.{row['id']}:{redis.port}"
        assert row["healthy"] is True
        assert row["agrees"] is True
        assert row["applied"] <= row["commit"]
        assert row["connections"] == 1
        for pid in (row["node_pid"], row["server_pid"]):
            os.kill(pid, 0)
        assert Path(f"/proc/{row['server_pid']}/comm").read_text() == "redis-server\n"
    assert len({row["output_hash"] for row in found["replicas"]}) == 1
    for client in clients:
        client.close()


def test_a_dead_replica_has_a_row_too(redis: Cluster) -> None:
    leader = redis.leader()
    redis.kill(leader)
    redis.leader()
    rows = redis.rows()
    dead = rows[leader - 1]
    assert (dead["id"], dead["role"], dead["healthy"]) == (leader, "down", False)
    assert set(FIELDS) <= set(dead)
    for name in ("term", "commit", "applied", "node_pid", "server_pid"):
        assert dead[name] is None
    assert sorted(row["role"] for row in rows if row["id"] != leader) == ["follower", "leader"]
    text = redis.crane("status").stdout
    assert "2 of 3 replicas healthy" in text
    assert "down" in text


def test_the_output_hash_changes_with_the_output(redis: Cluster) -> None:
    redis.must_settle()
    before = redis.rows()[0]["output_hash"]
    with redis.redis(2) as client:
        assert client.ask("PING") == "PONG"
    redis.must_settle()
    assert redis.rows()[0]["output_hash"] != before


def test_list_and_logs(redis: Cluster) -> None:
    assert "redis-server" in redis.crane("list").stdout
    for number in ("1", "2", "3"):
        assert "Ready to accept connections" in redis.crane("logs", number).stdout
