"""Runs ``crane verify`` as a user does, apart from everything else on the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    code: int
    output: str
    errors: str
    verdict: dict[str, Any]
    """What ``--json`` wrote; empty when there was no verdict."""

    def explain(self) -> str:
        return f"exit {self.code}\n{self.output}\n{self.errors}"


def verify(work: Path, options: Sequence[str], program: Sequence[str], cwd: Path) -> Result:
    """Verify a program that is started in ``cwd``; ``work`` gets the temporary files."""
    report = work / "verdict.json"
    report.unlink(missing_ok=True)
    # A path that is short enough for a socket's.
    with tempfile.TemporaryDirectory(prefix="crane-test-") as run_dir:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "crane", "verify", "--json", str(report)),
                *("--work", str(work), "--timeout", "90", *options, "--", *program),
            ],
            cwd=cwd,
            env={**os.environ, "CRANE_RUN_DIR": run_dir},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    verdict = json.loads(report.read_text()) if report.exists() else {}
    return Result(done.returncode, done.stdout, done.stderr, verdict)


def identical(result: Result, runs: int) -> None:
    """Assert a good verdict in all its parts."""
    assert result.code == 0, result.explain()
    assert f"identical: {runs} of {runs} runs" in result.output
    verdict = result.verdict
    assert verdict["identical"]
    assert len(verdict["runs"]) == runs
    assert any("hogs" in one["beside"] for one in verdict["runs"])
    for part in ("schedule_hash", "output_hash", "clock", "files", "said", "epochs"):
        assert len({one[part] for one in verdict["runs"]}) == 1
    assert all(one["complete"] and one["files"] is not None for one in verdict["runs"])
    assert verdict["live_samples"] > 0


def load(script: str, requests: int, connections: int = 20) -> str:
    """The command of a load in this directory."""
    return f"{sys.executable} {HERE / script} {{host}} {{port}} {requests} {connections}"
