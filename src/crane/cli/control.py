"""``crane kill``, ``pause``, ``resume``, ``restart``, ``signal`` and ``stop``."""

from __future__ import annotations

import click

from crane import control, registry, terminal
from crane.cli.options import name_option, replica_argument
from crane.errors import UsageError


@click.command("kill")
@replica_argument
@name_option
def kill_command(replica: int, name: str | None) -> None:
    """End REPLICA as a power failure would."""
    control.kill(registry.choose(name), replica)
    terminal.say(f"replica {replica} is dead; `crane restart {replica}` brings it back")


@click.command("pause")
@replica_argument
@name_option
def pause_command(replica: int, name: str | None) -> None:
    """Stop REPLICA's processes where they are."""
    control.pause(registry.choose(name), replica)
    terminal.say(f"replica {replica} is paused; `crane resume {replica}` lets it go on")


@click.command("resume")
@replica_argument
@name_option
def resume_command(replica: int, name: str | None) -> None:
    """Let a paused REPLICA go on."""
    control.resume(registry.choose(name), replica)
    terminal.say(f"replica {replica} goes on")


@click.command("restart")
@click.argument("replica", type=click.IntRange(min=1), required=False)
@click.option("--rolling", is_flag=True, help="All replicas, one after the other, the leader last.")
@name_option
def restart_command(replica: int | None, rolling: bool, name: str | None) -> None:
    """Start REPLICA again from its own log."""
    if rolling == (replica is not None):
        raise UsageError("give a replica's number, or --rolling for all of them")
    directory = registry.choose(name)
    if replica is None:
        from crane.members import changes

        changes.rolling_restart(directory, terminal.say)
        terminal.say("all replicas were restarted")
        return
    control.restart(directory, replica)
    terminal.say(f"replica {replica} is back")


@click.command("signal")
@click.argument("signal")
@name_option
def signal_command(signal: str, name: str | None) -> None:
    """Send SIGNAL (HUP, USR1, 15...) to the program, on all replicas alike.

    It is an input of the log: every replica's main process takes it at the same
    place of its execution.
    """
    directory = registry.choose(name)
    number = control.signal_number(signal)
    control.send_signal(directory, number)
    terminal.say(f"signal {number} goes to the program of cluster `{directory.name}`")


@click.command("stop")
@name_option
def stop_command(name: str | None) -> None:
    """Stop a cluster's processes on this machine."""
    directory = registry.choose(name)
    control.stop(directory)
    terminal.say(f"cluster `{directory.name}` is stopped")
