"""The same C program natively and under the interposer: Linux is the oracle.

How to add a family of calls:

* Write ``cases/<family>.c`` (or ``.cc``). It includes ``conformance.h`` and has any number of
  ``CASE(name) { ... }``; each prints what it saw with ``result``, ``code``,
  ``call`` and their like, one line each: ``name: what = result``.
* A case must print the same whenever it is run natively: let it force the order
  that it wants to see (join, a pipe, a barrier, ``settle()``), print no pid,
  address or time, and clean up, because the cases of a file share a process.
  What must be alone in a process calls ``in_child``.
* ``test_conformance.py`` finds the file by itself. It is compiled once, run
  natively, and run by the interposer three times: with the usual quantum, and
  twice with a hand-over at every operation, which must give equal hashes.
* Time is virtual under the interposer: the log made here has an epoch for each
  millisecond (``SECONDS`` of them), so that sleeping costs next to nothing.
  When the log is at its end and the program still waits, the test names the
  case in which it does.
* One program by hand: ``pytest tests/conformance -k <family>``; one case natively:
  compile it and give its name as an argument.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from msgspec import structs

from crane.verify import recording
from crane.verify.disturbance import Disturbance
from crane.verify.replay import Execution, execute

CASES = Path(__file__).parent / "cases"
SECONDS = 20
"""Virtual seconds of the log."""
NATIVE_TIMEOUT = 20.0
REPLAY_TIMEOUT = 60.0

_START = 1_700_000_000 * 10**9
_BUDGET = 100_000
# As crates/channel/src/epoch.rs and crates/engine/src/dump.rs have them.
_EPOCH = Path(__file__).parents[2] / "crates" / "channel" / "src" / "epoch.rs"
_FLAG_SEED = 1
_MAGIC = b"CRANEEP1"


def _entry_version() -> int:
    found = re.search(r"const ENTRY_VERSION: u8 = (\d+);", _EPOCH.read_text())
    assert found is not None
    return int(found[1])


def compile_case(source: Path, directory: Path, *options: str) -> Path:
    """The program of a family of cases."""
    name, standard = ("c++", "gnu++20") if source.suffix == ".cc" else ("cc", "gnu17")
    compiler = shutil.which(name)
    assert compiler is not None, f"{name} is needed"
    program = directory / source.stem
    flags = [f"-std={standard}", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", str(CASES)]
    subprocess.run([compiler, *flags, "-o", program, source, "-lrt", "-ldl", *options], check=True)
    return program


def native(program: Path, directory: Path) -> list[str]:
    """What it prints without the interposer."""
    output = directory / "native.log"
    with output.open("wb") as file:
        # Not `subprocess.run`: what it said is needed when it hangs, too.
        process = subprocess.Popen(
            [program], cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            end = str(process.wait(NATIVE_TIMEOUT))
        except subprocess.TimeoutExpired:
            end = "a time-out"
        finally:
            process.kill()
            process.wait()
    lines = output.read_text().splitlines()
    assert end == "0", [f"natively it ended with {end}", *lines[-5:]]
    return lines


def write_log(path: Path, seconds: int = SECONDS) -> None:
    """A log without inputs: an epoch for each millisecond."""
    version = _entry_version()
    with path.open("wb") as file:
        file.write(_MAGIC)
        for number in range(seconds * 1000):
            flags = _FLAG_SEED if number == 0 else 0
            time = _START + number * 10**6
            entry = struct.pack("<BBHIQ", version, flags, 0, _BUDGET, time)
            entry += bytes(range(32)) if number == 0 else b""
            file.write(struct.pack("<IQ", len(entry), number + 2) + entry)


def interposed(
    program: Path, log: Path, base: Path, number: int, quantum: int
) -> tuple[list[str], Execution]:
    """What it prints as a replica that executes ``log``, and what became of it."""
    found = recording.find(log, [str(program)], base, os.environ)
    found = with_quantum(found, quantum)
    run = asyncio.run(
        execute(
            found, base / f"run-{number}", number, Disturbance(), base=base, timeout=REPLAY_TIMEOUT
        )
    )
    return run.said.read_text(errors="replace").splitlines(), run


def with_quantum(made: recording.Recording, quantum: int) -> recording.Recording:
    """The same recording with another quantum."""
    return dataclasses.replace(made, config=structs.replace(made.config, quantum=quantum))
