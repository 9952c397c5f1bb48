"""The Linux calls that Python's standard library does not offer.

Only what the sandbox and process supervision need. Every function raises
``OSError`` with the kernel's error number. This module is imported by the
process that becomes pid 1 of a replica, so it imports little.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

MNT_DETACH = 2

ADDR_NO_RANDOMIZE = 0x0004_0000

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x2008_0522
_SYS_CAPGET = {"x86_64": 125, "aarch64": 90}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
_SIGNALS = 64
_UNCHANGEABLE = (9, 19)  # SIGKILL, SIGSTOP
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_INO_AND_BTIME = 0x100 | 0x800
# The mask; the inode number; the time of birth; the device.
_STATX = struct.Struct("=I28xQ40xqI44xII112x")
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.personality.argtypes = [ctypes.c_ulong]
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Give the calling process new namespaces (``CLONE_NEW*``)."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace (``CLONE_NEW*``) behind a descriptor; children, for a pid namespace."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(
    source: str, target: str, fstype: str | None = None, flags: int = 0, data: str = ""
) -> None:
    """Mount ``source`` on ``target``; ``data`` is the file system's option text."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            None if fstype is None else fstype.encode(),
            flags,
            os.fsencode(data) if data else None,
        ),
        f"mount {fstype or 'bind'} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    """Unmount ``target``."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def syncfs(descriptor: int) -> None:
    """Write everything of the file system behind a descriptor to its disk."""
    _check(_libc.syncfs(descriptor), "syncfs")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root of this mount namespace."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _check(
        _libc.syscall(number, os.fsencode(new_root), os.fsencode(put_old)),
        f"pivot_root {new_root}",
    )


def personality(persona: int) -> None:
    """Set the execution domain flags that the next program inherits."""
    _check(_libc.personality(persona), "personality")


def identity(path: str, *, follow: bool) -> tuple[int, int, int]:
    """Device, inode number and time of birth (nanoseconds, 0 if not known) of a file: statx(2)."""
    found = ctypes.create_string_buffer(_STATX.size)
    flags = 0 if follow else _AT_SYMLINK_NOFOLLOW
    done = _libc.statx(_AT_FDCWD, os.fsencode(path), flags, _STATX_INO_AND_BTIME, found)
    _check(done, "statx")
    mask, number, seconds, nanoseconds, major, minor = _STATX.unpack(found.raw)
    born = seconds * 1_000_000_000 + nanoseconds if mask & 0x800 else 0
    return os.makedev(major, minor), number, born


def set_parent_death_signal(signal: int) -> None:
    """Ask the kernel to signal this process when the thread that started it ends.

    A fork does not inherit the request. A parent that ended before the call is
    not noticed, so callers compare ``os.getppid()`` afterwards.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def default_signals() -> None:
    """Give every signal its default disposition, which programs that follow inherit.

    Also those that the C library keeps for itself: it ignores them in what it spawns.
    """
    default = ctypes.create_string_buffer(32)
    number = _SYS_RT_SIGACTION[os.uname().machine]
    for signal in range(1, _SIGNALS + 1):
        if signal not in _UNCHANGEABLE:
            done = _libc.syscall(number, signal, default, None, ctypes.c_size_t(8))
            _check(done, "rt_sigaction")


def set_no_new_privileges() -> None:
    """Make setuid files and file capabilities ineffective for this process's programs."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def drop_bounding_capability(number: int) -> None:
    """Let no program that this process starts have a capability, whoever it runs as."""
    _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl(PR_CAPBSET_DROP)")


def keep_capabilities(kept: int) -> None:
    """Give up this thread's capabilities but those of a mask, and hand none down.

    Threads that it starts afterwards have what it has.
    """
    machine = os.uname().machine
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0), 8)
    data = ctypes.create_string_buffer(24)
    _check(_libc.syscall(_SYS_CAPGET[machine], header, data), "capget")
    low = struct.unpack_from("III", data.raw, 0)
    high = struct.unpack_from("III", data.raw, 12)
    words = []
    for (effective, permitted, _), mask in ((low, kept & 0xFFFF_FFFF), (high, kept >> 32)):
        words += [effective & mask, permitted & mask, 0]
    data = ctypes.create_string_buffer(struct.pack("6I", *words), 24)
    _check(_libc.syscall(_SYS_CAPSET[machine], header, data), "capset")


def set_interface_up(name: str) -> None:
    """Bring a network interface of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", name.encode(), 0)
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))
