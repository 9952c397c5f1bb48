"""Checkpoints in one file: out of a replica, and into a new cluster elsewhere.

The file is a tar archive with the checkpoint's own files and manifest below
``checkpoint/``, the replica's copies of private directories below ``private/``, what it
compares with others as ``compared``, and its configuration as ``node.json``. The new
cluster has a log of its own, which goes on behind the checkpoint's entry, and an
identity of its own: the old one may go on without noticing.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from crane import cluster, config, manifest, native, ownership
from crane.checkpoint import files, store
from crane.checkpoint.store import Checkpoint, Store
from crane.config import NodeConfig
from crane.errors import CraneError, UsageError

_CHECKPOINT, _COMPARED, _NODE = "checkpoint", "compared", "node.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made."""

    path: Path
    """The state directory."""
    command: str
    """What starts it."""


def export(place: Path, target: Path, entry: int | None) -> Checkpoint:
    """Write a checkpoint of the replica whose state directory is ``place`` to ``target``.

    ``entry`` is the log entry of the checkpoint, ``None`` for the newest.

    Raises:
        CraneError: when there is none, it is damaged, or the file cannot be written.
    """
    found = Store(place).all()
    chosen = next((one for one in found if entry in (None, one.index)), None)
    if chosen is None:
        known = ", ".join(str(one.index) for one in found) or "none; `crane checkpoint` takes one"
        raise CraneError(f"there is no such checkpoint of this replica; there are: {known}")
    chosen.verify()
    node = config.load(place / "node.toml", NodeConfig)
    unfinished = target.with_name(f".{target.name}.new")
    described = place / f".{_NODE}"
    names = [str(chosen.path.relative_to(place)), manifest.FILE, described.name]
    if (place / ownership.DIRECTORY).is_dir():
        names.append(ownership.DIRECTORY)
    try:
        described.write_bytes(msgspec.json.encode(node))
        unfinished.touch(mode=0o600)
        new_names = {names[0]: _CHECKPOINT, f"{names[1]}$": _COMPARED, names[2]: _NODE}
        files.archive(place, unfinished, names, new_names)
        unfinished.replace(target)
    except OSError as error:
        raise CraneError(f"cannot write {target}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
        described.unlink(missing_ok=True)
    return chosen


def import_(
    source: Path, *, state: Path | None, replicas: int, listen: list[str], node: Path | None
) -> Imported:
    """Make the state of a new cluster from an exported checkpoint.

    All its replicas on this machine in the directory ``state``; or with ``node``, the
    one replica of that configuration.

    Raises:
        CraneError: when the file cannot be used or the state cannot be made.
    """
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    if node is not None:
        mine = config.load(node, NodeConfig)
        target = Path(mine.state_dir)
        with _unpacked(source, target) as unpacked:
            _check_same(unpacked.node, mine)
            _place(unpacked, mine, target)
        return Imported(target, f"crane node --config {shlex.quote(str(node))}")
    listening = cluster.listen_addresses(listen, replicas)
    with tempfile.TemporaryDirectory(prefix="crane-import-") as peek:
        files.extract(source, peek, names=[_NODE])
        name = _read_node(Path(peek)).name
    path = (state or cluster.default_state_dir(name)).resolve()
    directory = cluster.StateDir(path)
    directory.acquire()
    try:
        if directory.read() is not None:
            raise UsageError(f"{path} holds a cluster; give another --state")
        with _unpacked(source, path) as unpacked:
            made = _cluster(unpacked.node, listening)
            for number in made.replicas:
                _place(unpacked, directory.node_config(made, number), directory.replica_dir(number))
            directory.write(made)
    finally:
        directory.release()
    words = ["crane", "run", "--name", made.name, "--state", str(path), "--", *made.argv]
    return Imported(path, shlex.join(words))


def _cluster(node: NodeConfig, listening: list[str]) -> cluster.ClusterState:
    return cluster.ClusterState(
        format=cluster.FORMAT,
        name=node.name,
        cluster_id=secrets.token_hex(16),
        argv=node.argv,
        argv_hash=cluster.argv_hash(node.argv),
        program=node.program,
        cwd=node.cwd,
        env=node.env,
        limits=node.limits,
        peers=cluster.choose_peers(len(listening), cluster.is_free),
        listen=listening,
        durability=node.durability,
        share=node.share,
        private=node.private,
        checkpoints=node.checkpoints,
        engine=node.engine,
    )


def _check_same(exported: NodeConfig, mine: NodeConfig) -> None:
    """What the program can see must be as it was."""
    for field in ("name", "argv", "program", "cwd", "env", "limits", "uid", "gid", "quantum"):
        if getattr(exported, field) != getattr(mine, field):
            raise UsageError(
                f"field `{field}` is not as in the exported replica"
                f" ({getattr(exported, field)!r}); make it the same"
            )


class _unpacked:  # noqa: N801 - reads as a verb
    """An exported checkpoint, unpacked beside its place while the block runs."""

    def __init__(self, source: Path, near: Path) -> None:
        self._source = source
        near.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.base = Path(tempfile.mkdtemp(dir=near, prefix=".import-"))
        self.node: NodeConfig
        self.checkpoint: Checkpoint

    def __enter__(self) -> _unpacked:
        try:
            files.extract(self._source, self.base)
            self.node = _read_node(self.base)
            self.checkpoint = store.read(self.base / _CHECKPOINT)
            self.checkpoint.verify()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.base, ignore_errors=True)


def _read_node(base: Path) -> NodeConfig:
    try:
        return msgspec.json.decode((base / _NODE).read_bytes(), type=NodeConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise CraneError(f"this is not an exported checkpoint: {error}") from error


def _place(unpacked: _unpacked, node: NodeConfig, target: Path) -> None:
    """Make a replica's state directory."""
    log_dir = target / "log"
    if log_dir.exists() or (target / store.DIRECTORY).exists():
        raise UsageError(f"{target} holds a replica's state; give an empty directory")
    log_dir.mkdir(mode=0o700, parents=True)
    own = Store(target)
    new = own.begin()
    # Never changed in place, so the replicas of one machine share the bytes.
    shutil.copytree(unpacked.checkpoint.path, new, copy_function=os.link, dirs_exist_ok=True)
    (new / store.MANIFEST).unlink()
    # Its replicas may copy it from each other: what they compare has a new cluster's facts.
    known = structs.replace(unpacked.checkpoint.manifest, cluster_id=node.cluster_id, agreed="")
    checkpoint = own.finish(new, known)
    private = unpacked.base / ownership.DIRECTORY
    if private.is_dir():
        ownership.duplicate(str(private), target / ownership.DIRECTORY)
    shutil.copyfile(unpacked.base / _COMPARED, target / manifest.FILE)
    text = config.engine_config(
        node, agreed="", log_dir=log_dir, segment=target / "none", checkpoint=checkpoint
    )
    core = native.core()
    try:
        core.begin_log(text)
    except core.EngineError as error:
        raise CraneError(str(error)) from error
