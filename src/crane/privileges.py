"""What may still be done by processes that run as root.

Root is given up in two steps, each for the process and everything it starts:

* a **node** keeps what making a replica's namespaces and layers, reading its
  program's threads, low ports and checkpoints (CRIU) need, and gives up what
  none of these does: modules, raw devices, the kernel's log, eBPF, rebooting...
* the **program** keeps what root has in a container, so that servers can do
  what they do at their start: bind low ports, change user, own files.

Both are marked never to gain privileges by what they execute. Who is not root
has none of these, and nothing happens.
"""

from __future__ import annotations

import os
from pathlib import Path

from crane import linux

# Numbers of linux/capability.h; Python does not have them.
_CHOWN = 0
_DAC_OVERRIDE = 1
_DAC_READ_SEARCH = 2
_FOWNER = 3
_FSETID = 4
_KILL = 5
_SETGID = 6
_SETUID = 7
_SETPCAP = 8
_NET_BIND_SERVICE = 10
_NET_ADMIN = 12
_NET_RAW = 13
_IPC_LOCK = 14
_IPC_OWNER = 15
_SYS_CHROOT = 18
_SYS_PTRACE = 19
_SYS_ADMIN = 21
_SYS_NICE = 23
_SYS_RESOURCE = 24
_SYS_TIME = 25
_MKNOD = 27
_AUDIT_WRITE = 29
_AUDIT_CONTROL = 30
_SETFCAP = 31
_CHECKPOINT_RESTORE = 40

PROGRAM = frozenset(
    {
        _AUDIT_WRITE,
        _CHOWN,
        _DAC_OVERRIDE,
        _FOWNER,
        _FSETID,
        _IPC_LOCK,
        _KILL,
        _NET_BIND_SERVICE,
        _NET_RAW,
        _SETFCAP,
        _SETGID,
        _SETPCAP,
        _SETUID,
        _SYS_CHROOT,
        _SYS_NICE,
        _SYS_RESOURCE,
    }
)
"""What the program keeps."""

NODE = PROGRAM | {
    _AUDIT_CONTROL,  # CRIU: who logged in
    _CHECKPOINT_RESTORE,
    _DAC_READ_SEARCH,
    _IPC_OWNER,
    _MKNOD,  # files that a layer deletes
    _NET_ADMIN,
    _SYS_ADMIN,  # namespaces and mounts
    _SYS_PTRACE,
    _SYS_TIME,  # CRIU: time namespaces
}
"""What a node and the sandbox keep."""


def limit(kept: frozenset[int]) -> None:
    """Give up every capability but these, and never gain any again."""
    if os.geteuid() != 0:
        return
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in kept:
            linux.drop_bounding_capability(number)
    linux.keep_capabilities(sum(1 << number for number in kept))
    linux.set_no_new_privileges()
