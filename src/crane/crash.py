"""A program that ended by its own fault, and when it may begin anew.

It ends at the same logical place on every replica, and begins anew at a place of the
log (``crates/engine/src/data_plane/restart.rs``). How long that waits is up to the
leader's node, so it is agreed: it grows while the program ends again and again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

_FIRST_SECONDS = 0.1
_LAST_SECONDS = 10.0
_CALM_SECONDS = 60.0
SHARE = "restart.json"
"""Where a replica keeps what the log says up to where the program last began anew."""


class Crashes:
    """The crashes of one replica's program."""

    def __init__(self) -> None:
        self.times = 0
        """How many so far."""
        self._row = 0
        self._last = float("-inf")

    def note(self) -> float:
        """Note one; how many seconds to wait before the program begins anew."""
        now = time.monotonic()
        self._row = self._row + 1 if now < self._last + _CALM_SECONDS else 0
        self._last = now
        self.times += 1
        return min(_LAST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._row, 10))


def write_share(state: Path, share: dict[str, Any]) -> Path:
    """Keep what the engine told; where it lies."""
    path = state / SHARE
    path.write_bytes(msgspec.json.encode(share))
    path.chmod(0o600)
    return path
