"""What ``crane status`` shows: one row a replica, also for one that is down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from crane import divergence
from crane.admin import UnreachableError, request
from crane.errors import CraneError
from crane.registry import ClusterRunDir, NodeEntry
from crane.remote import Remote

Role = Literal["leader", "follower", "candidate", "down"]
State = Literal["running", "starting", "paused", "down"]


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. What is not known, because it is down, is ``None``."""

    id: int
    role: Role
    address: str | None = None
    """Where clients reach it, ``host:port``."""
    term: int | None = None
    commit: int | None = None
    """Index of the last log entry known to be agreed."""
    applied: int | None = None
    """Index of the last log entry the program has been given."""
    epoch: int | None = None
    clock: int | None = None
    """The program's logical clock."""
    connections: int | None = None
    """Clients' connections as the program has them, wherever they enter."""
    output_hash: str | None = None
    agrees: bool | None = None
    """Whether its output equals the majority's; ``None`` while that is not known."""
    caught_up: bool | None = None
    """Whether it has come as far as the others were when it started, and takes clients."""
    node_pid: int | None = None
    server_pid: int | None = None
    healthy: bool = False
    """Whether it runs, its program is attached and makes progress, and it does not disagree."""
    reason: str | None = None
    """Why it is not healthy, where that is known: one line."""
    stack: list[str] | None = None
    """Where a program that makes no progress is, the innermost place first."""
    checkpoint: int | None = None
    """The log entry of its newest checkpoint."""
    no_checkpoints: str | None = None
    """Why it takes none: one line."""
    state: State = "down"


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster as the processes that were asked tell it."""

    name: str
    replicas: list[ReplicaStatus]


def row(number: int, node: dict[str, Any]) -> ReplicaStatus:
    """A living node's row, from its answer."""
    engine: dict[str, Any] = node.get("engine") or {}
    listening = engine.get("listening") or []
    role = engine.get("role")
    known: Role = role if role in ("leader", "follower", "candidate") else "candidate"
    attached = bool(node.get("attached"))
    agrees = engine.get("agrees")
    stuck: dict[str, Any] = node.get("stuck") or {}
    checkpoints: dict[str, Any] = node.get("checkpoints") or {}
    initial: dict[str, Any] = node.get("initial") or {}
    copying: dict[str, Any] = initial.get("copying") or checkpoints.get("copying") or {}
    reason = None
    if engine.get("fatal"):
        reason = str(engine["fatal"])
    elif agrees is False or engine.get("suspended"):
        found = engine.get("divergence")
        reason = divergence.line(found, number) if found else "its results differ from the others'"
    elif stuck:
        seconds = engine.get("stuck_seconds") or 0
        reason = f"no progress for {seconds:.0f} s: {stuck.get('reason')}"
    if reason is None and copying.get("needed"):
        percent = copying["done"] * 100 // max(1, copying["of"])
        reason = f"copies {copying['what']} of replica {copying['from']}: {percent}%"
    if reason is None and initial.get("waits"):
        reason = str(initial["waits"])
    return ReplicaStatus(
        id=number,
        role=known,
        address=listening[0]["address"] if listening else None,
        term=engine.get("term"),
        commit=engine.get("commit"),
        applied=engine.get("applied"),
        epoch=engine.get("epoch"),
        clock=engine.get("clock"),
        connections=engine.get("connections"),
        output_hash=engine.get("output_hash"),
        agrees=agrees,
        caught_up=bool(engine.get("caught_up")),
        node_pid=node.get("node_pid"),
        server_pid=node.get("server_pid"),
        healthy=attached and reason is None,
        reason=reason,
        stack=stuck.get("stack"),
        checkpoint=(checkpoints.get("newest") or {}).get("index"),
        no_checkpoints=checkpoints.get("impossible") or checkpoints.get("failure"),
        state="running" if attached else "starting",
    )


def paused_row(number: int, entry: NodeEntry) -> ReplicaStatus:
    """The row of a node that does not answer: it lives, and serves nobody."""
    return ReplicaStatus(
        id=number,
        role="down",
        address=entry.address,
        node_pid=entry.process.pid,
        server_pid=entry.server.pid if entry.server else None,
        state="paused",
    )


def threads(directory: ClusterRunDir) -> dict[int, list[dict[str, Any]]]:
    """The threads of each replica's program, of the replicas that answer."""
    found = {}
    for number, entry in sorted(directory.nodes().items()):
        if entry.process.alive():
            with suppress(UnreachableError):
                answer = request(directory.socket(str(number)), "GET", "/v1/threads", timeout=10)
                found[number] = answer["threads"]
    return found


def collect_remote(nodes: Sequence[Remote], warn: Callable[[str], None]) -> ClusterStatus:
    """Ask nodes elsewhere; ``warn`` is told of those that do not answer.

    Raises:
        CraneError: when none does, or one refuses.
    """
    rows, name, reason = {}, "", ""
    for node in nodes:
        try:
            answer = request(node, "GET", "/v1/status", timeout=5)
        except UnreachableError as error:
            reason = str(error)
            warn(reason)
            continue
        name = str(answer["name"])
        rows[int(answer["id"])] = row(int(answer["id"]), answer)
    if not rows:
        raise CraneError(reason)
    return ClusterStatus(name=name, replicas=[rows[number] for number in sorted(rows)])


def collect(directory: ClusterRunDir) -> ClusterStatus:
    """Ask every node of a cluster on this machine."""
    nodes = directory.nodes()
    run = directory.run()
    rows = []
    for number in sorted({*nodes, *(run.replicas if run else ())}):
        entry = nodes.get(number)
        rows.append(
            ReplicaStatus(id=number, role="down") if entry is None else _ask(directory, entry)
        )
    return ClusterStatus(name=directory.name, replicas=rows)


def _ask(directory: ClusterRunDir, entry: NodeEntry) -> ReplicaStatus:
    down = ReplicaStatus(id=entry.id, role="down", address=entry.address)
    found = entry.process.stat()
    if found is None or not found.alive:
        return down
    if found.stopped:
        return paused_row(entry.id, entry)
    try:
        answer = request(directory.socket(str(entry.id)), "GET", "/v1/status")
    except UnreachableError:
        if entry.process.alive():
            return paused_row(entry.id, entry)
        return down
    shown = row(entry.id, answer)
    # One that is still catching up does not listen yet, but will there.
    return shown if shown.address else msgspec.structs.replace(shown, address=entry.address)
