"""``crane checkpoint``."""

from __future__ import annotations

import click

from crane import terminal


@click.group("checkpoint")
def checkpoint_command() -> None:
    """Checkpoints of a replicated program: its memory, processes and files."""


@checkpoint_command.command("setup")
def setup_command() -> int:
    """Make what checkpoints need: CRIU 4.2 or newer, built from Debian's source.

    It goes to /usr/local/lib/crane/criu. A CRIU that is new enough is used as it is.
    """
    from crane.checkpoint import setup

    found = setup.setup(terminal.say)
    terminal.out(f"checkpoints can be taken: {found.path}, version {found.version}")
    return 0
