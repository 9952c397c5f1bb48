"""Disks of their own: file systems in files, that can be full, fail, and lose what was unsynced.

Its faults are the kernel's own: a full ext4 says ``ENOSPC``, and one that was shut
down (``FS_IOC_SHUTDOWN``) says ``EIO`` to every write and sync and has only what had
reached its journal.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from crane import linux
from crane.chaos import owned
from crane.errors import CraneError

_MEGABYTES = 384
_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_WITHOUT_FLUSH = 2
_FILLER = "filler"


def possible() -> bool:
    """Whether the tools are there."""
    return all(shutil.which(tool) for tool in ("mkfs.ext4", "losetup", "mount", "umount"))


class Disk:
    """One disk, mounted on a directory. Needs root."""

    def __init__(self, image: Path, place: Path) -> None:
        """Make the disk in the new file ``image`` and mount it on ``place``.

        Raises:
            CraneError: when that cannot be done.
        """
        self._image = image
        self._place = place
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(_MEGABYTES << 20)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-m", "0", image)
        self.mount()

    def mount(self) -> None:
        """Mount it, as after a start of the machine.

        By a device of its own each time: any process of this machine that makes itself
        a mount namespace keeps the one before alive, and with it the failed file system.
        """
        device = _run("losetup", "--find", "--show", self._image).strip()
        try:
            _run("mount", device, self._place)
        finally:
            # It goes with its last user.
            _run("losetup", "--detach", device)
        self._place.chmod(0o700)

    def unmount(self) -> None:
        """Take it away; nothing may use it any more."""
        _run("umount", self._place)

    def fill(self) -> None:
        """Leave no space on it."""
        with (self._place / _FILLER).open("wb") as file:
            step = _MEGABYTES << 20
            while step >= 1024:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
                except OSError:
                    step //= 2

    def free(self) -> None:
        """Give the space back."""
        (self._place / _FILLER).unlink(missing_ok=True)

    def fail(self) -> None:
        """Fail every write and sync from now on; what was not synced is lost."""
        fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Take it away, whatever still uses it, and remove its file."""
        with suppress(OSError):
            linux.umount(str(self._place), linux.MNT_DETACH)
        self._image.unlink(missing_ok=True)


def remove_left_behind(base: Path) -> None:
    """Unmount the disks and remove the directories below ``base`` of trials that died."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if owned.is_left_behind(place):
            with suppress(OSError):
                linux.umount(place, linux.MNT_DETACH)
    for path in base.iterdir():
        if owned.is_left_behind(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _run(*command: str | Path) -> str:
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise CraneError(f"`{words[0]}` is missing; disks need Debian's e2fsprogs and mount")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CraneError(f"`{' '.join(words)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout
