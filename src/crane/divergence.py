"""A replica whose program came to other results than the others': words and evidence.

The engine compares results and finds the first operation that differs
(``crates/engine/src/agreement``); it tells of it in an event that is one of

* ``diverged``: this replica is in the minority, its program is wrong,
* ``other_diverged``: another one is,
* ``undecided``: no majority says who is right.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from crane import layers
from crane.verify.operations import operation_name

_KEPT = 4
"""Directories of evidence that a replica keeps; the oldest go."""
_MAX_FILES = 2000
_MAX_BYTES = 64 << 20
_SENT = {1: "bytes", 2: "end of output", 3: "close", 4: "datagram to", 5: "datagram"}


def line(event: dict[str, Any], own: int) -> str:
    """The event of replica ``own`` as one line, the same from whichever side it is told."""
    others = event["others"]
    match event["verdict"]:
        case "diverged":
            who = f"replica {own} diverged from {_replicas(others)} in epoch {event['epoch']}"
            mine = True
        case "other_diverged":
            who = f"{_replicas(others)} diverged from the majority in epoch {event['epoch']}"
            mine = False
        case _:
            who = f"{_replicas(sorted([own, *others]))} differ from epoch {event['epoch']} on"
            mine = True
    if not event.get("exact", True):
        who += " or before"
    return f"{who}: {_first(event, mine=mine)}"


def advice(event: dict[str, Any], state: Path, kept: Path | None) -> str:
    """What to do about an event, for the end of a line."""
    seen = f"; what both did is in {kept}" if kept else ""
    if event["verdict"] == "undecided":
        return (
            "; no majority says who is right, so no clients are served until one does (a replica"
            f" that is down may, once it is started); all state is kept{seen}; `crane verify --log"
            f" {state}` executes the log again"
        )
    return seen


def diverged(event: dict[str, Any], own: int) -> list[int]:
    """The replicas whose programs are wrong by an event of replica ``own``."""
    match event["verdict"]:
        case "diverged":
            return [own]
        case "other_diverged":
            return list(event["others"])
        case _:
            return []


def _replicas(numbers: list[int]) -> str:
    words = [str(one) for one in numbers]
    if len(words) == 1:
        return f"replica {words[0]}"
    return f"replicas {', '.join(words[:-1])} and {words[-1]}"


def _first(event: dict[str, Any], *, mine: bool) -> str:
    """The first operation that differs, as the side that is wrong did it."""
    first = event.get("first")
    if first is None:
        return "its first operation is not remembered any more, `crane verify --log` finds it" + (
            ", clients may have got other answers" if event.get("output") else ""
        )
    one, other = first["ours"], first["theirs"]
    if not mine:
        one, other = other, one
    at = f"at clock {first['clock']}"
    if first["what"] == "output":
        does = one or other
        did = f" in its {operation_name(does['operation'])}" if does else ""
        return f"thread {_thread(does)} sent other bytes to {_connection(first)}{did} {at}"
    if one is None:
        return f"{at} it does nothing where thread {_did(other)} on the others"
    if other is None:
        return f"{at} thread {_did(one)} where nothing happens on the others"
    if one["thread"] != other["thread"]:
        return f"{at} thread {_did(one)} where thread {_did(other)} on the others"
    return (
        f"{at} thread {one['thread']} does {operation_name(one['operation'])} and on the others"
        f" {operation_name(other['operation'])}"
    )


def _connection(first: dict[str, Any]) -> str:
    name = str(first["connection"])
    gateway = name.split(".", maxsplit=1)[0]
    return f"connection {name} (a client of replica {gateway})" if gateway.isdigit() else name


def _thread(side: dict[str, Any] | None) -> str:
    return str(side["thread"]) if side else "?"


def _did(side: dict[str, Any]) -> str:
    return f"{side['thread']} does {operation_name(side['operation'])}"


def place(event: dict[str, Any], state: Path) -> Path:
    """Where the evidence of a difference is kept."""
    return state / f"diverged-{event['epoch']}"


def keep(event: dict[str, Any], state: Path, status: dict[str, Any]) -> None:
    """Write the evidence of a difference to its place in ``state``.

    Bounded in number and size. Raises ``OSError`` when it cannot be written.
    """
    target = place(event, state)
    shutil.rmtree(target, ignore_errors=True)
    old = sorted(state.glob("diverged-*"), key=lambda one: one.stat().st_mtime)
    for one in old[: max(0, len(old) - _KEPT + 1)]:
        shutil.rmtree(one, ignore_errors=True)
    target.mkdir(mode=0o700)
    short = {name: value for name, value in event.items() if name not in ("ours", "theirs")}
    _write(target / "difference.json", short)
    _write(target / "status.json", status)
    clock = (event.get("first") or {}).get("clock")
    for side in ("ours", "theirs"):
        if event.get(side):
            text = "".join(f"{one}\n" for one in _operations(event[side], clock))
            (target / f"operations-{side}.txt").write_text(text)
            (target / f"output-{side}.txt").write_text("".join(_outputs(event[side])))
    _copy_files(state / "files", target / "files")


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def _operations(side: dict[str, Any], clock: int | None) -> Iterator[str]:
    for at, thread, code, thing in side["operations"]:
        mark = ">" if at == clock else " "
        what = f"{mark} clock {at:<12} thread {thread:<4} {operation_name(code):16}"
        yield what + (f" on {thing:#x}" if thing else "")


def _outputs(side: dict[str, Any]) -> Iterator[str]:
    for at, connection, what, length, hash_ in side["outputs"]:
        yield f"clock {at:<12} {connection:16} {_SENT.get(what, what)} {length} hash {hash_}\n"


def _copy_files(source: Path, target: Path) -> None:
    """Copy what the program wrote, unless it is much."""
    found = layers.written(source)
    if not found:
        return
    sizes = [one.size for one in found.values() if one.kind == "file"]
    if len(found) > _MAX_FILES or sum(sizes) > _MAX_BYTES:
        names = "".join(f"{one.kind} {one.size} {path}\n" for path, one in found.items())
        target.with_name("files.txt").write_text(names)
        return
    for path, one in found.items():
        original = layers.where(source, path)
        if one.kind == "file" and original is not None:
            copy = target / path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, copy, follow_symlinks=False)
