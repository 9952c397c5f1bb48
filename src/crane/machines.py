"""What each of several machines needs to run one replica: made once, then copied.

``crane init`` makes a directory laid out as that of ``crane run``::

    authority/      the cluster's authority; whoever has it can be any replica
    replicas/1/     to be the state directory of replica 1 on its machine
      node.toml     its configuration
      tls/          its certificate
      admin.token   with --admin-port
    admin/          with --admin-port: what a client of the admin API needs

Certificates are made anew by :func:`renew`, there and in the state directory of
a ``crane run``.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from crane import certificates, config, durable
from crane.errors import CraneError, UsageError

PEER_PORT = 7000
"""Where replicas reach each other, unless the user says otherwise."""

TOKEN = "admin.token"  # noqa: S105 - the file's name
_ADMIN = "admin"
_REPLICAS = "replicas"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made for one replica."""

    number: int
    place: Path
    """The directory to copy, or the one file or directory in it."""
    target: str
    """Where it belongs on the replica's machine."""
    host: str
    """The machine's address."""
    until: dt.datetime
    """When its certificate's time is over."""


def addresses(words: Sequence[str]) -> dict[str, str]:
    """Replica number to ``host:port`` from what the user gave for each machine.

    Raises:
        UsageError: naming the word that is wrong.
    """
    found = {}
    for number, word in enumerate((one for text in words for one in text.split(",")), 1):
        try:
            host, port = str(ipaddress.ip_address(word)), PEER_PORT
        except ValueError:
            try:
                host, port = config.split_address(word)
                host = str(ipaddress.ip_address(host))
            except ValueError:
                raise UsageError(
                    f"`{word}` is not a machine's IP address, with or without a port; for example"
                    " 192.0.2.1 or 192.0.2.1:7000"
                ) from None
        found[str(number)] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not found:
        raise UsageError("no machines were given; for example `--machines 192.0.2.1,192.0.2.2`")
    if len(set(found.values())) != len(found):
        raise UsageError("two machines have the same address and port")
    return found


def make(
    directory: Path, node: config.NodeConfig, *, days: int, admin_port: int | None
) -> list[Made]:
    """Make everything for the replicas of ``node``'s peers, of whose files it is the pattern.

    Raises:
        CraneError: when the directory holds something or cannot be written.
    """
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; give another --output, or remove it")
    token = secrets.token_urlsafe(32) + "\n"
    found = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        authority = certificates.Authority.create(
            node.cluster_id, directory / certificates.AUTHORITY
        )
        for number, address in sorted((int(n), address) for n, address in node.peers.items()):
            host, _ = config.split_address(address)
            place = _replica(directory, number)
            place.mkdir(mode=0o700, parents=True)
            own = structs.replace(node, id=number, listen=host)
            if admin_port is not None:
                shown = f"[{host}]" if ":" in host else host
                own = structs.replace(
                    own,
                    admin_listen=f"{shown}:{admin_port}",
                    admin_token_file=f"{node.state_dir}/{TOKEN}",
                )
                durable.write(place / TOKEN, token.encode())
            config.check_node(own, "crane init")
            durable.write(place / "node.toml", config.dump(own).encode())
            files = certificates.Files.of(place)
            authority.issue(number, files, days=days)
            until = certificates.end(files.certificate)
            found.append(Made(number, place, node.state_dir, host, until))
        if admin_port is not None:
            client = directory / _ADMIN
            client.mkdir(mode=0o700)
            durable.write(client / TOKEN, token.encode())
            durable.write(client / "ca.crt", certificates.Files.of(found[0].place).ca.read_bytes())
    except OSError as error:
        raise CraneError(f"{error.filename or directory}: {error.strerror}") from error
    return found


def renew(directory: Path, numbers: Sequence[int], *, days: int) -> list[Made]:
    """Make certificates anew, of all replicas or of some; of one that is new, too.

    Raises:
        CraneError: when the directory holds no cluster or its authority cannot be read.
    """
    known = _configurations(directory)
    pattern = next(iter(known.values()))
    authority = certificates.Authority.load(pattern.cluster_id, directory / certificates.AUTHORITY)
    found = []
    for number in numbers or sorted(known):
        place = _replica(directory, number)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = certificates.Files.of(place)
        authority.issue(number, files, days=days)
        found.append(_made(number, files.key.parent, known.get(number, pattern), files))
    return found


def replace_authority(directory: Path, *, keep_former: bool) -> list[Made]:
    """Make a new authority which replicas accept beside the former, or forget the former.

    The replicas' certificates stay as they are.

    Raises:
        CraneError: as :func:`renew`.
    """
    known = _configurations(directory)
    cluster_id = next(iter(known.values())).cluster_id
    place = directory / certificates.AUTHORITY
    authority = certificates.Authority.load(cluster_id, place)
    if keep_former:
        authority = certificates.Authority.create(cluster_id, place)
    else:
        authority.forget_former()
    found = []
    for number, node in sorted(known.items()):
        files = certificates.Files.of(_replica(directory, number))
        authority.trust(files)
        found.append(_made(number, files.ca, node, files))
    return found


def in_place(made: Made) -> bool:
    """Whether the replica runs with these very files."""
    return Path(made.target).resolve() == made.place.resolve()


def _made(number: int, place: Path, node: config.NodeConfig, files: certificates.Files) -> Made:
    address = node.peers.get(str(number))
    host = "its machine" if address is None else config.split_address(address)[0]
    state_dir = files.key.parent.parent
    target = Path(node.state_dir) / place.relative_to(state_dir)
    return Made(number, place, str(target), host, certificates.end(files.certificate))


def _replica(directory: Path, number: int) -> Path:
    return directory / _REPLICAS / str(number)


def _configurations(directory: Path) -> dict[int, config.NodeConfig]:
    """The replicas whose files are in a directory.

    Raises:
        UsageError: when there are none.
    """
    found = {}
    for file in directory.glob(f"{_REPLICAS}/*/node.toml"):
        node = config.load(file, config.NodeConfig)
        found[node.id] = node
    if not found:
        raise UsageError(
            f"{directory} was made neither by `crane init` nor by `crane run`; name the directory"
            f" that holds `{_REPLICAS}`"
        )
    return dict(sorted(found.items()))
