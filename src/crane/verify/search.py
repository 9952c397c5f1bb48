"""The first operation in which two executions differ, found by tracing both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from crane.verify.comparison import Difference, compare
from crane.verify.disturbance import Disturbance
from crane.verify.places import Images
from crane.verify.replay import Execution
from crane.verify.traces import Operation, Trace, Window

_BEFORE, _AFTER = 6, 3
_ATTEMPTS = 4
# Operations before the first one that can differ, to see how it came to that.
_LEAD = 2000

Executor = Callable[[Disturbance, Window], Awaitable[Execution]]


class Line(msgspec.Struct, frozen=True):
    """One operation, for people."""

    clock: int
    epoch: int
    thread: int
    operation: str
    place: str
    """Where the program called."""
    output: str
    """Running hash of the output before the operation."""
    stack: str
    """The program's stack pointer."""
    object: str
    """Address of the lock or the like that it is on; empty: none."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The first operation that differs."""

    what: str
    """In words."""
    first: list[Line]
    second: list[Line]
    """The operations around it in both executions."""
    at: int
    """Which of those lines it is."""


async def first_operation(
    execute: Executor, treatments: tuple[Disturbance, Disturbance], clock: int
) -> tuple[Finding | None, Difference | None]:
    """Execute with a trace until two executions differ, and say where they begin to.

    ``clock`` is the logical clock up to which the executions seen were equal.
    Returns ``None`` when no difference came again, or none within what was
    traced; the second value is how the last two compared.
    """
    window = Window(first=max(0, clock - _LEAD))
    difference: Difference | None = None
    for attempt in range(_ATTEMPTS):
        pair = treatments if attempt % 2 == 0 else (treatments[1], treatments[0])
        first, second = await execute(pair[0], window), await execute(pair[1], window)
        found = _compare_traces(first, second)
        if found is not None:
            return found, difference
        difference = compare(first, second) or difference
        if difference is not None and difference.epoch is not None:
            # It differed where no trace was taken; that may be elsewhere next time.
            window = Window(first=max(0, difference.clock - _LEAD))
    return None, difference


def _compare_traces(first: Execution, second: Execution) -> Finding | None:
    if first.trace is None or second.trace is None:
        return None
    left, right = Trace(first.trace), Trace(second.trace)
    number = left.first_difference(right)
    if number is None:
        return None
    one = left[number] if number < len(left) else None
    other = right[number] if number < len(right) else None
    before = left[number - 1] if number else None
    what = explain(one, other, before, first.images)
    if before is not None and is_output_alone(one, other):
        number -= 1  # the hash shows what was sent by the operation before
    return Finding(
        what=what,
        first=_lines(left, number, first.images),
        second=_lines(right, number, second.images),
        at=min(number, _BEFORE),
    )


def is_output_alone(one: Operation | None, other: Operation | None) -> bool:
    """Whether two records are of the same operation after different output."""
    if one is None or other is None:
        return False
    return (one.slot, one.code) == (other.slot, other.code) and one.output != other.output


def explain(
    one: Operation | None, other: Operation | None, before: Operation | None, images: Images
) -> str:
    """Say what the difference of two records means; ``before`` is the last equal one."""
    if one is None or other is None:
        return "one execution goes on where the other has no more operations"
    if one.slot != other.slot:
        text = f"another thread runs: {one.slot} and {other.slot}"
    elif one.code != other.code:
        text = f"thread {one.slot} does something else: {one.name} and {other.name}"
    elif before is not None and is_output_alone(one, other):
        place = images.describe(before.caller)
        text = f"thread {before.slot} sent other bytes in or after its {before.name} at {place}"
    elif one.caller != other.caller:
        text = f"thread {one.slot} comes to {one.name} from another place"
    elif one.object != other.object:
        text = (
            f"thread {one.slot} comes to {one.name} with another object:"
            f" {one.object:#x} and {other.object:#x}"
        )
    elif one.stack != other.stack:
        text = f"thread {one.slot} comes to {one.name} with another depth of its stack"
    else:
        text = f"thread {one.slot} comes to {one.name} at another time"
    return text


def _lines(trace: Trace, number: int, images: Images) -> list[Line]:
    return [
        Line(
            clock=one.clock,
            epoch=one.epoch,
            thread=one.slot,
            operation=one.name,
            place=images.describe(one.caller),
            output=f"{one.output:016x}",
            stack=f"{one.stack:#x}",
            object=f"{one.object:#x}" if one.object else "",
        )
        for one in trace.around(number, _BEFORE, _AFTER)
    ]
