"""Check: three replicas under load, the leader dies, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from program import Address, Program, Replica, Size, WrongAnswerError
from writers import Writers

from crane import layers
from crane.chaos.cluster import Cluster, free_port, wait_for
from crane.errors import CraneError

_ANSWERS_SECONDS = 60.0
_SETTLE_SECONDS = 60.0
_KEPT_SECONDS = 30.0
_ORDINARY_SECONDS = 90.0


@dataclass(kw_only=True)
class Killed:
    """What was seen."""

    acknowledged: int = 0
    lost: int = 0
    """Acknowledged values that a replica does not have, on the one that misses most."""
    gap: float = 0.0
    """Seconds without any answer after the leader's death."""
    rejoin: float = 0.0
    """Seconds from the start of the dead replica until it had done all that was agreed."""
    problems: list[str] = field(default_factory=list)
    """Everything that a server which never fails would not have shown."""


def kill_the_leader(program: Program, size: Size, base: Path) -> Killed:
    """Run the check in the new directory ``base``.

    Raises:
        CraneError: when the cluster does not serve.
    """
    place = base / "program"
    place.mkdir(parents=True)
    hosts = random_hosts()
    port = free_port(hosts, program.ports)
    setup = program.configure(place, port)
    cluster = Cluster(
        setup.argv,
        base=base / "cluster",
        name=f"p{random.randrange(10**8)}",
        options=["--listen", ",".join(hosts), *setup.options],
        environment={**setup.environment, "CRANE_RUN_DIR": str(base / "run")},
        cwd=place,
    )
    with cluster:
        addresses = {number: (host, port) for number, host in enumerate(hosts, 1)}
        check = _Check(program, size, cluster, addresses, place)
        try:
            check.run()
        except CraneError as error:
            said = cluster.said().splitlines()[-3:]
            raise CraneError(f"{error}; `crane run` said: {' / '.join(said)}") from error
        return check.result


def random_hosts() -> list[str]:
    """Addresses away from those that servers of this machine have."""
    pick = random.SystemRandom()
    net = f"127.{pick.randrange(64, 255)}.{pick.randrange(1, 255)}"
    return [f"{net}.{number}" for number in (1, 2, 3)]


class _Check:
    def __init__(
        self,
        program: Program,
        size: Size,
        cluster: Cluster,
        addresses: dict[int, Address],
        place: Path,
    ) -> None:
        self.program = program
        self.size = size
        self.cluster = cluster
        self.addresses = addresses
        self.place = place
        self.result = Killed()
        self.said_before = dict.fromkeys(addresses, 0)
        """Bytes that a replica's program had written when it was last killed."""

    def run(self) -> None:
        writers = Writers(self.program, self.addresses, self.size.connections)
        beside: subprocess.Popen[bytes] | None = None
        try:
            writers.start()
            self._answers(writers, self.size.writes)
            leader = self.cluster.leader()
            survivor = next(one for one in self.addresses if one != leader)
            beside = self._ordinary(survivor)
            began = time.monotonic()
            self.cluster.kill(leader)
            # All that was on its way when it died may still be counted.
            time.sleep(0.05)
            self._answers(writers, self.size.writes)
            self.said_before[leader] = self._output(leader).stat().st_size
            restarted = time.monotonic()
            self.cluster.restart(leader)
            self.cluster.wait_caught_up(leader)
            self.result.rejoin = time.monotonic() - restarted
            self._answers(writers, self.size.writes // 4)
            writers.stop()
            self.result.gap = writers.longest_gap(began, restarted)
            self._wait_ordinary(beside)
        finally:
            writers.stop()
            if beside is not None and beside.poll() is None:
                with suppress(ProcessLookupError):
                    # It leads a session of its own.
                    _kill_group(beside)
        self._judge_writers(writers, leader, (began, restarted))
        self._judge_kept(writers)
        self._judge_agreement()

    def _answers(self, writers: Writers, count: int) -> None:
        goal = len(writers.acknowledged) + count

        def enough() -> bool:
            if writers.faults:
                raise CraneError(f"{self.program.name}: {writers.faults[0]}")
            return len(writers.acknowledged) >= goal

        wait_for(f"{count} more answers of {self.program.name}", enough, _ANSWERS_SECONDS)

    def _ordinary(self, replica: int) -> subprocess.Popen[bytes] | None:
        command = self.program.ordinary(self.addresses[replica], self.place)
        if command is None:
            return None
        log = (self.cluster.base / "ordinary.log").open("wb")
        with log:
            return subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_ordinary(self, beside: subprocess.Popen[bytes] | None) -> None:
        if beside is None:
            return
        said = self.cluster.base / "ordinary.log"
        try:
            code = beside.wait(_ORDINARY_SECONDS)
        except subprocess.TimeoutExpired:
            self.result.problems.append("its ordinary client through a survivor did not end")
        else:
            if code:
                words = said.read_text(errors="replace").strip().splitlines()[-3:]
                self.result.problems.append(
                    f"its ordinary client through a survivor failed ({code}): {' / '.join(words)}"
                )

    # What it came to

    def _judge_writers(self, writers: Writers, leader: int, dead: tuple[float, float]) -> None:
        result = self.result
        result.acknowledged = len(writers.acknowledged)
        result.problems += writers.faults
        result.problems += [
            f"a connection to replica {number}, which lived, broke: {why}"
            for when, number, why in writers.breaks
            # A keep-alive connection may be found closed only at its next use.
            if number != leader or not dead[0] <= when <= dead[1] + 2.0
        ]

    def _judge_kept(self, writers: Writers) -> None:
        """Every replica has every acknowledged value, once, and no other."""
        values = [value for _, value in writers.acknowledged]
        known = {*values, *writers.uncertain}
        missing: dict[int, set[str]] = {}
        for number in self.addresses:
            found: Counter[str] = Counter()

            def complete(number: int = number, found: Counter[str] = found) -> bool:
                found.clear()
                with suppress(FileNotFoundError):
                    kept = self.program.kept(self._replica(number), self.place, sorted(known))
                    found.update(kept)
                missing[number] = set(values) - set(found)
                return not missing[number]

            try:
                wait_for(f"all values on replica {number}", complete, _KEPT_SECONDS)
            except CraneError:
                few = ", ".join(sorted(missing[number])[:5])
                self.result.problems.append(
                    f"replica {number} lost {len(missing[number])} acknowledged values: {few}"
                )
            except (OSError, WrongAnswerError) as error:
                self.result.problems.append(f"replica {number} cannot be asked: {error}")
                missing[number] = set(values)
            twice = [value for value, times in found.items() if times > 1]
            if twice and self.program.once:
                self.result.problems.append(f"replica {number} has {len(twice)} values twice")
            foreign = sorted(set(found) - known)
            if foreign:
                self.result.problems.append(f"replica {number} has values nobody wrote: {foreign}")
        self.result.lost = max(len(one) for one in missing.values())

    def _judge_agreement(self) -> None:
        """The replicas did the same: state, output, files, and what they printed."""
        try:
            self.cluster.wait_settled(_SETTLE_SECONDS)
        except CraneError as error:
            rows = [
                f"{one.id}: {one.state} applied {one.applied} epoch {one.epoch}"
                f" output {one.output_hash} agrees {one.agrees}"
                for one in self.cluster.status().replicas
            ]
            self.result.problems.append(f"{error}: {'; '.join(rows)}")
        differing: list[str] = []

        def same_files() -> bool:
            found = [self._files(number) for number in self.addresses]
            differing[:] = [
                line for other in found[1:] for line in layers.differences(found[0], other)
            ]
            return not differing

        try:
            # Some are written later, by a timer.
            wait_for("the replicas' having the same files", same_files, _KEPT_SECONDS)
        except CraneError:
            self.result.problems.append(f"files differ: {'; '.join(differing[:5])}")
        if len({self._said(number) for number in self.addresses}) != 1:
            self.result.problems.append("what the programs printed differs")

    def _output(self, number: int) -> Path:
        return self._directory(number) / "server.log"

    def _said(self, number: int) -> bytes:
        return self._output(number).read_bytes()[self.said_before[number] :]

    def _directory(self, number: int) -> Path:
        return self.cluster.state / "replicas" / str(number)

    def _replica(self, number: int) -> Replica:
        return Replica(
            number=number,
            address=self.addresses[number],
            said=self._said(number).decode(errors="replace"),
            layers=self._directory(number) / "files",
        )

    def _files(self, number: int) -> layers.Files:
        for _ in range(20):
            # A file may go while it is looked at.
            with suppress(FileNotFoundError):
                return layers.written(self._directory(number) / "files") or {}
        return {}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
