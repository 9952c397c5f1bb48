"""``crane member`` and ``crane transfer``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import click
import msgspec

from crane import config, registry, terminal
from crane.cli.options import name_option, replica_argument
from crane.errors import CraneError, UsageError
from crane.members import changes, leader

_HEADS = ("REPLICA", "ROLE", "ADDRESS", "LOG", "BEHIND", "STATE")

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    help="Seconds in which the new replica must have caught up [300].",
)
listen_option = click.option(
    "-l", "--listen", metavar="ADDR", help="The new replica's client address [127.0.0.N]."
)
purge_option = click.option(
    "--purge", is_flag=True, help="Throw the removed replica's state directory away."
)


@click.group("member")
def member_command() -> None:
    """Show, add, replace and remove the replicas of a cluster."""


@member_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@name_option
def list_members(as_json: bool, name: str | None) -> None:
    """Show who takes part and how far each is."""
    found = leader.find(registry.choose(name))
    if as_json:
        terminal.out(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    rows = []
    for one in found.members:
        state = "leads" if one.leads else "there" if one.there else "down"
        behind = max(0, found.last_index - one.matched)
        rows.append(
            (str(one.id), one.role, one.address or "-", str(one.matched), str(behind), state)
        )
    terminal.table(_HEADS, rows)
    if not found.settled:
        terminal.out("a change is under way")


@member_command.command("add")
@click.argument("place", required=False, metavar="[ID=HOST:PORT]")
@listen_option
@timeout_option
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Write the new node's file here."
)
@name_option
def add_member(
    place: str | None, listen: str | None, timeout: float, file: Path | None, name: str | None
) -> None:
    """Add a replica: on this machine, or at ID=HOST:PORT on another one.

    It learns first, and decides when it has caught up.
    """
    directory = registry.choose(name)
    if place is None:
        number = changes.add_here(directory, listen, timeout, terminal.say, None)
        terminal.say(f"replica {number} takes part")
    else:
        _add_elsewhere(directory, place, listen, timeout, file, None)


@member_command.command("replace")
@replica_argument
@click.argument("place", required=False, metavar="[ID=HOST:PORT]")
@listen_option
@timeout_option
@purge_option
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Write the new node's file here."
)
@name_option
def replace_member(  # noqa: PLR0917 - click passes by name
    replica: int,
    place: str | None,
    listen: str | None,
    timeout: float,
    purge: bool,
    file: Path | None,
    name: str | None,
) -> None:
    """Put a new replica in the place of REPLICA, which may be dead."""
    directory = registry.choose(name)
    now = leader.find(directory)
    if replica not in now.voters:
        names = ", ".join(str(one) for one in now.voters)
        raise UsageError(f"cluster `{directory.name}` has no replica {replica}; it has {names}")
    if place is None:
        number = changes.add_here(directory, listen, timeout, terminal.say, replica)
        terminal.say(f"replica {number} takes part")
    else:
        _add_elsewhere(directory, place, listen, timeout, file, replica)
    changes.left(directory, replica, purge=purge, say=terminal.say)


@member_command.command("remove")
@replica_argument
@purge_option
@name_option
def remove_member(replica: int, purge: bool, name: str | None) -> None:
    """Remove REPLICA; its number is never used again."""
    changes.remove(registry.choose(name), replica, purge=purge, say=terminal.say)


@click.command("transfer")
@click.argument("replica", type=click.IntRange(min=1), required=False)
@name_option
def transfer_command(replica: int | None, name: str | None) -> None:
    """Have REPLICA lead, or whichever other one is furthest."""
    now = leader.transfer(registry.choose(name), replica)
    terminal.say(f"replica {now} leads")


def _add_elsewhere(  # noqa: PLR0917 - the words of two commands
    directory: registry.ClusterRunDir,
    place: str,
    listen: str | None,
    timeout: float,
    file: Path | None,
    replaces: int | None,
) -> None:
    number, address = _place(place)
    known = leader.config(directory)
    now = leader.find(directory)
    leader.insist(directory, {"ask": "add", "id": number, "address": address})
    leader.settle(directory, lambda now: now.get(number) is not None)
    text = _node_file(known, now, number, address, listen)
    if file is not None:
        try:
            file.write_text(text)
        except OSError as error:
            raise CraneError(
                f"cannot write {file}: {error.strerror}; repeat the command with another --config"
            ) from error
        terminal.say(f"start the new replica there with {file}: `crane node --config {file.name}`")
    else:
        terminal.out(text)
        terminal.say("start the new replica there with `crane node` and these lines as its file")

    if known["tls"]:
        terminal.say(
            f"it needs a certificate there: `crane init --renew DIR --replica {number}`, where DIR"
            " is what `crane init` made, or the state directory of `crane run`"
        )

    def undo() -> None:
        leader.insist(directory, {"ask": "remove", "id": number})

    changes.promote(directory, number, timeout, terminal.say, replaces=replaces, undo=undo)
    terminal.say(f"replica {number} takes part")


def _place(text: str) -> tuple[int, str]:
    number, separator, address = text.partition("=")
    mend = "give it as ID=HOST:PORT, for example 4=192.0.2.4:7000"
    if not separator or not number.isdecimal() or not 1 <= int(number) <= config.LAST_REPLICA:
        raise UsageError(f"`{text}` does not name a replica; {mend}")
    try:
        host, _ = config.split_address(address)
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"`{text}`: {error}; {mend}") from error
    return int(number), address


def _node_file(
    known: dict[str, Any], now: leader.Members, number: int, address: str, listen: str | None
) -> str:
    """The new replica's file, made of another's."""
    host, _ = config.split_address(address)
    peers = {str(one.id): one.address for one in now.members if one.address is not None}
    changed = {
        **known,
        "id": number,
        "join": True,
        "peers": {**peers, str(number): address},
        "listen": listen or host,
    }
    return config.dump(msgspec.convert(changed, config.NodeConfig))
