"""What the trials conclude from what they saw."""

from __future__ import annotations

import pytest

from crane.chaos.failover import Kill, Outcome
from crane.chaos.journal import Findings, Journal, examine
from crane.chaos.load import Load
from crane.chaos.resp import ReplyError, parse, request
from crane.demo.summary import rows
from crane.errors import CraneError

JOURNAL = Journal("j", acknowledged=["a", "b", "c"], uncertain=["u"])


@pytest.mark.parametrize(
    ("found", "lost", "twice", "foreign", "reordered"),
    [
        ("abc", "", "", "", False),
        ("abuc", "", "", "", False),
        ("ab", "c", "", "", False),
        ("", "abc", "", "", False),
        ("abbc", "", "b", "", False),
        ("auubc", "", "u", "", False),
        ("abcx", "", "", "x", False),
        ("acb", "", "", "", True),
        ("cx", "ab", "", "x", False),
    ],
)
def test_a_journal_tells_what_a_server_lost(
    found: str, lost: str, twice: str, foreign: str, reordered: bool
) -> None:
    result = examine(JOURNAL, list(found))
    assert result == Findings(list(lost), list(twice), list(foreign), reordered)
    assert result.good == (found in ("abc", "abuc"))


def test_lengths_that_a_list_may_have() -> None:
    assert list(JOURNAL.lengths()) == [3, 4]


def test_commands_and_replies() -> None:
    assert request("SET", "k", 1) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n"
    for text, reply in (
        (b"+OK\r\n", "OK"),
        (b":-7\r\n", -7),
        (b"$2\r\n\r\n\r\n", "\r\n"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", [1, ["x"]]),
    ):
        assert parse(text) == (reply, len(text))
        assert parse(text + b"+more\r\n") == (reply, len(text))
        for end in range(len(text)):
            assert parse(text[:end]) is None
    found = parse(b"-ERR no\r\n")
    assert found is not None
    assert isinstance(found[0], ReplyError)
    with pytest.raises(CraneError, match="not a reply"):
        parse(b"HTTP/1.1\r\n")


def test_the_longest_gap_counts_its_ends() -> None:
    load = Load({})
    load.answers = [1.0, 2.0, 2.5, 6.0]
    assert load.longest_gap(0.5, 2.6) == 1.0
    assert load.longest_gap(2.5, 7.0) == 3.5
    assert load.longest_gap(6.5, 9.0) == 2.5


def outcome(**changes: object) -> Outcome:
    good = {
        "kills": [Kill(replica=1, successor=2, begin=0.0, clients=2, gap=0.25, rejoin=1.5)],
        "seconds": 8.0,
        "requests": 4000,
        "acknowledged": 3000,
        "uncertain": 1,
        "connections": 6,
        "longest_wait": 0.3,
        "findings": {1: [Findings([], [], [], reordered=False)]},
        "digests": {1: "aa", 2: "aa", 3: "aa"},
        "agree": True,
    }
    return Outcome(**{**good, **changes})  # type: ignore[arg-type]


def test_a_good_outcome_has_no_problems() -> None:
    good = outcome()
    assert good.problems() == []
    text = dict(rows(good))
    assert text["failover"].startswith("250 ms")
    assert text["writes lost"].startswith("0 of 3,000")
    assert text["through survivors"].startswith("4 of 4")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"findings": {2: [Findings(["a", "b"], [], [], reordered=False)]}}, "on replica 2 2"),
        ({"findings": {2: [Findings([], ["a"], [], reordered=False)]}}, "applied twice"),
        ({"findings": {2: [Findings([], [], ["a"], reordered=False)]}}, "never written"),
        ({"findings": {2: [Findings([], [], [], reordered=True)]}}, "out of order"),
        ({"digests": {1: "aa", 2: "ab"}}, "memory differs"),
        ({"digests": {}}, "memory differs"),
        ({"agree": False}, "outputs differ"),
        ({"faults": ["stale"]}, "stale"),
        ({"survivors_broken": ["broke"]}, "broke"),
        ({"findings": {}}, "nothing was compared"),
    ],
)
def test_every_flaw_is_a_problem(changes: dict[str, object], says: str) -> None:
    problems = outcome(**changes).problems()
    assert len(problems) == 1
    assert says in problems[0]
    assert rows(outcome(**{**changes, "digests": {1: "aa", 2: "ab"}}))
