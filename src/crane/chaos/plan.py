"""Which faults, in which order: drawn from a seed, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crane.chaos import clocks, disks
from crane.chaos.faults import FAULTS, Fault, Needs
from crane.checkpoint import criu
from crane.errors import CraneError, UsageError

_HOLD = (0.5, 4.0)
_CALM = (0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One fault to come."""

    fault: Fault
    leads: bool
    """Whether its victim is the leader, whoever that will be; else one of the others."""
    other: int
    """Which of the others, counted from 0 and around."""
    hold: float
    """Seconds until it is healed."""
    calm: float
    """Seconds of peace afterwards."""
    seed: int
    """For what is chosen within the fault."""


def draw(seed: int, faults: Sequence[Fault]) -> Iterator[Step]:
    """The steps of a seed, without end. Each fault comes once before any comes again."""
    pick = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    while True:
        for fault in pick.sample(faults, len(faults)):
            yield Step(
                fault=fault,
                leads=pick.random() < 0.6,
                other=pick.randrange(8),
                hold=round(pick.uniform(*_HOLD), 2),
                calm=round(pick.uniform(*_CALM), 2),
                seed=pick.randrange(1 << 30),
            )


def available(*, hosts: bool) -> Needs:
    """What there is for faults on this machine; ``hosts``: replicas have hosts of their own."""
    found = Needs.NOTHING
    if hosts:
        found |= Needs.HOSTS
        if disks.possible():
            found |= Needs.DISKS
        if clocks.library() is not None:
            found |= Needs.CLOCKS
        with suppress(CraneError):
            criu.find()
            found |= Needs.CHECKPOINTS
    return found


def choose(names: Sequence[str], there: Needs) -> tuple[list[Fault], list[Fault]]:
    """The faults of these names, or all, that can be made, and those that cannot.

    Raises:
        UsageError: when there is no such fault, or it was asked for and cannot be made.
    """
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise UsageError(f"there is no fault `{unknown[0]}`; there are {', '.join(FAULTS)}")
    wanted = [FAULTS[name] for name in names] or list(FAULTS.values())
    if Needs.CLOCKS in there and any(Needs.CLOCKS in one.needs for one in wanted):
        # What sets the nodes' clocks gets in the way of CRIU.
        there &= ~Needs.CHECKPOINTS
    possible = [one for one in wanted if not one.needs & ~there]
    rest = [one for one in wanted if one.needs & ~there]
    if names and rest:
        missing = (rest[0].needs & ~there).name or ""
        raise UsageError(
            f"`{rest[0].name}` needs {missing.lower().replace('|', ', ')} of its own: root, and"
            " Debian's packages iproute2, nftables, e2fsprogs and faketime"
        )
    return possible, rest
