"""Files that are whole or absent after a crash, and readable by their owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from crane import linux


def write(path: Path, content: bytes) -> None:
    """Replace a file by one of mode 0600, and return when it is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sync_all(path: Path) -> None:
    """Have everything on the disk that was written to the file system of a directory."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        linux.syncfs(directory)
    finally:
        os.close(directory)
