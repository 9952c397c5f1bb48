"""A program that crashes by its own bug, on every replica: it begins anew, or all stops."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.checkpoint import criu

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
    words = [str(program), WORDS, "/dev/null", str(port)]
    cluster = clusters(words, port, options=options)
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
    assert "without what it kept in memory" not in cluster.said()
    told = "`crashing` crashed on every replica (killed by SIGSEGV) and begins anew in 0.1 s"
    assert told in cluster.said()
    assert ask(cluster, asked, "remember") == (2, 0, 1000)
    assert ask(cluster, asked, "crash") is None
    assert ask_again(cluster, asked, "look") == (2, 0, 1000)
    lost = "`crashing` begins anew without what it kept in memory: /dev/shm/memory"
    assert lost in cluster.said()
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


@pytest.fixture
def traitors(tmp_path: Path) -> Path:
    """A file of the machine: the replicas on which `betray` crashes the program."""
    made = tmp_path / "traitors"
    made.write_text("0\n")
    return made


def start_with(
    clusters: Callable[..., Cluster], program: Path, traitors: Path, *options: str
) -> Cluster:
    port = free_port()
    words = [str(program), WORDS, str(traitors), str(port)]
    cluster = clusters(words, port, options=["--share", str(traitors), *options])
    cluster.start()
    return cluster


def test_a_leader_that_lives_on_after_the_others_crashed_follows_them(
    clusters: Callable[..., Cluster], program: Path, traitors: Path
) -> None:
    cluster = start_with(clusters, program, traitors)
    assert ask(cluster, 1, "add one") == (1, 1, 1000)
    leader = cluster.leader()
    traitors.write_text("".join(str(number) for number in REPLICAS if number != leader))
    other = cluster.follower()
    assert ask(cluster, leader, "betray") == (1, 1, 1000)
    for number in REPLICAS:
        if number != leader:
            wait_for("its crash", lambda n=number: "killed by SIGSEGV" in node_log(cluster, n))
    # What it does again is what the majority did.
    traitors.write_text("123")
    assert ask_again(cluster, other, "look") == (1, 0, 1000)
    # Found by what it says in an epoch that the others do not have, or by not ending.
    wrong = (f"replica {leader} diverged from", "does not end where the others' did")
    wait_for(
        "what became of the leader",
        lambda: any(line in cluster.said() for line in wrong),
        40,
    )
    cluster.must_settle()
    assert ask_again(cluster, leader, "add two") == (2, 1, 1000)
    cluster.must_settle()


def test_one_that_crashes_alone_begins_anew(
    clusters: Callable[..., Cluster], program: Path, traitors: Path
) -> None:
    cluster = start_with(clusters, program, traitors)
    assert ask(cluster, 1, "add one") == (1, 1, 1000)
    follower = cluster.follower()
    traitors.write_text(str(follower))
    assert ask(cluster, cluster.leader(), "betray") == (1, 1, 1000)
    wait_for("its crash", lambda: "killed by SIGSEGV" in node_log(cluster, follower))
    traitors.write_text("0")
    # Found by its end, or by what the others did in that epoch.
    wrong = ("ended here alone", f"replica {follower} diverged from")
    wait_for("what follows", lambda: any(line in cluster.said() for line in wrong), 40)
    assert ask(cluster, cluster.leader(), "add two") == (2, 2, 1000)
    cluster.must_settle()
    assert ask_again(cluster, follower, "look") == (2, 2, 1000)


@pytest.mark.skipif(criu.why_not() is not None, reason=str(criu.why_not()))
@pytest.mark.timeout(240)
def test_crashes_and_checkpoints(
    clusters: Callable[..., Cluster], program: Path, traitors: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "crane.toml"
    settings.write_text("[checkpoints]\ninterval = 0\nlog_mib = 0\n")
    cluster = start_with(clusters, program, traitors, "-f", str(settings))
    asked = cluster.leader()
    one, two = (number for number in REPLICAS if number != asked)
    assert ask(cluster, asked, "add one") == (1, 1, 1000)
    cluster.crane("checkpoint", "--replica", str(one))
    assert ask(cluster, asked, "add two") == (2, 2, 1000)
    assert ask(cluster, asked, "crash") is None
    assert ask_again(cluster, asked, "add three") == (3, 1, 1000)
    # From a checkpoint before the crash, through it.
    cluster.kill(one)
    cluster.restart(one)
    cluster.must_settle()
    assert "the program goes on from the checkpoint" in node_log(cluster, one)
    assert ask_again(cluster, one, "look") == (3, 1, 1000)
    no_table(cluster, one)
    # From one after the crash, and through another one.
    lead(cluster, asked)
    cluster.crane("checkpoint", "--replica", str(two))
    assert ask(cluster, asked, "add four") == (4, 2, 1000)
    assert ask(cluster, asked, "crash") is None
    assert ask_again(cluster, asked, "add five") == (5, 1, 1000)
    cluster.kill(two)
    assert ask(cluster, asked, "add six") == (6, 2, 1000)
    cluster.restart(two)
    cluster.must_settle()
    assert "the program goes on from the checkpoint" in node_log(cluster, two)
    assert ask_again(cluster, two, "look") == (6, 2, 1000)
    # One that was restored crashes alone: from its checkpoint again, through both crashes.
    before = node_log(cluster, one).count("killed by SIG")
    traitors.write_text(str(one))
    assert ask_again(cluster, asked, "betray") == (6, 2, 1000)
    wait_for("its crash", lambda: node_log(cluster, one).count("killed by SIG") > before)
    traitors.write_text("0")
    wait_for("its new start", lambda: node_log(cluster, one).count("goes on from the che") == 2, 40)
    cluster.must_settle()
    assert ask_again(cluster, one, "add seven") == (7, 3, 1000)
    # One without a disk gets the checkpoint and what follows of another one.
    cluster.kill(one)
    for name in ("log", "files", "checkpoints", "manifest"):
        path = cluster.state / "replicas" / str(one) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cluster.restart(one)
    cluster.must_settle()
    # After a crash and a new start, another checkpoint; all of them, as after a power cut.
    assert ask(cluster, asked, "crash") is None
    assert ask_again(cluster, asked, "add eight") == (8, 1, 1000)
    lead(cluster, asked)
    cluster.crane("checkpoint", "--replica", str(one))
    for number in REPLICAS:
        cluster.kill(number)
    for number in REPLICAS:
        cluster.restart(number)
    cluster.must_settle()
    for number in REPLICAS:
        assert ask_again(cluster, number, "look") == (8, 1, 1000)


def lead(cluster: Cluster, number: int) -> None:
    """Checkpoints are taken on those that do not lead."""
    cluster.crane("transfer", str(number))
    wait_for("the change of leaders", lambda: cluster.leader() == number)


def node_log(cluster: Cluster, number: int) -> str:
    return (cluster.state / "replicas" / str(number) / "node.log").read_text()


def no_table(cluster: Cluster, number: int) -> None:
    """The program does not see what told its interposer the kernel's numbers of files."""
    cluster_id = json.loads((cluster.state / "cluster.json").read_text())["cluster_id"]
    inside = Path(f"/dev/shm/crane-{cluster_id[:12]}-{number}/inside")
    assert (inside / "seg").exists()
    wait_for("the table to go", lambda: not (inside / "files").exists())
