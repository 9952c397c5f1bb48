"""Kill the leader under load, again and again, and look for what was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from crane.chaos.cluster import Cluster
from crane.chaos.journal import Findings, examine
from crane.chaos.load import Load
from crane.chaos.resp import Redis, Reply
from crane.chaos.watched import Watched, wait_for

_RESUME_SECONDS = 30.0
_SETTLE_SECONDS = 60.0
_PAGE = 10_000

Tell = Callable[[str], None]


def redis_command(port: int) -> list[str]:
    """A Redis whose memory can be compared (``DEBUG DIGEST``)."""
    return [
        "redis-server",
        "--port",
        str(port),
        "--save",
        "",
        "--enable-debug-command",
        "yes",
        "--protected-mode",
        "no",
    ]


@dataclass(slots=True)
class Kill:
    """One death of a leader, and what the clients saw of it."""

    replica: int
    successor: int
    begin: float
    """When it was killed (``time.monotonic``)."""
    clients: int
    """How many clients were connected to it."""
    gap: float = 0.0
    """The longest time without any answer from its death to the next kill, in seconds."""
    restarted: float = 0.0
    """When it was started again."""
    rejoin: float = 0.0
    """Seconds from its restart until it had caught up."""


@dataclass(slots=True)
class Outcome:
    """What a trial showed."""

    kills: list[Kill]
    seconds: float
    """How long the load ran."""
    requests: int
    acknowledged: int
    uncertain: int
    connections: int
    longest_wait: float
    faults: list[str] = field(default_factory=list)
    """Wrong answers while the load ran."""
    survivors_broken: list[str] = field(default_factory=list)
    """Connections that broke although their replica lived."""
    findings: dict[int, list[Findings]] = field(default_factory=dict)
    """Replica to what its copy of each client's journal showed."""
    digests: dict[int, str] = field(default_factory=dict)
    """Replica to the digest of its server's memory."""
    agree: bool = False
    """Whether the replicas' own comparison of their outputs found no difference."""

    @property
    def lost(self) -> int:
        """Acknowledged writes missing on the replica that misses most."""
        return max(
            (sum(len(one.lost) for one in all_of) for all_of in self.findings.values()), default=0
        )

    @property
    def gaps(self) -> list[float]:
        """The longest silence of each kill, in seconds."""
        return [one.gap for one in self.kills]

    @property
    def median_gap(self) -> float:
        """The median of :attr:`gaps`."""
        return median(self.gaps)

    @property
    def same_memory(self) -> bool:
        """Whether every server's memory has the same digest."""
        return len(set(self.digests.values())) == 1

    def problems(self) -> list[str]:
        """Everything that a server which never fails would not have shown."""
        found = list(self.faults)
        found += self.survivors_broken
        for replica, all_of in self.findings.items():
            for what, count in (
                ("acknowledged writes are missing", sum(len(one.lost) for one in all_of)),
                ("writes were applied twice", sum(len(one.twice) for one in all_of)),
                ("values were never written", sum(len(one.foreign) for one in all_of)),
                ("clients' writes are out of order", sum(one.reordered for one in all_of)),
            ):
                if count:
                    found.append(f"on replica {replica} {count} {what}")
        if not self.findings:
            found.append("nothing was compared")
        if not self.same_memory:
            found.append(f"the servers' memory differs: {self.digests}")
        if not self.agree:
            found.append("the replicas' outputs differ")
        return found


def trial(
    cluster: Cluster,
    *,
    kills: int,
    connections: int = 6,
    interval: float = 0.0,
    steady: float = 1.0,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Load the cluster, kill its leader ``kills`` times, bring it back each time, and compare.

    ``interval`` is between a client's requests and ``steady`` how long the load
    runs undisturbed before and after each fault, both in seconds.

    Raises:
        CraneError: when the cluster does not go on at all.
    """
    addresses = cluster.addresses()
    load = Load(addresses, connections, interval=interval)
    load.start()
    done: list[Kill] = []
    try:
        time.sleep(steady)
        for number in range(kills):
            tell(f"kill {number + 1} of {kills}")
            done.append(_kill_leader(cluster, load, steady, tell))
    finally:
        load.stop()
    last = load.answers[-1] if load.answers else time.monotonic()
    for one, (start, following) in zip(
        done, pairwise([*(kill.begin for kill in done), last]), strict=True
    ):
        one.gap = load.longest_gap(start, following)
    tell("comparing the replicas")
    outcome = conclude(cluster, load, done)
    outcome.survivors_broken = _survivors_broken(load, done)
    return outcome


def conclude(cluster: Watched, load: Load, kills: list[Kill]) -> Outcome:
    """What a load that has ended shows, and what every replica has of it.

    Raises:
        CraneError: when the replicas do not come to rest.
    """
    outcome = Outcome(
        kills=kills,
        seconds=load.ended - load.begun,
        requests=len(load.answers),
        acknowledged=sum(len(one.acknowledged) for one in load.journals),
        uncertain=sum(len(one.uncertain) for one in load.journals),
        connections=load.connections,
        longest_wait=load.longest_wait(),
        faults=[fault for journal in load.journals for fault in journal.faults],
    )
    _compare(cluster, load, outcome)
    return outcome


def _kill_leader(cluster: Cluster, load: Load, steady: float, tell: Tell) -> Kill:
    victim = cluster.leader()
    one = Kill(victim, 0, time.monotonic(), load.on(victim))
    cluster.kill(victim)
    tell(f"replica {victim} led and is dead")
    count = len(load.answers)
    wait_for(
        "an answer after the leader's death", lambda: len(load.answers) > count, _RESUME_SECONDS
    )
    one.successor = cluster.leader()
    tell(f"replica {one.successor} leads")
    time.sleep(steady)
    one.restarted = time.monotonic()
    cluster.restart(victim)
    tell(f"replica {victim} is back and catches up")
    cluster.wait_caught_up(victim)
    one.rejoin = time.monotonic() - one.restarted
    time.sleep(steady)
    return one


def _survivors_broken(load: Load, kills: list[Kill]) -> list[str]:
    """The breaks of connections whose replica was alive."""
    return [
        f"a connection to replica {one.replica}, which lived, broke: {one.reason}"
        for one in load.breaks
        if not any(
            kill.replica == one.replica and kill.begin <= one.time <= kill.restarted
            for kill in kills
        )
    ]


def _compare(cluster: Watched, load: Load, outcome: Outcome) -> None:
    """Ask every replica, at its own address, for everything that was written."""
    for replica, address in cluster.addresses().items():
        with Redis(address, seconds=60.0) as redis:
            outcome.findings[replica] = [
                examine(journal, read_list(redis, journal.key)) for journal in load.journals
            ]
            outcome.digests[replica] = str(redis.ask("DEBUG", "DIGEST"))
    cluster.wait_settled(_SETTLE_SECONDS)
    outcome.agree = all(one.agrees for one in cluster.status().replicas)


def read_list(redis: Redis, key: str) -> list[str]:
    """A whole list, a page at a time."""
    found: list[str] = []
    while True:
        page: Reply = redis.ask("LRANGE", key, len(found), len(found) + _PAGE - 1)
        assert isinstance(page, list)
        found += [str(one) for one in page]
        if len(page) < _PAGE:
            return found
