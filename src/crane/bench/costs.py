"""What single operations cost: a small program alone and on one replica."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from crane.chaos.cluster import trial_dir
from crane.errors import CraneError

_SOURCE = Path(__file__).with_suffix(".c")
_SECONDS = 120.0
_NAMES = {
    "lock": "lock and unlock of a free mutex",
    "clock": "read of the clock",
    "handover": "hand-over from one thread to another",
}


@dataclass(frozen=True)
class Cost:
    """One operation, in nanoseconds of real time."""

    what: str
    native: float
    replicated: float


def measure() -> list[Cost]:
    """Compile the program and run it both ways.

    Raises:
        CraneError: when there is no compiler or it does not run.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CraneError("cc is missing; on Debian: apt-get install build-essential")
    base = trial_dir("costs")
    try:
        program = base / "costs"
        subprocess.run([compiler, "-O2", "-pthread", "-o", program, _SOURCE], check=True)
        alone = _figures(_run([str(program)], base))
        state = base / "state"
        words = ["run", "--replicas", "1", "--name", f"costs-{base.name[-8:].lower()}"]
        words = [word.replace("_", "x") for word in words]
        # It ends by itself, which `crane run` says is not what servers do.
        _run(
            [sys.executable, "-m", "crane", *words, "--state", str(state), "--", str(program)], base
        )
        replicated = _figures((state / "replicas" / "1" / "server.log").read_text())
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return [Cost(text, alone[name], replicated[name]) for name, text in _NAMES.items()]


def _run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.stdout


def _figures(text: str) -> dict[str, float]:
    found = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    if set(found) < set(_NAMES):
        raise CraneError(f"the program for single operations said only: {text!r}")
    return {name: float(found[name]) for name in _NAMES}
