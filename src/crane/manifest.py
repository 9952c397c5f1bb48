"""What all replicas must have in common, in lines that they compare.

``name<TAB>value`` each: the settings that the program can see, the program's
file, its interpreter and the libraries that are loaded with it, the interposer,
files and directories named by its arguments, and what its private directories
begin with. Replicas whose lines differ refuse each other (``peers.rs`` of the
engine); lines that begin with ``cwd`` are only told, because the program may
never read those files.

A replica also keeps the lines of its first start: with other files its log
would not be executed as it was.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from crane import durable, layers, native, ownership, program
from crane.config import NodeConfig
from crane.errors import CraneError

FILE = "manifest"
"""Where a replica keeps the lines of its first start, in its state directory."""

_PRIVATE = "private"
_LOADER = "/lib64/ld-linux-x86-64.so.2"
# More than any program is started with; a library of pictures is not compared.
_MAX_FILES = 2000
_MAX_BYTES = 512 << 20
_MAX_CWD_FILES = 200
_MAX_CWD_BYTES = 32 << 20
_SHOWN = 10

# Settings that are the same on all replicas at a time, and may be others at another.
_FREE = ("vote", "on_crash")

Lines = dict[str, str]


def collect(config: NodeConfig, state_dir: Path, *, initial: bool = True) -> Lines:
    """The lines of a replica whose private directories have been copied.

    Without ``initial``, those of one that is to get them from another: it cannot be
    told yet whether it has the same, and its program does not run (:mod:`crane.initial`).

    Raises:
        CraneError: when a file cannot be read.
    """
    try:
        return dict(sorted(_lines(config, state_dir, initial=initial)))
    except OSError as error:
        raise CraneError(
            f"{error.filename} cannot be read to compare it with the other replicas':"
            f" {error.strerror}"
        ) from error


def text(lines: Lines) -> str:
    """The lines as the engine takes them."""
    return "".join(f"{_plain(name)}\t{_plain(value)}\n" for name, value in lines.items())


def check_history(lines: Lines, state_dir: Path, *, fresh: bool, accept: bool) -> list[str]:
    """Compare with the lines of the first start, which are written when there are none.

    ``fresh`` says that the log is empty, ``accept`` that differences are the
    user's wish. Returns the names of those that were accepted.

    Raises:
        CraneError: naming what differs.
    """
    file = state_dir / FILE
    current = text(lines)
    try:
        known = file.read_text()
    except FileNotFoundError:
        known = current
    # Whose log it is, the log itself knows; an imported one has other addresses.
    free = {f"setting {name}" for name in (*_FREE, "peers")}
    found = [] if fresh else [one for one in differences(known, current) if one not in free]
    if found and not accept:
        raise CraneError(
            f"changed since the log was begun: {shown(found)}; the log would not be executed as it"
            " was, so put it back, or start afresh with another state directory"
            " (`--accept-changes` goes on: what the program has may then differ from what"
            " clients were told)"
        )
    if fresh or found or not file.exists():
        durable.write(file, current.encode())
    return found


def differences(one: str, other: str) -> list[str]:
    """The names of lines that differ, but for those about the current directory."""
    left, right = (
        {tuple(line.split("\t", 1)) for line in text.splitlines()} for text in (one, other)
    )
    return sorted({entry[0] for entry in left ^ right if not entry[0].startswith("cwd ")})


def shown(names: list[str]) -> str:
    """Names for a message, not more than a few."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _plain(word: str) -> str:
    """A word without tabs and ends of lines."""
    return word.encode("unicode_escape").decode() if not word.isprintable() else word


def _lines(config: NodeConfig, state_dir: Path, *, initial: bool) -> Iterator[tuple[str, str]]:
    yield from _settings(config)
    yield "interposer", layers.digest_of(native.interposer_path())
    chain = program.chain(config.program, config.env)
    named = list(_named(config))
    for path in sorted({*chain, *loaded(chain[-1], config.env)}):
        yield f"file {path}", layers.digest_of(Path(path))
    # The program finds these empty.
    hidden = [config.state_dir, *config.hide]
    for path in named:
        yield from _tree(f"file {path}", Path(path), _MAX_FILES, _MAX_BYTES, hidden=hidden)
    if not initial:
        yield _PRIVATE, "to be copied"  # understood by `manifest.rs` of the engine
    for path, copy in ownership.copies(config, state_dir).items() if initial else ():
        yield from _tree(f"{_PRIVATE} {path}", copy, _MAX_FILES, _MAX_BYTES)
    cwd = Path(config.cwd)
    if not _is_below_any(config.cwd, [*named, *config.private]):
        yield from _tree("cwd", cwd, _MAX_CWD_FILES, _MAX_CWD_BYTES, separator=" ", hidden=hidden)


def _settings(config: NodeConfig) -> Iterator[tuple[str, str]]:
    for name in (
        "name",
        "argv",
        "program",
        "cwd",
        "quantum",
        "budget",
        "share",
        "private",
        *_FREE,
    ):
        yield f"setting {name}", _json(getattr(config, name))
    for name, value in config.env.items():
        yield f"setting env.{name}", value
    for name, limits in config.limits.items():
        yield f"setting limits.{name}", _json(limits)
    yield "setting uid", str(os.geteuid() if config.uid is None else config.uid)
    yield "setting gid", str(os.getegid() if config.gid is None else config.gid)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def loaded(binary: str, environment: dict[str, str]) -> list[str]:
    """The libraries that the loader finds for a program, as it finds them; without running it."""
    done = subprocess.run(
        [_LOADER, "--list", binary],
        env={name: environment[name] for name in ("LD_LIBRARY_PATH",) if name in environment},
        capture_output=True,
        text=True,
        check=False,
    )
    words = (line.split() for line in done.stdout.splitlines())
    found = {word for line in words for word in line if word.startswith("/")}
    return sorted(os.path.normpath(path) for path in found)


def _named(config: NodeConfig) -> Iterator[str]:
    """Existing files and directories that the arguments name."""
    for word in config.argv[1:]:
        path = os.path.normpath(Path(config.cwd) / word.rpartition("=")[2])
        if path in ("/", config.cwd) or _is_below_any(config.cwd, [path]):
            continue  # the current directory and what it lies in: everything and nothing
        if _is_below_any(
            path, [*config.private, *(ownership.share(one)[0] for one in config.share)]
        ):
            continue
        if word not in ("", ".", "..") and (Path(path).is_file() or Path(path).is_dir()):
            yield path


def _is_below_any(path: str, directories: Iterable[str]) -> bool:
    from crane.mounts import is_below

    return any(is_below(path, one) for one in directories)


def _tree(
    name: str,
    top: Path,
    max_files: int,
    max_bytes: int,
    *,
    separator: str = "/",
    hidden: Sequence[str] = (),
) -> Iterator[tuple[str, str]]:
    """A line for each file of a tree; one line in all when it is too large."""
    if not top.is_dir():
        yield name, _entry(top)
        return
    entries: list[Path] = []
    size = 0
    for directory, names, others in os.walk(top):
        if _is_below_any(directory, hidden):
            names.clear()
            continue
        names.sort()
        found = [Path(directory, one) for one in (*names, *others)]
        size += sum(one.lstat().st_size for one in found if not one.is_dir())
        entries += found
        if len(entries) > max_files or size > max_bytes:
            yield name, "too large to be compared"
            return
    for one in entries:
        yield f"{name}{separator}{one.relative_to(top)}", _entry(one)


def _entry(path: Path) -> str:
    """What a program can see of a file: its kind, mode, owner, time and content."""
    try:
        return _describe(path)
    except FileNotFoundError:
        return "gone"
    except PermissionError:
        return "unreadable"


def _describe(path: Path) -> str:
    found = path.lstat()
    about = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    if stat.S_ISREG(found.st_mode):
        return f"{about} {found.st_mtime_ns} {layers.digest_of(path)}"
    if stat.S_ISLNK(found.st_mode):
        return f"{about} {hashlib.sha256(os.fsencode(path.readlink())).hexdigest()}"
    return about
