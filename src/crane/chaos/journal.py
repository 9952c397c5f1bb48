"""What a client wrote, what it was told, and whether a server still knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Journal:
    """One client's writes, all appended to one list of the server's."""

    key: str
    acknowledged: list[str] = field(default_factory=list)
    """Values the server confirmed, in order."""
    uncertain: list[str] = field(default_factory=list)
    """Values whose connection broke before the answer: they may be there or not, once."""
    faults: list[str] = field(default_factory=list)
    """Answers that no single server that never fails would have given."""

    def lengths(self) -> range:
        """The lengths that the server's list may have now."""
        least = len(self.acknowledged)
        return range(least, least + len(self.uncertain) + 1)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with what a server has, as values."""

    lost: list[str]
    twice: list[str]
    foreign: list[str]
    """Values nobody wrote."""
    reordered: bool

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.twice or self.foreign or self.reordered)


def examine(journal: Journal, found: Sequence[str]) -> Findings:
    """Compare a journal with the list a server has."""
    present = set(found)
    acknowledged, uncertain = set(journal.acknowledged), set(journal.uncertain)
    twice = []
    if len(present) != len(found):
        seen: set[str] = set()
        twice = [value for value in found if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
    lost = [value for value in journal.acknowledged if value not in present]
    kept = [value for value in dict.fromkeys(found) if value in acknowledged]
    return Findings(
        lost=lost,
        twice=twice,
        foreign=sorted(present - acknowledged - uncertain),
        reordered=kept != [value for value in journal.acknowledged if value in present],
    )
