"""Options that several commands have."""

from __future__ import annotations

import click

name_option = click.option("--name", help="The cluster; needed only where several run.")
replica_argument = click.argument("replica", type=click.IntRange(min=1))
