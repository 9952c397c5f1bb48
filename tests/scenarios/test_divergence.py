"""A replica whose program sees something unvirtualised: found, named, outvoted."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import free_port

REPLICAS = (1, 2, 3)
Connect = Callable[[Cluster, int], "Client"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    place = tmp_path_factory.mktemp("program") / "diverging"
    source = Path(__file__).parent / "programs" / "diverging.c"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(place), str(source), "-lpthread"], check=True
    )
    return place


class Client:
    """A client that checks every answer."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._connection = socket.create_connection((f"127.0.0.{number}", cluster.port), timeout=20)

    def ask(self, words: str) -> int | None:
        """The answer; ``None`` when the connection ended instead."""
        answer = b""
        try:
            self._connection.sendall(words.encode() + b"\n")
            while not answer.endswith(b"\n"):
                more = self._connection.recv(100)
                if not more:
                    return None
                answer += more
        except (ConnectionError, BrokenPipeError):
            return None
        return int(answer)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients that end with the test."""
    made: list[Client] = []

    def make(cluster: Cluster, number: int) -> Client:
        made.append(Client(cluster, number))
        return made[-1]

    yield make
    for one in made:
        one.close()


def start(clusters: Callable[..., Cluster], program: Path, *options: str) -> Cluster:
    port = free_port()
    shared = program.with_name("shared")
    shared.write_text("0\n")
    options = (*options, "--share", str(shared))
    cluster = clusters([str(program), str(shared), str(port)], port, options=options)
    cluster.start()
    return cluster


def wait_told(cluster: Cluster, what: str) -> str:
    """The line of ``crane run`` that holds ``what``."""
    wait_for(f"`{what}`", lambda: what in cluster.said())
    return next(line for line in cluster.said().splitlines() if what in line)


def evidence(cluster: Cluster, number: int, epoch: int) -> Path:
    place = cluster.state / "replicas" / str(number) / f"diverged-{epoch}"
    wait_for("the evidence", (place / "status.json").exists)
    return place


def test_another_answer_is_found_with_its_operation_and_outvoted(
    clusters: Callable[..., Cluster], program: Path, connect: Connect
) -> None:
    cluster = start(clusters, program)
    wrong = cluster.follower()
    right = [number for number in REPLICAS if number != wrong]
    clients = {number: connect(cluster, number) for number in REPLICAS}
    assert [clients[number].ask("add 7") for number in REPLICAS] == [7, 14, 21]
    begin = time.monotonic()
    assert clients[right[0]].ask(f"lie {wrong}") == 21
    line = wait_told(cluster, "diverged from")
    assert time.monotonic() - begin < 1.0 + 0.5  # the half is for looking
    found = re.search(
        rf"replica {wrong} diverged from replicas {right[0]} and {right[1]} in epoch (\d+): thread"
        rf" \d+ sent other bytes to connection {right[0]}\.\d+\.\d+ \(a client of replica"
        rf" {right[0]}\) in its Write at clock \d+",
        line,
    ) or re.search(rf"replica {wrong} diverged from the majority in epoch (\d+): thread", line)
    assert found, line
    # Its clients go elsewhere; those of the others see nothing of it.
    assert clients[wrong].ask("add 1") is None
    assert [clients[number].ask("add 1") for number in right] in ([22, 23], [23, 24])
    place = evidence(cluster, wrong, int(found[1]))
    difference = json.loads((place / "difference.json").read_text())
    assert difference["others"] == right
    marked = [
        next(
            one for one in (place / f"operations-{side}.txt").read_text().splitlines() if ">" in one
        )
        for side in ("ours", "theirs")
    ]
    assert marked[0] == marked[1]
    assert "Write" in marked[0]
    assert (place / "output-ours.txt").read_text() != (place / "output-theirs.txt").read_text()


def test_one_that_was_wrong_once_begins_anew_by_itself(
    clusters: Callable[..., Cluster], program: Path, connect: Connect
) -> None:
    cluster = start(clusters, program)
    wrong = cluster.follower()
    other = next(number for number in REPLICAS if number != wrong)
    client = connect(cluster, other)
    assert client.ask("add 7") == 7
    shared = program.with_name("shared")
    shared.write_text(f"{wrong}\n")
    assert client.ask("look") == 7
    wait_told(cluster, "diverged from")
    shared.write_text("0\n")
    cluster.must_settle()
    cluster.wait_whole()
    assert client.ask("add 1") == 8
    assert connect(cluster, wrong).ask("add 1") == 9
    # A program that is wrong again and again is not started for ever.
    assert client.ask(f"lie {wrong}") == 9
    wait_for(
        "the end of one that stays wrong", lambda: f"replica {wrong} is down" in cluster.said()
    )
    assert "results than the majority's 4 times" in cluster.said()
    assert client.ask("add 1") == 10


def test_another_operation_of_the_leader_is_found(
    clusters: Callable[..., Cluster], program: Path, connect: Connect
) -> None:
    cluster = start(clusters, program)
    wrong = cluster.leader()
    right = [number for number in REPLICAS if number != wrong]
    client = connect(cluster, right[0])
    assert client.ask("add 7") == 7
    assert client.ask(f"stray {wrong}") == 7
    line = wait_told(cluster, " diverged from")
    assert re.search(r"at clock \d+ thread \d+ does MutexTryLock", line), line
    assert client.ask("add 1") == 8
    assert cluster.leader() != wrong


def test_without_a_majority_nobody_is_served(
    clusters: Callable[..., Cluster], program: Path, connect: Connect
) -> None:
    cluster = start(clusters, program)
    client = connect(cluster, 1)
    client.ask("chance")
    line = wait_told(cluster, "no majority says who is right")
    assert re.search(r"replicas \d and \d differ from epoch \d+ on: thread \d+ sent other", line)
    assert "crane verify --log" in line
    assert client.ask("add 1") is None
    wait_for("all closed", lambda: not any(row["healthy"] for row in cluster.rows()))
    for row in cluster.rows():
        assert "differ from epoch" in row["reason"]
        with pytest.raises(ConnectionError):
            connect(cluster, row["id"])


def test_with_votes_no_wrong_answer_reaches_a_client(
    clusters: Callable[..., Cluster], program: Path, connect: Connect
) -> None:
    cluster = start(clusters, program, "--vote")
    clients = {number: connect(cluster, number) for number in REPLICAS}
    total = 0
    for _ in range(30):
        for number in REPLICAS:
            total += number
            assert clients[number].ask(f"add {number}") == total
    wrong = cluster.leader()
    # It is asked for the first answer that is wrong, and never gives it.
    assert clients[wrong].ask(f"lie {wrong}") is None
    wait_told(cluster, " diverged from")
    for number in REPLICAS:
        if number != wrong:
            total += 1
            assert clients[number].ask("add 1") == total
