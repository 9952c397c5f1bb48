"""Which file is which: before a checkpoint and after the program was restored from it.

The interposer shows every file under a number of its own and keeps a table from the
kernel's numbers to these (``crates/interposer/src/inodes.rs``). The kernel's are others
after a restore, so each file is written down by how it can be found again:

* what the program wrote, and everything below ``/dev/shm``, by looking through it;
* other files by the name under which they were first seen;
* files without a name by the descriptors of the processes that have them open.

What is found in none of these ways is gone: the program cannot see it again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from crane import layers, linux, mounts

FILE = "files.json"
PLACE = f"{mounts.CONTROL_DIR}/files"
"""Where the interposer reads it, inside."""

Identity = tuple[int, int, int]
"""Device, inode number and time of birth in nanoseconds, as the kernel has them."""
Seen = tuple[int, int, int, int, int, int, bytes]
"""An entry of the interposer's table: an identity, the number that is shown, the virtual
time of the last write, the place of its name, and that name."""
Found = tuple[int, int, int, str, bool]
"""The number that is shown, the time of the last write, the place of the name, a path,
and whether the path's last part is followed if it is a link."""

_SHM = "/dev/shm"  # noqa: S108 - the replica's own
_ENTRY = struct.Struct("=QQqQQQ")


def written(base: Path) -> list[str]:
    """The paths, as the program sees them, of all that is in a replica's layers."""
    known = layers.places(base)
    found = []
    for upper in sorted(base.glob("*/upper")):
        place = known.get(upper.parent.name)
        if place is None:
            continue
        found.append(place)
        for directory, names, others in os.walk(upper):
            here = Path(place) / os.path.relpath(directory, upper)
            found += (str(here / one) for one in (*names, *others))
    return found


def find(seen: Iterable[Seen], paths: Iterable[str], processes: Iterable[int]) -> list[Found]:
    """How to find the files of a table again; called where the program sees its files.

    ``paths`` are those of :func:`written`, ``processes`` the program's pids there.
    """
    missing: dict[Identity, Seen] = {one[:3]: one for one in seen}
    found: list[Found] = []

    def look(path: str, *, follow: bool) -> None:
        identity = identify(path, follow=follow)
        one = missing.pop(identity, None) if identity is not None else None
        if one is not None:
            found.append((*one[3:6], path, follow))

    for path in paths:
        look(path, follow=False)
    for path in (_SHM, *_below(_SHM)):
        look(path, follow=False)
    for *_, name in list(missing.values()):
        path = os.fsdecode(name)
        if path.startswith("/") and not path.startswith("/proc/"):
            look(path, follow=False)
            look(path, follow=True)
    for pid in processes:
        with suppress(OSError):
            for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
                look(str(descriptor), follow=True)
    return found


def _below(top: str) -> Iterator[str]:
    for directory, names, others in os.walk(top):
        yield from (f"{directory}/{one}" for one in (*names, *others))


def identify(path: str, *, follow: bool) -> Identity | None:
    """Who a file is to the kernel; ``None`` when there is none."""
    with suppress(OSError):
        return linux.identity(path, follow=follow)
    return None


def table(found: Iterable[Found]) -> bytes:
    """The interposer's table with the identities that the files have now and here."""
    entries = []
    for shown, time, name, path, follow in found:
        identity = identify(path, follow=follow)
        if identity is not None:
            entries.append(_ENTRY.pack(*identity, shown, time, name))
    return b"".join(entries)
