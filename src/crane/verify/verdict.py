"""The result of a verification, in a table and as JSON."""

from __future__ import annotations

import msgspec

from crane.verify.comparison import Difference
from crane.verify.replay import Outcome
from crane.verify.search import Finding, Line

HEADS = ("RUN", "BESIDE", "SCHEDULE", "OUTPUT", "FILES", "SAID", "SECONDS")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was executed, and whether it was the same every time."""

    program: list[str]
    requests: int | None
    """Requests that were answered while recording; ``None`` where that is not known."""
    epochs: int
    clock: int
    """Scheduled operations of one execution."""
    runs: list[Outcome]
    live_samples: int
    """How many times the recorded replica's own hashes could be compared with the runs."""
    identical: bool
    difference: Difference | None = None
    operation: Finding | None = None
    """The first operation that differs."""
    notes: list[str] = []
    """What the user should know besides."""


def rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each run."""
    return [
        (
            str(one.run),
            one.beside,
            one.schedule_hash,
            one.output_hash,
            _files(one),
            one.said[:12],
            f"{one.seconds:.1f}",
        )
        for one in verdict.runs
    ]


def _files(outcome: Outcome) -> str:
    if outcome.files is None:
        return "-"
    return f"{outcome.files[:12]} ({outcome.entries})" if outcome.entries else "none"


def lines(verdict: Verdict) -> list[str]:
    """The verdict in words; the last line is the one that counts."""
    count = len(verdict.runs)
    if verdict.identical:
        text = f"identical: {count} of {count} runs"
        if verdict.live_samples:
            moments = "moment" if verdict.live_samples == 1 else "moments"
            text += f", and the live replica at {verdict.live_samples} {moments}"
        return [f"{text} ({verdict.epochs} epochs, {verdict.clock} operations)"]
    found: list[str] = []
    difference = verdict.difference
    if difference is not None:
        found += [f"  {one}" for one in difference.files]
    if verdict.operation is not None:
        found += operation_lines(verdict.operation)
    elif difference is not None and (difference.epoch or difference.between):
        found.append("the first operation that differs was not found: it did not come again")
    if difference is not None:
        found.append(f"DIFFERENT: {difference_words(difference)}")
    return found


def difference_words(difference: Difference) -> str:
    """A difference in one line."""
    text = f"{difference.first} and {difference.second} differ in {', '.join(difference.what)}"
    if difference.epoch is not None:
        text += f", first in epoch {difference.epoch}"
    elif difference.between is not None:
        text += f", between epoch {difference.between[0]} and {difference.between[1]}"
    return text


def operation_lines(finding: Finding) -> list[str]:
    """The operations around the first that differs, of both executions."""
    found = [f"first operation that differs: {finding.what}"]
    for name, side in (("first", finding.first), ("second", finding.second)):
        found.append(f"  the {name} execution:")
        for number, one in enumerate(side):
            mark = ">" if number == finding.at else " "
            found.append(f"  {mark} {_operation(one)}")
        if finding.at >= len(side):
            found.append("  > (no more operations)")
    return found


def _operation(one: Line) -> str:
    when = f"epoch {one.epoch:<6} clock {one.clock:<9} thread {one.thread:<3}"
    return f"{when} {one.operation:<14} {one.place}"
