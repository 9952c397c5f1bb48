"""``crane chaos``."""

from __future__ import annotations

import os
import secrets
import shlex
from pathlib import Path

import click

from crane import terminal
from crane.config import Durability


@click.command("chaos", context_settings={"allow_interspersed_args": False})
@click.option("--seed", type=click.IntRange(0), help="Which faults, in which order [chance].")
@click.option("--minutes", type=click.FloatRange(min=0.05), default=1.0, help="How long [1].")
@click.option(
    "--load",
    "load_command",
    metavar="CMD",
    help="A shell command that asks the program until it is ended by SIGTERM; CRANE_ADDRESSES names"
    " the replicas' host:port. Each line it writes counts as an acknowledged operation, and an"
    " exit code other than 0 says that it saw something wrong [a built-in load].",
)
@click.option("-n", "--replicas", type=click.IntRange(1, 9), help="How many replicas [3].")
@click.option("--durability", type=click.Choice(["disk", "memory"]), help="As for `crane run`.")
@click.option("--fault", "faults", multiple=True, metavar="NAME", help="Only these faults.")
@click.option("--loopback", is_flag=True, help="No hosts of their own: only faults of processes.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the timeline goes [crane-chaos-SEED.svg].",
)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="A cluster file with the program."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def chaos_command(  # noqa: PLR0917 - click passes by name
    seed: int | None,
    minutes: float,
    load_command: str | None,
    replicas: int | None,
    durability: Durability | None,
    faults: tuple[str, ...],
    loopback: bool,
    picture: Path | None,
    file: Path | None,
    command: tuple[str, ...],
) -> int:
    """Make faults while PROGRAM is under load, and say whether anything was lost.

    As root, replicas have hosts of their own: network namespaces, disks and clocks
    that fail. Exits with 1 when anything acknowledged was lost, replicas differ, or
    the service did not recover.
    """
    from crane.chaos import trial

    chosen = secrets.randbelow(10**6) if seed is None else seed
    wanted = trial.Wanted(
        command=list(command),
        file=file,
        seed=chosen,
        minutes=minutes,
        load=load_command,
        replicas=replicas,
        durability=durability,
        faults=list(faults),
        hosts=os.geteuid() == 0 and not loopback,
        picture=picture or Path(f"crane-chaos-{chosen}.svg"),
    )
    done = trial.run(wanted, terminal.say)
    terminal.table(trial.HEADS, done.rows())
    for line in trial.lines(wanted, done):
        terminal.out(line)
    terminal.out(f"to repeat: {shlex.join(trial.again(wanted))}")
    return 0 if done.good else 1
