"""The demo's own command line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from crane import terminal
from crane.chaos.cluster import Cluster, free_port, trial_dir
from crane.chaos.failover import Outcome, redis_command, trial
from crane.config import Durability
from crane.demo.summary import rows
from crane.errors import CraneError

# Steps that a trial tells of: four for each kill, and the last comparison.
_STEPS_OF_A_KILL = 4


@click.command("demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(1, 1000), default=1, help="Leaders to kill [1].")
@click.option("--connections", type=click.IntRange(3, 100), default=6, help="Clients [6].")
@click.option(
    "--rate",
    type=click.IntRange(0, 1000),
    default=0,
    help="Requests a second of each client; 0 for as many as it can [0].",
)
@click.option("--durability", type=click.Choice(["disk", "memory"]), default="disk")
@click.option("--keep", is_flag=True, help="Keep the state directory.")
def demo(kills: int, connections: int, rate: int, durability: Durability, keep: bool) -> int:  # noqa: FBT001
    """Run three replicas of Redis, kill the one that leads, and count what was lost."""
    if shutil.which("redis-server") is None:
        raise CraneError("the demo needs redis-server; on Debian: apt-get install redis-server")
    base = trial_dir("demo")
    try:
        outcome = _run(base, kills, connections, 1 / rate if rate else 0.0, durability)
    finally:
        if keep:
            terminal.say(f"the state is kept in {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)
    return _report(outcome)


def _run(
    base: Path, kills: int, connections: int, interval: float, durability: Durability
) -> Outcome:
    steps, total = 0, 2 + kills * _STEPS_OF_A_KILL
    with terminal.bar() as bar:

        def tell(text: str) -> None:
            nonlocal steps
            steps += 1
            bar(min(steps / total, 1.0), text)

        bar(0.0, "starting three replicas of redis-server")
        cluster = Cluster(
            redis_command(free_port()),
            base=base / "cluster",
            name=f"demo-{os.getpid()}",
            durability=durability,
        )
        with cluster:
            tell("clients write through all three replicas")
            return trial(
                cluster,
                kills=kills,
                connections=connections,
                interval=interval,
                steady=2.0 if kills == 1 else 0.5,
                tell=tell,
            )


def _report(outcome: Outcome) -> int:
    terminal.out("")
    table = rows(outcome)
    width = max(len(what) for what, _ in table)
    for what, text in table:
        terminal.out(f"  {what:{width}}  {text}")
    terminal.out("")
    problems = outcome.problems()
    for problem in problems[:10]:
        terminal.error(problem)
    if len(problems) > 10:
        terminal.error(f"and {len(problems) - 10} more")
    if not problems:
        terminal.say("the clients could not tell it from one server that never failed")
    return 1 if problems else 0


def _terminated(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the demo; errors are one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = demo.main(standalone_mode=False)
    except click.ClickException as error:
        terminal.error(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except CraneError as error:
        terminal.error(str(error))
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
