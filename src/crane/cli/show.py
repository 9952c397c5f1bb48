"""``crane status``, ``list`` and ``logs``."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from crane import control, registry, terminal
from crane.cli.options import name_option, replica_argument
from crane.config import split_address
from crane.errors import CraneError, UsageError
from crane.remote import Remote, read_token

_HEADS = ("REPLICA", "ROLE", "ADDRESS", "TERM", "COMMIT", "APPLIED", "CONNS", "OUTPUT", "STATE")
_THREAD_HEADS = ("REPLICA", "THREAD", "PID/TID", "NAME", "STATE", "LAST OPERATION", "WAITS FOR")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--threads", is_flag=True, help="Show the programs' threads.")
@click.option(
    "--connect",
    multiple=True,
    metavar="HOST:PORT",
    help="Ask nodes on other machines (`admin_listen`), repeated or with commas.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="With --connect: the file of the token."
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path),
    help="With --connect: the certificate of the cluster's authority (`ca.crt`).",
)
@name_option
def status_command(  # noqa: PLR0917 - click passes by name
    as_json: bool,
    threads: bool,
    connect: tuple[str, ...],
    token_file: Path | None,
    ca: Path | None,
    name: str | None,
) -> None:
    """Show the replicas of a cluster."""
    from crane import status

    if connect:
        if threads or name:
            raise UsageError("--connect goes with neither --threads nor --name")
        remotes = _remotes(connect, token_file, ca)
        found = status.collect_remote(remotes, lambda text: terminal.say(text, True))
    else:
        directory = registry.choose(name)
        if threads:
            _threads(status.threads(directory), as_json)
            return
        found = status.collect(directory)
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
    # The same on all replicas of a machine, mostly.
    for why in sorted({one.no_checkpoints for one in found.replicas if one.no_checkpoints}):
        terminal.out(f"no checkpoints: {why}")
    for one in found.replicas:
        if one.reason:
            terminal.out(f"replica {one.id}: {one.reason}")
        for place in one.stack or ():
            terminal.out(f"    {place}")


def _remotes(connect: tuple[str, ...], token_file: Path | None, ca: Path | None) -> list[Remote]:
    """The nodes that are asked over the network."""
    if token_file is None or ca is None:
        raise UsageError("--connect needs --token-file and --ca")
    token = read_token(token_file)
    found = []
    for word in (one for text in connect for one in text.split(",")):
        try:
            found.append(Remote(*split_address(word), ca=ca, token=token))
        except ValueError as error:
            raise UsageError(f"--connect: {error}") from error
    return found


def _threads(found: dict[int, list[dict[str, Any]]], as_json: bool) -> None:
    if as_json:
        terminal.out(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    rows = [
        (
            str(number),
            str(one["slot"]),
            f"{one['pid']}/{one['tid']}",
            one["name"] or "-",
            one["state"],
            one["operation"],
            one["waits_for"] or "-",
        )
        for number, threads in found.items()
        for one in threads
    ]
    terminal.table(_THREAD_HEADS, rows)


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
