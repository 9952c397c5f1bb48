"""Whether a replica can start, and its state directory, which one process holds at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crane import environment
from crane.errors import CraneError, UsageError

if TYPE_CHECKING:
    from crane.config import NodeConfig
    from crane.registry import ClusterRunDir

_LOCK_SECONDS = 5.0


def check(config: NodeConfig, run_dir: ClusterRunDir) -> None:
    """Refuse a configuration that cannot be run on this machine.

    Raises:
        CraneError: naming what is wrong, and the mend.
    """
    for place in (config.state_dir, *config.hide):
        for what, path in (("cwd", config.cwd), ("program", config.program)):
            if Path(path).is_relative_to(place):
                raise UsageError(
                    f"`{what}` ({path}) lies in {place}, which the program cannot see; move it"
                )
    unknown = [name for name in config.limits if name not in environment.known_limits()]
    if unknown:
        raise UsageError(
            f"field `limits.{unknown[0]}`: no such limit; known are"
            f" {', '.join(environment.known_limits())}"
        )
    beyond = environment.unreachable_limit(config.limits)
    if beyond is not None:
        raise CraneError(
            f"the agreed resource limit `{beyond}` is above what this process may set; raise it"
            " (ulimit -H, LimitXXX= of the unit) or lower it in every replica's `limits`"
        )
    running = run_dir.nodes().get(config.id)
    if running is not None:
        raise CraneError(
            f"replica {config.id} of `{config.name}` runs already (pid {running.process.pid});"
            " stop it first"
        )


async def hold(state: Path) -> int:
    """Hold the state directory, waiting shortly for a killed predecessor's remains.

    Returns the descriptor that holds it.

    Raises:
        CraneError: when it cannot be made, or another process holds it.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CraneError(f"cannot use the state directory {state}: {error.strerror}") from error
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise CraneError(
                    f"another process holds the state directory {state}; stop it first"
                ) from None
            await asyncio.sleep(0.02)
        else:
            return lock
