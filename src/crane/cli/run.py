"""``crane run``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from crane import config, environment, ownership, program, terminal
from crane.cli.options import private_option, share_option
from crane.cluster import StateDir, Wanted, default_name, default_state_dir
from crane.config import ClusterFile, Durability
from crane.errors import UsageError

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-n", "--replicas", type=click.IntRange(1, 9), help="How many replicas [3].")
@click.option("--name", help="The cluster's name [the program's].")
@click.option("--state", type=click.Path(path_type=Path), help="The state directory.")
@click.option(
    "-l",
    "--listen",
    multiple=True,
    metavar="ADDR",
    help="The replicas' client addresses, repeated or with commas [127.0.0.1,127.0.0.2,...]; the"
    " port is the program's own.",
)
@click.option(
    "--durability",
    type=click.Choice(["disk", "memory"]),
    help="Whether an input is on a majority's disks before it counts, or in its memory [disk].",
)
@share_option
@private_option
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Start although files are not those with which the log was begun.",
)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="A cluster file with these settings."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def run_command(  # noqa: PLR0917 - click passes by name
    replicas: int | None,
    name: str | None,
    state: Path | None,
    listen: tuple[str, ...],
    durability: Durability | None,
    share: tuple[str, ...],
    private: tuple[str, ...],
    accept_changes: bool,
    file: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run PROGRAM on several replicas of this machine, in the foreground."""
    base = ClusterFile() if file is None else config.load(file, ClusterFile)
    origin = Path.cwd() if file is None else file.resolve().parent
    argv = list(command) or base.command
    if not argv:
        raise UsageError(
            "no program was given; for example `crane run -- redis-server --port 6379`"
        )
    cwd = str(origin / base.cwd if base.cwd else Path.cwd())
    for word in (*argv, cwd):
        if not environment.is_text(word):
            raise UsageError(f"{word!a} is not UTF-8 text; only such arguments can be replicated")
    env = environment.agreed(os.environ, base.env, cwd)
    found = program.check(program.find(argv[0], cwd, env), env)
    chosen = name or base.name or default_name(found.path)
    if not _NAME.fullmatch(chosen):
        raise UsageError(
            f"`{chosen}` is not a cluster name; use up to 48 of a-z, 0-9 and -, as in a host name"
        )
    if state is None:
        state = origin / base.state if base.state else default_state_dir(chosen)
    state = state.resolve()
    for what, path in (("the current directory", cwd), ("the program", found.path)):
        if Path(path).is_relative_to(state / "replicas"):
            raise UsageError(
                f"{what} ({path}) lies in the replicas' state; start elsewhere or give another"
                " --state"
            )
    shared = ownership.normal(share, Path.cwd()) or ownership.normal(base.share, origin)
    owned = ownership.normal(private, Path.cwd()) or ownership.normal(base.private, origin)
    ownership.check(shared, owned)
    wanted = Wanted(
        name=chosen,
        argv=argv,
        program=found.path,
        cwd=cwd,
        env=env,
        limits=environment.current_limits(),
        replicas=replicas or base.replicas,
        listen=[one for word in listen for one in word.split(",")] or base.listen,
        durability=durability or base.durability,
        share=shared,
        private=owned,
        accept_changes=accept_changes,
        engine=base.engine,
    )
    from crane import supervisor
    from crane.doctor import advice

    hint = advice.hint(program.chain(found.path, env), argv)
    if hint is not None:
        terminal.say(hint)
    supervisor.run(StateDir(state), wanted, terminal.say)
