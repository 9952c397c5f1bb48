"""Why a program makes no progress: who has the turn, where it is, what it waits for.

Only one thread of a program runs at a time, so when nothing happens it is the
holder of the turn that has to be explained. The machine tells where a thread
is in the kernel; where it is in its own code, the interposer told when it was
asked (``registers``). The stack is read from the program's memory: what lies
there and follows a call instruction is taken for a return address, so a line
of it may be left over from an earlier call.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from crane import procfs
from crane.verify.operations import operation_name
from crane.verify.places import Images, parse_maps

_STACK_BYTES = 32 << 10
_FRAMES = 24
_WORD = 8

# Calls in which a thread can stay long, by number (x86-64).
_CALLS = {
    0: "read", 1: "write", 2: "open", 3: "close", 7: "poll", 17: "pread64", 18: "pwrite64",
    19: "readv", 20: "writev", 23: "select", 26: "msync", 35: "nanosleep", 42: "connect",
    43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 59: "execve",
    61: "wait4", 65: "semop", 70: "msgrcv", 72: "fcntl", 73: "flock", 74: "fsync",
    75: "fdatasync", 76: "truncate", 77: "ftruncate", 82: "rename", 87: "unlink",
    128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep",
    232: "epoll_wait", 247: "waitid", 257: "openat", 270: "pselect6", 271: "ppoll",
    281: "epoll_pwait", 285: "fallocate",
}  # fmt: skip


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """One thread of a program, as its schedule and the machine have it."""

    slot: int
    """Its number in the schedule."""
    pid: int
    tid: int
    """Within the replica."""
    name: str | None
    state: str
    """``running`` (it has the turn), ``ready``, ``waiting``."""
    operation: str
    """The last one."""
    waits_for: str | None = None
    """The key of what it waits for: an object's address or number."""
    deadline_ns: int | None = None
    """Virtual time at which its wait ends."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a program makes no progress."""

    reason: str
    """One line."""
    gone: bool
    """The holder of the turn has ended, killed from outside: there will be no progress."""
    slot: int
    pid: int
    tid: int
    name: str | None
    clock: int
    operation: str | None
    stack: list[str]
    """The innermost place first."""


def _task(init: int, pid: int, tid: int) -> Path:
    """A thread's directory in the replica's own ``/proc``."""
    return Path(f"/proc/{init}/root/proc/{pid}/task/{tid}")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def threads(init: int, rows: list[dict[str, Any]]) -> list[Thread]:
    """The engine's rows with what the machine says of each."""
    return [
        Thread(
            slot=row["slot"],
            pid=row["pid"],
            tid=row["tid"],
            name=_text(_task(init, row["pid"], row["tid"]) / "comm"),
            state=row["state"],
            operation=operation_name(row["operation"]) if row["operation"] else "-",
            waits_for=row.get("key"),
            deadline_ns=row.get("deadline_ns"),
        )
        for row in rows
    ]


def explain(init: int, holder: dict[str, Any], rows: list[dict[str, Any]]) -> Explanation:
    """Look at the holder of the turn; ``holder`` and ``rows`` are the engine's."""
    slot, pid, tid = holder["slot"], holder["pid"], holder["tid"]
    task = _task(init, pid, tid)
    row = next((one for one in rows if one["slot"] == slot), None)
    operation = operation_name(row["operation"]) if row and row["operation"] else None
    name = _text(task / "comm")
    gone, doing = _doing(task)
    stack = [] if gone else _stack(task, holder.get("registers"))
    who = f"thread {slot}" + (f" (`{name}`, {tid} of process {pid})" if name else f" ({tid})")
    others = sum(one["state"] == "ready" for one in rows)
    reason = f"{who} has the turn and {doing}"
    if operation:
        reason += f"; its last operation was {operation} at clock {holder['clock']}"
    if others:
        reason += f"; {others} other thread{'s' if others > 1 else ''} could run"
    if stack:
        reason += f"; it is at {' < '.join(stack[:4])}"
    return Explanation(
        reason=reason,
        gone=gone,
        slot=slot,
        pid=pid,
        tid=tid,
        name=name,
        clock=holder["clock"],
        operation=operation,
        stack=stack,
    )


def _doing(task: Path) -> tuple[bool, str]:
    """Whether the thread has ended, and what it does."""
    line = _text(task / "stat")
    state = "X" if line is None else procfs.parse_stat(line).state
    if state in "ZX":
        return True, "was ended from outside, so it will never pass it on"
    return False, "is stopped by a signal" if state in "Tt" else _call(task, state)


def _call(task: Path, state: str) -> str:
    """What a thread does in the kernel, if it is there."""
    call = (_text(task / "syscall") or "").split()
    if not call:
        return f"is in state {state}"
    if call[0] == "running":
        return "runs code of its own without an operation: it spins or computes"
    if call[0] == "-1":
        return "is in the kernel without a system call (a page fault)"
    number = int(call[0])
    where = _text(task / "wchan")
    known = _CALLS.get(number, f"number {number}")
    return f"is in the system call {known}" + (
        f" (in {where})" if where not in (None, "", "0") else ""
    )


def _stack(task: Path, registers: dict[str, int] | None) -> list[str]:
    """Where the thread is, the innermost place first; empty when it cannot be seen."""
    call = (_text(task / "syscall") or "").split()
    if len(call) >= 9:  # blocked in a call: its arguments, stack and instruction pointer
        pointer, instruction = int(call[7], 16), int(call[8], 16)
    elif len(call) == 3:
        pointer, instruction = int(call[1], 16), int(call[2], 16)
    elif registers is not None:
        pointer, instruction = registers["stack"], registers["instruction"]
    else:
        return []
    maps = _text(task / "maps")
    if maps is None:
        return []
    images = Images(parse_maps(maps))
    try:
        memory = os.open(task / "mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return [images.describe(instruction)]
    try:
        addresses = return_addresses(memory, pointer, images)
    finally:
        os.close(memory)
    return [images.describe(one) for one in (instruction, *addresses)]


def return_addresses(memory: int, pointer: int, images: Images) -> list[int]:
    """What looks like return addresses in the stack at ``pointer``, innermost first."""
    stack = b""
    for size in (_STACK_BYTES, 4096 - pointer % 4096):
        try:
            stack = os.pread(memory, size, pointer)
        except OSError:
            continue  # it ends before
        break
    found = []
    for offset in range(0, len(stack) - _WORD + 1, _WORD):
        word = int.from_bytes(stack[offset : offset + _WORD], "little")
        if not any(one.start < word < one.end for one in images.mappings):
            continue
        try:
            before = os.pread(memory, 7, word - 7)
        except OSError:
            continue
        if follows_call(before):
            found.append(word)
            if len(found) == _FRAMES:
                break
    return found


def follows_call(before: bytes) -> bool:
    """Whether the seven bytes before an address end with a call instruction (x86-64)."""
    if len(before) != 7:
        return False
    if before[2] == 0xE8:  # call relative
        return True
    # call through a register or memory: FF /2 with its address of 0 to 5 more bytes
    return any(
        before[7 - length] == 0xFF and (before[8 - length] >> 3) & 7 == 2
        for length in (2, 3, 4, 6, 7)
    )
