"""Finding what the replicas of a cluster wrote, whether it runs or not."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crane import layers, mounts, registry
from crane.cluster import StateDir, default_state_dir
from crane.errors import CraneError, UsageError


@dataclass(frozen=True)
class Storage:
    """Where the replicas of one cluster on this machine keep things."""

    name: str
    replicas: dict[int, Path]
    """Replica to its state directory."""
    running: frozenset[int]

    def place(self, number: int) -> Path:
        """The directory of a replica's layers.

        Raises:
            UsageError: when there is no such replica here.
        """
        if number not in self.replicas:
            known = ", ".join(str(one) for one in self.replicas)
            raise UsageError(
                f"cluster `{self.name}` has no replica {number} here; it has {known or 'none'}"
            )
        return self.replicas[number] / "files"

    def written(self, number: int) -> layers.Files:
        """Everything that the program wrote in a replica.

        Raises:
            CraneError: when it cannot be seen.
        """
        place = self.place(number)
        for _ in range(20):
            try:
                found = layers.written(place)
            except FileNotFoundError:
                continue  # a file went while it was looked at
            except OSError as error:
                raise CraneError(f"{error.filename or place}: {error.strerror}") from error
            if found is not None:
                return found
            raise CraneError(
                f"replica {number} has no files here: it has not run, they were thrown away, or"
                " they are in memory because its state directory cannot hold a layer"
            )
        raise CraneError(f"the files of replica {number} change too fast to be listed")

    def where(self, number: int, path: str) -> Path:
        """Where this machine finds what the program wrote as ``path``.

        Raises:
            CraneError: when it wrote nothing there.
        """
        found = layers.where(self.place(number), os.path.normpath(path))
        if found is None or not os.path.lexists(found):
            raise CraneError(f"the program wrote no {path} in replica {number}")
        if is_deleted(found):
            raise CraneError(f"the program deleted {path} in replica {number}")
        return found


def is_deleted(path: Path) -> bool:
    """Whether an entry of a layer says that the program deleted what lay below."""
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def find(name: str | None, state: Path | None) -> Storage:
    """The storage of a cluster: that of ``state``, of the running ``name``, or of a stopped one.

    Raises:
        UsageError: when there is none.
    """
    if state is not None:
        return _of_state(state.resolve())
    running = {one.name: one for one in registry.running()}
    if name is None or name in running:
        directory = registry.choose(name)
        run, nodes = directory.run(), directory.nodes()
        if run is not None:
            return _of_state(Path(run.state_dir))
        places = {number: Path(entry.log).parent for number, entry in nodes.items()}
        return Storage(directory.name, places, frozenset(nodes))
    place = default_state_dir(name)
    if not place.is_dir():
        raise UsageError(
            f"no cluster `{name}` runs here and {place} does not exist; give its state directory"
            " with --state"
        )
    return _of_state(place)


def _of_state(place: Path) -> Storage:
    state = StateDir(place)
    found = state.read()
    if found is None:
        if (place / "node.toml").is_file() or (place / "log").is_dir():
            return Storage(place.name, {1: place}, _held({1: place}))
        raise UsageError(f"{place} is not the state directory of a cluster")
    replicas = {number: state.replica_dir(number) for number in found.replicas}
    return Storage(found.name, replicas, _held(replicas))


def _held(replicas: dict[int, Path]) -> frozenset[int]:
    """The replicas whose state directory a process holds."""
    import fcntl

    found = set()
    for number, place in replicas.items():
        try:
            with (place / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            found.add(number)
    return frozenset(found)


def copy(storage: Storage, number: int, paths: Iterable[str], target: Path) -> list[Path]:
    """Copy what the program wrote, with modes and times; what was made, in order.

    Without ``paths`` everything, each under its full path below ``target``. What
    it deleted, and directories that it only went through, are not copied as such.

    Raises:
        CraneError: when something is not there or cannot be written.
    """
    wanted = [os.path.normpath(path) for path in paths]
    found = storage.written(number)
    made = []
    for one in wanted or ["/"]:
        inside = {
            path: what
            for path, what in found.items()
            if mounts.is_below(path, one) and what.kind != "deleted"
        }
        if not inside:
            storage.where(number, one)  # says why
            raise CraneError(f"the program wrote no {one} in replica {number}")
        # A named file or directory keeps its own name, as `cp -r` does.
        above = Path(one).parent if wanted else Path("/")
        for path in inside:
            source = storage.where(number, path)
            goal = target / Path(path).relative_to(above)
            _copy_entry(source, goal)
            made.append(goal)
    return made


def _copy_entry(source: Path, goal: Path) -> None:
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() or source.is_file():
            shutil.copy2(source, goal, follow_symlinks=False)
        elif source.is_dir():
            goal.mkdir(exist_ok=True)
        elif not goal.exists():
            os.mknod(goal, source.lstat().st_mode)
    except OSError as error:
        raise CraneError(f"cannot copy {source} to {goal}: {error.strerror}") from error


def clean(storage: Storage, numbers: Iterable[int]) -> int:
    """Throw away what the program wrote in replicas that do not run; the bytes that were freed.

    Their logs stay, so the next start makes the files again.

    Raises:
        CraneError: when a replica runs.
    """
    chosen = list(numbers)
    busy = [number for number in chosen if number in storage.running]
    if busy:
        names = ", ".join(str(one) for one in busy)
        raise CraneError(f"replica {names} of `{storage.name}` runs; stop it first")
    freed = 0
    for number in chosen:
        place = storage.place(number)
        freed += sum(one.lstat().st_blocks * 512 for one in place.rglob("*"))
        mounts.wipe(place)
    return freed
