"""A load that knows only how requests and answers are told apart, and keeps every byte.

What it keeps can be compared with the log: see :mod:`crane.chaos.witness`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from dataclasses import dataclass, field

from crane.chaos.watched import Address
from crane.errors import CraneError
from crane.verify.load import Lost, Protocol, Stream, find_protocol

_REOPEN = 0.01
_PAUSE_SECONDS = 0.002
_RETRY_SECONDS = 0.02
_STOP_SECONDS = 10.0


@dataclass(slots=True)
class Exchange:
    """Requests that were sent together, and their answers. Times of ``time.monotonic``."""

    begin: float
    sent: int
    """Bytes sent on the connection before them."""
    end: float = 0.0
    """When the last answer had come; 0 if it did not."""


@dataclass(slots=True)
class Conversation:
    """Everything that one connection carried."""

    client: Address
    server: Address
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    exchanges: list[Exchange] = field(default_factory=list)


class _Kept(Stream):
    """A connection that keeps what it carries."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        client, server = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        self.kept = Conversation((client[0], client[1]), (server[0], server[1]))
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.kept.sent += piece
        await super().send(*pieces)

    async def receive(self) -> bytes:
        data = await super().receive()
        self.kept.received += data
        return data


class Traffic:
    """Clients in a thread of their own, from :meth:`start` to :meth:`stop`.

    ``answers`` and ``conversations`` grow while it runs.
    """

    def __init__(
        self,
        protocol: Protocol,
        addresses: dict[int, Address],
        *,
        connections: int = 6,
        patience: float = 3.0,
        seed: int = 0,
    ) -> None:
        """``patience`` is how long a client waits for an answer, in seconds."""
        self.answers: list[float] = []
        self.conversations: list[Conversation] = []
        self.faults: list[str] = []
        self._protocol = protocol
        self._addresses = [addresses[number] for number in sorted(addresses)]
        self._connections = connections
        self._patience = patience
        self._seed = seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="traffic", daemon=True)
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Let the clients connect and ask."""
        self._thread.start()

    def stop(self) -> None:
        """End every client after its answer.

        Raises:
            CraneError: when the clients themselves failed.
        """
        self._stop.set()
        self._thread.join(self._patience + _STOP_SECONDS)
        if self._failure is not None:
            raise CraneError(f"the load failed: {self._failure!r}") from self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._clients())
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self._failure = error

    async def _clients(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        pick = random.Random(self._seed * 1000 + number)  # noqa: S311 - to be repeated
        stream: _Kept | None = None
        while not self._stop.is_set():
            try:
                if stream is None:
                    stream = await self._open(number)
                    number += 1
                await self._ask(stream, pick)
                broken = pick.random() < _REOPEN
            except (Lost, TimeoutError, OSError):
                broken = True
                await asyncio.sleep(_RETRY_SECONDS)
            if stream is not None and broken:
                stream.close()
                stream = None
            await asyncio.sleep(_PAUSE_SECONDS)
        if stream is not None:
            stream.close()

    async def _open(self, number: int) -> _Kept:
        async with asyncio.timeout(1.0):
            stream = await _Kept.open(self._addresses[number % len(self._addresses)])
        assert isinstance(stream, _Kept)
        self.conversations.append(stream.kept)
        return stream

    async def _ask(self, stream: _Kept, pick: random.Random) -> None:
        exchange = Exchange(time.monotonic(), len(stream.kept.sent))
        stream.kept.exchanges.append(exchange)
        async with asyncio.timeout(self._patience):
            count, going_on = await self._protocol.batch(stream, pick, 3)
        exchange.end = time.monotonic()
        self.answers += [exchange.end] * count
        if not going_on:
            raise Lost


def protocol_of(address: Address) -> Protocol:
    """What the server at ``address`` speaks, of HTTP and lines of text.

    Raises:
        CraneError: when it is neither.
    """
    return asyncio.run(find_protocol(address))
