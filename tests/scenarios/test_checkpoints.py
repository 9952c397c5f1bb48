"""Checkpoints of a running program, logs that are cut behind them, and replicas that come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.checkpoint import criu

pytestmark = [
    pytest.mark.skipif(criu.why_not() is not None, reason=str(criu.why_not())),
    pytest.mark.timeout(180),
]

HOSTS = [f"127.0.0.{number}" for number in (1, 2, 3)]
SEGMENT_BYTES = 16 << 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = tmp_path / "crane.toml"
    settings.write_text("[checkpoints]\ninterval = 0\nlog_mib = 4\n")
    port = free_port(HOSTS)
    words = ["redis-server", "--port", str(port), "--save", ""]
    made = Cluster(words, port, options=["-f", str(settings)])
    try:
        made.start()
        yield made
    finally:
        made.close()


def listed(cluster: Cluster) -> dict[int, list[int]]:
    """The entries of each replica's checkpoints, the newest first."""
    found: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for one in json.loads(cluster.crane("checkpoint", "list", "--json").stdout)["checkpoints"]:
        found[one["replica"]].append(one["index"])
    return found


def log_files(cluster: Cluster, number: int) -> list[str]:
    return sorted(one.name for one in (replica(cluster, number) / "log").glob("log-*"))


def replica(cluster: Cluster, number: int) -> Path:
    return cluster.state / "replicas" / str(number)


def fill(cluster: Cluster, mib: int) -> None:
    with cluster.redis(cluster.leader()) as redis:
        for number in range(mib * 4):
            assert redis.ask("SET", f"key:{number % 16}", "v" * (256 << 10)) == "OK"


def put(cluster: Cluster, key: str, value: str) -> None:
    with cluster.redis(cluster.leader()) as redis:
        assert redis.ask("SET", key, value) == "OK"


def get(cluster: Cluster, number: int, key: str) -> object:
    """What a replica answers; ``None`` while it takes no clients."""
    try:
        with cluster.redis(number) as redis:
            return redis.ask("GET", key)
    except OSError:
        return None


def test_logs_are_cut_and_replicas_come_back_from_checkpoints(cluster: Cluster) -> None:
    for _ in range(3):
        before = listed(cluster)
        fill(cluster, 16)
        wait_for(
            "a new checkpoint on every replica",
            lambda before=before: all(
                found and found[0] > max(before[number], default=0)
                for number, found in listed(cluster).items()
            ),
            60,
        )
    for number in (1, 2, 3):
        assert log_files(cluster, number)[0] != "log-00000001.seg"
        assert len(log_files(cluster, number)) <= 4
        assert len(listed(cluster)[number]) == 2
    assert cluster.crane("checkpoint", "verify").stdout.count("as it was made") == 6

    # One that is killed goes on from its own.
    follower = cluster.follower()
    cluster.kill(follower)
    put(cluster, "while", "it was down")
    cluster.restart(follower)
    cluster.must_settle()
    assert get(cluster, follower, "while") == "it was down"
    log = (replica(cluster, follower) / "node.log").read_text()
    assert "goes on from the checkpoint" in log

    # One whose newest is damaged goes on from the one before.
    cluster.kill(follower)
    newest = replica(cluster, follower) / "checkpoints" / f"{listed_of(cluster, follower)[0]:020}"
    with (newest / "segment").open("r+b") as file:
        file.write(b"\xff" * 4096)
    cluster.restart(follower)
    cluster.must_settle()
    assert "is damaged" in (replica(cluster, follower) / "node.log").read_text()

    # One that has none that is whole gets another replica's, although its log was cut.
    cluster.kill(follower)
    for one in (replica(cluster, follower) / "checkpoints").iterdir():
        if one.name.isdecimal():
            (one / "said").write_bytes(b"of another length")
    cluster.restart(follower)
    wait_for("its own program", lambda: get(cluster, follower, "while") == "it was down", 60)
    cluster.must_settle()
    assert "it needs a checkpoint" in (replica(cluster, follower) / "node.log").read_text()

    # One that lost its disk gets a checkpoint from another one.
    cluster.kill(follower)
    for name in ("log", "files", "checkpoints", "manifest"):
        path = replica(cluster, follower) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    put(cluster, "then", "its disk was lost")
    cluster.restart(follower)
    wait_for(
        "what was written since",
        lambda: get(cluster, follower, "then") == "its disk was lost",
        60,
    )
    cluster.must_settle()
    assert "copies a checkpoint of replica" in cluster.said()

    # All of them, as after a power cut.
    for number in (1, 2, 3):
        cluster.kill(number)
    for number in (1, 2, 3):
        cluster.restart(number)
    cluster.must_settle()
    assert get(cluster, cluster.leader(), "then") == "its disk was lost"

    # One that is added begins from a checkpoint: the log's beginning is gone.
    cluster.crane("member", "add", "--timeout", "80")
    assert get(cluster, 4, "then") == "its disk was lost"
    assert "it needs a checkpoint" in (replica(cluster, 4) / "node.log").read_text()
    cluster.size = 4
    cluster.must_settle()


def listed_of(cluster: Cluster, number: int) -> list[int]:
    found = cluster.crane("checkpoint", "list", "--json", "--state", str(cluster.state)).stdout
    rows = json.loads(found)["checkpoints"]
    return [one["index"] for one in rows if one["replica"] == number]


def test_a_user_takes_one_while_clients_are_served(cluster: Cluster) -> None:
    put(cluster, "a", "1")
    done = cluster.crane("checkpoint")
    assert "its program stood still for" in done.stdout
    leader = cluster.leader()
    refused = cluster.crane("checkpoint", "--replica", str(leader), good=False)
    assert refused.returncode == 1
    assert "this replica leads" in refused.stderr
    assert get(cluster, leader, "a") == "1"
    cluster.must_settle()


def test_an_exported_one_goes_on_in_another_cluster(cluster: Cluster, tmp_path: Path) -> None:
    put(cluster, "a", "1")
    follower = cluster.follower()
    cluster.crane("checkpoint", "--replica", str(follower))
    put(cluster, "b", "after it was taken")
    exported = tmp_path / "exported.tar"
    cluster.crane("checkpoint", "export", str(follower), str(exported))
    assert exported.stat().st_mode & 0o77 == 0
    cluster.stop()
    other = Cluster(cluster.command, cluster.port)
    try:
        made = other.crane("checkpoint", "import", str(exported), "--state", str(other.state))
        assert "holds a new cluster; start it with" in made.stdout
        again = other.crane(
            "checkpoint", "import", str(exported), "--state", str(other.state), good=False
        )
        assert again.returncode == 2
        assert "give another --state" in again.stderr
        other.start()
        other.must_settle()
        for number in (1, 2, 3):
            assert get(other, number, "a") == "1"
            assert get(other, number, "b") is None
        put(other, "c", "3")
        other.kill(other.follower())
        put(other, "d", "4")
    finally:
        other.close()


def test_a_damaged_export_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.crane("checkpoint")
    number = next(number for number, found in listed(cluster).items() if found)
    exported = tmp_path / "exported.tar"
    cluster.crane("checkpoint", "export", str(number), str(exported))
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    exported.write_bytes(content)
    done = cluster.crane(
        "checkpoint", "import", str(exported), "--state", str(tmp_path / "new"), good=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
