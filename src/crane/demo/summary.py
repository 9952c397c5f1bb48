"""What a trial showed, in words for a person."""

from __future__ import annotations

from crane.chaos.failover import Outcome


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The summary: what was looked at, and what was found."""
    kills = outcome.kills
    once = len(kills) == 1
    last = kills[-1]
    found = [
        (
            "requests",
            f"{outcome.requests:,} in {outcome.seconds:.0f} s on {outcome.connections} connections",
        ),
        (
            "leader killed",
            f"replica {last.replica}, by SIGKILL; replica {last.successor} took over"
            if once
            else f"{len(kills)} times, by SIGKILL",
        ),
        (
            "failover",
            f"{_milliseconds(last.gap)} without any answer"
            if once
            else f"{_milliseconds(outcome.median_gap)} without any answer (median),"
            f" {_milliseconds(max(outcome.gaps))} at worst",
        ),
        (
            "writes lost",
            f"{outcome.lost} of {outcome.acknowledged:,} acknowledged, on every replica",
        ),
        ("through survivors", _survivors(outcome)),
        (
            "brought back",
            f"replica {last.replica} caught up after {last.rejoin:.1f} s"
            if once
            else f"caught up after {max(one.rejoin for one in kills):.1f} s at most",
        ),
        ("servers' memory", _memory(outcome)),
    ]
    if outcome.uncertain:
        found.insert(
            4,
            (
                "writes unanswered",
                f"{outcome.uncertain}, whose connection died with its replica: not counted",
            ),
        )
    return found


def _survivors(outcome: Outcome) -> str:
    if outcome.survivors_broken:
        return f"{len(outcome.survivors_broken)} connections broke"
    if len(outcome.kills) == 1:
        count = outcome.connections - outcome.kills[0].clients
        return f"{count} of {count} connections never broke"
    return "no connection ever broke"


def _memory(outcome: Outcome) -> str:
    if outcome.same_memory:
        digest = next(iter(outcome.digests.values()))
        return f"the same on all {len(outcome.digests)} (DEBUG DIGEST {digest[:12]}...)"
    return "DIFFERS: " + ", ".join(f"{k}: {v[:12]}..." for k, v in outcome.digests.items())


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
