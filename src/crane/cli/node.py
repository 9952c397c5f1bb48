"""``crane node``."""

from __future__ import annotations

import os
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import msgspec

from crane import config, terminal
from crane.errors import CraneError


def plain(event: dict[str, Any]) -> tuple[str, bool] | None:
    """An event in words and whether it is a warning, ``None`` for one that tells nothing new."""
    kind = event.get("kind")
    words = {
        "started": "the program runs (pid {server_pid})",
        "attached": "the interposer reported in",
        "restored": "the program goes on from the checkpoint of entry {index}",
        "checkpoint": "took a checkpoint of entry {index}, {bytes} bytes",
        "copying": "copies {what} of replica {from}: {done} of {of} bytes",
        "listening": "clients are served on {address}",
        "role": "{role} in term {term}, leader {leader}",
        "caught_up": "caught up with the others",
        "background": "the program went on in the background",
        "warning": "{message}",
        "message": "{message}",
        "stuck": "{message}",
        "moving": "the program goes on at clock {clock}",
        "failed": "{message}",
        "server_exited": "the program ended with {status}",
        "diverged": "{message}",
        "crashed": "the program ended with {status}; it begins anew in {delay} s",
    }.get(str(kind))
    if words is None:
        return None
    if kind == "role" and not event.get("leader"):
        words = "{role} in term {term}, no leader yet"
    text = words.format_map(defaultdict(lambda: "none", event))
    return text, kind in (
        "warning",
        "message",
        "stuck",
        "failed",
        "server_exited",
        "diverged",
        "crashed",
    )


@click.command("node")
@click.option(
    "-c",
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    help="The replica's configuration.",
)
@click.option("--parent", type=int, hidden=True)
@click.option("--report", type=int, hidden=True)
def node_command(file: Path, parent: int | None, report: int | None) -> int:
    """Run one replica of a cluster, in the foreground."""
    if report is not None:
        os.set_inheritable(report, False)

    def tell(event: dict[str, Any]) -> None:
        if report is not None:
            # A `crane run` that is gone kills this process in any case.
            os.write(report, msgspec.json.encode(event) + b"\n")
        words = plain(event)
        if words is not None:
            terminal.say(*words)

    from crane import node

    try:
        return node.main(config.load(file, config.NodeConfig), tell, parent)
    except CraneError as error:
        if report is None:
            raise
        tell({"kind": "failed", "message": str(error)})
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the user is told it ended
        traceback.print_exc()
        tell({"kind": "failed", "message": f"internal error: {error!r}; details in its node.log"})
        return 1
