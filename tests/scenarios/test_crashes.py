"""A program that crashes by its own bug, on every replica: it begins anew, or all stops."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import free_port

REPLICAS = (1, 2, 3)
WORDS = "/var/crashing-words"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    place = tmp_path_factory.mktemp("program") / "crashing"
    source = Path(__file__).parent / "programs" / "crashing.c"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(place), str(source), "-lpthread"], check=True
    )
    return place


def start(clusters: Callable[..., Cluster], program: Path, *options: str) -> Cluster:
    port = free_port()
    cluster = clusters([str(program), WORDS, str(port)], port, options=options)
    cluster.start()
    return cluster


def ask(cluster: Cluster, number: int, line: str) -> tuple[int, ...] | None:
    """What a replica answers: words in the file, words added, pid; ``None``: nothing."""
    answer = b""
    try:
        with socket.create_connection((f"127.0.0.{number}", cluster.port), timeout=20) as client:
            client.sendall(line.encode() + b"\n")
            while not answer.endswith(b"\n"):
                more = client.recv(100)
                if not more:
                    return None
                answer += more
    except ConnectionError:
        return None
    return tuple(int(word) for word in answer.split())


def ask_again(cluster: Cluster, number: int, line: str) -> tuple[int, ...]:
    """As a client that connects until it is answered."""
    found: list[tuple[int, ...]] = []

    def answered() -> bool:
        got = ask(cluster, number, line)
        if got is not None:
            found.append(got)
        return got is not None

    wait_for(f"replica {number}'s answer", answered, 30)
    return found[0]


def test_a_crash_on_every_replica_is_followed_by_a_new_start(
    clusters: Callable[..., Cluster], program: Path
) -> None:
    cluster = start(clusters, program)
    assert ask(cluster, 1, "add one") == (1, 1, 1000)
    assert ask(cluster, 2, "add two") == (2, 2, 1000)
    before = cluster.follower()
    cluster.kill(before)
    asked = next(number for number in REPLICAS if number != before)
    assert ask(cluster, asked, "crash") is None
    # The file is as the crash left it; memory and pids begin anew.
    assert ask_again(cluster, asked, "look") == (2, 0, 1000)
    told = "`crashing` crashed on every replica (killed by SIGSEGV) and begins anew in 0.1 s"
    assert told in cluster.said()
    # One that was down meanwhile crashes and begins anew in its replay.
    cluster.restart(before)
    cluster.must_settle()
    assert ask_again(cluster, before, "add three") == (3, 1, 1000)
    assert ask(cluster, asked, "abort") is None
    for number in REPLICAS:
        assert ask_again(cluster, number, "look") == (3, 0, 1000)
    assert ask(cluster, asked, "leave 7") is None
    assert ask_again(cluster, asked, "add four") == (4, 1, 1000)
    # One that lost its place in the middle does all of it again.
    after = cluster.follower()
    cluster.kill(after)
    assert ask_again(cluster, cluster.leader(), "add five") == (5, 2, 1000)
    cluster.restart(after)
    cluster.must_settle()
    assert ask_again(cluster, after, "look") == (5, 2, 1000)


def test_with_stop_the_place_in_the_log_is_told(
    clusters: Callable[..., Cluster], program: Path
) -> None:
    cluster = start(clusters, program, "--on-crash", "stop")
    assert ask(cluster, 1, "add one") == (1, 1, 1000)
    assert ask(cluster, 2, "crash") is None
    assert cluster.process is not None
    assert cluster.process.wait(30) == 139
    found = re.search(r"killed by SIGSEGV.* after epoch (\d+) of the log", cluster.said())
    assert found, cluster.said()
    assert int(found[1]) > 1
    assert "crane verify --log" in cluster.said()
    # It replays into the crash, where nobody has said yet what follows.
    cluster.change("--on-crash", "restart")
    cluster.start()
    assert ask_again(cluster, 3, "add two") == (2, 1, 1000)


def test_an_orderly_end_ends_the_cluster(clusters: Callable[..., Cluster], program: Path) -> None:
    cluster = start(clusters, program)
    assert ask(cluster, 1, "leave 0") is None
    assert cluster.process is not None
    assert cluster.process.wait(30) == 1
    assert "ended with exit status 0" in cluster.said()
