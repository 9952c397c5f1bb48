"""Faults from a seed against a program under load, and the verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from crane.chaos.crowd import Crowd
from crane.chaos.faults import Scene
from crane.chaos.loads import Asker, Judgement
from crane.chaos.plan import Step
from crane.chaos.strike import Strike, strike
from crane.chaos.watched import Watched, wait_for
from crane.errors import CraneError

Tell = Callable[[str], None]

_FIRST_SECONDS = 30.0
_SETTLE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a campaign showed. Times are of ``time.monotonic``."""

    begin: float
    end: float = 0.0
    answers: list[float] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    judgement: Judgement = field(default_factory=Judgement)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.problems or self.judgement.problems or self.judgement.lost)

    def gap(self, one: Strike) -> float:
        """The longest time without any answer from a fault until full strength, in seconds."""
        inside = [at for at in self.answers if one.begin < at < one.whole]
        after = [at for at in self.answers if at >= one.whole][:1]
        moments = [one.begin, *inside, *(after or [one.whole])]
        return max(later - earlier for earlier, later in pairwise(moments))

    def rows(self) -> list[list[str]]:
        """A row for each kind of fault: how often, longest gap and time to full strength."""
        found = []
        for name in dict.fromkeys(one.fault for one in self.strikes):
            those = [one for one in self.strikes if one.fault == name]
            gaps = [self.gap(one) for one in those]
            whole = [one.recovery for one in those]
            found.append(
                [
                    name,
                    str(len(those)),
                    f"{median(gaps):.2f} s",
                    f"{max(gaps):.2f} s",
                    f"{median(whole):.1f} s",
                ]
            )
        return found


def run(
    cluster: Watched,
    load: Asker,
    steps: Iterator[Step],
    *,
    seconds: float,
    tell: Tell,
    grow: Callable[[int], None] | None = None,
) -> Report:
    """Make faults for about ``seconds`` seconds; the cluster runs and is left running.

    ``grow``, given a victim, has the log grow by more than is prepared on a disk.
    """
    crowd = Crowd(load.question)
    report = Report(begin=time.monotonic(), answers=load.answers)
    load.start()
    try:
        wait_for("a first answer", lambda: load.answers, _FIRST_SECONDS)
        report.begin = time.monotonic()
        while time.monotonic() < report.begin + seconds:
            step = next(steps)
            report.strikes.append(_step(cluster, crowd, step, tell, grow))
            count = len(load.answers)
            time.sleep(step.calm)
            wait_for(
                "an answer after full strength",
                lambda count=count: len(load.answers) > count,  # type: ignore[misc]
                _FIRST_SECONDS,
            )
    except (CraneError, OSError) as error:
        report.problems.append(str(error))
    finally:
        crowd.disperse()
        load.stop()
        report.end = time.monotonic()
    tell("comparing the replicas")
    try:
        cluster.wait_settled(_SETTLE_SECONDS)
        report.judgement = load.judge(cluster)
    except (CraneError, OSError) as error:
        report.problems.append(f"the replicas do not come to the same: {error}; {cluster.said()}")
    report.problems += [
        f"replica {one.id}'s results differ from the others'"
        for one in cluster.status().replicas
        if one.agrees is False
    ]
    return report


def _step(
    cluster: Watched,
    crowd: Crowd,
    step: Step,
    tell: Tell,
    grow: Callable[[int], None] | None,
) -> Strike:
    leader = cluster.leader()
    others = [number for number in range(1, cluster.size + 1) if number != leader]
    leads = step.leads and step.fault.leads
    victim = leader if leads or not others else others[step.other % len(others)]
    role = ", the leader" if victim == leader else ""
    tell(f"{step.fault.says.format(victim=victim)}{role}, for {step.hold:g} s")
    scene = Scene(
        cluster=cluster,
        victim=victim,
        leader=leader,
        crowd=crowd,
        pick=random.Random(step.seed),  # noqa: S311 - to be repeated
        grow=None if grow is None else lambda: grow(victim),
    )
    return strike(scene, step.fault, step.hold)


def keep_evidence(cluster: Watched, place: Path) -> None:
    """Write what the nodes said to a directory."""
    place.mkdir(parents=True, exist_ok=True)
    base = cluster.directory.path.parent.parent
    for log in [*base.glob("node-*.log"), *base.glob("state/replicas/*/node.log")]:
        name = log.name if log.name != "node.log" else f"node-{log.parent.name}.log"
        with suppress(OSError):
            (place / name).write_bytes(log.read_bytes())
