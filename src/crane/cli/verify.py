"""``crane verify``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from crane import terminal
from crane.cli.options import private_option, share_option
from crane.errors import UsageError


@click.command("verify", context_settings={"allow_interspersed_args": False})
@click.option("--runs", type=click.IntRange(2, 1000), default=5, help="Executions [5].")
@click.option(
    "--load",
    "load_command",
    metavar="CMD",
    help="A shell command that loads the program while it is recorded; {host} and {port} stand for"
    " its address [a built-in load of HTTP or lines of text].",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="Execute this log instead of recording one: a kept recording, or the state directory of"
    " a cluster that runs or is stopped.",
)
@click.option(
    "--requests", type=click.IntRange(1), default=10_000, help="Of the built-in load [10000]."
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=20,
    help="Of the built-in load at a time [20].",
)
@click.option("--replicas", type=click.IntRange(1, 9), default=1, help="While recording [1].")
@click.option(
    "--hogs/--no-hogs", default=True, help="Busy processes beside every second run [yes]."
)
@click.option(
    "--checkpoint",
    is_flag=True,
    help="In every run but the first, save the program to a checkpoint, end it and restore it.",
)
@click.option("--timeout", type=float, default=600.0, help="Seconds for one execution [600].")
@click.option("--work", type=click.Path(path_type=Path), help="Where temporary files go.")
@share_option
@private_option
@click.option("--keep", is_flag=True, help="Keep the recording and what the runs wrote.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the result to a file."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def verify_command(  # noqa: PLR0917 - click passes by name
    runs: int,
    load_command: str | None,
    log: Path | None,
    requests: int,
    connections: int,
    replicas: int,
    hogs: bool,
    checkpoint: bool,
    timeout: float,
    work: Path | None,
    share: tuple[str, ...],
    private: tuple[str, ...],
    keep: bool,
    json_file: Path | None,
    command: tuple[str, ...],
) -> int:
    """Execute one log of PROGRAM again and again and compare everything.

    Exits with 1 when two executions differ, and names the first operation
    that does. PROGRAM is left out with --log, which knows it.
    """
    from crane.verify import check, live, verdict

    if not command and log is None:
        raise UsageError(
            "no program was given; for example `crane verify --runs 5 -- redis-server --port 6379`"
        )
    found = check.verify(
        check.Wanted(
            argv=list(command),
            runs=runs,
            replicas=replicas,
            log=log,
            load=live.Load(load_command, requests, connections),
            hogs=hogs,
            keep=keep,
            checkpoint=checkpoint,
            timeout=timeout,
            work=work,
            options=[
                *(word for one in share for word in ("--share", one)),
                *(word for one in private for word in ("--private", one)),
            ],
        ),
        terminal.say,
    )
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    for note in found.notes:
        terminal.say(note, warning=True)
    terminal.table(verdict.HEADS, verdict.rows(found))
    for line in verdict.lines(found):
        terminal.out(line)
    return 0 if found.identical else 1
