"""Names of running clusters: how one command finds what another one started.

Every running cluster has a directory named after it below the run directory,
with one file for each process that serves it and that process's admin socket
beside. A file names its process by pid and start time, so what a killed
process left behind is recognised and removed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from crane.errors import CraneError, UsageError
from crane.procfs import ProcessIdentity

RUN = "run"
"""The file and socket name of a ``crane run``; a node's is its replica's number."""


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A ``crane run`` process."""

    process: ProcessIdentity
    state_dir: str
    argv: list[str]
    replicas: list[int]


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A ``crane node`` process."""

    process: ProcessIdentity
    id: int
    peers: list[int]
    argv: list[str]
    log: str
    """Where the program's output goes."""
    sandbox: ProcessIdentity | None = None
    server: ProcessIdentity | None = None
    address: str | None = None
    """Where it first listened for clients; it will again after a restart."""


Entry = TypeVar("Entry", RunEntry, NodeEntry)


def run_root() -> Path:
    """The directory below which clusters are named.

    ``$CRANE_RUN_DIR``, else ``/run/crane`` for root, else below
    ``$XDG_RUNTIME_DIR``, else a directory of this user alone in ``/tmp``.
    """
    chosen = os.environ.get("CRANE_RUN_DIR")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/crane")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "crane"
    return Path(f"/tmp/crane-{os.geteuid()}")  # noqa: S108 - checked by `_private_directory`


class ClusterRunDir:
    """The run directory of one cluster."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.name = name
        self.path = (root or run_root()) / name

    def create(self) -> None:
        """Make the directory, readable by its owner alone."""
        _private_directory(self.path.parent)
        _private_directory(self.path)

    def socket(self, who: str) -> Path:
        """The admin socket of ``who`` (``RUN`` or a replica's number)."""
        return self.path / f"{who}.sock"

    def write(self, who: str, entry: RunEntry | NodeEntry) -> None:
        """Register a process, or replace its entry."""
        temporary = self.path / f".{who}.tmp"
        temporary.write_bytes(msgspec.json.encode(entry))
        temporary.replace(self.path / f"{who}.json")

    def remove(self, who: str) -> None:
        """Take a process's entry and socket away, and the directory when it was the last."""
        for path in (self.path / f"{who}.json", self.socket(who)):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def run(self) -> RunEntry | None:
        """The living ``crane run`` of this cluster."""
        return self._living(RUN, RunEntry)

    def nodes(self) -> dict[int, NodeEntry]:
        """The living nodes of this cluster on this machine."""
        found = {}
        for path in self.path.glob("*.json"):
            if path.stem.isdigit():
                entry = self._living(path.stem, NodeEntry)
                if entry is not None:
                    found[entry.id] = entry
        return dict(sorted(found.items()))

    def _living(self, who: str, kind: type[Entry]) -> Entry | None:
        try:
            entry = msgspec.json.decode((self.path / f"{who}.json").read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError):
            entry = None
        if entry is not None and entry.process.alive():
            return entry
        self.remove(who)
        return None

    def in_use(self) -> bool:
        """Whether any process of this cluster is alive on this machine."""
        return self.run() is not None or bool(self.nodes())


def running(root: Path | None = None) -> Iterator[ClusterRunDir]:
    """The clusters that run on this machine, by name."""
    base = root or run_root()
    with suppress(FileNotFoundError):
        for path in sorted(base.iterdir()):
            directory = ClusterRunDir(path.name, base)
            if path.is_dir() and directory.in_use():
                yield directory


def choose(name: str | None, root: Path | None = None) -> ClusterRunDir:
    """The cluster that a command means.

    Raises:
        UsageError: when there is none, or several and no name was given.
    """
    found = {directory.name: directory for directory in running(root)}
    if name is not None:
        if name in found:
            return found[name]
        others = f"running are: {', '.join(found)}" if found else "none is running"
        raise UsageError(f"no cluster `{name}` runs on this machine; {others}")
    if not found:
        raise UsageError(
            "no cluster runs on this machine; start one with `crane run -- PROGRAM ARGS`"
        )
    if len(found) > 1:
        raise UsageError(f"several clusters run; choose one with --name: {', '.join(found)}")
    return next(iter(found.values()))


def _private_directory(path: Path) -> None:
    """Make ``path`` a directory of this user alone, or refuse somebody else's."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise CraneError(
            f"cannot make the run directory {path}: {error.strerror}; set CRANE_RUN_DIR"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CraneError(f"{path} belongs to another user; set CRANE_RUN_DIR")
    if found.st_mode & 0o077:
        path.chmod(0o700)
