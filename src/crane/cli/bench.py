"""``crane bench``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from crane.errors import CraneError


@click.command("bench")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, help="Rounds of each test [5].")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), default=1.0, help="Length of a round [1]."
)
@click.option(
    "--idle", type=click.FloatRange(1, 600), default=10.0, help="Seconds of idleness [10]."
)
@click.option("--no-etcd", is_flag=True, help="Leave etcd out.")
@click.option("--plain", is_flag=True, help="Also replicas without encryption between them.")
@click.option(
    "--json", "file", type=click.Path(path_type=Path), help="Write the results to FILE as well."
)
def bench_command(  # noqa: PLR0917 - click passes by name
    rounds: int, seconds: float, idle: float, no_etcd: bool, plain: bool, file: Path | None
) -> None:
    """Measure Redis alone and on three replicas, and small writes beside etcd."""
    from crane.bench import main

    found = main.run(rounds, seconds, idle, with_etcd=not no_etcd, with_plain=plain)
    main.show(found)
    if file is not None:
        try:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        except OSError as error:
            raise CraneError(f"{file}: cannot be written: {error.strerror}") from error
