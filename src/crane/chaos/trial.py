"""``crane chaos``: a cluster for it, a load, the faults, and what is said in the end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crane import wish
from crane.chaos import campaign, loads, plan, timeline
from crane.chaos.campaign import Report
from crane.chaos.cluster import Cluster
from crane.chaos.faults import Fault, Needs
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.watched import Watched
from crane.config import Durability
from crane.errors import CraneError

HEADS = ("fault", "times", "longest gap, median", "worst", "to full strength")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked for."""

    command: list[str]
    file: Path | None
    seed: int
    minutes: float
    load: str | None
    replicas: int | None
    durability: Durability | None
    faults: list[str]
    hosts: bool
    """Whether replicas get hosts of their own."""
    picture: Path


def run(wanted: Wanted, say: Say) -> Report:
    """Do it.

    Raises:
        CraneError: when the program cannot be run or asked.
    """
    there = plan.available(hosts=wanted.hosts)
    possible, impossible = plan.choose(wanted.faults, there)
    if impossible:
        names = ", ".join(one.name for one in impossible)
        why = "" if wanted.hosts else "; replicas have hosts of their own only as root"
        say(f"cannot be made here: {names}{why}")
    base = new_base()
    try:
        report = _run(wanted, base, there, possible, say)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    title = f"crane chaos --seed {wanted.seed}: {'good' if report.good else 'NOT GOOD'}"
    drawn = timeline.picture(report.answers, report.strikes, report.begin, report.end, title)
    wanted.picture.write_text(drawn)
    return report


def _run(wanted: Wanted, base: Path, there: Needs, possible: Sequence[Fault], say: Say) -> Report:
    with _cluster(wanted, there, possible, base) as cluster:
        addresses = cluster.addresses()
        if len(addresses) < cluster.size:
            raise CraneError("the program does not listen on a TCP port, so nothing can ask it")
        asker: loads.Asker
        if wanted.load is None:
            asker = loads.built_in(addresses, wanted.seed)
        else:
            asker = loads.Command(wanted.load, addresses, base / "load.log", wanted.seed)
        say(f"seed {wanted.seed}, {len(possible)} kinds of faults, load: {asker.name}")
        steps = plan.draw(wanted.seed, possible)
        report = campaign.run(cluster, asker, steps, seconds=wanted.minutes * 60, tell=say)
        if isinstance(cluster, Hosts):
            cluster.end()
            state = cluster.state.path
        else:
            assert isinstance(cluster, Cluster)
            cluster.stop()
            state = cluster.state
        if not report.problems:
            asker.judge_log(state, base / "witness", report.judgement)
        if not report.good:
            place = wanted.picture.with_suffix("")
            campaign.keep_evidence(cluster, place)
            say(f"what the nodes said is kept in {place}")
    return report


@contextmanager
def _cluster(
    wanted: Wanted, there: Needs, possible: Sequence[Fault], base: Path
) -> Iterator[Watched]:
    """The cluster, started; ended and removed afterwards."""
    name = f"chaos-{random.SystemRandom().randrange(10**8)}"
    asked, _ = wish.wanted(
        wanted.command,
        file=wanted.file,
        replicas=wanted.replicas,
        name=name,
        state=base / "state",
        durability=wanted.durability,
    )
    if wanted.hosts:
        with Hosts(
            asked,
            base=base,
            own_disks=Needs.DISKS in there,
            own_clocks=any(Needs.CLOCKS in one.needs for one in possible),
        ) as hosts:
            yield hosts
        return
    # Away from the addresses that the user's own servers have.
    pick = random.SystemRandom()
    net = f"127.{pick.randrange(64, 255)}.{pick.randrange(1, 255)}"
    count = asked.replicas or 3
    options = ["--listen", ",".join(f"{net}.{number}" for number in range(1, count + 1))]
    if wanted.file is not None:
        options += ["--file", str(wanted.file)]
    with Cluster(
        wanted.command or asked.argv,
        base=base,
        name=name,
        replicas=count,
        durability=asked.durability or "disk",
        options=options,
        environment={"CRANE_RUN_DIR": str(base / "run")},
    ) as cluster:
        yield cluster


def again(wanted: Wanted) -> list[str]:
    """The command that repeats it."""
    words = ["crane", "chaos", "--seed", str(wanted.seed), "--minutes", f"{wanted.minutes:g}"]
    for name, value in (
        ("--load", wanted.load),
        ("--replicas", wanted.replicas),
        ("--durability", wanted.durability),
        ("--file", wanted.file),
    ):
        if value is not None:
            words += [name, str(value)]
    for name in wanted.faults:
        words += ["--fault", name]
    if not wanted.hosts:
        words.append("--loopback")
    return [*words, "--", *wanted.command] if wanted.command else words


def lines(wanted: Wanted, done: Report) -> list[str]:
    """The verdict, for people."""
    judgement = done.judgement
    found = [
        f"{len(done.strikes)} faults in {done.end - done.begin:.0f} s,"
        f" {judgement.acknowledged:,} acknowledged, {judgement.lost} lost"
        + (f"; {judgement.checked}" if judgement.checked else "")
    ]
    found += [f"wrong: {problem}" for problem in (*done.problems, *judgement.problems)]
    found.append(f"timeline: {wanted.picture}")
    found.append(
        "GOOD: nothing acknowledged was lost, the replicas are the same, and the service recovered"
        if done.good
        else "NOT GOOD"
    )
    return found
