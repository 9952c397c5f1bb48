"""Which CRIU there is, and whether it can checkpoint a program here.

Two things make a CRIU unusable that is installed: it is older than the kernel
needs, or this user may not. ``crane checkpoint setup`` makes one in
:data:`PREFIX` (see :mod:`crane.checkpoint.setup`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crane.errors import CraneError

MINIMUM = (4, 2)
"""The oldest version that works on current kernels (6.13 and newer)."""

PREFIX = Path("/usr/local/lib/crane/criu")
"""Where ``crane checkpoint setup`` puts one."""

PRELOAD = PREFIX / "preload.so"
"""What is preloaded into it, see ``preload.c``."""


# Nothing of the node's own, such as another library that is preloaded.
_PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True, slots=True)
class Criu:
    """A CRIU that can be used."""

    path: str
    version: str

    def environment(self) -> dict[str, str]:
        """The variables that it is run with."""
        return {**_PLAIN, "LD_PRELOAD": str(PRELOAD)}


def _candidates() -> list[Path]:
    chosen = os.environ.get("CRANE_CRIU")
    if chosen:
        return [Path(chosen)]
    search = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", os.environ.get("PATH", "")))
    installed = shutil.which("criu", path=search)
    return [PREFIX / "criu", *([Path(installed)] if installed else [])]


def _version(path: Path) -> str | None:
    """What it says of itself; ``None`` when it cannot be executed."""
    try:
        done = subprocess.run(
            [path, "--version"],
            env=_PLAIN,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    found = re.search(r"Version:\s*(\S+)", done.stdout)
    return found[1] if found else None


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of a version text."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def newest() -> Criu | None:
    """A CRIU that is new enough, if there is one."""
    for path in _candidates():
        version = _version(path)
        if version is not None and parse_version(version) >= MINIMUM:
            return Criu(str(path), version)
    return None


@cache
def find() -> Criu:
    """The CRIU to use.

    Raises:
        CraneError: when checkpoints cannot be taken here, in one line with the mend.
    """
    if os.geteuid() != 0:
        raise CraneError("checkpoints need root; without it replicas replay their whole log")
    found = newest()
    if found is None:
        wanted = ".".join(map(str, MINIMUM))
        raise CraneError(
            f"there is no CRIU {wanted} or newer, so checkpoints cannot be taken;"
            " `crane checkpoint setup` builds one"
        )
    if not PRELOAD.is_file():
        raise CraneError(f"{PRELOAD} is missing; `crane checkpoint setup` makes it")
    return found


def why_not() -> str | None:
    """Why checkpoints cannot be taken here; ``None`` when they can."""
    try:
        find()
    except CraneError as error:
        return str(error)
    return None


def check() -> str | None:
    """As :func:`why_not`, asking CRIU what this kernel lacks; takes some 50 ms."""
    try:
        criu = find()
    except CraneError as error:
        return str(error)
    done = subprocess.run(
        [criu.path, "check"],
        env=_PLAIN,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        return None
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"{criu.path} check says: {said[-1] if said else 'nothing'}"


def first_error(log: Path) -> str:
    """The line of a CRIU log that says what went wrong."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    # It complains of things that it does without, and says at the end that it failed.
    harmless = ("criu/tun.c", "RLIMIT_NOFILE for self", " FAILED")
    errors = [
        line for line in lines if "Error" in line and not any(text in line for text in harmless)
    ]
    found = (errors or lines or ["its log is empty"])[0]
    return re.sub(r"^\([\d.]+\)\s*", "", found).strip()
