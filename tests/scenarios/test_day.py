"""A day's writes in a few minutes: the log is cut behind checkpoints, so disks do not fill.

A small part of a day by default; ``CRANE_LIMITS=full`` (``make limits``) writes all of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane.chaos.cluster import connect, free_port
from crane.chaos.resp import request
from crane.checkpoint import criu
from crane.checkpoint.store import Store

FULL = os.environ.get("CRANE_LIMITS") == "full"
WRITES = 24 * 60 * 60 * 50 if FULL else 120_000
LOG_MIB = 64 if FULL else 4
KEYS = 10_000
VALUE = "v" * 1000
BATCH = 200
MIB = 1 << 20
SEGMENT = 16 * MIB
LATE_SECONDS = 10
HOSTS = [f"127.0.0.{number}" for number in (1, 2, 3)]

pytestmark = [
    pytest.mark.skipif(criu.why_not() is not None, reason=str(criu.why_not())),
    pytest.mark.timeout(3600 if FULL else 240),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = tmp_path / "crane.toml"
    settings.write_text(f"[checkpoints]\ninterval = 0\nlog_mib = {LOG_MIB}\n")
    port = free_port(HOSTS)
    words = ["redis-server", "--port", str(port), "--save", ""]
    made = Cluster(words, port, options=["-f", str(settings)])
    try:
        made.start()
        yield made
    finally:
        made.close()


@dataclass
class Disks:
    """Looks at the replicas' disks all the while."""

    places: dict[int, Path]
    used: dict[int, list[int]] = field(default_factory=dict)
    taken: dict[int, set[int]] = field(default_factory=dict)
    biggest: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for number, place in self.places.items():
                self.used.setdefault(number, []).append(used(place))
                for one in Store(place).all():
                    self.taken.setdefault(number, set()).add(one.index)
                    self.biggest = max(self.biggest, one.manifest.bytes)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def used(place: Path) -> int:
    """Bytes of disk below a directory of which files come and go."""
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118
            except FileNotFoundError:
                continue
    return total


def write(cluster: Cluster, count: int) -> int:
    """So many writes, a batch at a time; the bytes of them."""
    sent = 0
    with connect((HOSTS[cluster.leader() - 1], cluster.port), 60.0) as client:
        for begin in range(0, count, BATCH):
            batch = b"".join(
                request("SET", f"key:{number % KEYS}", f"{number}:{VALUE}")
                for number in range(begin, begin + BATCH)
            )
            client.sendall(batch)
            sent += len(batch)
            wanted, answers = b"+OK\r\n" * BATCH, b""
            while len(answers) < len(wanted):
                answers += (got := client.recv(1 << 16))
                assert got
            assert answers == wanted
    return sent


def test_a_day_of_writes_does_not_fill_the_disks(cluster: Cluster) -> None:
    replicas = cluster.state / "replicas"
    disks = Disks({number: replicas / str(number) for number in (1, 2, 3)})
    began = time.monotonic()
    try:
        sent = write(cluster, WRITES)
        seconds = time.monotonic() - began
        wait_for("a checkpoint everywhere", lambda: len(disks.taken) == 3, 60)
    finally:
        disks.stop()
    # What is kept goes back to the older of two checkpoints, each of which is taken when
    # the log is longer than the setting, as far as replicas take turns, or a busy machine
    # is late; files are cut as a whole.
    late = 2 * LATE_SECONDS * sent / seconds
    bound = 2 * 2 * LOG_MIB * MIB + late + 3 * SEGMENT + 3 * disks.biggest
    peaks = {number: max(found) for number, found in disks.used.items()}
    taken = {number: len(found) for number, found in disks.taken.items()}
    sys.stdout.write(
        f"\n{WRITES:,} writes of {sent / MIB:,.0f} MiB in {seconds:.0f} s: each replica's disk"
        f" held at most {max(peaks.values()) / MIB:.0f} MiB, checkpoints of at most"
        f" {disks.biggest / MIB:.0f} MiB were taken or copied"
        f" {', '.join(str(taken[number]) for number in sorted(taken))} times\n"
    )
    assert all(count >= (4 if FULL else 1) for count in taken.values())
    assert max(peaks.values()) < bound
    cluster.must_settle()
    # What is left is enough to begin again after a loss of power everywhere.
    for number in (1, 2, 3):
        cluster.kill(number)
    for number in (1, 2, 3):
        cluster.restart(number)
    cluster.must_settle()
    with cluster.redis(cluster.leader()) as redis:
        assert redis.ask("DBSIZE") == KEYS
        last = WRITES - 1
        assert redis.ask("GET", f"key:{last % KEYS}") == f"{last}:{VALUE}"
