"""From a command line to a verdict."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from crane import manifest, program
from crane.doctor import advice, objects
from crane.errors import CraneError

TABLE = Path(__file__).parents[1] / "interposed.json"
"""The interposer's table as `python tools/compatibility.py` writes it."""

Verdict = Literal["supported", "supported with settings", "not supported"]

# The C library's own parts, which are below the interposer.
_C_LIBRARY = frozenset(
    {
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libm.so.6",
        "libpthread.so.0",
        "libresolv.so.2",
        "librt.so.1",
        "libutil.so.1",
    }
)
_INSTRUCTIONS = {
    "rdrand": "takes random numbers from the processor; not trapped, so answers made from them"
    " differ",
    "rdseed": "takes random numbers from the processor; not trapped, so answers made from them"
    " differ",
    "xbegin": "uses transactional memory, whose aborts differ",
    "syscall": "makes system calls by itself, past the interposer (a program's own file may)",
}


class Gap(msgspec.Struct, frozen=True):
    """Functions that are not interposed and could let replicas differ."""

    names: list[str]
    reason: str


class Table(msgspec.Struct, frozen=True):
    """What the interposer answers, and what it is known not to."""

    interposed: dict[str, str]
    """Function to its family."""
    gaps: list[Gap]
    passed: list[str]
    """Patterns of functions through which nothing comes in."""

    def gap(self, symbol: str) -> str | None:
        """Why a function could let replicas differ, ``None`` when it cannot."""
        if symbol in self.interposed:
            return None
        exact = [one.reason for one in self.gaps if symbol in one.names]
        if exact or symbol in self.passed:
            return exact[0] if exact else None
        if any("*" in one and fnmatch.fnmatchcase(symbol, one) for one in self.passed):
            return None
        for one in self.gaps:
            if any("*" in name and fnmatch.fnmatchcase(symbol, name) for name in one.names):
                return one.reason
        return None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may let replicas differ, or that is outside the schedule."""

    where: str
    """The file."""
    what: str
    why: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``crane doctor`` says."""

    program: list[str]
    verdict: Verdict
    because: str = ""
    """Why it is not supported."""
    files: list[str] = []
    """What is loaded: the program, its interpreter, the libraries."""
    interposed: int = 0
    """Functions that these take from the C library and the interposer answers."""
    advice: list[advice.Advice] = []
    findings: list[Finding] = []


def table() -> Table:
    """The installed interposer's table.

    Raises:
        CraneError: when it is missing.
    """
    try:
        return msgspec.json.decode(TABLE.read_bytes(), type=Table)
    except FileNotFoundError as error:
        raise CraneError(
            f"{TABLE} is missing; `make build` or a reinstallation mends it"
        ) from error


def examine(argv: Sequence[str], cwd: str, environment: Mapping[str, str]) -> Report:
    """Say whether a program can be replicated, without starting it.

    Raises:
        CraneError: when there is no such program.
    """
    path = program.find(argv[0], cwd, environment)
    known = table()
    try:
        files = program.chain(path, environment)
        program.check(path, environment)
    except program.NotReplicableError as error:
        return Report(program=list(argv), verdict="not supported", because=str(error))
    loaded = [path, *files[1:], *manifest.loaded(files[-1], dict(environment))]
    found = [objects.read(one) for one in dict.fromkeys(loaded) if _is_elf(one)]
    own = [one for one in found if Path(one.path).name not in _C_LIBRARY]
    given = advice.about(files, argv)
    return Report(
        program=list(argv),
        verdict=(
            "supported with settings"
            if any(one.level == "needed" for one in given)
            else "supported"
        ),
        files=[one.path for one in found],
        interposed=len({name for one in own for name in one.imports if name in known.interposed}),
        advice=given,
        findings=[*_code(own, path), *_gaps(own, known)],
    )


def _is_elf(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _code(own: Sequence[objects.Facts], path: str) -> list[Finding]:
    """Instructions that nobody answers; system calls of the program's own file are."""
    return [
        Finding(where=one.path, what=f"{name} ({count} places)", why=_INSTRUCTIONS[name])
        for one in own
        for name, count in one.code.items()
        if (name, one.path) != ("syscall", path)
    ]


def _gaps(own: Sequence[objects.Facts], known: Table) -> list[Finding]:
    """Imports that are not interposed, together for each reason and file."""
    within = {name for one in own for name in one.defines}
    findings = []
    for one in own:
        by_reason: dict[str, list[str]] = {}
        for name in sorted(one.imports - within):
            reason = known.gap(name)
            if reason is not None:
                by_reason.setdefault(reason, []).append(name)
        findings += [
            Finding(where=one.path, what=", ".join(names), why=reason)
            for reason, names in by_reason.items()
        ]
    return findings
