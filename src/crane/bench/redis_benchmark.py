"""``redis-benchmark``, Redis' own tool."""

from __future__ import annotations

import csv
import subprocess

from crane.bench.driver import Speed
from crane.chaos.cluster import Address
from crane.errors import CraneError

_SECONDS = 60


def run(address: Address, test: str, connections: int, requests: int) -> Speed:
    """One run of one of its tests.

    Raises:
        CraneError: when it fails.
    """
    words = ["redis-benchmark", "-h", address[0], "-p", str(address[1]), "--csv"]
    words += ["-t", test, "-c", str(connections), "-n", str(requests)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CraneError(f"`{' '.join(words)}` has not ended after {_SECONDS} s") from error
    if done.returncode != 0:
        raise CraneError(f"`{' '.join(words)}` failed: {done.stderr or done.stdout}")
    return parse(done.stdout)


def parse(text: str) -> Speed:
    """The figures of the only test in its output."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if len(rows) != 1:
        raise CraneError(f"redis-benchmark said something unexpected: {text!r}")
    row = rows[0]
    return Speed(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]))
