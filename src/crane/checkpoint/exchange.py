"""Checkpoints from one replica to another, over the connection that their engines have.

Who wants a checkpoint asks all others by mail which they have (``list``,
``have``), and then one of them for its files, piece by piece (``get``, ``piece``,
``gone``). Few pieces are on their way at a time, so that what the replicas agree on
waits for a quarter of a megabyte at most. Mail may be lost, so whoever asks asks
again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crane.checkpoint.store import MANIFEST, Checkpoint, Manifest, Store, decode_manifest
from crane.errors import CraneError
from crane.mail import Header, encode

PIECE = 128 * 1024
_WINDOW = 2
"""Pieces on their way at a time."""
_LIST_SECONDS = 1.0
_PIECE_SECONDS = 3.0
_TRIES = 4

Send = Callable[[int, bytes], None]


def answer(store: Store, header: Header) -> bytes | None:
    """What a replica with these checkpoints answers; ``None`` for nothing. Reads from the disk."""
    match header.kind:
        case "list":
            newest = store.newest()
            if newest is None:
                return encode(Header(kind="have"))
            text = (newest.path / MANIFEST).read_bytes()
            return encode(Header(kind="have", index=newest.index), text)
        case "get":
            with suppress(OSError):
                return _piece(store, header)
            return encode(Header(kind="gone", index=header.index, file=header.file))
    return None


def _piece(store: Store, header: Header) -> bytes:
    checkpoint = next((one for one in store.all() if one.index == header.index), None)
    if checkpoint is None or header.file not in checkpoint.manifest.files or header.at < 0:
        raise FileNotFoundError(header.file)
    with (checkpoint.path / header.file).open("rb") as file:
        content = os.pread(file.fileno(), PIECE, header.at)
    return encode(Header(kind="piece", index=header.index, file=header.file, at=header.at), content)


@dataclass(slots=True)
class Copying:
    """How far a copy is."""

    source: int
    """The replica that it comes from."""
    done: int
    whole: int
    """Bytes."""
    needed: bool
    """Whether the replica cannot go on without it."""
    what: str = "a checkpoint"
    """What is copied."""


class Fetcher:
    """Gets checkpoints of other replicas. Belongs to the event loop."""

    def __init__(self, send: Send, others: Callable[[], Iterable[int]]) -> None:
        """``send`` sends mail to a replica, ``others`` are the other replicas."""
        self._send = send
        self._others = others
        self._offers: dict[int, Manifest | None] = {}
        self._listed = asyncio.Event()
        self._pieces: dict[tuple[int, str, int], asyncio.Future[bytes]] = {}
        self.copying: Copying | None = None

    def mail(self, sender: int, header: Header, content: bytes) -> None:
        """Take an answer of another replica."""
        match header.kind:
            case "have":
                offer = None
                if header.index:
                    with suppress(ValueError):
                        offer = decode_manifest(content)
                self._offers[sender] = offer
                if set(self._others()) <= self._offers.keys():
                    self._listed.set()
            case "piece" | "gone":
                waiting = self._pieces.get((sender, header.file, header.at))
                if waiting is None or waiting.done():
                    return
                if header.kind == "piece":
                    waiting.set_result(content)
                else:
                    waiting.set_exception(CraneError("it has another checkpoint now"))

    async def offers(self) -> dict[int, Manifest]:
        """The newest checkpoint of each of the others that answers within a second."""
        self._offers.clear()
        self._listed.clear()
        for other in self._others():
            self._send(other, encode(Header(kind="list")))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LIST_SECONDS):
                await self._listed.wait()
        return {sender: one for sender, one in self._offers.items() if one is not None}

    async def fetch(
        self,
        store: Store,
        *,
        fits: Callable[[Manifest], bool],
        progress: Callable[[Copying], None],
        needed: bool,
    ) -> Checkpoint | None:
        """The newest checkpoint of the others for which ``fits``, copied into ``store``.

        ``None`` when nobody has one. ``progress`` is told now and then.

        Raises:
            CraneError: when none could be copied, with the last reason.
        """
        found = [(one, sender) for sender, one in (await self.offers()).items() if fits(one)]
        found.sort(key=lambda pair: pair[0].index, reverse=True)
        failure: CraneError | None = None
        for manifest, sender in found:
            try:
                return await self._copy(sender, manifest, store, progress, needed=needed)
            except CraneError as error:
                failure = CraneError(
                    f"the checkpoint of replica {sender} could not be copied: {error}"
                )
            finally:
                self.copying = None
        if failure is not None:
            raise failure
        return None

    async def _copy(
        self,
        sender: int,
        manifest: Manifest,
        store: Store,
        progress: Callable[[Copying], None],
        *,
        needed: bool,
    ) -> Checkpoint:
        new = await asyncio.to_thread(store.begin)
        state = self.copying = Copying(sender, 0, manifest.bytes, needed)
        told = time.monotonic()
        try:
            for name, wanted in manifest.files.items():
                file = new / name
                file.parent.mkdir(mode=0o700, exist_ok=True)
                with file.open("wb") as out:
                    for start in range(0, wanted.size, _WINDOW * PIECE):
                        end = min(wanted.size, start + _WINDOW * PIECE)
                        places = range(start, end, PIECE)
                        asked = (self._get(sender, manifest.index, name, at) for at in places)
                        for at, content in zip(places, await asyncio.gather(*asked), strict=True):
                            if len(content) != min(PIECE, wanted.size - at):
                                raise CraneError(f"{name} is shorter than its manifest says")
                            out.write(content)
                            state.done += len(content)
                        if time.monotonic() > told + 0.5:
                            told = time.monotonic()
                            progress(state)
            copied = Checkpoint(new, manifest)
            await asyncio.to_thread(copied.verify)
            progress(state)
            return await asyncio.to_thread(store.finish, new, manifest)
        except OSError as error:
            raise CraneError(f"{error.filename or new}: {error.strerror}") from error
        finally:
            if new.exists():
                await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)

    async def _get(self, sender: int, index: int, name: str, at: int) -> bytes:
        key = (sender, name, at)
        for _ in range(_TRIES):
            waiting = self._pieces[key] = asyncio.get_running_loop().create_future()
            self._send(sender, encode(Header(kind="get", index=index, file=name, at=at)))
            try:
                async with asyncio.timeout(_PIECE_SECONDS):
                    content: bytes = await waiting
                    return content
            except TimeoutError:
                continue
            finally:
                self._pieces.pop(key, None)
        raise CraneError("it does not answer")


def describe(state: Copying) -> dict[str, Any]:
    """How far a copy is, for an event or a status."""
    return {
        "what": state.what,
        "from": state.source,
        "done": state.done,
        "of": state.whole,
        "needed": state.needed,
    }
