"""A program that makes no progress: the user is told which thread it is, and where."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane import procfs
from crane.chaos.cluster import free_port


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    place = tmp_path_factory.mktemp("program") / "spinner"
    source = Path(__file__).parent / "programs" / "spinner.c"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(place), str(source), "-lpthread"], check=True
    )
    return place


@pytest.fixture
def spinner(clusters: Callable[..., Cluster], program: Path) -> Cluster:
    port = free_port()
    cluster = clusters([str(program), str(port)], port)
    cluster.start()
    return cluster


@contextmanager
def client(cluster: Cluster, number: int) -> Iterator[Callable[[str], None]]:
    with socket.create_connection((f"127.0.0.{number}", cluster.port), timeout=20) as connection:

        def say(word: str) -> None:
            connection.sendall(word.encode() + b"\n")

        yield say


def test_a_thread_that_keeps_the_turn_is_named_with_its_place(spinner: Cluster) -> None:
    with client(spinner, 2) as say:
        say("compute")
        wait_for("every replica's noticing", lambda: not any(r["healthy"] for r in spinner.rows()))
        for row in spinner.rows():
            assert "has the turn and runs code of its own without an operation" in row["reason"]
            assert "its last operation was Read" in row["reason"]
            assert "`spinner`" in row["reason"]
            assert "(count_for_ever" in row["stack"][0]
            assert any("(serve+" in place for place in row["stack"])
        threads = spinner.crane("status", "--threads").stdout
        assert threads.count("running") == 3
        assert "Accept" in threads
        assert "no progress for 2 s: thread" in spinner.said()


def test_a_thread_that_spins_on_memory_lets_the_others_run(spinner: Cluster) -> None:
    with (
        socket.create_connection(("127.0.0.2", spinner.port), timeout=20) as spins,
        socket.create_connection(("127.0.0.3", spinner.port), timeout=20) as sets,
    ):
        spins.sendall(b"spin\n")
        for _ in range(5):
            sets.sendall(b"ping\n")
            assert sets.recv(9) == b"pong\n"
        wait_for(
            "the thread's resting",
            lambda: spinner.crane("status", "--threads").stdout.count("spinning") == 3,
        )
        sets.sendall(b"set\n")
        assert sets.recv(9) == b"set\n"
        assert spins.recv(9) == b"seen\n"
    spinner.must_settle()


def test_others_go_on_while_a_thread_syncs_a_file(
    clusters: Callable[..., Cluster], program: Path
) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
        command = [str(program), f"{shared}/file", str(port)]
        cluster = clusters(command, port, options=["--share", f"{shared}:rw"])
        cluster.start()
        living = cluster.follower()
        with (
            socket.create_connection((f"127.0.0.{living}", port), timeout=20) as syncs,
            socket.create_connection((f"127.0.0.{living}", port), timeout=20) as asks,
        ):
            for turn in range(4):
                syncs.sendall(b"sync\n")
                if turn == 3:
                    # Whoever leads next says where the call comes back.
                    cluster.kill(cluster.leader())
                for _ in range(3):
                    asks.sendall(b"ping\n")
                    assert asks.recv(9) == b"pong\n"
                assert syncs.recv(9) == b"synced\n"
        threads = cluster.crane("status", "--threads").stdout
        assert "Sync" not in threads
        wait_for(
            "the same on both replicas",
            lambda: all(row["agrees"] for row in cluster.rows() if row["state"] == "running"),
        )


def test_a_process_killed_with_the_turn_ends_its_replica(spinner: Cluster) -> None:
    with client(spinner, 2) as say:
        say("fork")
        wait_for("the child's spinning", lambda: "stuck" in _states(spinner, 3))
        server = next(row["server_pid"] for row in spinner.rows() if row["id"] == 3)
        (child,) = procfs.descendants(server, procfs.all_processes())
        os.kill(child.pid, signal.SIGKILL)
        wait_for("the replica's end", lambda: "down" in _states(spinner, 3))
        wait_for("the message", lambda: "replica 3 is down" in spinner.said())
        assert "was ended from outside" in spinner.said() + spinner.crane("logs", "3").stdout


def _states(cluster: Cluster, number: int) -> set[str]:
    row = next(one for one in cluster.rows() if one["id"] == number)
    return {row["state"]} | ({"stuck"} if row["stack"] else set())
