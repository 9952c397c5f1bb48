"""Check: one recorded log of the program, executed again and again, is the same each time."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from program import Program, Size

from crane.chaos.cluster import free_port
from crane.checkpoint import criu

DRIVE = Path(__file__).with_name("drive.py")
_SECONDS = 900.0


@dataclass(kw_only=True)
class Verified:
    """What was seen."""

    requests: int
    """Acknowledged requests of the writers; those of the ordinary client come on top."""
    identical: int = 0
    """Executions that were the same as the first, the first included."""
    runs: int = 0
    epochs: int = 0
    operations: int = 0
    """Scheduled operations of one execution."""
    seconds: float = 0.0
    """Of the fastest execution."""
    problems: list[str] = field(default_factory=list)


def verify(program: Program, size: Size, base: Path) -> Verified:
    """Run the check in the new directory ``base``."""
    place, work = base / "program", base / "work"
    place.mkdir(parents=True)
    work.mkdir()
    port = free_port(("127.0.0.1",), program.ports)
    setup = program.configure(place, port)
    report = work / "verdict.json"
    command = [sys.executable, "-m", "crane", "verify", "--json", str(report)]
    command += ["--runs", str(size.runs), "--work", str(work), *setup.options]
    if program.restores and criu.why_not() is None:
        # Every run but the first is restored in the middle.
        command.append("--checkpoint")
    command += ["--load", _load(program, size, port, place), "--", *setup.argv]
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, **setup.environment, "CRANE_RUN_DIR": str(base / "run")},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    result = Verified(requests=size.requests)
    if not report.exists():
        result.problems.append(_last(done.stderr) or f"exit status {done.returncode}")
        return result
    verdict: dict[str, Any] = json.loads(report.read_text())
    runs = verdict["runs"]
    result.runs = len(runs)
    result.identical = sum(_result(one) == _result(runs[0]) for one in runs)
    result.epochs, result.operations = verdict["epochs"], verdict["clock"]
    result.seconds = min(one["seconds"] for one in runs)
    if not verdict["identical"]:
        result.problems.append(done.stdout.strip())
    if result.identical != size.runs:
        result.problems.append(f"{result.identical} of {size.runs} runs were the same")
    if not all(one["complete"] and one["files"] for one in runs):
        result.problems.append(f"not everything could be compared: {verdict['notes']}")
    if not any("hogs" in one["beside"] for one in runs):
        result.problems.append("no run was beside busy processes")
    return result


def _result(run: dict[str, Any]) -> tuple[object, ...]:
    return tuple(run[part] for part in ("schedule_hash", "output_hash", "clock", "files", "said"))


def _load(program: Program, size: Size, port: int, place: Path) -> str:
    """A shell command: the writers, and beside them the ordinary client."""
    words = [sys.executable, str(DRIVE), program.name]
    drive = f"{shlex.join(words)} {{host}} {port} {size.requests} {size.connections}"
    ordinary = program.ordinary(("{host}", port), place)
    if ordinary is None:
        return drive
    return f"{drive} & writers=$!\n( {ordinary}\n)\nbeside=$?\nwait $writers && exit $beside"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])
