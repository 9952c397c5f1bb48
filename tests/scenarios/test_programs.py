"""Python's own web server and the notes example on three replicas."""

from __future__ import annotations

import http.client
import json
import sqlite3
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from scenario import EXAMPLES, PYTHON, Cluster, wait_for

from crane.chaos.cluster import free_port

EVERY = (1, 2, 3)


def curl(cluster: Cluster, replica: int, path: str, *words: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "-m", "30", *words, f"http://127.0.0.{replica}:{cluster.port}{path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def files(clusters: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    """``python3 -m http.server`` in a directory with some files."""
    (tmp_path / "hello.txt").write_text("hello\n")
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 8_000)
    (tmp_path / "folder").mkdir()
    port = free_port()
    command = [PYTHON, "-m", "http.server", str(port)]
    cluster = clusters(command, port, cwd=tmp_path)
    cluster.start()
    return cluster


def test_the_web_server(files: Cluster, tmp_path: Path) -> None:
    listings = {curl(files, replica, "/") for replica in EVERY}
    assert len(listings) == 1
    assert "hello.txt" in listings.pop()
    for replica in EVERY:
        assert curl(files, replica, "/hello.txt") == "hello\n"
        assert "404" in curl(files, replica, "/missing", "-o", "/dev/null", "-w", "%{http_code}")
        with urllib.request.urlopen(
            f"http://127.0.0.{replica}:{files.port}/large.bin", timeout=30
        ) as answer:
            assert answer.read() == (tmp_path / "large.bin").read_bytes()
    headers = curl(files, 2, "/hello.txt", "-I")
    assert "Date: " in headers
    assert "Last-Modified: " in headers
    files.must_settle()


def test_the_web_server_goes_on_without_its_leader(files: Cluster) -> None:
    assert curl(files, 1, "/hello.txt") == "hello\n"
    leader = files.leader()
    files.kill(leader)
    for replica in EVERY:
        if replica != leader:
            assert curl(files, replica, "/hello.txt") == "hello\n"
    files.restart(leader)
    files.wait_caught_up(leader)
    assert curl(files, leader, "/hello.txt") == "hello\n"
    files.must_settle()


@pytest.fixture
def notes(clusters: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    """The notes example, in a directory of its own."""
    port = free_port()
    command = [PYTHON, str(EXAMPLES / "notes" / "notes.py"), "--port", str(port)]
    cluster = clusters(command, port, cwd=tmp_path)
    cluster.start()
    return cluster


def post(cluster: Cluster, replica: int, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(curl(cluster, replica, "/notes", "-d", text))
    assert answer["text"] == text
    return answer


def listed(cluster: Cluster, replica: int) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(curl(cluster, replica, "/notes"))
    return answer


def test_notes_have_the_same_ids_and_times_everywhere(notes: Cluster, tmp_path: Path) -> None:
    made = [post(notes, 1 + number % 3, f"note {number}") for number in range(30)]
    assert len({note["id"] for note in made}) == 30
    assert [note["time"] for note in made] == sorted(note["time"] for note in made)
    for replica in EVERY:
        assert listed(notes, replica) == made
        assert json.loads(curl(notes, replica, f"/notes/{made[7]['id']}")) == made[7]
        assert "there is no" in curl(notes, replica, "/notes/nothing")
    notes.must_settle()
    # The replicas have a database each, and the user's directory has none.
    assert list(tmp_path.iterdir()) == []
    databases = sorted(notes.state.glob("replicas/*/files/**/notes.db"))
    owners = {path.relative_to(notes.state).parts[1] for path in databases}
    assert owners == {"1", "2", "3"}


def test_notes_written_at_once(notes: Cluster) -> None:
    made: list[dict[str, Any]] = []

    def write(replica: int, who: int) -> None:
        made.extend(post(notes, replica, f"{who}: {number}") for number in range(15))

    threads = [threading.Thread(target=write, args=(1 + who % 3, who)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = listed(notes, 1)
    assert listed(notes, 2) == listed(notes, 3) == first
    assert sorted(note["id"] for note in first) == sorted(note["id"] for note in made)
    assert len(first) == 90
    notes.must_settle()


def test_notes_written_while_the_leader_dies(notes: Cluster) -> None:
    """Clients go on through the next replica when theirs dies, as a browser would."""
    confirmed: dict[str, str] = {}
    stop = threading.Event()

    def write(who: int) -> None:
        replica, count = 1 + who % 3, 0
        while not stop.is_set():
            client = http.client.HTTPConnection(f"127.0.0.{replica}", notes.port, timeout=30)
            with closing(client), suppress(OSError, http.client.HTTPException):
                while not stop.is_set():
                    count += 1
                    text = f"{who}: {count}"
                    client.request("POST", "/notes", text)
                    answer = json.load(client.getresponse())
                    assert answer["text"] == text
                    confirmed[text] = answer["id"]
                    stop.wait(0.01)
            replica = 1 + replica % 3

    threads = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_for("some notes", lambda: len(confirmed) > 60)
        leader = notes.leader()
        notes.kill(leader)
        count = len(confirmed)
        wait_for("more notes", lambda: len(confirmed) > count + 60)
        notes.restart(leader)
        notes.wait_caught_up(leader)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    first = listed(notes, 1)
    assert listed(notes, 2) == listed(notes, 3) == first
    kept = {note["text"]: note["id"] for note in first}
    assert {text: kept.get(text) for text in confirmed} == confirmed
    # A note without an answer is there once or not at all.
    assert len(kept) == len(first)
    notes.must_settle()


def test_notes_survive_the_leader_and_it_catches_up(notes: Cluster) -> None:
    made = [post(notes, 1 + number % 3, f"before {number}") for number in range(10)]
    leader = notes.leader()
    notes.kill(leader)
    living = [replica for replica in EVERY if replica != leader]
    made += [post(notes, living[number % 2], f"without {number}") for number in range(10)]
    notes.restart(leader)
    notes.wait_caught_up(leader)
    made += [post(notes, leader, f"after {number}") for number in range(5)]
    for replica in EVERY:
        assert listed(notes, replica) == made
    notes.must_settle()
    # The database on the restarted replica was made anew from the log.
    (database,) = notes.state.glob(f"replicas/{leader}/files/**/notes.db")
    with sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True) as connection:
        ids = [one for (one,) in connection.execute("SELECT id FROM notes ORDER BY rowid")]
    connection.close()
    assert ids == [note["id"] for note in made]
