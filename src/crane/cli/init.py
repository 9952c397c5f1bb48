"""``crane init``."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from crane import config, environment, ownership, program, terminal
from crane.cli.options import NAME, private_option, share_option
from crane.cluster import default_name
from crane.config import Durability, NodeConfig
from crane.errors import UsageError

_DAYS = 730


@click.command("init", context_settings={"allow_interspersed_args": False})
@click.option(
    "-m",
    "--machines",
    multiple=True,
    metavar="ADDR[:PORT]",
    help="The machines' IP addresses, one for each replica, repeated or with commas; the port is"
    " that between replicas [7000].",
)
@click.option("--name", help="The cluster's name [the program's].")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write [./NAME].")
@click.option(
    "--state", metavar="DIR", help="The state directory on each machine [/var/lib/crane/NAME]."
)
@click.option("--user", help="Whom the program runs as, by name or number [the node's own user].")
@click.option(
    "--durability",
    type=click.Choice(["disk", "memory"]),
    default="disk",
    help="Whether an input is on a majority's disks before it counts, or in its memory [disk].",
)
@share_option
@private_option
@click.option(
    "--admin-port",
    type=click.IntRange(1, 65535),
    help="Answer `crane status --connect` at this port, too: over TLS, to who has the token.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 7000),
    default=_DAYS,
    help=f"How long certificates are good for [{_DAYS}].",
)
@click.option(
    "--renew",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Make the certificates anew, in what `crane init` or `crane run` made.",
)
@click.option(
    "--replica",
    "numbers",
    multiple=True,
    type=click.IntRange(1, config.LAST_REPLICA),
    help="With --renew: only this replica's; also of one that is new.",
)
@click.option(
    "--authority",
    type=click.Choice(["new", "only"]),
    help="With --renew: `new` makes a new authority, which replicas accept beside the former;"
    " `only` has them accept the newest alone.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGS]...")
def init_command(  # noqa: PLR0917 - click passes by name
    machines: tuple[str, ...],
    name: str | None,
    output: Path | None,
    state: str | None,
    user: str | None,
    durability: Durability,
    share: tuple[str, ...],
    private: tuple[str, ...],
    admin_port: int | None,
    days: int,
    renew: Path | None,
    numbers: tuple[int, ...],
    authority: str | None,
    command: tuple[str, ...],
) -> None:
    """Make what each of several machines needs to run a replica of PROGRAM.

    Configurations that agree, and certificates by which the replicas know each other. Run it on
    one of the machines; copy to each what is its own.
    """
    os.umask(0o077)
    if renew is not None:
        if command or machines:
            raise UsageError("--renew makes certificates alone; leave machines and program out")
        _renew(renew, numbers, days, authority)
        return
    if numbers or authority:
        raise UsageError("--replica and --authority go with --renew")
    from crane import machines as initial

    if not command:
        raise UsageError(
            "no program was given; for example"
            " `crane init -m 192.0.2.1,192.0.2.2,192.0.2.3 -- redis-server --port 6379`"
        )
    peers = initial.addresses(machines)
    cwd = str(Path.cwd())
    for word in (*command, cwd):
        if not environment.is_text(word):
            raise UsageError(f"{word!a} is not UTF-8 text; only such arguments can be replicated")
    env = environment.agreed(_plain_environment(), {}, cwd)
    found = program.check(program.find(command[0], cwd, env), env)
    chosen = name or default_name(found.path)
    if not re.fullmatch(NAME, chosen):
        raise UsageError(
            f"`{chosen}` is not a cluster name; use up to 48 of a-z, 0-9 and -, as in a host name"
        )
    state_dir = state or f"/var/lib/crane/{chosen}"
    if not state_dir.startswith("/"):
        raise UsageError(f"--state {state_dir}: give an absolute path")
    shared, owned = (ownership.normal(paths, Path(cwd)) for paths in (share, private))
    ownership.check(shared, owned)
    uid, gid = _user(user)
    node = NodeConfig(
        name=chosen,
        cluster_id=secrets.token_hex(16),
        id=1,
        peers=peers,
        argv=list(command),
        program=found.path,
        cwd=cwd,
        env=env,
        state_dir=state_dir,
        durability=durability,
        limits=environment.current_limits(),
        uid=uid,
        gid=gid,
        share=shared,
        private=owned,
    )
    directory = output or Path(chosen)
    made = initial.make(directory, node, days=days, admin_port=admin_port)
    count = f"{len(made)} replicas" if len(made) > 1 else "one replica"
    terminal.say(f"cluster `{chosen}` of {count} is in {directory}; now copy to each machine")
    parent = shlex.quote(str(Path(state_dir).parent))
    for one in made:
        terminal.say(
            f"  ssh root@{one.host} mkdir -p {parent} &&"
            f" scp -rp {_quoted(one.place)} root@{one.host}:{shlex.quote(one.target)}"
        )
    terminal.say("with the same program and files on all of them, and start there")
    if owned:
        terminal.say(
            f"  (not {', '.join(owned)}: replica 1's is copied to the others at the first start;"
            " `copy_private` in node.toml)"
        )
    terminal.say(f"  crane node --config {shlex.quote(state_dir)}/node.toml")
    terminal.say("they serve clients when all of them run for the first time; then a majority does")
    if admin_port is not None:
        first = made[0].host
        shown = f"[{first}]:{admin_port}" if ":" in first else f"{first}:{admin_port}"
        terminal.say(
            f"from elsewhere: crane status --connect {shown} --token-file"
            f" {_quoted(directory / 'admin' / initial.TOKEN)} --ca"
            f" {_quoted(directory / 'admin' / 'ca.crt')}"
        )
    terminal.say(
        f"the certificates are good until {made[0].until:%Y-%m-%d}; `crane init --renew"
        f" {_quoted(directory)}` makes new ones"
    )
    terminal.say(
        f"keep {_quoted(directory / 'authority')} where no replica is: who has it can be any"
        " replica",
        True,
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _renew(directory: Path, numbers: Sequence[int], days: int, authority: str | None) -> None:
    from crane import machines as initial

    if authority is None:
        made = initial.renew(directory, numbers, days=days)
        until = min(one.until for one in made)
        terminal.say(f"new certificates, good until {until:%Y-%m-%d}")
    else:
        made = initial.replace_authority(directory, keep_former=authority == "new")
        if authority == "new":
            terminal.say("a new authority, whose certificates replicas will accept, too")
        else:
            terminal.say("the newest authority alone")
    for one in made:
        if initial.in_place(one):
            terminal.say(f"  replica {one.number}: crane restart {one.number}")
        else:
            place = f"{_quoted(one.place)}/." if one.place.is_dir() else _quoted(one.place)
            terminal.say(
                f"  replica {one.number}: scp -rp {place} root@{one.host}:"
                f"{shlex.quote(one.target)}, and restart its node"
            )
    terminal.say("one after the other, each when the one before is healthy again (`crane status`)")
    if authority == "new":
        terminal.say(
            f"when all have restarted: crane init --renew {_quoted(directory)}, and then again with"
            " --authority only"
        )


def _plain_environment() -> dict[str, str]:
    """What a server needs of this shell's variables: they are the same on all machines."""
    kept = ("PATH", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _user(user: str | None) -> tuple[int | None, int | None]:
    """The numbers of a user and its group."""
    if user is None:
        return None, None
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"--user {user}: there is no such user here") from None
    return found.pw_uid, found.pw_gid
