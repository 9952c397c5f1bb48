"""When a replica gets a new checkpoint."""

from __future__ import annotations

from typing import Any

import msgspec

from crane.checkpoint.schedule import Policy, Situation, decide
from crane.checkpoint.store import Manifest

MIB = 1 << 20


def manifest(**fields: Any) -> Manifest:
    known: dict[str, Any] = {
        "format": 1,
        "cluster_id": "0" * 32,
        "name": "one",
        "argv": ["one"],
        "index": 100,
        "term": 1,
        "epoch": 99,
        "clock": 5,
        "output_hash": "0",
        "schedule_hash": "0",
        "taken_by": 2,
        "taken_at": 1000.0,
        "standing": 0.1,
        "agreed": "",
        "said": 0,
        "files": {},
    }
    return Manifest(**{**known, **fields})


def situation(**fields: Any) -> Situation:
    known: dict[str, Any] = {
        "now": 2000.0,
        "own": 2,
        "leader": 1,
        "replicas": [1, 2, 3],
        "behind": 0,
        "last_index": 200,
        "newest": manifest(),
        "began": 0.0,
    }
    return Situation(**{**known, **fields})


def test_one_is_taken_by_size_one_follower_after_another_and_copied_by_the_leader() -> None:
    policy = Policy(interval=0, log_mib=10)
    first = {
        own: next(
            mib
            for mib in range(100)
            if decide(policy, situation(own=own, leader=2, behind=mib * MIB))
        )
        for own in (1, 2, 3)
    }
    assert first[3] == 10
    assert first[3] < first[1] < first[2]
    assert decide(policy, situation(own=3, leader=2, behind=99 * MIB)) == "take"
    assert decide(policy, situation(own=2, leader=2, behind=99 * MIB)) == "fetch"


def test_a_replica_that_is_alone_takes_its_own() -> None:
    alone = situation(own=1, leader=1, replicas=[1], behind=99 * MIB)
    assert decide(Policy(), alone) == "take"


def test_one_is_taken_by_time_only_if_something_was_agreed_since() -> None:
    policy = Policy(interval=100, log_mib=0)
    assert decide(policy, situation()) == "take"
    assert decide(policy, situation(last_index=100)) is None
    assert decide(policy, situation(now=1050.0)) is None
    # The clock was set back by more than the interval.
    assert decide(policy, situation(now=10.0)) == "take"
    assert decide(policy, situation(newest=None, began=1950.0)) is None
    assert decide(policy, situation(newest=None, began=1850.0)) == "take"


def test_large_ones_are_not_repeated_for_a_short_log() -> None:
    large = msgspec.convert({"images/pages-1.img": {"size": 400 * MIB, "sha256": ""}}, dict)
    newest = manifest(files=msgspec.convert(large, dict[str, Any]))
    newest = msgspec.convert(msgspec.to_builtins(newest), Manifest)
    policy = Policy(interval=0, log_mib=10)
    assert decide(policy, situation(newest=newest, behind=100 * MIB)) is None
    assert decide(policy, situation(newest=newest, behind=200 * MIB)) == "take"


def test_none_without_a_leader_or_soon_after_a_failure() -> None:
    due = {"behind": 99 * MIB}
    assert decide(Policy(), situation(**due)) == "take"
    assert decide(Policy(), situation(leader=None, **due)) is None
    assert decide(Policy(), situation(failed=1990.0, **due)) is None
    assert decide(Policy(), situation(failed=1900.0, **due)) == "take"


def test_a_policy_can_be_off() -> None:
    off = Policy(interval=0, log_mib=0)
    assert not off.is_on
    assert decide(off, situation(behind=1 << 40)) is None
