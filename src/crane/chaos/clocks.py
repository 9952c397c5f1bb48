"""Wall clocks that are wrong: libfaketime in a node's process reads how much from a file.

Only the wall clock; what measures durations goes on as it is.
"""

from __future__ import annotations

from pathlib import Path

from crane.errors import CraneError

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the library's choice
_SHARED = ("faketime_shm_", "sem.faketime_sem_")


def library() -> str | None:
    """The library, ``None`` where it is not installed."""
    return next((path for path in _LIBRARIES if Path(path).exists()), None)


def environment(file: Path) -> dict[str, str]:
    """Variables for a process whose wall clock ``file`` sets.

    Raises:
        CraneError: when the library is not installed.
    """
    found = library()
    if found is None:
        raise CraneError("libfaketime is missing; wrong clocks need Debian's package faketime")
    return {
        "LD_PRELOAD": found,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def remove_left_behind() -> None:
    """Remove what the library left in shared memory for processes that were killed."""
    for pattern in _SHARED:
        for path in _SHARED_MEMORY.glob(f"{pattern}*"):
            number = path.name.removeprefix(pattern)
            if number.isdigit() and not Path(f"/proc/{number}").exists():
                path.unlink(missing_ok=True)


def set_ahead(file: Path, seconds: int) -> None:
    """Let the clock that ``file`` sets be so many seconds ahead, or behind below 0."""
    temporary = file.with_suffix(".new")
    temporary.write_text(f"{seconds:+d}\n")
    temporary.replace(file)
