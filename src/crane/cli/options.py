"""Options that several commands have."""

from __future__ import annotations

import click

NAME = r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?"
"""What a cluster's name looks like."""

name_option = click.option("--name", help="The cluster; needed only where several run.")
share_option = click.option(
    "--share",
    multiple=True,
    metavar="PATH[:rw]",
    help="The replicas see this path of the machine itself, without a layer of their own:"
    " read-only, or to be written with `:rw`. What is written there is outside the guarantee.",
)
private_option = click.option(
    "--private",
    multiple=True,
    metavar="DIR",
    help="Each replica begins with a copy of this directory of its own; the machine's may change.",
)
replica_argument = click.argument("replica", type=click.IntRange(min=1))
