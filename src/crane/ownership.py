"""Which paths the replicas share, and which each has for itself.

Everything else is the machine's own with the replica's layer over it. A
**shared** path has no layer: it is the machine's own, read-only unless asked
otherwise. What is written there is outside the log, and outside the guarantee.

A **private** directory is copied into the replica's state directory before its
program first runs, and its layer lies over that copy. So what the machine has
there may change afterwards, and replicas on one machine may begin with copies
that were put there for them. The copy is of this machine's directory, or, with
``copy_private``, of another replica's copy (:mod:`crane.initial`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from crane import durable, mounts
from crane.config import NodeConfig
from crane.errors import CraneError, UsageError

DIRECTORY = "private"
"""Where the copies are, in a replica's state directory."""

_WRITABLE = ":rw"


def share(text: str) -> tuple[str, bool]:
    """The path of a ``share`` and whether the program may write there."""
    path = text.removesuffix(_WRITABLE)
    return path, path != text


def normal(texts: Iterable[str], origin: Path) -> list[str]:
    """Paths as they are written down: absolute, each once, parents first.

    ``origin`` is where relative ones begin.
    """
    found = set()
    for text in texts:
        path, writable = share(text)
        found.add(os.path.normpath(origin / path) + (_WRITABLE if writable else ""))
    return sorted(found)


def check(shared: Iterable[str], private: Iterable[str]) -> None:
    """Refuse paths that cannot be shared or owned.

    Raises:
        UsageError: naming the path and the mend.
    """
    owned = list(private)
    common = [share(one)[0] for one in shared]
    for option, path in (*(("--share", one) for one in common), *(("--private", o) for o in owned)):
        if path == "/" or any(mounts.is_below(path, one) for one in ("/proc", "/sys", "/dev")):
            raise UsageError(f"{option} {path}: the replica always has its own; leave it out")
    for path in common:
        if not Path(path).exists():
            raise UsageError(f"--share {path}: there is no such file or directory; make it first")
    for path in owned:
        if Path(path).exists() and not Path(path).is_dir():
            raise UsageError(f"--private {path}: is not a directory; give the one that it is in")
    for one in (*common, *owned):
        for other in (*common, *owned):
            if one != other and mounts.is_below(one, other):
                raise UsageError(f"{one} lies in {other}; give only one of them")
    both = sorted({*common} & {*owned})
    if both:
        raise UsageError(f"{both[0]} cannot be both shared and private")
    double = sorted({one for one in common if common.count(one) > 1})
    if double:
        raise UsageError(f"--share {double[0]}: give it once, with or without {_WRITABLE}")


def copies(config: NodeConfig, state_dir: Path) -> dict[str, Path]:
    """The copy of each private directory, below ``state_dir``."""
    return {path: state_dir / DIRECTORY / path.lstrip("/") for path in config.private}


def missing(config: NodeConfig, state_dir: Path) -> list[str]:
    """The private directories of which there is no copy below ``state_dir`` yet."""
    return [path for path, copy in copies(config, state_dir).items() if not copy.is_dir()]


def adopt(config: NodeConfig, state_dir: Path, source: Path) -> None:
    """Make what lies below ``source``, on the same file system, the copies that are missing.

    Raises:
        OSError: when it cannot be moved or the disk does not take it.
    """
    durable.sync_all(source)
    known = copies(config, state_dir)
    for path in missing(config, state_dir):
        copy = known[path]
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (source / path.lstrip("/")).rename(copy)
    if known:
        durable.sync_all(state_dir)


def prepare(config: NodeConfig, state_dir: Path, *, fresh: bool) -> None:
    """Make the copies that do not exist yet; ``fresh`` says that the log is empty.

    A directory that the machine does not have begins empty.

    Raises:
        CraneError: when a copy is missing that the log goes with, or cannot be made.
    """
    known = copies(config, state_dir)
    for path in missing(config, state_dir):
        copy = known[path]
        if not fresh:
            raise CraneError(
                f"the replica's own copy of {path} is missing ({copy}), but its log begins with"
                " it; put it back, or have it copied from another replica (`copy_private`)"
            )
        unfinished = copy.with_name(f".{copy.name}.new")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if Path(path).is_dir():
                duplicate(path, unfinished)
                _remove_sockets(unfinished)
            else:
                unfinished.mkdir(mode=0o755)
            # The log goes with it, so it is there as long as the log is.
            durable.sync_all(unfinished)
            unfinished.rename(copy)
            durable.sync_all(copy)
        except OSError as error:
            raise CraneError(f"cannot copy {path} for the replica: {error.strerror}") from error


def _remove_sockets(top: Path) -> None:
    """Leave out the names of sockets: nobody listens there, and archives do not have them."""
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            found = path.lstat()
            if stat.S_ISSOCK(found.st_mode):
                above = path.parent.stat()
                path.unlink()
                os.utime(path.parent, ns=(above.st_atime_ns, above.st_mtime_ns))


def duplicate(source: str, target: Path) -> None:
    """A copy with owners, modes and times, without its bytes where the file system can."""
    done = subprocess.run(
        [shutil.which("cp") or "/bin/cp", "-a", "--reflink=auto", "--", source, str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise CraneError(f"cannot copy {source} for the replica: {reason[-1] if reason else 'cp'}")
