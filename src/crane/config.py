"""Configuration: its types, and errors that name file, field and mend.

Two files exist. A *cluster file* (``crane.toml``) says what ``crane run`` shall
run; a *node file* says everything one replica needs and is all that
``crane node`` reads, whether ``crane run`` or a person wrote it.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

from crane import certificates
from crane.checkpoint.schedule import Policy
from crane.errors import UsageError

if TYPE_CHECKING:
    from crane.checkpoint.store import Checkpoint

Durability = Literal["disk", "memory"]
OnCrash = Literal["restart", "stop"]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
LAST_REPLICA = 250
"""The highest number of a replica. None is given twice."""
ReplicaId = Annotated[int, msgspec.Meta(ge=1, le=LAST_REPLICA)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$")]
ClusterId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^/")]
SharedPath = Annotated[str, msgspec.Meta(pattern=r"^/.*[^/](:rw)?$")]
Argv = Annotated[list[str], msgspec.Meta(min_length=1)]

UNLIMITED = -1
"""Stands for "no limit" in ``limits``."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that one replica needs to know.

    What the replicas must have in common, because the program can see it, is
    marked *agreed*: it is the same in every replica's file.
    """

    name: Name
    """The cluster's name; also the host name the program sees (agreed)."""
    cluster_id: ClusterId
    """32 hexadecimal digits that no other cluster has (agreed)."""
    id: ReplicaId
    """This replica's number, one of ``peers``."""
    peers: dict[str, str]
    """Replica number to ``host:port``: the replicas that begin the cluster, or, with ``join``, this
    one and some that take part. What was agreed later holds instead."""
    join: bool = False
    """This replica was added to a cluster that exists."""
    argv: Argv
    """The program's argument vector, its name first (agreed)."""
    program: AbsolutePath
    """The file that is started (agreed)."""
    cwd: AbsolutePath
    """Where it is started (agreed)."""
    env: dict[str, str]
    """Its whole environment, but for ``LD_PRELOAD``'s first entry (agreed)."""
    state_dir: AbsolutePath
    """Where this replica keeps its log, the program's files and its output."""
    listen: str = "127.0.0.1"
    """The IP address on which clients reach this replica."""
    virtual_address: str = ""
    """An address of the cluster that the leader's machine has, as ``IP/LENGTH`` of its network."""
    virtual_interface: str = ""
    """The interface of this machine that has it while this replica leads."""
    port_map: dict[str, Port] = {}
    """The program's port to the port that clients use, where they differ."""
    durability: Durability = "disk"
    """Whether an input is on a majority's disks or in its memory before it counts."""
    quantum: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Operations a thread may do before it passes the turn on (agreed)."""
    budget: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    """Logical clocks of one time bubble (agreed)."""
    preempt: bool = True
    """Whether a thread that provably spins on memory passes the turn on (agreed)."""
    vote: bool = False
    """Whether output leaves only when a majority has come to the same (agreed)."""
    on_crash: OnCrash = "restart"
    """What follows when the program ends by its own fault on every replica (agreed)."""
    limits: dict[str, tuple[int, int]] = {}
    """Resource limits, soft and hard, -1 for none (agreed)."""
    uid: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The user the program runs as; the node's own if not given (agreed)."""
    gid: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The group the program runs as; the node's own if not given (agreed)."""
    hide: list[AbsolutePath] = []
    """Directories that the program finds empty, besides ``state_dir``."""
    share: list[SharedPath] = []
    """Paths of the machine that the program sees as they are (agreed); ``:rw`` lets it write."""
    private: list[AbsolutePath] = []
    """Directories of which the replica has a copy of its own in ``state_dir`` (agreed)."""
    copy_private: bool = True
    """Whether these copies are of what another replica began with, in a new cluster of what the
    first one has; otherwise of what this machine has."""
    tls: bool = True
    """Whether the replicas' connections are encrypted; the same in every replica's file."""
    accept_changes: bool = False
    """Start although files or settings are not those with which the log was begun."""
    checkpoints: Policy = Policy()
    """How often checkpoints are taken."""
    admin_listen: str | None = None
    """``host:port`` where the admin API is reached from elsewhere, over TLS."""
    admin_token_file: AbsolutePath | None = None
    """The file with the token that callers from elsewhere must show."""
    attach_timeout: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """Seconds in which the interposer must report in from inside the program."""
    engine: dict[str, Any] = {}
    """Further settings, handed to the engine as they are."""


class ClusterFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``crane.toml``: what ``crane run -f`` runs; options on the command line win."""

    command: Argv | None = None
    """The program and its arguments."""
    name: Name | None = None
    replicas: Annotated[int, msgspec.Meta(ge=1, le=9)] | None = None
    state: str | None = None
    """The state directory; a relative path starts at the file's own directory."""
    listen: list[str] = []
    """Client addresses, one for each replica."""
    durability: Durability | None = None
    vote: bool | None = None
    """Whether output leaves only when a majority of the replicas has come to the same."""
    on_crash: OnCrash | None = None
    """What follows when the program ends by its own fault: it begins anew, or all ends."""
    cwd: str | None = None
    """Where the program is started; a relative path starts at the file's own directory."""
    share: list[str] = []
    """Paths of the machine that the replicas share; ``:rw`` lets the program write there."""
    private: list[str] = []
    """Directories of which each replica has a copy of its own."""
    tls: bool | None = None
    """Whether the replicas' connections are encrypted; they are unless it says otherwise."""
    env: dict[str, str] = {}
    """Variables set for the program besides those of ``crane run`` itself."""
    checkpoints: Policy | None = None
    """How often checkpoints are taken."""
    engine: dict[str, Any] = {}
    """Further settings, handed to the engine as they are."""


AnyConfig = TypeVar("AnyConfig", NodeConfig, ClusterFile)


def load(path: Path, kind: type[AnyConfig]) -> AnyConfig:
    """Read and validate a configuration file.

    Raises:
        UsageError: naming the file, the field and the mend.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        # Not only its own error: numbers of thousands of digits, lists in lists in lists.
        raise UsageError(f"{path}: is not valid TOML: {error}") from error
    try:
        config = msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {explain(str(error), kind.__struct_fields__)}") from error
    if isinstance(config, NodeConfig):
        check_node(config, str(path))
    return config


def explain(message: str, fields: Sequence[str]) -> str:
    """Turn a validation message into one that names the field and the mend.

    ``fields`` are the known fields, for the nearest match of an unknown one.
    """
    text, _, place = message.partition(" - at `$")
    field = place.rstrip("`").lstrip(".").replace("[...]", "") or "the file"
    unknown = re.match(r"Object contains unknown field `(.+)`", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1], fields, n=1)
        mend = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(fields)}"
        return f"unknown field `{unknown[1]}`; {mend}"
    missing = re.match(r"Object missing required field `(.+)`", text)
    if missing:
        return f"field `{missing[1]}` is missing; add it"
    return f"field `{field}`: {text[0].lower()}{text[1:]}"


def check_node(config: NodeConfig, place: str) -> None:
    """Check what the types alone cannot say.

    Raises:
        UsageError: naming ``place``, the field and the mend.
    """
    for number, address in config.peers.items():
        if not number.isdigit() or int(number) < 1:
            raise UsageError(
                f"{place}: field `peers`: `{number}` is not a replica number; use 1, 2, 3..."
            )
        try:
            host, _ = split_address(address)
            ipaddress.ip_address(host)
        except ValueError as error:
            raise UsageError(
                f"{place}: field `peers.{number}`: {error}; give an IP address and a port"
            ) from error
    if str(config.id) not in config.peers:
        raise UsageError(
            f"{place}: field `id`: replica {config.id} is not one of `peers`"
            f" ({', '.join(config.peers)}); add its address there"
        )
    if len(set(config.peers.values())) != len(config.peers):
        raise UsageError(f"{place}: field `peers`: two replicas have the same address")
    check_ip(config.listen, f"{place}: field `listen`")
    if config.admin_listen is not None:
        try:
            ipaddress.ip_address(split_address(config.admin_listen)[0])
        except ValueError as error:
            raise UsageError(
                f"{place}: field `admin_listen`: {error}; give an IP address and a port"
            ) from error
        if config.admin_token_file is None or not config.tls:
            raise UsageError(
                f"{place}: field `admin_listen`: needs `admin_token_file` and `tls`; add them, or"
                " leave it out for the Unix socket alone"
            )
    _check_virtual(config, place)
    for port in config.port_map:
        if not port.isdigit() or not 1 <= int(port) <= 65535:
            raise UsageError(f"{place}: field `port_map`: `{port}` is not a port number")
    for name, (soft, hard) in config.limits.items():
        if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
            raise UsageError(
                f"{place}: field `limits.{name}`: the soft limit is above the hard one; lower it"
            )


def _check_virtual(config: NodeConfig, place: str) -> None:
    if bool(config.virtual_address) != bool(config.virtual_interface):
        raise UsageError(
            f"{place}: `virtual_address` and `virtual_interface` go together; give both or none"
        )
    if not config.virtual_address:
        return
    try:
        wanted = ipaddress.IPv4Interface(config.virtual_address)
    except ValueError:
        wanted = None
    if wanted is None or "/" not in config.virtual_address:
        raise UsageError(
            f"{place}: field `virtual_address`: `{config.virtual_address}` is not an IPv4 address"
            " with the length of its network, such as `192.0.2.10/24`"
        )
    taken = {config.listen} | {split_address(one)[0] for one in config.peers.values()}
    if str(wanted.ip) in taken:
        raise UsageError(
            f"{place}: field `virtual_address`: {wanted.ip} is a replica's own; give one that no"
            " machine has"
        )


def check_ip(address: str, place: str) -> None:
    """Refuse a listening address that is not an IP address."""
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(
            f"{place}: `{address}` is not an IP address; the port is the program's own,"
            " give for example 127.0.0.1"
        ) from error


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` (``[v6]:port``).

    Raises:
        ValueError: when it has another form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"`{address}` is not of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def dump(config: NodeConfig) -> str:
    """The TOML text of a node's configuration."""
    import tomli_w

    header = "# Written by crane; `crane node --config` reads it.\n"
    data = {key: value for key, value in msgspec.to_builtins(config).items() if value is not None}
    return header + tomli_w.dumps(data)


def engine_config(
    config: NodeConfig,
    *,
    agreed: str,
    log_dir: Path,
    segment: Path,
    checkpoint: Checkpoint | None = None,
    share: Path | None = None,
) -> str:
    """The JSON that the engine is made from.

    ``agreed`` is what replicas compare; ``share`` is what the log says up to where the
    program begins anew.
    """
    start = None
    if share is not None:
        start = {"share": str(share)}
    elif checkpoint is not None:
        start = {"share": str(checkpoint.share), "segment": str(checkpoint.segment)}
    files = certificates.Files.of(Path(config.state_dir))
    tls = {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)}
    virtual = config.virtual_address.partition("/")[0]
    return msgspec.json.encode(
        {
            "cluster_id": config.cluster_id,
            "tls": tls if config.tls else None,
            "name": config.name,
            "id": config.id,
            "peers": config.peers,
            "join": config.join,
            "agreed": agreed,
            "listen_host": config.listen,
            "virtual_host": virtual or None,
            "port_map": config.port_map,
            "log_dir": str(log_dir),
            "segment": str(segment),
            "durability": config.durability,
            "quantum": config.quantum,
            "budget": config.budget,
            "preempt": config.preempt,
            "vote": config.vote,
            "restart": config.on_crash == "restart",
            "checkpoint": start,
            **config.engine,
        }
    ).decode()
