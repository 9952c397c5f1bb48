"""What the commands about checkpoints need to find: replicas and their stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crane import registry
from crane.admin import request
from crane.checkpoint.store import DIRECTORY, Store
from crane.errors import CraneError, UsageError
from crane.registry import ClusterRunDir

_TAKE_SECONDS = 600.0


def take(directory: ClusterRunDir, replica: int | None) -> dict[str, Any]:
    """Have a replica take a checkpoint, a follower unless one is named.

    Raises:
        CraneError: when none can, with the last reason.
    """
    nodes = directory.nodes()
    if replica is not None and replica not in nodes:
        raise UsageError(f"cluster `{directory.name}` has no replica {replica} here that runs")
    reason = CraneError(f"cluster `{directory.name}` has no replica here that runs")
    roles = {}
    for number in sorted(nodes) if replica is None else [replica]:
        status = request(directory.socket(str(number)), "GET", "/v1/status")
        roles[number] = status.get("engine", {}).get("role")
    # Followers first: a leader does not, unless it is alone.
    for number in sorted(roles, key=lambda one: roles[one] == "leader"):
        try:
            return request(
                directory.socket(str(number)), "POST", "/v1/checkpoint", timeout=_TAKE_SECONDS
            )
        except CraneError as error:
            reason = error
    raise reason


def stores(name: str | None, state: Path | None) -> dict[int, Store]:
    """The stores of a cluster that runs, or below a state directory, by replica.

    Raises:
        UsageError: when there is no such state.
    """
    if state is None:
        directory = registry.choose(name)
        places = {number: Path(one.log).parent for number, one in directory.nodes().items()}
    elif (state / "replicas").is_dir():
        found = (one for one in (state / "replicas").iterdir() if one.name.isdecimal())
        places = {int(one.name): one for one in found}
    elif (state / DIRECTORY).is_dir() or (state / "log").is_dir():
        places = {0: state}
    else:
        raise UsageError(f"{state} is not a state directory; it has neither `replicas` nor `log`")
    return {number: Store(places[number]) for number in sorted(places)}


def replica_dir(replica: int, name: str | None, state: Path | None) -> Path:
    """A replica's state directory.

    Raises:
        UsageError: when there is none.
    """
    found = stores(name, state)
    if replica not in found:
        known = ", ".join(map(str, found)) or "none"
        raise UsageError(f"there is no replica {replica} here; there are: {known}")
    return found[replica].path.parent
