"""``crane status``, ``list`` and ``logs``."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click
import msgspec

from crane import control, registry, terminal
from crane.cli.options import name_option, replica_argument
from crane.errors import CraneError

_HEADS = ("REPLICA", "ROLE", "ADDRESS", "TERM", "COMMIT", "APPLIED", "CONNS", "OUTPUT", "STATE")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@name_option
def status_command(as_json: bool, name: str | None) -> None:
    """Show the replicas of a cluster."""
    from crane import status

    found = status.collect(registry.choose(name))
    if as_json:
        terminal.out(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    rows = []
    for one in found.replicas:
        plain = (one.address, one.term, one.commit, one.applied, one.connections)
        digest = (one.output_hash or "-")[:12] + (" DISAGREES" if one.agrees is False else "")
        cells = ("-" if value is None else str(value) for value in plain)
        rows.append((str(one.id), one.role, *cells, digest, one.state))
    healthy = sum(one.healthy for one in found.replicas)
    terminal.out(f"{found.name}: {healthy} of {len(found.replicas)} replicas healthy")
    terminal.table(_HEADS, rows)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def list_command(as_json: bool) -> None:
    """Show the clusters that run on this machine."""
    rows = []
    for directory in registry.running():
        nodes, run = directory.nodes(), directory.run()
        argv = run.argv if run else next(iter(nodes.values())).argv
        count = len(run.replicas) if run else len(nodes)
        rows.append({"name": directory.name, "up": len(nodes), "replicas": count, "argv": argv})
    if as_json:
        terminal.out(msgspec.json.encode({"clusters": rows}).decode())
    elif rows:
        terminal.table(
            ("NAME", "UP", "PROGRAM"),
            [
                (str(one["name"]), f"{one['up']}/{one['replicas']}", shlex.join(one["argv"]))  # type: ignore[arg-type]
                for one in rows
            ],
        )
    else:
        terminal.out("no cluster runs on this machine")


@click.command("logs")
@replica_argument
@name_option
def logs_command(replica: int, name: str | None) -> None:
    """Write what the program said in REPLICA."""
    directory = registry.choose(name)
    run = directory.run()
    if run is not None and replica in run.replicas:
        path = Path(run.state_dir) / "replicas" / str(replica) / "server.log"
    else:
        path = Path(control.node(directory, replica).log)
    try:
        with path.open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)
        sys.stdout.flush()
    except OSError as error:
        raise CraneError(f"{path}: {error.strerror}") from error
