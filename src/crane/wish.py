"""What a user wants run, from the words of a command line and a cluster file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from crane import config, environment, ownership, program
from crane.cluster import Wanted, default_name, default_state_dir
from crane.config import ClusterFile, Durability, OnCrash
from crane.errors import UsageError

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")


def wanted(
    command: list[str],
    *,
    file: Path | None = None,
    replicas: int | None = None,
    name: str | None = None,
    state: Path | None = None,
    listen: Sequence[str] = (),
    durability: Durability | None = None,
    vote: bool | None = None,
    on_crash: OnCrash | None = None,
    share: Sequence[str] = (),
    private: Sequence[str] = (),
    accept_changes: bool = False,
) -> tuple[Wanted, Path]:
    """The cluster that is wanted, and its state directory; the words win over the file.

    Raises:
        CraneError: when the program is not there or cannot be replicated.
        UsageError: when something is wrong or missing.
    """
    base = ClusterFile() if file is None else config.load(file, ClusterFile)
    origin = Path.cwd() if file is None else file.resolve().parent
    argv = command or base.command
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
    return Wanted(
        name=chosen,
        argv=argv,
        program=found.path,
        cwd=cwd,
        env=env,
        limits=environment.current_limits(),
        replicas=replicas or base.replicas,
        listen=[one for word in listen for one in word.split(",")] or base.listen,
        durability=durability or base.durability,
        vote=base.vote if vote is None else vote,
        on_crash=on_crash or base.on_crash,
        share=shared,
        private=owned,
        accept_changes=accept_changes,
        checkpoints=base.checkpoints,
        engine=base.engine,
    ), state
