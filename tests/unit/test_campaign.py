"""Faults from a seed, the picture of them, and the log as a witness."""

from __future__ import annotations

import itertools
import struct
from xml.etree import ElementTree as ET

import pytest

from crane.chaos import plan, timeline, witness
from crane.chaos.campaign import Report
from crane.chaos.faults import FAULTS, Needs
from crane.chaos.strike import Strike
from crane.chaos.traffic import Conversation, Exchange
from crane.errors import UsageError

EVERYTHING = Needs.HOSTS | Needs.DISKS | Needs.CLOCKS | Needs.CHECKPOINTS
CLIENT, SERVER = ("198.18.0.254", 40000), ("198.18.0.1", 7100)


def test_a_seed_gives_the_same_faults_again() -> None:
    faults, _ = plan.choose([], EVERYTHING)
    one, again, other = (list(itertools.islice(plan.draw(seed, faults), 60)) for seed in (7, 7, 8))
    assert one == again
    assert [step.fault.name for step in one] != [step.fault.name for step in other]
    # What makes clocks wrong gets in the way of checkpoints.
    assert {step.fault.name for step in one} == set(FAULTS) - {"damaged-checkpoint"}
    assert plan.choose(["damaged-checkpoint"], EVERYTHING)[0]


def test_what_cannot_be_made_is_told() -> None:
    possible, rest = plan.choose([], Needs.NOTHING)
    assert {one.name for one in possible} == {"kill-node", "kill-program", "pause", "slow-clients"}
    assert len(possible) + len(rest) == len(FAULTS)
    with pytest.raises(UsageError, match="there is no fault `flood`"):
        plan.choose(["flood"], EVERYTHING)
    with pytest.raises(UsageError, match="`power-cut` needs hosts, disks"):
        plan.choose(["power-cut"], Needs.NOTHING)


def struck(name: str, begin: float) -> Strike:
    return Strike(
        fault=name, victim=1, led=True, begin=begin, healing=begin + 1.0, whole=begin + 2.0
    )


def test_a_picture_is_svg_with_a_bar_for_each_fault() -> None:
    strikes = [struck("pause", 1.0), struck("<odd>", 4.0)]
    text = timeline.picture([0.5, 0.6, 3.0], strikes, 0.0, 10.0, "a & b")
    root = ET.fromstring(text)
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["pause: replica 1, the leader", "<odd>: replica 1, the leader"]


def test_gaps_are_counted_until_full_strength() -> None:
    report = Report(begin=0.0, answers=[0.9, 1.2, 2.4, 4.0, 9.0], strikes=[struck("pause", 1.0)])
    assert report.gap(report.strikes[0]) == pytest.approx(1.6)
    assert report.rows()[0][:2] == ["pause", "1"]
    assert report.good
    report.problems.append("no")
    assert not report.good


def record(kind: int, number: int, index: int, data: bytes) -> bytes:
    return struct.pack("<BQQI", kind, number, index, len(data)) + data


def told(*pieces: bytes, sent: bytes) -> bytes:
    address = struct.pack("<H", 2) + struct.pack(">H", CLIENT[1]) + bytes([198, 18, 0, 254])
    data = record(1, 5, 1, address.ljust(16, b"\0"))
    for index, piece in enumerate(pieces, 2):
        data += record(2, 5, index, piece)
    return data + record(3, 5, 0, sent)


def said(sent: bytes, received: bytes, *exchanges: tuple[float, int, float]) -> Conversation:
    return Conversation(
        CLIENT,
        SERVER,
        bytearray(sent),
        bytearray(received),
        [Exchange(*one) for one in exchanges],
    )


def test_a_witness_that_agrees() -> None:
    log = witness.read(told(b"a\n", b"b\n", sent=b"A\nB\n"))
    one = said(b"a\nb\nc\n", b"A\nB\n", (1.0, 0, 1.5), (2.0, 2, 2.5), (3.0, 4, 0.0))
    found = witness.compare([one], log)
    assert found == witness.Verdict(1, 2, 0, [])


@pytest.mark.parametrize(
    ("sent", "received", "exchanges", "lost", "says"),
    [
        (b"a\nc\n", b"A\nB\n", [(1.0, 0, 1.5)], 1, "knows nothing"),
        (b"a\nb\n", b"A\nX\n", [(1.0, 0, 1.5)], 0, "other bytes than the log leads to"),
        (b"a\nb\nc\n", b"A\nB\n", [(1.0, 0, 1.5), (2.0, 4, 2.5)], 1, "is not in the log"),
    ],
)
def test_a_witness_that_contradicts(
    sent: bytes, received: bytes, exchanges: list[tuple[float, int, float]], lost: int, says: str
) -> None:
    log = witness.read(told(b"a\n", b"b\n", sent=b"A\nB\n"))
    found = witness.compare([said(sent, received, *exchanges)], log)
    assert found.lost == lost
    assert any(says in one for one in found.problems), found.problems


def test_the_log_must_keep_to_real_time() -> None:
    early = witness.Answered(begin=1.0, end=2.0, first=10, last=10)
    late = witness.Answered(begin=3.0, end=4.0, first=9, last=9)
    beside = witness.Answered(begin=1.5, end=4.0, first=9, last=9)
    assert witness.out_of_time([early, late]) == 1
    assert witness.out_of_time([early, beside]) == 0
