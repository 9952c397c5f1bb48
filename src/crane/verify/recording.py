"""Recordings: the inputs of a program's life, and what is needed to repeat it.

A recording is a directory with the node's configuration (``node.toml``), the
log's epochs (``epochs``) and what the live replica showed of itself while it
was recorded (``live.json``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from crane import config as configuration
from crane import environment, native, ownership, program
from crane.cluster import default_name
from crane.config import NodeConfig
from crane.errors import CraneError, UsageError

CONFIG, EPOCHS, LIVE = "node.toml", "epochs", "live.json"


class Sample(msgspec.Struct, frozen=True):
    """What a live replica said about itself at the end of an epoch."""

    replica: int
    epoch: int
    clock: int
    output_hash: str
    schedule_hash: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A program and everything that came in from outside."""

    config: NodeConfig
    epochs: Path
    private: Path
    """Where the copies of its private directories are."""
    count: int
    """Epochs of the log."""
    live: list[Sample]

    @property
    def has_objects(self) -> bool:
        """Whether the addresses of locks are in the schedule's hash.

        As in the cluster that was recorded, where its hashes are compared.
        """
        return bool(self.config.engine.get("objects", not self.live))


def write(
    directory: Path, config: NodeConfig, node: Path, live: list[Sample], name: str = "replica"
) -> Recording:
    """Make a recording in ``directory`` of the log of a node that has ended.

    ``node`` is its state directory; its private directories are used where they are.

    Raises:
        CraneError: when the log cannot be read.
    """
    core = native.core()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        count = core.dump_log(node / "log", directory / EPOCHS)
    except core.EngineError as error:
        raise CraneError(f"the log of {name} cannot be read: {error}") from error
    (directory / CONFIG).write_text(configuration.dump(config))
    (directory / LIVE).write_bytes(msgspec.json.encode(live))
    return Recording(
        config=config,
        epochs=directory / EPOCHS,
        private=node / ownership.DIRECTORY,
        count=count,
        live=live,
    )


def find(source: Path, argv: list[str], work: Path, environ: Mapping[str, str]) -> Recording:
    """The recording at ``source``; a log is copied to ``work`` first, never changed.

    ``source`` is a kept recording, a state directory of ``crane run`` or of
    one node, or a file of epochs. Only the last says nothing about its program,
    which then is ``argv`` in this directory and environment.

    Raises:
        UsageError: when it is none of them or belongs to another program.
        CraneError: when it cannot be read.
    """
    if source.is_file():
        return _bare(source, argv, environ)
    if not source.is_dir():
        raise UsageError(f"{source} does not exist; --log takes a recording or a state directory")
    if (source / EPOCHS).is_file() and (source / CONFIG).is_file():
        config = configuration.load(source / CONFIG, NodeConfig)
        _check_program(source, config, argv)
        live: list[Sample] = []
        if (source / LIVE).is_file():
            live = msgspec.json.decode((source / LIVE).read_bytes(), type=list[Sample])
        return Recording(
            config=config,
            epochs=source / EPOCHS,
            private=source / ownership.DIRECTORY,
            count=-1,
            live=live,
        )
    nodes = sorted(source.glob("replicas/*")) if (source / "cluster.json").is_file() else [source]
    made = [
        _copy_of_log(node, work / "logs" / node.name, argv)
        for node in nodes
        if (node / CONFIG).is_file() and (node / "log").is_dir()
    ]
    if not made:
        raise UsageError(
            f"{source} is neither a recording nor a state directory; it has no {CONFIG} with a"
            " log beside it"
        )
    # Replicas that were down have shorter logs.
    return max(made, key=lambda one: one.count)


def _copy_of_log(node: Path, work: Path, argv: list[str]) -> Recording:
    config = configuration.load(node / CONFIG, NodeConfig)
    _check_program(node, config, argv)
    lock = node / "lock"
    if lock.exists():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CraneError(
                    f"{node} is in use; stop the cluster, or give --log a copy of the directory"
                ) from None
            shutil.copytree(node / "log", work / "log")
    else:
        shutil.copytree(node / "log", work / "log")
    made = write(work, config, work, [], str(node))
    return replace(made, private=node / ownership.DIRECTORY)


def _check_program(place: Path, config: NodeConfig, argv: list[str]) -> None:
    if argv and argv != config.argv:
        raise UsageError(
            f"{place} is a recording of `{' '.join(config.argv)}`; leave the program out"
        )


def _bare(source: Path, argv: list[str], environ: Mapping[str, str]) -> Recording:
    if not argv:
        raise UsageError(f"{source} does not say of which program it is; give it after `--`")
    cwd = str(Path.cwd())
    env = environment.agreed(environ, {}, cwd)
    found = program.check(program.find(argv[0], cwd, env), env)
    config = NodeConfig(
        name=default_name(found.path),
        cluster_id="0" * 32,
        id=1,
        peers={"1": "127.0.0.1:1"},
        argv=argv,
        program=found.path,
        cwd=cwd,
        env=env,
        state_dir=os.devnull,
        limits=environment.current_limits(),
    )
    nothing = source.with_name(ownership.DIRECTORY)
    return Recording(config=config, epochs=source, private=nothing, count=-1, live=[])
