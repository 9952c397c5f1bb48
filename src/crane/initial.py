"""The private directories with which a replica begins, copied from another one.

The copies below ``private`` in a state directory are never written again: what the
program writes goes to a layer over them. So whoever has them can give them to a
replica that is new, however long the cluster has run, and it begins as all began.

Who has none asks all others (``want``, ``have_private`` or ``no_private``), and then one
of them for a tar archive, piece by piece (``get_private``, ``private``,
``gone_private``). Neither side keeps the archive: GNU tar writes it into a pipe there
and reads it from one here, and two pieces are on their way at a time. The last piece
has the digest of all. When a new cluster starts nobody has copies, and all are there:
then the replica with the lowest number makes them from what its machine has.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crane import ownership
from crane.checkpoint.exchange import PIECE, Copying, describe
from crane.errors import CraneError
from crane.mail import Header, Post, encode

if TYPE_CHECKING:
    from crane.config import NodeConfig

_WINDOW = 2
"""Pieces on their way at a time."""
_OFFER_SECONDS = 1.0
_PIECE_SECONDS = 3.0
_TRIES = 4
# A replica that began to ask and asks no more.
_IDLE_SECONDS = 60.0
# What is still missing then is worth a line.
_TOLD_SECONDS = 1.5
_NEW = "private.new"
_KEEP = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"]

Events = Callable[[dict[str, Any]], None]


class _Stream:
    """An archive on its way to one replica."""

    def __init__(self, attempt: int, tar: Process) -> None:
        self.attempt = attempt
        self.tar = tar
        self.timer: asyncio.TimerHandle | None = None
        self._sum = hashlib.sha256()
        self._next = 0
        # What may be asked for again.
        self._recent: deque[tuple[int, bytes, str]] = deque(maxlen=_WINDOW + 1)

    async def piece(self, at: int) -> tuple[bytes, str]:
        """The piece at a place, and the digest of all with the last one.

        Raises:
            CraneError: when it was given before or what is before it was not.
        """
        # Mail before it may have been lost.
        while self._next <= at < self._next + _WINDOW * PIECE and at % PIECE == 0:
            await self._read()
        for place, content, digest in self._recent:
            if place == at:
                return content, digest
        raise CraneError("its copies are read in another order")

    async def _read(self) -> None:
        assert self.tar.stdout is not None
        try:
            content = await self.tar.stdout.readexactly(PIECE)
        except asyncio.IncompleteReadError as error:
            content = error.partial
        self._sum.update(content)
        digest = ""
        if len(content) < PIECE:
            if await self.tar.wait() != 0:
                raise CraneError("its copies cannot be read")
            digest = self._sum.hexdigest()
        self._recent.append((self._next, content, digest))
        self._next += PIECE

    async def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        await _kill(self.tar)


class Giver:
    """Gives this replica's copies to others. Belongs to the event loop."""

    def __init__(self, config: NodeConfig, state: Path, post: Post) -> None:
        """``state`` is the replica's state directory."""
        self._config = config
        self._state = state
        self._post = post
        self._streams: dict[int, _Stream] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        post.route(("want_private", "get_private"), self._mail)

    def _mail(self, sender: int, header: Header, _: bytes) -> None:
        self._post.spawn(self._answer(sender, header))

    async def _answer(self, sender: int, header: Header) -> None:
        if header.kind == "want_private":
            if ownership.missing(self._config, self._state):
                self._post.send(sender, encode(Header(kind="no_private")))
            else:
                size = await asyncio.to_thread(_size, self._names())
                self._post.send(sender, encode(Header(kind="have_private", at=size)))
            return
        # In the order in which they were asked for.
        async with self._locks.setdefault(sender, asyncio.Lock()):
            try:
                content, digest = await (await self._stream(sender, header)).piece(header.at)
            except (CraneError, OSError) as error:
                reply = Header(kind="gone_private", index=header.index, file=str(error))
                self._post.send(sender, encode(reply))
                return
        reply = Header(kind="private", index=header.index, at=header.at, file=digest)
        self._post.send(sender, encode(reply, content))

    def _names(self) -> list[Path]:
        return list(ownership.copies(self._config, self._state).values())

    async def _stream(self, sender: int, header: Header) -> _Stream:
        found = self._streams.get(sender)
        if found is None or found.attempt != header.index:
            if header.at >= _WINDOW * PIECE or ownership.missing(self._config, self._state):
                raise CraneError("it has no copies to give")
            if found is not None:
                await found.end()
            names = [str(one.relative_to(self._state)) for one in self._names()]
            tar = await asyncio.create_subprocess_exec(
                *(shutil.which("tar") or "/bin/tar", "--create", "--file=-", "--format=posix"),
                *("--sparse", *_KEEP, "--directory", str(self._state), "--", *names),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=DEVNULL,
            )
            found = self._streams[sender] = _Stream(header.index, tar)
        if found.timer is not None:
            found.timer.cancel()
        loop = asyncio.get_running_loop()
        found.timer = loop.call_later(_IDLE_SECONDS, self._forget, sender, found)
        return found

    def _forget(self, sender: int, stream: _Stream) -> None:
        if self._streams.get(sender) is stream:
            del self._streams[sender]
        self._post.spawn(stream.end())

    async def close(self) -> None:
        """End what is under way."""
        for stream in self._streams.values():
            await stream.end()
        self._streams.clear()


class Taker:
    """Gets the copies of another replica. Belongs to the event loop."""

    def __init__(self, config: NodeConfig, state: Path, post: Post, events: Events) -> None:
        """``events`` is told how far a copy is, and what it waits for."""
        self._config = config
        self._state = state
        self._post = post
        self._events = events
        self._offers: dict[int, int | None] = {}
        self._all = asyncio.Event()
        self._pieces: dict[tuple[int, int], asyncio.Future[tuple[bytes, str]]] = {}
        self._told = ""
        self._since = 0.0
        self.copying: Copying | None = None
        self.waits: str | None = None
        """What the replica waits for before its program can start."""
        post.route(
            ("have_private", "no_private", "private", "gone_private"),
            self._mail,
        )

    def _mail(self, sender: int, header: Header, content: bytes) -> None:
        match header.kind:
            case "have_private" | "no_private":
                self._offers[sender] = header.at if header.kind == "have_private" else None
                if set(self._asked()) <= self._offers.keys():
                    self._all.set()
            case _:
                waiting = self._pieces.get((sender, header.at))
                if header.kind == "gone_private":
                    for one in self._pieces.values():
                        if not one.done():
                            one.set_exception(CraneError(header.file))
                elif waiting is not None and not waiting.done():
                    waiting.set_result((content, header.file))

    def _asked(self) -> list[int]:
        """All who may have copies: a new cluster's, too, that have not been met yet."""
        begun = {int(number) for number in self._config.peers}
        return sorted({*self._post.others(), *begun} - {self._config.id})

    async def complete(self) -> None:
        """Have the copies that are missing, however long it takes.

        Raises:
            CraneError: when this machine cannot take them.
        """
        while ownership.missing(self._config, self._state):
            offers = await self._ask()
            givers = [(one, size) for one, size in sorted(offers.items()) if size is not None]
            if givers:
                await self._take_from(givers)
            elif self._makes_them() and set(self._asked()) <= offers.keys():
                await asyncio.to_thread(self._make)
            else:
                self._wait(self._missing_line(offers))
        self.waits = None

    def status(self) -> dict[str, Any]:
        """What ``crane status`` shows: how far a copy is, and what the replica waits for."""
        copying = describe(self.copying) if self.copying is not None else None
        return {"copying": copying, "waits": self.waits}

    def _makes_them(self) -> bool:
        return not self._config.join and self._config.id == min(map(int, self._config.peers))

    def _make(self) -> None:
        for path in ownership.missing(self._config, self._state):
            if not Path(path).is_dir():
                message = f"there is no {path} here, so it begins empty on every replica"
                self._events({"kind": "warning", "message": message})
        ownership.prepare(self._config, self._state, fresh=True)

    def _missing_line(self, offers: dict[int, int | None]) -> str:
        what = ", ".join(ownership.missing(self._config, self._state))
        silent = [str(one) for one in self._asked() if one not in offers]
        if self._makes_them() or self._config.join or not silent:
            who = f"replica {' and '.join(silent)}" if silent else "a replica"
        else:
            who = f"replica {min(map(int, self._config.peers))}"
        why = "which may have it" if self._makes_them() else "which has it"
        return f"waits for {who}, {why}, to begin with the same {what}"

    def _wait(self, line: str) -> None:
        if line != self.waits:
            self.waits, self._since = line, time.monotonic()
        if line != self._told and time.monotonic() > self._since + _TOLD_SECONDS:
            self._told = line
            self._events({"kind": "message", "message": line})

    async def _ask(self) -> dict[int, int | None]:
        """What each of the others that answers within a second has."""
        self._offers.clear()
        self._all.clear()
        if not self._asked():
            return {}
        for other in self._asked():
            self._post.send(other, encode(Header(kind="want_private")))
        with suppress(TimeoutError):
            async with asyncio.timeout(_OFFER_SECONDS):
                await self._all.wait()
        if not all(one in self._offers for one in self._asked()) or not any(
            size is not None for size in self._offers.values()
        ):
            # Whoever makes them needs a moment.
            await asyncio.sleep(0.1)
        return dict(self._offers)

    async def _take_from(self, givers: list[tuple[int, int]]) -> None:
        for source, size in givers:
            self.copying = Copying(source, 0, size, needed=True, what="the initial files")
            try:
                await self._take(self.copying)
            except CraneError as error:
                message = f"the initial files of replica {source} could not be copied: {error}"
                self._events({"kind": "warning", "message": message})
                await asyncio.sleep(_OFFER_SECONDS)
            else:
                self._tell_taken(source)
                return
            finally:
                self.copying = None

    def _tell_taken(self, source: int) -> None:
        for path in self._config.private:
            unused = "; this machine's own is not used" if Path(path).is_dir() else ""
            text = f"begins with replica {source}'s {path}{unused}"
            self._events({"kind": "message", "message": text})

    async def _take(self, state: Copying) -> None:
        new = self._state / _NEW
        tar: Process | None = None
        try:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
            new.mkdir(mode=0o700)
            owners = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
            tar = await asyncio.create_subprocess_exec(
                *(shutil.which("tar") or "/bin/tar", "--extract", "--file=-"),
                *("--preserve-permissions", owners, *_KEEP, "--directory", str(new)),
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
            )
            reading = asyncio.create_task(_first_line(tar))
            with suppress(BrokenPipeError, ConnectionResetError):  # tar says why
                await self._feed(state, tar)
            said = await reading
            if await tar.wait() != 0:
                raise CraneError(said or "tar failed")
            await asyncio.to_thread(self._place, new)
        except OSError as error:
            raise CraneError(f"{error.filename or new}: {error.strerror}") from error
        finally:
            if tar is not None:
                await _kill(tar)
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)

    async def _feed(self, state: Copying, tar: Process) -> None:
        """Get piece after piece and hand it to tar."""
        attempt, summed, told = secrets.randbits(62), hashlib.sha256(), 0.0
        assert tar.stdin is not None
        under_way: deque[asyncio.Task[tuple[bytes, str]]] = deque()
        place = 0
        try:
            while True:
                while len(under_way) < _WINDOW:
                    work = self._get(state.source, attempt, place)
                    under_way.append(asyncio.create_task(work))
                    place += PIECE
                content, digest = await under_way.popleft()
                summed.update(content)
                tar.stdin.write(content)
                await tar.stdin.drain()
                state.done = min(state.whole, state.done + len(content))
                if time.monotonic() > told + 0.5:
                    told = time.monotonic()
                    self._events({"kind": "copying", **describe(state)})
                if len(content) < PIECE:
                    break
            if digest != summed.hexdigest():
                raise CraneError("they did not arrive as they were sent")
            state.done = state.whole
            self._events({"kind": "copying", **describe(state)})
        finally:
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            tar.stdin.close()

    async def _get(self, source: int, attempt: int, at: int) -> tuple[bytes, str]:
        for _ in range(_TRIES):
            waiting = self._pieces[source, at] = asyncio.get_running_loop().create_future()
            self._post.send(source, encode(Header(kind="get_private", index=attempt, at=at)))
            try:
                async with asyncio.timeout(_PIECE_SECONDS):
                    found: tuple[bytes, str] = await waiting
                    return found
            except TimeoutError:
                continue
            finally:
                self._pieces.pop((source, at), None)
        raise CraneError("it does not answer")

    def _place(self, new: Path) -> None:
        """Make what has arrived whole the replica's copies."""
        place = new / ownership.DIRECTORY
        for path in ownership.missing(self._config, self._state):
            if not (place / path.lstrip("/")).is_dir():
                raise CraneError(f"it has no copy of {path}")
        ownership.adopt(self._config, self._state, place)


def _size(tops: list[Path]) -> int:
    """About how long an archive of these directories is."""
    found = 0
    for top in tops:
        for directory, names, others in os.walk(top):
            found += 1024 * (len(names) + len(others))
            for one in others:
                with suppress(OSError):
                    found += Path(directory, one).lstat().st_size
    return max(1, found)


async def _first_line(tar: Process) -> str:
    """What tar complains of first; the rest is thrown away."""
    assert tar.stderr is not None
    first = ""
    while line := await tar.stderr.readline():
        first = first or line.decode(errors="replace").strip()
    return first


async def _kill(tar: Process) -> None:
    if tar.returncode is None:
        with suppress(ProcessLookupError):
            tar.kill()
        await tar.wait()
