"""``crane checkpoint``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from crane import registry, terminal
from crane.cli.options import name_option, replica_argument
from crane.errors import CraneError

_HEADS = ("REPLICA", "ENTRY", "SIZE", "AGE", "TAKEN BY", "STOOD STILL", "PATH")
_state_option = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The state directory of a cluster that is stopped, or of one replica.",
)


@click.group("checkpoint", invoke_without_command=True)
@name_option
@click.option("--replica", type=int, help="The replica that takes it [a follower].")
@click.pass_context
def checkpoint_command(context: click.Context, name: str | None, replica: int | None) -> None:
    """Take a checkpoint of a replicated program now, or look after those there are.

    A follower takes it while the others serve: memory, processes, descriptors and
    files, at the end of an epoch.
    """
    if context.invoked_subcommand is not None:
        return
    from crane.checkpoint import command

    made = command.take(registry.choose(name), replica)
    terminal.say(
        f"replica {made['taken_by']} took a checkpoint at entry {made['index']}:"
        f" {size(made['bytes'])}, its program stood still for"
        f" {made['standing_seconds'] * 1000:.0f} ms"
    )


@checkpoint_command.command("setup")
def setup_command() -> int:
    """Make what checkpoints need: CRIU 4.2 or newer, built from Debian's source.

    It goes to /usr/local/lib/crane/criu. A CRIU that is new enough is used as it is.
    """
    from crane.checkpoint import setup

    found = setup.setup(terminal.say)
    terminal.out(f"checkpoints can be taken: {found.path}, version {found.version}")
    return 0


@checkpoint_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@name_option
@_state_option
def list_command(as_json: bool, name: str | None, state: Path | None) -> None:
    """List the checkpoints of each replica, the newest first."""
    from crane.checkpoint import command

    rows: list[tuple[str, ...]] = []
    found: list[dict[str, Any]] = []
    for replica, store in command.stores(name, state).items():
        for one in store.all():
            found.append({"replica": replica, **one.summary()})
            facts = one.manifest
            rows.append(
                (
                    str(replica),
                    str(one.index),
                    size(facts.bytes),
                    age(time.time() - facts.taken_at),
                    str(facts.taken_by),
                    f"{facts.standing * 1000:.0f} ms",
                    str(one.path),
                )
            )
    if as_json:
        terminal.out(msgspec.json.encode({"checkpoints": found}).decode())
    elif rows:
        terminal.table(_HEADS, rows)
    else:
        terminal.out("there are no checkpoints")


@checkpoint_command.command("verify")
@name_option
@_state_option
def verify_command(name: str | None, state: Path | None) -> int:
    """Read every checkpoint and compare it with its manifest; exit code 1 if one is damaged."""
    from crane.checkpoint import command

    bad = count = 0
    for replica, store in command.stores(name, state).items():
        for one in store.all():
            count += 1
            try:
                one.verify()
                terminal.out(f"replica {replica}, entry {one.index}: as it was made")
            except CraneError as error:
                bad += 1
                terminal.out(f"replica {replica}, entry {one.index}: {error}")
    if not count:
        raise CraneError("there are no checkpoints")
    return 1 if bad else 0


@checkpoint_command.command("export")
@replica_argument
@click.argument("target", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--entry", type=int, help="The checkpoint of this log entry [the newest].")
@name_option
@_state_option
def export_command(
    replica: int, target: Path, entry: int | None, name: str | None, state: Path | None
) -> None:
    """Write a checkpoint of REPLICA to FILE, with all that another machine needs to restore it."""
    from crane.checkpoint import command, transport

    place = command.replica_dir(replica, name, state)
    found = transport.export(place, target, entry)
    terminal.say(f"the checkpoint of entry {found.index} is in {target}")


@checkpoint_command.command("import")
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--state", type=click.Path(path_type=Path), help="The new state directory.")
@click.option("-n", "--replicas", type=click.IntRange(1, 9), default=3, help="How many [3].")
@click.option("-l", "--listen", multiple=True, metavar="ADDR", help="As with `crane run`.")
@click.option(
    "--node", type=click.Path(path_type=Path), help="The configuration of the one replica to make."
)
def import_command(
    source: Path, state: Path | None, replicas: int, listen: tuple[str, ...], node: Path | None
) -> None:
    """Make a new cluster that goes on from the checkpoint in FILE.

    All its replicas on this machine, for `crane run`; or, with --node, one replica of a
    cluster on several machines, on each of which it is imported.
    """
    from crane.checkpoint import transport

    asked = [one for word in listen for one in word.split(",")]
    made = transport.import_(source, state=state, replicas=replicas, listen=asked, node=node)
    terminal.say(f"{made.path} holds a new cluster; start it with:")
    terminal.out(made.command)


def size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def age(seconds: float) -> str:
    """A duration for people."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
