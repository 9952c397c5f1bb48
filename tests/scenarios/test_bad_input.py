"""What cannot work is said in one line, and touches nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import PYTHON, Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command


def run(cluster: Cluster, *words: str) -> tuple[int, str]:
    """``crane run`` that ends by itself: its exit code and its one line of error."""
    options = ["--name", cluster.name, "--state", str(cluster.state)]
    done = cluster.crane("run", *options, *words, good=False)
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("crane: error: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert cluster.remains() == []
    return done.returncode, errors[0]


@pytest.fixture
def nothing(clusters: Callable[..., Cluster]) -> Cluster:
    """A cluster that is never started: a place for ``crane run``."""
    return clusters([])


def test_a_program_that_is_not_there(nothing: Cluster) -> None:
    code, line = run(nothing, "--", "no-such-program")
    assert code == 127
    assert "`no-such-program` was not found in PATH" in line


def test_a_static_program(nothing: Cluster) -> None:
    code, line = run(nothing, "--", "/sbin/ldconfig", "-p")
    assert code == 126
    assert "statically linked" in line


def test_a_program_that_ends_at_once(nothing: Cluster) -> None:
    code, line = run(nothing, "--", "/bin/echo", "good-bye")
    assert code == 1
    assert "`echo` ended with exit status 0" in line
    assert "good-bye" in line


def test_a_program_that_refuses_its_arguments(nothing: Cluster) -> None:
    code, line = run(nothing, "--", "redis-server", "--no-such-option", "1")
    assert code == 1
    assert "`redis-server` ended with exit status 1 before it served clients" in line


def test_a_program_that_crashes(nothing: Cluster) -> None:
    code, line = run(nothing, "--", PYTHON, "-c", "import os; os.kill(os.getpid(), 11)")
    assert code == 128 + 11
    assert "SIGSEGV" in line


def test_an_unknown_flag(nothing: Cluster) -> None:
    code, line = run(nothing, "--replicsa", "3", "--", "redis-server")
    assert code == 2
    assert "--replicsa" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command = [", "is not valid TOML"),
        ("comand = ['redis-server']", "did you mean `command`?"),
        ("command = ['redis-server']\nreplicas = 'three'", "field `replicas`"),
        ("command = ['redis-server']\ndurability = 'tape'", "field `durability`"),
    ],
)
def test_a_wrong_configuration(nothing: Cluster, text: str, says: str) -> None:
    file = nothing.base / "crane.toml"
    file.write_text(text)
    code, line = run(nothing, "-f", str(file))
    assert code == 2
    assert str(file) in line
    assert says in line


def test_a_configuration_that_cannot_be_read(nothing: Cluster) -> None:
    code, line = run(nothing, "-f", str(nothing.base))
    assert code == 2
    assert str(nothing.base) in line


def test_a_port_in_use(nothing: Cluster) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.2", port)):
        code, line = run(nothing, "--", *redis_command(port))
    assert code == 1
    assert f"127.0.0.2:{port}" in line
    # Nothing is left that would keep the next start from working.
    nothing.command = redis_command(port)
    nothing.start()
    with nothing_redis(nothing, port) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"


def nothing_redis(_: Cluster, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.2", port), timeout=20)


def test_the_state_of_another_program(redis: Cluster) -> None:
    redis.stop()
    code, line = run(redis, "--", "redis-server", "--port", "1")
    assert code == 2
    assert "holds the state of `redis-server --port" in line
    assert "--state" in line


def test_the_log_of_another_cluster(redis: Cluster, clusters: Callable[..., Cluster]) -> None:
    """A replica's directory that was swapped for another cluster's is refused; others go on."""
    port = free_port()
    other = clusters(redis_command(port), port)
    other.start()
    assert other.stop() == 0
    with redis.redis(1) as client:
        assert client.ask("SET", "k", "v") == "OK"
    redis.kill(2)
    log = redis.state / "replicas" / "2" / "log"
    log.rename(log.with_name("own"))
    (other.state / "replicas" / "2" / "log").rename(log)
    refused = redis.crane("restart", "2", good=False)
    assert refused.returncode == 1
    assert "cluster" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    with redis.redis(1) as client:
        assert client.ask("GET", "k") == "v"
    log.rename(log.with_name("foreign"))
    log.with_name("own").rename(log)
    redis.restart(2)
    redis.wait_caught_up(2)
    redis.must_settle()


def fill(redis: Cluster, count: int = 300) -> None:
    with redis.redis(1) as client:
        for number in range(count):
            assert client.ask("SET", f"key-{number}", f"value-{number}") == "OK"


def check(redis: Cluster, replica: int, count: int = 300) -> None:
    with redis.redis(replica) as client:
        for number in range(count):
            assert client.ask("GET", f"key-{number}") == f"value-{number}"


def segment(redis: Cluster, replica: int) -> tuple[Path, int]:
    """A replica's newest log file, and how many of its bytes are written."""
    path = max((redis.state / "replicas" / str(replica) / "log").glob("log-*.seg"))
    return path, len(path.read_bytes().rstrip(b"\0"))


@pytest.mark.parametrize("led", [False, True], ids=["follower", "leader"])
def test_a_torn_write_at_the_end_of_the_log_is_cut_off(redis: Cluster, led: bool) -> None:
    """What a loss of power leaves of a write that nobody was told of."""
    victim = redis.leader() if led else redis.follower()
    fill(redis)
    redis.kill(victim)
    path, written = segment(redis, victim)
    with path.open("r+b") as file:
        whole = file.read(written)
        # Records start at multiples of eight; the rest of this one never came.
        file.seek(-(-written // 8) * 8)
        file.write(whole[64:113])
    redis.restart(victim)
    redis.wait_caught_up(victim)
    for replica in (1, 2, 3):
        check(redis, replica)
    redis.must_settle()


@pytest.mark.parametrize("led", [False, True], ids=["follower", "leader"])
@pytest.mark.parametrize("cut", [3, 40, 400])
def test_a_log_that_lost_its_end_gets_it_from_the_others(
    redis: Cluster, led: bool, cut: int
) -> None:
    """More than a loss of power does: what this replica had confirmed is gone."""
    victim = redis.leader() if led else redis.follower()
    fill(redis)
    redis.kill(victim)
    redis.leader()
    path, written = segment(redis, victim)
    os.truncate(path, written - cut)
    redis.restart(victim)
    redis.wait_caught_up(victim)
    for replica in (1, 2, 3):
        check(redis, replica)
    redis.must_settle()


def test_a_corrupted_log_is_refused_and_the_others_go_on(redis: Cluster) -> None:
    victim = redis.leader()
    fill(redis)
    redis.kill(victim)
    path, written = segment(redis, victim)
    with path.open("r+b") as file:
        file.seek(written // 2)
        byte = file.read(1)[0]
        file.seek(written // 2)
        file.write(bytes([byte ^ 0x40]))
    refused = redis.crane("restart", str(victim), good=False)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert str(path) in line
    assert "is damaged at byte" in line
    assert "remove" in line
    others = [number for number in (1, 2, 3) if number != victim]
    for replica in others:
        check(redis, replica)
    # Doing what the message says brings it back.
    directory = redis.state / "replicas" / str(victim)
    for one in (directory / "log").iterdir():
        one.unlink()
    redis.restart(victim)
    redis.wait_caught_up(victim)
    check(redis, victim)
    redis.must_settle()


def test_a_cluster_that_runs_already(redis: Cluster) -> None:
    done = redis.crane(
        "run", "--name", redis.name, "--state", str(redis.base / "other"), "--", "sleep", "1",
        good=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"a cluster `{redis.name}` runs already" in done.stderr
    done = redis.crane(
        "run", "--name", "other", "--state", str(redis.state), "--", "sleep", "1", good=False
    )
    assert done.returncode == 1
    assert "another `crane run` uses the state" in done.stderr


def test_a_program_that_ends_later_ends_the_run(clusters: Callable[..., Cluster]) -> None:
    port = free_port()
    cluster = clusters(redis_command(port), port)
    cluster.start()
    with cluster.redis(2) as client:
        client.send("SHUTDOWN", "NOSAVE")
    assert cluster.process is not None
    wait_for("the end of the run", lambda: cluster.process and cluster.process.poll() is not None)
    assert cluster.process.returncode != 0
    last = cluster.said().splitlines()[-1]
    assert "`redis-server` ended with exit status 0" in last


def test_the_node_command_alone_refuses_nonsense(nothing: Cluster) -> None:
    file = nothing.base / "node.toml"
    file.write_text("id = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "crane", "node", "--config", str(file)],
        env=nothing.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "is missing; add it" in done.stderr
