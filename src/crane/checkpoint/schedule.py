"""When a replica gets a new checkpoint: decisions, without effects."""

from __future__ import annotations

from typing import Literal

import msgspec

from crane.checkpoint.store import Manifest

Step = Literal["take", "fetch"]

_STAGGER = 0.25
"""Share of the measure by which each replica waits longer than the one before it."""
_LARGE = 2
"""A checkpoint is not repeated before the log has grown by its length divided by this."""
_AFTER_FAILURE = 60.0


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often checkpoints are taken."""

    interval: float = 900.0
    """Seconds after which one is taken if anything was agreed since; 0 for never."""
    log_mib: float = 64.0
    """Mebibytes of log after which one is taken; 0 for never."""
    keep: int = 2
    """How many are kept, at least 1."""

    @property
    def is_on(self) -> bool:
        """Whether checkpoints are taken without being asked for."""
        return self.interval > 0 or self.log_mib > 0


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision depends on."""

    now: float
    """Seconds since the Unix epoch."""
    own: int
    leader: int | None
    replicas: list[int]
    behind: int
    """Bytes of log behind the newest checkpoint."""
    last_index: int
    newest: Manifest | None
    began: float
    """When the replica started."""
    failed: float | None = None
    """When the last attempt failed."""


def decide(policy: Policy, at: Situation) -> Step | None:
    """What is due now.

    Followers take their own, one after another, the one behind the leader first; the
    leader, whose program the clients wait for, fetches a copy of the newest.
    """
    leader = at.leader
    # One that this replica has not heard of yet was added a moment ago.
    if leader is None or leader not in at.replicas:
        return None
    if at.failed is not None and at.now < at.failed + _AFTER_FAILURE:
        return None
    order = sorted(at.replicas, key=lambda one: (one <= leader, one))
    # The leader comes last, behind those with lower numbers than its own.
    order.remove(leader)
    rank = order.index(at.own) if at.own != at.leader else len(order)
    patience = 1 + _STAGGER * rank
    since = at.newest.taken_at if at.newest is not None else at.began
    covered = at.newest.index if at.newest is not None else 0
    large = at.newest.bytes / _LARGE if at.newest is not None else 0
    enough = max(policy.log_mib * (1 << 20), large)
    by_size = policy.log_mib > 0 and at.behind >= enough * patience
    # A clock that was set back must not put checkpoints off for ever.
    age = abs(at.now - since)
    by_time = policy.interval > 0 and age >= policy.interval * patience
    if not (by_size or (by_time and at.last_index > covered)):
        return None
    return "fetch" if at.own == at.leader and order else "take"
