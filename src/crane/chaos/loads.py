"""What asks a program while faults are made, and what it says of the answers.

Three kinds: a command of the user's own; for a program that understands Redis'
lists, writes of which every one is found again; and for one that speaks HTTP or
lines of text, requests whose answers the log is the witness of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from crane.chaos import witness
from crane.chaos.failover import read_list
from crane.chaos.journal import examine
from crane.chaos.load import Load
from crane.chaos.resp import Redis, request
from crane.chaos.traffic import Traffic, protocol_of
from crane.chaos.watched import Address, Watched
from crane.errors import CraneError
from crane.node import last_line

_END_SECONDS = 15.0
_PATIENCE_SECONDS = 3.0


@dataclass(slots=True)
class Judgement:
    """What a load found out."""

    acknowledged: int = 0
    lost: int = 0
    """Acknowledged and not there any more."""
    checked: str = ""
    """How it was found out."""
    problems: list[str] = field(default_factory=list)


class Asker(ABC):
    """A load from :meth:`start` to :meth:`stop`; ``answers`` grow meanwhile."""

    name: str
    question: bytes | None = None
    """What clients ask that never read the answer."""
    answers: list[float]

    @abstractmethod
    def start(self) -> None:
        """Begin to ask."""

    @abstractmethod
    def stop(self) -> None:
        """Ask no more; returns when the last answer has come or is not waited for."""

    @abstractmethod
    def judge(self, cluster: Watched) -> Judgement:
        """What is to be said of the answers, from the cluster while it runs."""

    def judge_log(self, state: Path, work: Path, judgement: Judgement) -> None:
        """The same from the cluster's log when it has ended; nothing, unless that says more."""
        del state, work, judgement


class Lists(Asker):
    """Writes to lists of a program that speaks Redis' protocol."""

    name = "Redis lists"

    def __init__(self, addresses: dict[int, Address]) -> None:
        self._load = Load(addresses, interval=0.002, name="crane-chaos", patience=_PATIENCE_SECONDS)
        self.answers = self._load.answers
        self.question = request("PING")

    def start(self) -> None:
        """See :meth:`Asker.start`."""
        self._load.start()

    def stop(self) -> None:
        """See :meth:`Asker.stop`."""
        self._load.stop()

    def judge(self, cluster: Watched) -> Judgement:
        """See :meth:`Asker.judge`."""
        journals = self._load.journals
        found = Judgement(
            acknowledged=sum(len(one.acknowledged) for one in journals),
            checked="every list read from every replica",
            problems=[fault for one in journals for fault in one.faults],
        )
        for number, address in cluster.addresses().items():
            with Redis(address, seconds=60.0) as redis:
                results = [examine(one, read_list(redis, one.key)) for one in journals]
            lost = sum(len(one.lost) for one in results)
            found.lost = max(found.lost, lost)
            if not all(one.good for one in results):
                twice = sum(len(one.twice) for one in results)
                found.problems.append(
                    f"replica {number}: {lost} writes lost, {twice} there twice,"
                    f" {sum(one.reordered for one in results)} lists out of order"
                )
        return found


class Requests(Asker):
    """Requests of HTTP or lines of text."""

    def __init__(self, addresses: dict[int, Address], seed: int) -> None:
        protocol = protocol_of(next(iter(addresses.values())))
        self.name = protocol.name
        self._traffic = Traffic(protocol, addresses, patience=_PATIENCE_SECONDS, seed=seed)
        self.answers = self._traffic.answers
        self.question = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" if self.name == "HTTP" else b"PING\r\n"

    def start(self) -> None:
        """See :meth:`Asker.start`."""
        self._traffic.start()

    def stop(self) -> None:
        """See :meth:`Asker.stop`."""
        self._traffic.stop()

    def judge(self, cluster: Watched) -> Judgement:
        """See :meth:`Asker.judge`."""
        del cluster
        return Judgement(acknowledged=len(self.answers))

    def judge_log(self, state: Path, work: Path, judgement: Judgement) -> None:
        """See :meth:`Asker.judge_log`."""
        try:
            log = witness.executed(state, work)
        except CraneError as error:
            judgement.checked = f"not compared with the log: {error}"
            return
        verdict = witness.compare(self._traffic.conversations, log)
        judgement.checked = (
            f"{verdict.exchanges} exchanges on {verdict.connections} connections compared with the"
            " log, executed once more"
        )
        judgement.lost = verdict.lost
        judgement.problems += verdict.problems


class Command(Asker):
    """The user's own; each line that it writes is an acknowledged operation."""

    name = "your own load"

    def __init__(self, command: str, addresses: dict[int, Address], log: Path, seed: int) -> None:
        """``log`` is where what it writes to standard error goes."""
        self.answers = []
        self._command = command
        self._log = log
        words = [f"{host}:{port}" for _, (host, port) in sorted(addresses.items())]
        self._environment = {
            **os.environ,
            "CRANE_ADDRESSES": ",".join(words),
            "CRANE_HOST": addresses[min(addresses)][0],
            "CRANE_PORT": str(addresses[min(addresses)][1]),
            "CRANE_SEED": str(seed),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._stopped = False
        self._early: int | None = None

    def start(self) -> None:
        """See :meth:`Asker.start`."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._reader.start()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            self.answers.append(time.monotonic())

    def stop(self) -> None:
        """See :meth:`Asker.stop`."""
        process = self._process
        assert process is not None
        # One that has ended by itself has done what it had to do.
        self._stopped = process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._reader.join(_END_SECONDS)
        assert process.stdout is not None
        process.stdout.close()

    def judge(self, cluster: Watched) -> Judgement:
        """See :meth:`Asker.judge`."""
        del cluster
        assert self._process is not None
        code = self._process.returncode
        found = Judgement(acknowledged=len(self.answers), checked="by your own load's exit code")
        if code and not (self._stopped and code == -signal.SIGTERM):
            found.problems.append(
                f"the load ended with exit status {code}: {last_line(self._log) or self._command}"
            )
        return found


def built_in(addresses: dict[int, Address], seed: int) -> Asker:
    """The load for what a program understands.

    Raises:
        CraneError: when it is none of the kinds known.
    """
    address = next(iter(addresses.values()))
    with suppress(OSError, CraneError), Redis(address, seconds=2.0) as redis:
        key = f"crane-chaos:probe:{seed}"
        if redis.ask("PING") == "PONG" and redis.ask("RPUSH", key, "1") == 1:
            redis.ask("DEL", key)
            return Lists(addresses)
    return Requests(addresses, seed)
