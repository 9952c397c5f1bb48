"""``crane files``: what the program wrote, in each replica."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from crane import layers, storage, terminal
from crane.cli.options import name_option
from crane.errors import CraneError

_state_option = click.option(
    "--state", type=click.Path(path_type=Path), help="The state directory of a stopped cluster."
)
_replica = click.argument("replica", type=click.IntRange(min=1))


@click.group("files")
def files_command() -> None:
    """Find, keep and throw away what the program wrote."""


@files_command.command("list")
@click.argument("replica", type=click.IntRange(min=1), required=False)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@name_option
@_state_option
def list_command(replica: int | None, as_json: bool, name: str | None, state: Path | None) -> None:
    """List everything it made, changed or deleted, in REPLICA or the first one."""
    where = storage.find(name, state)
    found = where.written(replica or min(where.replicas))
    if as_json:
        terminal.out(msgspec.json.encode({"files": found}).decode())
        return
    for path, one in found.items():
        size = str(one.size) if one.kind == "file" else "-"
        terminal.out(f"{one.kind:<10} {one.mode:04o} {size:>12}  {path}")


@files_command.command("diff")
@click.argument("replica", type=click.IntRange(min=1), nargs=-1)
@name_option
@_state_option
def diff_command(replica: tuple[int, ...], name: str | None, state: Path | None) -> int:
    """Compare what it wrote in all replicas, or in those given.

    Exits with 1 when there is a difference. Replicas that run and are busy
    differ for as long as one of them is behind.
    """
    where = storage.find(name, state)
    chosen = list(replica) or sorted(where.replicas)
    if len(chosen) < 2:
        raise CraneError(f"cluster `{where.name}` has only one replica here to compare")
    first, found = chosen[0], where.written(chosen[0])
    different = 0
    for other in chosen[1:]:
        for line in layers.differences(found, where.written(other)):
            different += 1
            text = line.replace("the first", f"replica {first}")
            terminal.out(f"{text.replace('the second', f'replica {other}')} (replica {other})")
    if not different:
        names = ", ".join(str(one) for one in chosen)
        terminal.out(f"replicas {names}: the same {len(found)} entries")
    return 1 if different else 0


@files_command.command("copy")
@_replica
@click.argument("paths", nargs=-1)
@click.argument("target", type=click.Path(path_type=Path))
@name_option
@_state_option
def copy_command(
    replica: int, paths: tuple[str, ...], target: Path, name: str | None, state: Path | None
) -> None:
    """Copy PATHS as the program wrote them in REPLICA to the directory TARGET.

    Without PATHS everything it wrote, under full paths below TARGET.
    """
    where = storage.find(name, state)
    target.mkdir(parents=True, exist_ok=True)
    made = storage.copy(where, replica, paths, target)
    terminal.say(f"{len(made)} entries of replica {replica} are in {target}")


@files_command.command("path")
@_replica
@click.argument("path", required=False)
@name_option
@_state_option
def path_command(replica: int, path: str | None, name: str | None, state: Path | None) -> None:
    """Say where this machine finds what the program wrote as PATH in REPLICA.

    Only to read: what is changed there, no other replica knows of.
    """
    where = storage.find(name, state)
    found = where.place(replica) if path is None else where.where(replica, path)
    terminal.out(str(found))


@files_command.command("clean")
@click.argument("replica", type=click.IntRange(min=1), nargs=-1)
@name_option
@_state_option
def clean_command(replica: tuple[int, ...], name: str | None, state: Path | None) -> None:
    """Throw away what it wrote in replicas that do not run.

    The logs stay: the next start makes the files again from them.
    """
    where = storage.find(name, state)
    freed = storage.clean(where, replica or sorted(where.replicas))
    terminal.say(f"{freed / 2**20:.1f} MiB were freed; a start makes the files again")
