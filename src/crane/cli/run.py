"""``crane run``."""

from __future__ import annotations

from pathlib import Path

import click

from crane import program, terminal, wish
from crane.cli.options import private_option, share_option
from crane.cluster import StateDir
from crane.config import Durability, OnCrash


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-n", "--replicas", type=click.IntRange(1, 9), help="How many replicas [3].")
@click.option("--name", help="The cluster's name [the program's].")
@click.option("--state", type=click.Path(path_type=Path), help="The state directory.")
@click.option(
    "-l",
    "--listen",
    multiple=True,
    metavar="ADDR",
    help="The replicas' client addresses, repeated or with commas [127.0.0.1,127.0.0.2,...]; the"
    " port is the program's own.",
)
@click.option(
    "--durability",
    type=click.Choice(["disk", "memory"]),
    help="Whether an input is on a majority's disks before it counts, or in its memory [disk].",
)
@click.option(
    "--vote/--no-vote",
    default=None,
    help="Answer clients only when a majority of the replicas has come to the same [no].",
)
@click.option(
    "--on-crash",
    type=click.Choice(["restart", "stop"]),
    help="When the program ends by its own fault: it begins anew on every replica, or all ends"
    " [restart].",
)
@share_option
@private_option
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Start although files are not those with which the log was begun.",
)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="A cluster file with these settings."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def run_command(  # noqa: PLR0917 - click passes by name
    replicas: int | None,
    name: str | None,
    state: Path | None,
    listen: tuple[str, ...],
    durability: Durability | None,
    vote: bool | None,
    on_crash: OnCrash | None,
    share: tuple[str, ...],
    private: tuple[str, ...],
    accept_changes: bool,
    file: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run PROGRAM on several replicas of this machine, in the foreground."""
    wanted, place = wish.wanted(
        list(command),
        file=file,
        replicas=replicas,
        name=name,
        state=state,
        listen=list(listen),
        durability=durability,
        vote=vote,
        on_crash=on_crash,
        share=share,
        private=private,
        accept_changes=accept_changes,
    )
    from crane import supervisor
    from crane.doctor import advice

    hint = advice.hint(program.chain(wanted.program, wanted.env), wanted.argv)
    if hint is not None:
        terminal.say(hint)
    supervisor.run(StateDir(place), wanted, terminal.say)
