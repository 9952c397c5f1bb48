"""The state directory of a cluster that ``crane run`` keeps on one machine.

``cluster.json`` says whose state it is. A replicated log means nothing to
another program or to the same one with other arguments, so such a start is
refused; a later start of the same finds its addresses, environment and limits
as they were.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from crane import certificates, config, durable, ownership
from crane.checkpoint.schedule import Policy
from crane.errors import CraneError, UsageError

FORMAT = 1
_FILE = "cluster.json"
# Keys that never leave this machine; a cluster that runs must not meet their end.
_CERTIFICATE_DAYS = 19 * 365
# Below the range from which kernels choose ports for outgoing connections, so
# that a port stays free between two runs.
_PEER_PORTS = range(20_000, 30_000)
_PORT_ATTEMPTS = 200


class Adding(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is being added: it learns, and does not decide yet."""

    id: int
    address: str
    """Where the others reach it."""
    listen: str
    """Where clients do."""


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """``cluster.json``: what a cluster is, fixed when it is first run."""

    format: int
    name: str
    cluster_id: str
    argv: list[str]
    argv_hash: str
    program: str
    cwd: str
    env: dict[str, str]
    limits: dict[str, tuple[int, int]]
    peers: dict[str, str]
    listen: list[str]
    durability: config.Durability
    vote: bool = False
    on_crash: config.OnCrash = "restart"
    share: list[str] = []
    private: list[str] = []
    tls: bool = True
    """Whether the replicas' connections are encrypted."""
    accept_changes: bool = False
    """Of the last start: files may differ from those with which the log was begun."""
    checkpoints: Policy = Policy()
    engine: dict[str, Any]
    begun_with: list[int] = []
    """The replicas at the start, where others take part now."""
    used: list[int] = []
    """Every number that a replica had which is none any more; none is given again."""
    adding: Adding | None = None

    @property
    def initial(self) -> list[int]:
        """The replicas with which the cluster began."""
        return self.begun_with or self.replicas

    @property
    def replicas(self) -> list[int]:
        """The replicas' numbers."""
        return sorted(int(number) for number in self.peers)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked ``crane run`` for; ``None`` takes what is written or the default."""

    name: str
    argv: list[str]
    program: str
    cwd: str
    env: dict[str, str]
    limits: dict[str, tuple[int, int]]
    replicas: int | None
    listen: list[str]
    durability: config.Durability | None
    vote: bool | None = None
    on_crash: config.OnCrash | None = None
    share: list[str] = []
    private: list[str] = []
    tls: bool | None = None
    accept_changes: bool = False
    checkpoints: Policy | None = None
    engine: dict[str, Any]


def argv_hash(argv: Iterable[str]) -> str:
    """A hash that names an argument vector."""
    return hashlib.sha256(b"\0".join(os.fsencode(one) for one in argv)).hexdigest()


def default_name(program: str) -> str:
    """A cluster name made from a program's file name."""
    plain = re.sub(r"[^a-z0-9]+", "-", Path(program).name.lower()).strip("-")
    return plain[:48].strip("-") or "cluster"


def default_state_dir(name: str) -> Path:
    """Where a cluster's state is kept unless the user says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/crane") / name
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "crane" / name


def reconcile(found: ClusterState | None, wanted: Wanted, place: str) -> ClusterState:
    """Decide what the cluster is from what is written and what is asked; no effects.

    ``peers`` of a new cluster are left empty.

    Raises:
        UsageError: when the state at ``place`` belongs to something else.
    """
    if found is None:
        count = 3 if wanted.replicas is None else wanted.replicas
        return ClusterState(
            format=FORMAT,
            name=wanted.name,
            cluster_id=secrets.token_hex(16),
            argv=wanted.argv,
            argv_hash=argv_hash(wanted.argv),
            program=wanted.program,
            cwd=wanted.cwd,
            env=wanted.env,
            limits=wanted.limits,
            peers={},
            listen=listen_addresses(wanted.listen, count),
            durability=wanted.durability or "disk",
            vote=bool(wanted.vote),
            on_crash=wanted.on_crash or "restart",
            share=wanted.share,
            private=wanted.private,
            checkpoints=wanted.checkpoints or Policy(),
            tls=wanted.tls is not False,
            engine=wanted.engine,
        )
    mend = "give another --state, or remove that directory to start afresh"
    if found.format != FORMAT:
        raise UsageError(
            f"{place} was written by another version of crane (format {found.format}); {mend}"
        )
    if found.name != wanted.name:
        raise UsageError(f"{place} holds the state of cluster `{found.name}`; {mend}")
    if found.argv_hash != argv_hash(wanted.argv) or found.program != wanted.program:
        raise UsageError(f"{place} holds the state of `{' '.join(found.argv)}`; {mend}")
    for option in ("share", "private"):
        asked, written = getattr(wanted, option), getattr(found, option)
        if asked and asked != written:
            raise UsageError(
                f"{place} holds a cluster with --{option} {' '.join(written) or 'of nothing'}; its"
                f" log goes with that, so leave the option out, or {mend}"
            )
    count = len(found.peers)
    if wanted.replicas not in (None, count, len(found.initial)):
        raise UsageError(f"{place} holds a cluster of {count} replicas; use that number, or {mend}")
    return msgspec.structs.replace(
        found,
        listen=listen_addresses(wanted.listen, count) if wanted.listen else found.listen,
        durability=wanted.durability or found.durability,
        vote=found.vote if wanted.vote is None else wanted.vote,
        on_crash=wanted.on_crash or found.on_crash,
        tls=found.tls if wanted.tls is None else wanted.tls,
        accept_changes=wanted.accept_changes,
        checkpoints=wanted.checkpoints or found.checkpoints,
        engine={**found.engine, **wanted.engine},
    )


def listen_addresses(asked: list[str], count: int) -> list[str]:
    """One client address for each replica.

    Raises:
        UsageError: when the number or the form is wrong.
    """
    if not asked:
        return [f"127.0.0.{number}" for number in range(1, count + 1)]
    if len(asked) != count:
        raise UsageError(
            f"{len(asked)} listening addresses for {count} replicas; repeat --listen for each"
        )
    if len(set(asked)) != len(asked):
        raise UsageError("two replicas have the same --listen address; give each its own")
    for address in asked:
        config.check_ip(address, "--listen")
    return asked


class StateDir:
    """The state directory, held by one ``crane run`` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def acquire(self) -> None:
        """Make the directory and hold it until :meth:`release`.

        Raises:
            CraneError: when another run holds it or it cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CraneError(
                f"another `crane run` uses the state in {self.path}; stop it or give another"
                " --state"
            ) from error
        except OSError as error:
            raise CraneError(
                f"cannot use the state directory {self.path}: {error.strerror}; give another"
                " --state"
            ) from error

    def release(self) -> None:
        """Let another run use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> ClusterState | None:
        """The cluster whose state this is.

        Raises:
            CraneError: when the file cannot be understood.
        """
        file = self.path / _FILE
        try:
            return msgspec.json.decode(file.read_bytes(), type=ClusterState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise CraneError(
                f"{file} cannot be understood: {error}; restore or remove it"
            ) from error

    def write(self, state: ClusterState) -> None:
        """Write the cluster down, so that it is whole or absent after a crash."""
        durable.write(self.path / _FILE, msgspec.json.format(msgspec.json.encode(state)))

    def replica_dir(self, number: int) -> Path:
        """The directory of one replica."""
        return self.replicas_dir / str(number)

    @property
    def replicas_dir(self) -> Path:
        """The directory that holds all replicas' directories."""
        return self.path / "replicas"

    def node_config(self, state: ClusterState, number: int) -> config.NodeConfig:
        """The node configuration of one replica."""
        adding = state.adding if state.adding and state.adding.id == number else None
        own = {str(number): adding.address} if adding else {}
        return config.NodeConfig(
            name=state.name,
            cluster_id=state.cluster_id,
            id=number,
            peers={**state.peers, **own},
            join=number not in state.initial,
            argv=state.argv,
            program=state.program,
            cwd=state.cwd,
            env=state.env,
            state_dir=str(self.replica_dir(number)),
            listen=adding.listen if adding else state.listen[state.replicas.index(number)],
            durability=state.durability,
            vote=state.vote,
            on_crash=state.on_crash,
            limits=state.limits,
            hide=[str(self.replicas_dir), str(self.path / certificates.AUTHORITY)],
            share=state.share,
            private=state.private,
            # All begin with what this machine has. Who begins later begins with the same.
            copy_private=any(
                (self.replica_dir(one) / ownership.DIRECTORY).is_dir() for one in state.replicas
            ),
            tls=state.tls,
            accept_changes=state.accept_changes,
            checkpoints=state.checkpoints,
            engine=state.engine,
        )

    def write_node_config(self, state: ClusterState, number: int) -> Path:
        """Write one replica's configuration file, with a certificate if it has none; its path.

        Raises:
            CraneError: when a certificate is needed and the authority cannot be read.
        """
        directory = self.replica_dir(number)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = certificates.Files.of(directory)
        if state.tls and not files.complete():
            place = self.path / certificates.AUTHORITY
            authority = certificates.Authority.of(state.cluster_id, place)
            authority.issue(number, files, days=_CERTIFICATE_DAYS)
        file = directory / "node.toml"
        durable.write(file, config.dump(self.node_config(state, number)).encode())
        return file


def choose_peers(
    count: int, is_free: Callable[[str, int], bool], pick: random.Random | None = None
) -> dict[str, str]:
    """Addresses where the replicas of one machine reach each other.

    Raises:
        CraneError: when no free port is found.
    """
    source = pick or random.SystemRandom()
    numbers = range(1, count + 1)
    return {str(number): _choose_peer(number, is_free, source) for number in numbers}


def _choose_peer(number: int, is_free: Callable[[str, int], bool], source: random.Random) -> str:
    host = f"127.0.0.{number}"
    for _ in range(_PORT_ATTEMPTS):
        port = source.choice(_PEER_PORTS)
        if is_free(host, port):
            return f"{host}:{port}"
    raise CraneError(f"no free port between {_PEER_PORTS.start} and {_PEER_PORTS.stop} on {host}")


def reserve(
    state: ClusterState, listen: str | None, is_free: Callable[[str, int], bool]
) -> ClusterState:
    """The cluster with a new replica that is being added; the one that was, if there is one.

    Raises:
        UsageError: when ``listen`` is not an address, or another replica's.
        CraneError: when no number or port is left.
    """
    if state.adding is not None:
        if listen in (None, state.adding.listen):
            return state
        raise UsageError(
            f"replica {state.adding.id} is being added with --listen {state.adding.listen};"
            " repeat that, or `crane member remove` it first"
        )
    number = max([*state.replicas, *state.used]) + 1
    if number > config.LAST_REPLICA:
        raise CraneError("all replica numbers have been used; begin a new cluster")
    chosen = listen or f"127.0.0.{number}"
    config.check_ip(chosen, "--listen")
    if chosen in state.listen:
        raise UsageError(f"another replica has the --listen address {chosen}; give it its own")
    adding = Adding(
        id=number, address=_choose_peer(number, is_free, random.SystemRandom()), listen=chosen
    )
    return msgspec.structs.replace(state, adding=adding, begun_with=state.initial)


def joined(state: ClusterState, number: int) -> ClusterState:
    """The cluster in which the replica that was being added decides."""
    adding = state.adding
    if adding is None or adding.id != number:
        return state
    listen = {**dict(zip(state.replicas, state.listen, strict=True)), number: adding.listen}
    return msgspec.structs.replace(
        state,
        peers={**state.peers, str(number): adding.address},
        listen=[listen[one] for one in sorted(listen)],
        adding=None,
    )


def left(state: ClusterState, number: int) -> ClusterState:
    """The cluster without a replica, whose number is not given again."""
    if state.adding is not None and state.adding.id == number:
        return msgspec.structs.replace(
            state, adding=None, used=sorted({*state.used, number}), begun_with=state.initial
        )
    if number not in state.replicas:
        return state
    listen = dict(zip(state.replicas, state.listen, strict=True))
    del listen[number]
    return msgspec.structs.replace(
        state,
        peers={one: address for one, address in state.peers.items() if one != str(number)},
        listen=list(listen.values()),
        used=sorted({*state.used, number}),
        begun_with=state.initial,
    )


def is_free(host: str, port: int) -> bool:
    """Whether a TCP socket could listen on this address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
