"""``make verify-programs``: both checks at full size for every program, in one table."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from catalogue import named, programs
from killing import Killed, kill_the_leader
from program import Program
from verifying import Verified, verify

Result = TypeVar("Result")

HEADS = ("PROGRAM", "REQUESTS", "OPS", "IDENTICAL", "ACKED", "LOST", "GAP", "REJOIN", "SECONDS")


def main() -> None:
    """Exits with 1 when a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PROGRAM", help="all if none is given")
    parser.add_argument("--small", action="store_true", help="as in the test suite")
    wanted = parser.parse_args()
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [named(one) for one in wanted.names] or programs()
    problems: list[str] = []
    rows: list[tuple[str, ...]] = [HEADS]
    for program in chosen:
        rows.append(_row(program, problems, small=wanted.small))
        _show(rows[-1:], [max(len(head), 11) for head in HEADS])
    print()
    _show(rows, [max(len(row[at]) for row in rows) for at in range(len(HEADS))])
    for one in problems:
        print(one)
    sys.exit(1 if problems else 0)


def _row(program: Program, problems: list[str], *, small: bool) -> tuple[str, ...]:
    size = (small and program.ci) or program.full
    began = time.monotonic()
    verified = _run(lambda base: verify(program, size, base), program, problems)
    killed = _run(lambda base: kill_the_leader(program, size, base), program, problems)
    for result in (verified, killed):
        problems += [f"{program.name}: {one}" for one in (result.problems if result else ())]
    return (
        program.name,
        *(_verified(verified)),
        *(_killed(killed)),
        f"{time.monotonic() - began:.0f}",
    )


def _run(check: Callable[[Path], Result], program: Program, problems: list[str]) -> Result | None:
    base = Path(tempfile.mkdtemp(prefix="crane-p-", dir="/var/tmp"))
    try:
        return check(base)
    except Exception as error:  # noqa: BLE001 - the other programs are checked, too
        problems.append(f"{program.name}: {error}")
        return None
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _verified(one: Verified | None) -> tuple[str, ...]:
    if one is None:
        return ("-", "-", "failed")
    return (str(one.requests), str(one.operations), f"{one.identical} of {one.runs}")


def _killed(one: Killed | None) -> tuple[str, ...]:
    if one is None:
        return ("failed", "-", "-", "-")
    return (str(one.acknowledged), str(one.lost), f"{one.gap * 1000:.0f} ms", f"{one.rejoin:.1f} s")


def _show(rows: list[tuple[str, ...]], widths: list[int]) -> None:
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


main()
