"""What was measured, and how it is shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from crane.bench.driver import Speed


class Row(msgspec.Struct, kw_only=True):
    """One test of one target: medians of all rounds."""

    test: str
    connections: int
    target: str
    rate: float
    """Requests a second."""
    p50_ms: float
    p99_ms: float
    rates: list[float]
    """Of every round."""
    ratios: dict[str, float] = {}
    """Its rate to that of the targets it is compared with."""


class Results(msgspec.Struct, kw_only=True):
    """A whole run."""

    machine: dict[str, Any]
    rounds: int
    seconds: float
    redis_benchmark: list[Row]
    """Redis' own tool, against Redis alone."""
    writes: list[Row]
    """Small writes by the same driver, against etcd."""
    idle_percent: dict[str, float]
    """Processor time while nobody asks for anything, in percent of one core."""


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {"cores": os.cpu_count(), "kernel": platform.release(), "arch": platform.machine()}


def row(test: str, connections: int, target: str, rounds: Sequence[Speed]) -> Row:
    """The medians of some rounds."""
    return Row(
        test=test,
        connections=connections,
        target=target,
        rate=median(one.rate for one in rounds),
        p50_ms=median(one.p50 for one in rounds),
        p99_ms=median(one.p99 for one in rounds),
        rates=[round(one.rate, 1) for one in rounds],
    )


def compare(rows: list[Row], against: dict[str, list[str]]) -> None:
    """Put ratios in: ``against`` maps a target to those it is compared with."""
    rates = {(one.test, one.connections, one.target): one.rate for one in rows}
    for one in rows:
        for other in against.get(one.target, []):
            base = rates.get((one.test, one.connections, other))
            if base:
                one.ratios = {**one.ratios, other: round(one.rate / base, 3)}


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as a table's."""
    return [
        (
            one.test,
            str(one.connections),
            one.target,
            f"{one.rate:,.0f}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            ", ".join(f"{ratio:.2f} x {other}" for other, ratio in one.ratios.items()),
        )
        for one in rows
    ]


HEADS = ("TEST", "CONNS", "TARGET", "REQUESTS/S", "P50 MS", "P99 MS", "RATIO")
