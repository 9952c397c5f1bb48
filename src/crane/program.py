"""Whether a program can be replicated at all: told before anything starts.

The interposer is a preloaded library, so the program must be loaded by the
dynamic loader of this machine's C library, and without extra privileges.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from crane.errors import CraneError

_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
_MAX_INTERPRETERS = 4
# Its own table of functions is there also when the program was stripped.
_GO_SECTIONS = (".go.buildinfo", ".gopclntab", ".note.go.buildid")


class Kind(StrEnum):
    """What a program file is."""

    DYNAMIC = "dynamic"
    STATIC = "static"
    FOREIGN = "foreign"
    GO = "go"
    OTHER = "other"


class ElfFacts(msgspec.Struct, frozen=True):
    """What decides from an ELF file whether it can be preloaded into."""

    kind: Kind
    detail: str
    """The dynamic loader of a dynamic file, the machine of a foreign one."""


class Program(msgspec.Struct, frozen=True):
    """A program that can be replicated."""

    path: str
    """The file as it is started."""
    binary: str
    """The ELF file behind it: the same, or the interpreter of a script."""


class NotReplicableError(CraneError):
    """The program exists and cannot be replicated; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=126)


def find(name: str, cwd: str, environment: Mapping[str, str]) -> str:
    """The absolute path of ``name`` as a shell in ``cwd`` would find it.

    Raises:
        CraneError: with exit code 127 when there is no such program.
    """
    if "/" in name:
        path = os.path.normpath(Path(cwd) / name)
        if not Path(path).exists():
            raise CraneError(f"program `{name}` does not exist", exit_code=127)
        return path
    search = environment.get("PATH", os.defpath)
    found = shutil.which(name, path=search)
    if found is None:
        raise CraneError(
            f"program `{name}` was not found in PATH ({search}); install it or give its full path",
            exit_code=127,
        )
    return os.path.normpath(Path(cwd) / found)


def check(path: str, environment: Mapping[str, str]) -> Program:
    """Decide whether the program at the absolute ``path`` can be replicated.

    Scripts are followed to their interpreter.

    Raises:
        NotReplicableError: with the reason and the mend.
    """
    files = chain(path, environment)
    explain_elf(path, files[-1], elf_facts(files[-1], os.uname().machine))
    return Program(path=path, binary=files[-1])


def chain(path: str, environment: Mapping[str, str]) -> list[str]:
    """A script and its interpreters, or the program alone; the ELF file is the last.

    Raises:
        NotReplicableError: when one of them cannot be started.
    """
    found = [path]
    while True:
        current = found[-1]
        _check_file(current, path)
        with Path(current).open("rb") as file:
            head = file.read(4096)
        if not head.startswith(b"#!"):
            return found
        if len(found) > _MAX_INTERPRETERS:
            raise NotReplicableError(f"`{path}`: more than {_MAX_INTERPRETERS} nested interpreters")
        found.append(_interpreter(current, head, environment))


def interpreter_words(head: bytes) -> list[str]:
    """The words of a script's first line after ``#!``: the interpreter and its argument."""
    line = head[2:].split(b"\n", 1)[0].decode(errors="replace").strip()
    return line.split(None, 1)


def _interpreter(script: str, head: bytes, environment: Mapping[str, str]) -> str:
    words = interpreter_words(head)
    if not words:
        raise NotReplicableError(f"`{script}` names no interpreter after `#!` in its first line")
    if Path(words[0]).name == "env" and len(words) == 2:
        arguments = [
            word
            for word in words[1].split()
            if word not in ("-S", "--split-string") and "=" not in word
        ]
        if arguments and not arguments[0].startswith("-"):
            return find(arguments[0], "/", environment)
    if not words[0].startswith("/") or not Path(words[0]).exists():
        raise NotReplicableError(f"`{script}`: its interpreter `{words[0]}` does not exist")
    return words[0]


def _check_file(path: str, asked: str) -> None:
    """Refuse what the kernel would not start, or would start with privileges."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise CraneError(f"`{path}`: {error.strerror}", exit_code=127) from error
    if not stat.S_ISREG(found.st_mode):
        raise NotReplicableError(f"`{path}` is not a file that can be started")
    if not os.access(path, os.X_OK):
        raise NotReplicableError(f"`{path}` may not be executed; `chmod +x {path}` allows it")
    if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise NotReplicableError(
            f"`{asked}` cannot be replicated: `{path}` is setuid or setgid and the loader ignores"
            " the interposer there; start a copy without that bit (`cp` drops it)"
        )
    if _has_file_capabilities(path):
        raise NotReplicableError(
            f"`{asked}` cannot be replicated: `{path}` has file capabilities and the loader"
            " ignores the interposer there; start a copy without them (`cp` drops them)"
        )


def _has_file_capabilities(path: str, getxattr: Callable[[str, str], bytes] = os.getxattr) -> bool:
    try:
        return bool(getxattr(path, "security.capability"))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def elf_facts(path: str, machine: str) -> ElfFacts:
    """Read an ELF file's headers; ``machine`` is this machine's, as ``uname -m`` says it."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    with Path(path).open("rb") as file:
        try:
            elf = ELFFile(file)
        except ELFError:
            return ElfFacts(Kind.OTHER, "")
        foreign = elf["e_machine"] != _MACHINES.get(machine) or elf.elfclass != 64
        if foreign or not elf.little_endian:
            return ElfFacts(Kind.FOREIGN, f"{elf.get_machine_arch()}, {elf.elfclass} bit")
        if any(elf.get_section_by_name(one) for one in _GO_SECTIONS):
            return ElfFacts(Kind.GO, "")
        for segment in elf.iter_segments():
            if isinstance(segment, InterpSegment):
                return ElfFacts(Kind.DYNAMIC, segment.get_interp_name())
    return ElfFacts(Kind.STATIC, "")


def explain_elf(asked: str, path: str, facts: ElfFacts) -> None:
    """Raise ``NotReplicableError`` when an ELF file with these facts cannot be replicated."""
    where = f"`{asked}`" if asked == path else f"`{asked}` (started by `{path}`)"
    match facts.kind:
        case Kind.OTHER:
            raise NotReplicableError(
                f"{where} is neither an ELF program nor a script with `#!` in its first line"
            )
        case Kind.FOREIGN:
            raise NotReplicableError(
                f"{where} is made for another machine ({facts.detail}), this one is"
                f" {os.uname().machine}; install the build for this machine"
            )
        case Kind.GO:
            raise NotReplicableError(
                f"{where} is a Go program: its runtime makes system calls and threads by itself,"
                " past the interposer"
            )
        case Kind.STATIC:
            raise NotReplicableError(
                f"{where} is statically linked, so the interposer cannot be loaded into it;"
                " use a dynamically linked build"
            )
        case Kind.DYNAMIC:
            if not Path(facts.detail).name.startswith("ld-linux"):
                raise NotReplicableError(
                    f"{where} uses the loader `{facts.detail}`; only programs for the GNU C"
                    " library can be replicated"
                )
