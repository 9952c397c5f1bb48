"""What a program wrote: the layers of its replica, in a comparable form.

Times are left out, because the real ones differ and the program does not see
them; so are the numbers of inodes and the order of directories.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

from crane import mounts

Files = dict[str, "WrittenFile"]


class WrittenFile(msgspec.Struct, frozen=True):
    """One entry of a layer."""

    kind: str
    """``file``, ``directory``, ``link``, ``deleted`` or another type's name."""
    mode: int
    owner: tuple[int, int]
    size: int
    """Bytes, or the length of a link's target; 0 for anything else."""
    digest: str
    """SHA-256 of the content or of the target, empty for anything else."""


def places(layers: Path) -> dict[str, str]:
    """Over which directory each layer of a replica lies, by the layer's name.

    Empty when the replica has not run yet, or keeps its layers in memory.
    """
    try:
        return msgspec.json.decode((layers / mounts.PLACES).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}


def written(layers: Path) -> Files | None:
    """Every entry that the program made, changed or deleted, by its path.

    ``None`` when the layers cannot be seen from here.
    """
    known = places(layers)
    uppers = sorted(layers.glob("*/upper"))
    if not uppers:
        return None
    found: Files = {}
    for upper in uppers:
        place = known.get(upper.parent.name, upper.parent.name)
        for directory, names, others in os.walk(upper):
            for name in (*names, *others):
                path = Path(directory, name)
                found[str(Path(place) / path.relative_to(upper))] = _describe(path)
    found.pop(mounts.CONTROL_DIR, None)  # ours
    return dict(sorted(found.items()))


def where(layers: Path, path: str) -> Path | None:
    """Where the machine finds what the program wrote as ``path``, if a layer lies there."""
    below = {name: place for name, place in places(layers).items() if mounts.is_below(path, place)}
    if not below:
        return None
    name = max(below, key=lambda one: len(below[one]))
    return layers / name / "upper" / os.path.relpath(path, below[name])


def digest(files: Files | None) -> str | None:
    """One digest of everything :func:`written` found."""
    if files is None:
        return None
    plain = [(path, msgspec.structs.astuple(one)) for path, one in files.items()]
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()


def differences(left: Files, right: Files) -> list[str]:
    """The paths whose entries differ, each with a word on how."""
    lines = []
    for path in sorted({*left, *right}):
        one, other = left.get(path), right.get(path)
        if one == other:
            continue
        if one is None or other is None:
            lines.append(f"{path} exists only in {'the second' if one is None else 'the first'}")
        elif one.kind != other.kind:
            lines.append(f"{path} is a {one.kind} in the first, a {other.kind} in the second")
        elif one.size != other.size:
            lines.append(f"{path} has {one.size} bytes in the first, {other.size} in the second")
        else:
            how = "content" if one.digest != other.digest else "mode or owner"
            lines.append(f"{path} has another {how}")
    return lines


def _describe(path: Path) -> WrittenFile:
    found = path.lstat()
    mode, size, digest_ = stat.S_IMODE(found.st_mode), 0, ""
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFREG:
            kind, size = "file", found.st_size
            with path.open("rb") as file:
                digest_ = hashlib.file_digest(file, "sha256").hexdigest()
        case stat.S_IFDIR:
            kind = "replaced directory" if _is_opaque(path) else "directory"
        case stat.S_IFLNK:
            kind = "link"
            target = os.fsencode(path.readlink())
            size, digest_ = len(target), hashlib.sha256(target).hexdigest()
        case stat.S_IFCHR if found.st_rdev == 0:
            kind = "deleted"
        case stat.S_IFIFO:
            kind = "pipe"
        case stat.S_IFSOCK:
            kind = "socket"
        case _:
            kind = "device"
    return WrittenFile(kind, mode, (found.st_uid, found.st_gid), size, digest_)


def _is_opaque(path: Path) -> bool:
    """Whether a directory hides the one below it, as overlay file systems mark it."""
    for space in ("trusted", "user"):
        try:
            if os.getxattr(path, f"{space}.overlay.opaque") == b"y":
                return True
        except OSError:
            continue
    return False


def digest_of(path: Path) -> str:
    """SHA-256 of one file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
