"""Names of the interposer's operations, as they appear in traces and hashes.

The codes are those of ``Op`` in the interposer; a test compares the two.
"""

from __future__ import annotations

_FAMILIES: dict[int, str] = {
    1: (
        "ThreadCreate ThreadEnd ThreadJoin ThreadDetach ThreadExit Yield ThreadCancel CancelState"
        " TestCancel Priority Spin Link"
    ),
    16: (
        "MutexLock MutexTryLock MutexUnlock CondWait CondSignal CondBroadcast ReadLock WriteLock"
        " RwUnlock SemWait SemTryWait SemPost Barrier SpinLock SpinUnlock Once Futex"
    ),
    48: "Clock Sleep",
    64: "Random",
    80: "Read Write Close Open Dup Control Pipe FileWrite Stat Sync",
    112: "Socket Bind Listen Accept Connect Send Receive Shutdown Option SocketPair",
    144: "Poll Select EpollCreate EpollControl EpollWait EventFd TimerFd",
    176: "Fork Exec Exit Wait Kill Signal Spawn Ids FileLock SignalAction",
}

OPERATIONS: dict[int, str] = {
    first + offset: name
    for first, names in _FAMILIES.items()
    for offset, name in enumerate(names.split())
}


def operation_name(code: int) -> str:
    """The operation's name, or its number when it is a newer interposer's."""
    return OPERATIONS.get(code, f"operation {code}")
