"""What is measured: the program alone, replicated, and etcd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from crane.bench import etcd
from crane.chaos.cluster import Address, Cluster, connect, free_port, wait_for
from crane.config import Durability
from crane.errors import CraneError

_START_SECONDS = 20.0
_END_SECONDS = 10.0
# A save in the middle of a round would be measured with it.
_QUIET = ["--save", ""]


@dataclass(frozen=True, slots=True)
class Target:
    """One running thing that is measured."""

    name: str
    what: str
    """In words."""
    address: Address
    pids: list[int]
    """The processes it consists of, with all their descendants."""
    is_etcd: bool = False


@contextmanager
def native(base: Path, name: str, what: str, *options: str) -> Iterator[Target]:
    """Redis alone, its files below ``base``."""
    directory = base / name
    directory.mkdir(parents=True)
    port = free_port()
    words = ["redis-server", "--port", str(port), "--dir", str(directory), *_QUIET, *options]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for("the start of redis-server", lambda: _answers(process, port), _START_SECONDS)
        yield Target(name, what, ("127.0.0.1", port), [process.pid])
    finally:
        process.terminate()
        process.wait(_END_SECONDS)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        raise CraneError(f"redis-server ended with exit status {process.returncode}")
    try:
        with connect(("127.0.0.1", port)) as client:
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def replicated(
    base: Path,
    name: str,
    what: str,
    durability: Durability,
    replicas: int = 3,
    *,
    tls: bool = True,
) -> Iterator[Target]:
    """Redis on replicas of this machine; measured through the leader."""
    port = free_port()
    settings = base / f"{name}.toml"
    settings.write_text(f"tls = {str(tls).lower()}\n")
    cluster = Cluster(
        ["redis-server", "--port", str(port), *_QUIET],
        base=base / name,
        name=f"bench-{name}-{port}",
        durability=durability,
        replicas=replicas,
        options=["--file", str(settings)],
    )
    with cluster:
        assert cluster.process is not None
        address = cluster.addresses()[cluster.leader()]
        yield Target(name, what, address, [cluster.process.pid])


@contextmanager
def etcd_cluster(base: Path, name: str, what: str) -> Iterator[Target]:
    """Three members of etcd with Debian's defaults; measured through the leader."""
    with etcd.Members(base / name) as members:
        yield Target(name, what, members.leader(), members.pids, is_etcd=True)


@contextmanager
def everything(
    base: Path, memory: Path, *, with_etcd: bool, with_plain: bool
) -> Iterator[list[Target]]:
    """All targets, running side by side; the directories are on a disk and in memory."""
    with ExitStack() as stack:
        start = stack.enter_context
        found = [
            start(native(base, "native", "redis-server alone, nothing on disk")),
            start(
                native(
                    base, "native-fsync", "redis-server alone, every write on its disk",
                    "--appendonly", "yes", "--appendfsync", "always",
                )
            ),
            start(replicated(base, "crane-memory", "3 replicas, memory", "memory")),
            start(replicated(base, "crane-disk", "3 replicas, disk", "disk")),
        ]  # fmt: skip
        if with_plain:
            for durability in ("memory", "disk"):
                what = f"3 replicas, {durability}, without encryption"
                name = f"crane-{durability}-plain"
                found.append(start(replicated(base, name, what, durability, tls=False)))
        if with_etcd:
            found += [
                start(etcd_cluster(base, "etcd", "etcd, 3 members, disk")),
                start(etcd_cluster(memory, "etcd-memory", "etcd, 3 members, data on a tmpfs")),
            ]
        yield found
