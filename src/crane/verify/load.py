"""The built-in load: requests that any server of text understands in some way.

It knows no server. A probe finds out whether the program speaks HTTP or
answers lines; then several connections are driven at once, with requests of
mixed sizes, some pipelined, some in two pieces, some connections closed and
opened again, some left without hearing the answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from crane.errors import CraneError

Address = tuple[str, int]

_ANSWER_SECONDS = 20.0
_PROBE_SECONDS = 2.0
_REOPEN, _LEAVE = 0.02, 0.005
_PATIENCE = 200
_SEED = 20_151_004


class Lost(Exception):  # noqa: N818 - an event on a connection, not an error of ours
    """The server ended the connection before the answer was whole."""


class Stream:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: Address) -> Stream:
        """Connect."""
        return cls(*await asyncio.open_connection(*address))

    async def send(self, *pieces: bytes) -> None:
        """Send pieces so that they leave, and most likely arrive, one by one."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.001)
            self._writer.write(piece)
            await self._writer.drain()

    async def receive(self) -> bytes:
        """The next bytes, empty at the end.

        Raises:
            Lost: when the connection breaks or nothing comes.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._reader.read(65536)
        except (TimeoutError, ConnectionError) as error:
            raise Lost from error

    def close(self) -> None:
        """End the connection, whatever is still on its way."""
        self._writer.close()


class Protocol(ABC):
    """How to make requests and to know that they were answered."""

    name: str

    @abstractmethod
    async def batch(self, stream: Stream, pick: random.Random, room: int) -> tuple[int, bool]:
        """Make one to ``room`` requests and wait for the answers.

        Returns how many were answered, and whether the connection can go on.

        Raises:
            Lost: when an answer did not come.
        """

    @abstractmethod
    def single(self, pick: random.Random) -> bytes:
        """A request whose answer nobody waits for."""


async def find_protocol(address: Address) -> Protocol:
    """Find out what the server at ``address`` speaks.

    Raises:
        CraneError: when it answers neither a request of HTTP nor a line.
    """
    from crane.verify import http, lines

    for probe in (http.probe, lines.probe):
        try:
            async with asyncio.timeout(_PROBE_SECONDS * 3):
                protocol = await probe(address)
        except (Lost, TimeoutError, ConnectionError):
            continue
        if protocol is not None:
            return protocol
    raise CraneError(
        f"the program at {address[0]}:{address[1]} answers neither HTTP nor lines of text; give"
        " its own load with --load"
    )


async def drive(addresses: Sequence[Address], requests: int, connections: int) -> int:
    """Have at least ``requests`` requests answered over interleaved connections.

    Returns how many were.

    Raises:
        CraneError: when the program does not answer.
    """
    protocol = await find_protocol(addresses[0])
    share = _Share(requests)
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            address = addresses[number % len(addresses)]
            group.create_task(_client(protocol, address, share, random.Random(_SEED + number)))  # noqa: S311
    if share.failure:
        raise CraneError(share.failure)
    return share.answered


class _Share:
    """What all clients have to do together."""

    def __init__(self, requests: int) -> None:
        self.wanted = requests
        self.answered = 0
        self.failure = ""
        self._last = time.monotonic()
        self._lost = 0

    @property
    def done(self) -> bool:
        return self.answered >= self.wanted or bool(self.failure)

    def add(self, count: int) -> None:
        self.answered += count
        self._lost = 0
        self._last = time.monotonic()

    def lost(self) -> None:
        """A connection broke; now and then is normal, again and again is not."""
        self._lost += 1
        if self._lost > _PATIENCE or time.monotonic() - self._last > _ANSWER_SECONDS:
            self.failure = (
                f"the program stopped answering after {self.answered} requests; look at its"
                " output, or give its own load with --load"
            )


async def _client(protocol: Protocol, address: Address, share: _Share, pick: random.Random) -> None:
    stream: Stream | None = None
    while not share.done:
        try:
            if stream is None:
                stream = await Stream.open(address)
            if pick.random() < _LEAVE:
                await stream.send(protocol.single(pick))
                going_on = False
            else:
                count, going_on = await protocol.batch(stream, pick, 5)
                share.add(count)
        except (Lost, ConnectionError):
            share.lost()
            going_on = False
            await asyncio.sleep(0.01)
        if stream is not None and (not going_on or pick.random() < _REOPEN):
            stream.close()
            stream = None
    if stream is not None:
        stream.close()
