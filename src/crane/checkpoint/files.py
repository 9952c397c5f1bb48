"""A replica's files in a checkpoint.

GNU tar keeps what an overlay's layer is made of: whiteouts (device 0:0),
attributes that mark replaced directories, hard links, holes, owners and times
to the nanosecond. It leaves out the names of Unix sockets, which are kept apart.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from crane.errors import CraneError

LAYERS, SHM, SOCKETS = "layers.tar", "shm.tar", "sockets.json"

_KEEP = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]


class Socket(msgspec.Struct, frozen=True):
    """The name of a Unix socket."""

    path: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int


def _tar(words: list[str], what: str, keep: Sequence[int] = ()) -> None:
    done = subprocess.run(
        [shutil.which("tar") or "/bin/tar", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=keep,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise CraneError(f"cannot {what}: {reason[0] if reason else 'tar failed'}")


def archive(
    source: Path, target: Path, names: list[str], renames: Mapping[str, str] | None = None
) -> None:
    """Put ``names`` below ``source`` into the archive ``target``.

    ``renames`` are what beginnings of names are called there.

    Raises:
        CraneError: when a file cannot be read or the archive not be written.
    """
    _tar(
        [
            *("--create", "--file", str(target), "--format=posix", "--sparse"),
            # Not in what symbolic links lead to.
            *(f"--transform=s,^{old},{new},S" for old, new in (renames or {}).items()),
            *(*_KEEP, "--directory", str(source), "--", *names),
        ],
        f"copy the program's files below {source}",
    )


def extract(
    source: Path | str, target: Path | str, keep: Sequence[int] = (), names: Sequence[str] = ()
) -> None:
    """Put what is in an archive below ``target``, or only ``names``.

    ``keep`` are descriptors in its path.

    Raises:
        CraneError: when the archive cannot be read or its files not be written.
    """
    _tar(
        [
            *("--extract", "--file", str(source), "--preserve-permissions", "--same-owner"),
            *(*_KEEP, "--directory", str(target), "--", *names),
        ],
        f"put the program's files below {target} back",
        keep,
    )


def save(layers: Path, init: int, target: Path) -> None:
    """Put a replica's layers and its shared memory into the checkpoint ``target``.

    Raises:
        CraneError: when they cannot be seen from here or not be copied.
    """
    uppers = sorted(str(path.relative_to(layers)) for path in layers.glob("*/upper"))
    if not uppers:
        raise CraneError(
            "the program's files are kept in memory, where no checkpoint can copy them;"
            " give a --state on ext4, xfs or btrfs"
        )
    archive(layers, target / LAYERS, uppers)
    archive(Path(f"/proc/{init}/root/dev/shm"), target / SHM, ["."])
    found = [one for upper in uppers for one in _sockets(layers, layers / upper)]
    (target / SOCKETS).write_bytes(msgspec.json.encode(found))


def _sockets(base: Path, top: Path) -> list[Socket]:
    found = []
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            one = path.lstat()
            if stat.S_ISSOCK(one.st_mode):
                place = str(path.relative_to(base))
                found.append(Socket(place, one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns))
    return found


def load(checkpoint: Path, layers: Path) -> None:
    """Make the layers of a replica as they were in a checkpoint; ``layers`` is empty.

    Raises:
        CraneError: when the archive cannot be read or the files not be written.
    """
    extract(checkpoint / LAYERS, layers)
    listed = msgspec.json.decode((checkpoint / SOCKETS).read_bytes(), type=list[Socket])
    for one in listed:
        path = layers / one.path
        if not path.resolve().is_relative_to(layers.resolve()):
            raise CraneError(f"{checkpoint / SOCKETS} names a place outside: {one.path}")
        above = path.parent.stat()
        os.mknod(path, stat.S_IFSOCK | stat.S_IMODE(one.mode))
        os.chown(path, one.uid, one.gid)
        path.chmod(stat.S_IMODE(one.mode))
        os.utime(path, ns=(one.mtime_ns, one.mtime_ns))
        os.utime(path.parent, ns=(above.st_atime_ns, above.st_mtime_ns))
