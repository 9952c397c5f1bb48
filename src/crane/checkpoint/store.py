"""The checkpoints that a replica keeps: ``checkpoints/INDEX`` in its state directory.

One is made under another name, written to the disk, and renamed when it is whole. Its
``manifest.json`` has the length and the SHA-256 of every file, so that what was
damaged, cut or added is refused instead of restored.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from crane.checkpoint import identities, processes
from crane.errors import CraneError

DIRECTORY = "checkpoints"
MANIFEST = "manifest.json"
SHARE = "share.json"
SAID = "said"
"""The end of what the program had written to its standard output and error."""
FORMAT = 1
_NEEDED = (
    SHARE,
    processes.SEGMENT,
    processes.INTERPOSER,
    processes.PROCESS,
    identities.FILE,
)
_NEW = ".new"
_BAD = ".bad"
_BLOCK = 1 << 20


class FileSum(msgspec.Struct, frozen=True):
    """A file of a checkpoint."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is of, and what it consists of."""

    format: int
    cluster_id: str
    name: str
    argv: list[str]
    index: int
    """The last entry of the log that is in it."""
    term: int
    epoch: int
    clock: int
    """The program's logical clock."""
    output_hash: str
    schedule_hash: str
    taken_by: int
    """The replica."""
    taken_at: float
    """Seconds since the Unix epoch, by the clock of that replica's machine."""
    standing: float
    """Seconds for which the program stood still."""
    agreed: str
    """SHA-256 of what the replicas compare."""
    said: int
    """Bytes that the program had written to its standard output and error."""
    files: dict[str, FileSum]

    @property
    def bytes(self) -> int:
        """The length of all files."""
        return sum(one.size for one in self.files.values())


class Checkpoint:
    """A whole checkpoint in a directory."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def index(self) -> int:
        """The last entry of the log that is in it."""
        return self.manifest.index

    @property
    def share(self) -> Path:
        """The node's share."""
        return self.path / SHARE

    @property
    def segment(self) -> Path:
        """The shared segment."""
        return self.path / processes.SEGMENT

    @property
    def interposer(self) -> Path:
        """The library that the processes have mapped."""
        return self.path / processes.INTERPOSER

    def verify(self) -> None:
        """Read all of it.

        Raises:
            CraneError: naming the first file that is not as it was written.
        """
        for name, wanted in self.manifest.files.items():
            file = self.path / name
            try:
                found = sum_of(file)
            except OSError as error:
                raise CraneError(f"{file}: {error.strerror}") from error
            if found != wanted:
                how = "length" if found.size != wanted.size else "content"
                raise CraneError(f"{file} is damaged: it has another {how} than when it was made")
        extra = [name for name in names_in(self.path) if name not in self.manifest.files]
        if extra:
            raise CraneError(f"{self.path / extra[0]} does not belong to this checkpoint")

    def summary(self) -> dict[str, Any]:
        """What a list of checkpoints shows of it."""
        one = self.manifest
        return {
            "index": one.index,
            "epoch": one.epoch,
            "bytes": one.bytes,
            "taken_by": one.taken_by,
            "taken_at": one.taken_at,
            "standing_seconds": one.standing,
            "path": str(self.path),
        }


def read(path: Path) -> Checkpoint:
    """The checkpoint in a directory, by its manifest.

    Raises:
        CraneError: when the manifest is missing or makes no sense.
    """
    file = path / MANIFEST
    try:
        manifest = decode_manifest(file.read_bytes())
    except OSError as error:
        raise CraneError(f"{file}: {error.strerror}; it is no checkpoint") from error
    except ValueError as error:
        raise CraneError(f"{file} cannot be understood: {error}; remove this checkpoint") from error
    return Checkpoint(path, manifest)


def decode_manifest(text: bytes) -> Manifest:
    """Read a manifest and refuse one that names files outside of its directory.

    Raises:
        ValueError: when it makes no sense.
    """
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except RecursionError as error:
        raise ValueError("its parts lie in each other too deeply") from error
    if manifest.format != FORMAT:
        raise ValueError(f"it has format {manifest.format}, this version of crane reads {FORMAT}")
    for name, one in manifest.files.items():
        if not re.fullmatch(r"(images/)?[A-Za-z0-9_][A-Za-z0-9_.:@-]*", name) or one.size < 0:
            raise ValueError(f"it names the file {name!r}")
    for needed in _NEEDED:
        if needed not in manifest.files:
            raise ValueError(f"it has no file {needed!r}")
    return manifest


def names_in(path: Path) -> list[str]:
    """The files of a checkpoint's directory but its manifest, relative to it."""
    found = (one for one in sorted(path.rglob("*")) if not one.is_dir())
    return [str(one.relative_to(path)) for one in found if one != path / MANIFEST]


def sum_of(path: Path) -> FileSum:
    """Length and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(os.fstat(file.fileno()).st_size, digest)


class Store:
    """The checkpoints of one replica, the newest ones. Not for several threads at once."""

    def __init__(self, state: Path) -> None:
        """``state`` is the replica's state directory."""
        self.path = state / DIRECTORY

    def all(self) -> list[Checkpoint]:
        """Those that are whole, the newest first."""
        return sorted(self._found(), key=lambda one: one.index, reverse=True)

    def _found(self) -> Iterator[Checkpoint]:
        if not self.path.is_dir():
            return
        for entry in self.path.iterdir():
            if entry.name.isdecimal():
                try:
                    yield read(entry)
                except CraneError:
                    continue

    def newest(self) -> Checkpoint | None:
        """The newest one."""
        return next(iter(self.all()), None)

    def begin(self) -> Path:
        """A new empty directory to make a checkpoint in; what an earlier one left is removed."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        new = self.path / _NEW
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        return new

    def finish(self, new: Path, manifest: Manifest) -> Checkpoint:
        """Make what :meth:`begin` gave a checkpoint that lasts; may take long.

        Raises:
            CraneError: when the disk does not take it.
        """
        target = self.path / f"{manifest.index:020}"
        try:
            (new / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            for name in (*manifest.files, MANIFEST):
                _sync(new / name)
                (new / name).chmod(0o600)
            for directory in (new, *(one for one in new.rglob("*") if one.is_dir())):
                _sync(directory)
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
            _sync(self.path)
        except OSError as error:
            raise CraneError(
                f"cannot write the checkpoint {target}: {error.strerror}; free some space"
            ) from error
        return Checkpoint(target, manifest)

    def reject(self, checkpoint: Checkpoint) -> Path:
        """Set one aside that cannot be used; where it is now."""
        bad = checkpoint.path.with_name(checkpoint.path.name + _BAD)
        shutil.rmtree(bad, ignore_errors=True)
        checkpoint.path.rename(bad)
        return bad

    def keep(self, count: int) -> None:
        """Remove all but the newest ``count``, and all but one of those set aside."""
        for old in self.all()[count:]:
            # Not whole any more the moment this begins.
            old.path.rename(gone := self.path / _NEW.replace("new", "old"))
            shutil.rmtree(gone, ignore_errors=True)
        bad = sorted(self.path.glob(f"*{_BAD}")) if self.path.is_dir() else []
        for one in bad[:-1]:
            shutil.rmtree(one, ignore_errors=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
