"""Taking a checkpoint of a replica that runs.

The program stands still from the end of one epoch until its memory and files are
copied; the log goes on meanwhile, and the program does what it missed afterwards.
Digests are made, and everything is written to the disk, when it runs again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crane import native
from crane.checkpoint import processes
from crane.checkpoint.store import (
    FORMAT,
    SAID,
    SHARE,
    Checkpoint,
    Manifest,
    Store,
    names_in,
    sum_of,
)
from crane.errors import CraneError

if TYPE_CHECKING:
    from crane._core import Engine
    from crane.life import Life

_PARK_SECONDS = 30.0
_TAIL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parked:
    """What the engine said when the program stood still."""

    share: dict[str, Any]


class Parking:
    """The engine's answers to a request to stand still."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[Parked] | None = None

    def event(self, event: dict[str, Any]) -> None:
        """Take the engine's event ``parked`` or ``unparked``."""
        answer = self._answer
        if answer is None or answer.done():
            return
        if event["kind"] == "parked":
            answer.set_result(Parked(event["share"]))
        else:
            answer.set_exception(CraneError(f"no checkpoint: {event['message']}"))

    async def ask(self, engine: Engine) -> Parked:
        """Have the program stand still.

        Raises:
            CraneError: when it cannot, or does not within 30 s.
        """
        self._answer = asyncio.get_running_loop().create_future()
        engine.park()
        try:
            async with asyncio.timeout(_PARK_SECONDS):
                return await self._answer
        except TimeoutError:
            raise CraneError("no checkpoint: the program does not come to a stand") from None
        finally:
            self._answer = None


def agreed_digest(agreed: str) -> str:
    """What tells one set of files and settings from another in a manifest."""
    return hashlib.sha256(agreed.encode()).hexdigest()


async def take(life: Life, parking: Parking, store: Store, agreed: str) -> Checkpoint:
    """Take a checkpoint into ``store``.

    Raises:
        CraneError: when that is not possible now, in one line. The program goes on.
    """
    engine = life.engine
    if engine is None or life.init == 0:
        raise CraneError("no checkpoint: the program has not started")
    new = await asyncio.to_thread(store.begin)
    try:
        parked = await parking.ask(engine)
        began = time.monotonic()
        try:
            said = await asyncio.to_thread(_copy, life, engine, new)
        finally:
            stood_still = engine.unpark()
        standing = time.monotonic() - began
        _check(stood_still=stood_still)
        return await asyncio.to_thread(
            _finish, life, store, new, parked, standing=standing, said=said, agreed=agreed
        )
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(new)
        raise


def _check(*, stood_still: bool) -> None:
    if not stood_still:
        raise CraneError("no checkpoint: the replica was needed before it was taken")


def _copy(life: Life, engine: Engine, new: Path) -> int:
    """Copy everything that changes when the program goes on; how long its output is."""
    library = life.shared.inside / native.interposer_path().name
    try:
        processes.save(life.init, life.layers, library, engine.seen_files(), new)
        engine.save_segment(new / processes.SEGMENT)
        with life.output.open("rb") as file:
            said = file.seek(0, os.SEEK_END)
            file.seek(max(0, said - _TAIL))
            (new / SAID).write_bytes(file.read(_TAIL))
    except native.core().EngineError as error:
        raise CraneError(str(error)) from error
    except OSError as error:
        place = error.filename or new
        raise CraneError(f"no checkpoint: {place}: {error.strerror}") from error
    return said


def _finish(
    life: Life,
    store: Store,
    new: Path,
    parked: Parked,
    *,
    standing: float,
    said: int,
    agreed: str,
) -> Checkpoint:
    share = parked.share
    (new / SHARE).write_text(json.dumps(share))
    manifest = Manifest(
        format=FORMAT,
        cluster_id=life.config.cluster_id,
        name=life.config.name,
        argv=life.config.argv,
        index=share["index"],
        term=share["term"],
        epoch=share["epoch"],
        clock=share["clock"],
        output_hash=str(share["output_hash"]),
        schedule_hash=str(share["schedule_hash"]),
        taken_by=life.config.id,
        taken_at=round(time.time(), 3),
        standing=round(standing, 3),
        agreed=agreed_digest(agreed),
        said=said,
        files={name: sum_of(new / name) for name in names_in(new)},
    )
    return store.finish(new, manifest)
