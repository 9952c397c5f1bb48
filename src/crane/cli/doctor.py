"""``crane doctor``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
import msgspec

from crane import environment, terminal
from crane.errors import UsageError

_HEADS = {
    "needed": "needed:",
    "useful": "useful:",
    "known": "to know:",
}


@click.command("doctor", context_settings={"allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--all", "everything", is_flag=True, help="List what libraries might do, too.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def doctor_command(as_json: bool, everything: bool, command: tuple[str, ...]) -> int:
    """Say whether PROGRAM can be replicated, and with which settings.

    Only files are read; nothing is started. Exits with 126 when it cannot be.
    """
    from crane.checkpoint import criu
    from crane.doctor import examine

    if not command:
        raise UsageError("no program was given; for example `crane doctor -- redis-server`")
    cwd = str(Path.cwd())
    report = examine.examine(command, cwd, environment.agreed(os.environ, {}, cwd))
    if as_json:
        terminal.out(msgspec.json.format(msgspec.json.encode(report)).decode())
        return 126 if report.verdict == "not supported" else 0
    if report.verdict == "not supported":
        terminal.out(f"not supported: {report.because}")
        return 126
    terminal.out(f"{report.verdict}: {shlex.join(report.program)}")
    for one in report.advice:
        terminal.out(f"  {_HEADS[one.level]} {one.do}")
        terminal.out(f"      {one.why}")
    own = report.files[0]
    shown = [one for one in report.findings if everything or one.where == own]
    if shown:
        terminal.out("  might let replicas differ, if it is used:")
    for finding in shown:
        terminal.out(f"    {Path(finding.where).name}: {finding.what}")
        terminal.out(f"        {finding.why}")
    hidden = len(report.findings) - len(shown)
    more = f"; {hidden} findings in libraries (--all)" if hidden else ""
    terminal.out(
        f"  read: {len(report.files)} files, {report.interposed} interposed functions{more}"
    )
    why_not = criu.why_not()
    terminal.out(f"  checkpoints: {why_not or f'possible here, with CRIU {criu.find().version}'}")
    terminal.out("  `crane verify -- PROGRAM ARGS` tries it")
    return 0
