from __future__ import annotations

import json
from pathlib import Path

import msgspec

from crane import status
from crane.procfs import ProcessIdentity
from crane.registry import RUN, ClusterRunDir, NodeEntry, RunEntry

ENGINE = {
    "role": "leader",
    "term": 3,
    "commit": 20,
    "applied": 19,
    "epoch": 18,
    "clock": 7000,
    "connections": 2,
    "output_hash": "ab12",
    "agrees": None,
    "listening": [{"address": "127.0.0.1:6379", "port": 6379}],
    "fatal": None,
}


def test_the_json_contract() -> None:
    node = {
        "attached": True,
        "node_pid": 10,
        "server_pid": 11,
        "engine": ENGINE,
        "checkpoints": {"impossible": None, "failure": None, "newest": {"index": 12}},
    }
    found = status.ClusterStatus(
        name="shop", replicas=[status.row(1, node), status.ReplicaStatus(id=2, role="down")]
    )
    shown = json.loads(msgspec.json.encode(found))
    assert shown["name"] == "shop"
    assert shown["replicas"][0] == {
        "id": 1,
        "role": "leader",
        "address": "127.0.0.1:6379",
        "term": 3,
        "commit": 20,
        "applied": 19,
        "epoch": 18,
        "clock": 7000,
        "connections": 2,
        "output_hash": "ab12",
        "agrees": None,
        "caught_up": False,
        "node_pid": 10,
        "server_pid": 11,
        "healthy": True,
        "reason": None,
        "stack": None,
        "checkpoint": 12,
        "no_checkpoints": None,
        "state": "running",
    }
    down = shown["replicas"][1]
    assert (down.pop("id"), down.pop("role")) == (2, "down")
    assert (down.pop("healthy"), down.pop("state")) == (False, "down")
    assert set(down) == set(shown["replicas"][0]) - {"id", "role", "healthy", "state"}
    assert not any(value is not None for value in down.values())


def test_a_replica_that_disagrees_failed_or_waits_is_not_healthy() -> None:
    node = {"attached": True, "engine": {**ENGINE, "agrees": False}}
    assert not status.row(1, node).healthy
    assert not status.row(1, {"attached": True, "engine": {**ENGINE, "fatal": "disk"}}).healthy
    starting = status.row(1, {"attached": False, "engine": {}})
    assert (starting.healthy, starting.state, starting.role) == (False, "starting", "candidate")


def test_replicas_that_are_down_have_a_row(tmp_path: Path) -> None:
    directory = ClusterRunDir("shop", tmp_path / "run")
    directory.create()
    own = ProcessIdentity.own()
    directory.write(RUN, RunEntry(process=own, state_dir="/s", argv=["x"], replicas=[1, 2]))
    # A node that lives but does not answer.
    directory.write("2", NodeEntry(process=own, id=2, peers=[1, 2], argv=["x"], log="/l"))
    first, second = status.collect(directory).replicas
    assert (first.role, first.state, first.node_pid) == ("down", "down", None)
    assert (second.role, second.state, second.node_pid) == ("down", "paused", own.pid)
