"""Histories of registers, cut into pieces that a linearizability checker can search."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crane.chaos.registers import Operation
from crane.errors import CraneError

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time of one register."""

    register: str
    operations: list[Operation]
    """All that ended, and those without an answer whose effect was seen."""
    loose: list[Operation]
    """Those without an answer whose effect nobody saw: they may happen here, or never."""

    def text(self, *, loose: bool) -> str:
        """The lines that the checker reads."""
        return _actions([*self.operations, *(self.loose if loose else ())])


def pieces(operations: Iterable[Operation], longest: int = 60) -> list[Piece]:
    """Cut histories into pieces of about ``longest`` operations; values are unique.

    A piece begins with a write that overlaps with nothing, so that what was before
    it does not matter.
    """
    by_register: dict[str, list[Operation]] = {}
    for one in operations:
        by_register.setdefault(one.register, []).append(one)
    found = []
    for register, mine in sorted(by_register.items()):
        known, loose = _completed(mine)
        piece: list[Operation] = []
        busy_until = 0.0
        for number, one in enumerate(known):
            following = known[number + 1].begin if number + 1 < len(known) else _NEVER
            end = _end(one)
            alone = busy_until < one.begin and end < following
            if alone and one.kind == "write" and len(piece) >= longest:
                found.append(_piece(register, piece, loose))
                piece = []
            piece.append(one)
            busy_until = max(busy_until, end)
        if piece:
            found.append(_piece(register, piece, loose))
    return found


def _piece(register: str, operations: list[Operation], loose: list[Operation]) -> Piece:
    last = max(_end(one) for one in operations)
    return Piece(register, operations, [one for one in loose if one.begin < last])


def _completed(mine: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Those that ended or whose effect was seen, by their beginning; and the others.

    An effect that was seen had happened before the one that saw it ended.
    """
    seen: dict[int, float] = {}
    for one in mine:
        if one.end is not None and (one.kind == "read" or (one.kind == "cas" and one.swapped)):
            value = one.value if one.kind == "read" else one.old
            seen[value] = min(one.end, seen.get(value, _NEVER))
    known, loose = [], []
    for one in mine:
        if one.end is not None:
            known.append(one)
        elif one.kind != "read" and one.value in seen:
            known.append(replace(one, end=seen[one.value], swapped=True))
        elif one.kind != "read":
            loose.append(one)
    return sorted(known, key=lambda one: one.begin), loose


def _end(one: Operation) -> float:
    return _NEVER if one.end is None else one.end


def check(program: Path, found: Sequence[Piece]) -> list[Piece]:
    """Those pieces that are not linearizable; ``program`` is the checker.

    Raises:
        CraneError: when the checker fails.
    """
    suspects = _ask(program, found, loose=False)
    # Something that nobody saw may still have made a swap fail.
    return _ask(program, suspects, loose=True)


def _ask(program: Path, found: Sequence[Piece], *, loose: bool) -> list[Piece]:
    if not found:
        return []
    text = "\n".join(one.text(loose=loose) for one in found) + "\n"
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
    answers = done.stdout.split()
    if done.returncode or len(answers) != len(found):
        raise CraneError(f"{program} failed: {done.stderr.strip() or done.returncode}")
    return [one for one, answer in zip(found, answers, strict=True) if answer != "yes"]


def _actions(operations: Sequence[Operation]) -> str:
    """One history, a line for each action."""
    moments = []
    for number, one in enumerate(operations):
        moments += [(one.begin, 0, number), (_end(one), 1, number)]
    lines = []
    for _, returns, number in sorted(moments):
        one = operations[number]
        match one.kind:
            case "read":
                what = f"read {one.value if returns else 0}"
            case "write":
                what = f"write {one.value}"
            case "cas":
                what = f"cas {one.old} {one.value} {_swapped(one)}"
        # Each operation is a client of its own: what connects them is real time alone.
        lines.append(f"{number} {'return' if returns else 'call'} {what}")
    return "\n".join(lines) + "\n"


def _swapped(one: Operation) -> str:
    if one.end is None:
        return "maybe"
    return "yes" if one.swapped else "no"
