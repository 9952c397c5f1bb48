"""Recordings: the inputs of a program's life, and what is needed to repeat it.

A recording is a directory with the node's configuration (``node.toml``), the
log's epochs (``epochs``) and what the live replica showed of itself while it
was recorded (``live.json``).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from crane import config as configuration
from crane import environment, native, ownership, program
from crane.admin import UnreachableError, request
from crane.cluster import default_name
from crane.config import NodeConfig
from crane.errors import CraneError, UsageError
from crane.registry import ClusterRunDir

_BLOCK = 1 << 20
_WRITTEN_SECONDS = 1.0
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
    one node, running or not, or a file of epochs. Only the last says nothing about its program,
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
    live = _samples(config) if _in_use(node) else []
    if live:
        # So that what was sampled is in the log when it is copied.
        time.sleep(_WRITTEN_SECONDS)
    try:
        copy_log(node / "log", work / "log")
    except OSError as error:
        raise CraneError(f"the log of {node} cannot be copied: {error.strerror}") from error
    made = write(work, config, work, live, str(node))
    return replace(made, private=node / ownership.DIRECTORY)


def _in_use(node: Path) -> bool:
    """Whether a process holds the state directory."""
    try:
        with (node / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _samples(config: NodeConfig) -> list[Sample]:
    """What the replicas of a running cluster on this machine say of themselves now."""
    directory = ClusterRunDir(config.name)
    found = []
    for number in directory.nodes():
        with suppress(UnreachableError):
            answer = request(directory.socket(str(number)), "GET", "/v1/status")
            sample = sample_of(number, answer.get("engine") or {})
            if sample is not None:
                found.append(sample)
    return found


def sample_of(number: int, engine: dict[str, Any]) -> Sample | None:
    """A sample from an engine's status, ``None`` before its first epoch."""
    if not engine.get("epoch"):
        return None
    return Sample(
        replica=number,
        epoch=engine["epoch"],
        clock=engine["clock"],
        output_hash=engine["output_hash"],
        schedule_hash=engine["schedule_hash"],
    )


def copy_log(source: Path, target: Path) -> None:
    """Copy a log that may be written meanwhile, so that the copy has no hole.

    Records are appended. From the end to the beginning, whatever is copied is
    older than what was copied before it: only the end can be torn, which a log
    recovers from.
    """
    target.mkdir(mode=0o700, parents=True)
    segments = sorted(source.glob("log-*.seg"), reverse=True)
    for path in [*(source.glob("meta*")), *segments]:
        with path.open("rb") as old, (target / path.name).open("wb") as new:
            size = os.fstat(old.fileno()).st_size
            new.truncate(size)
            for begin in range((size - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
                block = os.pread(old.fileno(), _BLOCK, begin)
                if block.count(0) != len(block):
                    os.pwrite(new.fileno(), block, begin)


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
