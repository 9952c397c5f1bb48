"""Clients that read, write, and compare and swap registers, and remember everything."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from crane.chaos.resp import parse, request
from crane.chaos.traffic import Conversation, Exchange
from crane.chaos.watched import Address
from crane.errors import CraneError

Kind = Literal["read", "write", "cas"]

_CONNECT_SECONDS = 1.0
_RETRY_SECONDS = 0.05
_SWAP = (
    "local v = redis.call('GET', KEYS[1]) or '0' if v == ARGV[1] then redis.call('SET', KEYS[1],"
    " ARGV[2]) return 1 else return 0 end"
)


@dataclass(slots=True)
class Operation:
    """One operation on one register. Times of ``time.monotonic``."""

    client: int
    register: str
    kind: Kind
    value: int = 0
    """What is written, or the answer of a read; 0 for a register that nobody wrote."""
    old: int = 0
    """Of ``cas``: what must be there."""
    begin: float = 0.0
    end: float | None = None
    """When it was answered; ``None`` when nobody knows whether it was done."""
    swapped: bool = False


class Dialect(ABC):
    """How a server is asked."""

    @abstractmethod
    def question(self, one: Operation) -> bytes:
        """The bytes that ask for an operation."""

    @abstractmethod
    def understand(self, one: Operation, data: bytes) -> bool:
        """Put the answer ``data`` into the operation; false when it is not all there.

        Raises:
            CraneError: when it is not an answer to this.
        """


class Lines(Dialect):
    """The language of ``examples/register``."""

    def question(self, one: Operation) -> bytes:
        """See :meth:`Dialect.question`."""
        match one.kind:
            case "read":
                words = f"read {one.register}"
            case "write":
                words = f"write {one.register} {one.value}"
            case "cas":
                words = f"cas {one.register} {one.old or 'none'} {one.value}"
        return f"{words}\n".encode()

    def understand(self, one: Operation, data: bytes) -> bool:
        """See :meth:`Dialect.understand`."""
        if not data.endswith(b"\n"):
            return False
        match (one.kind, *data.decode().split()):
            case ("read", "none"):
                one.value = 0
            case ("read", "value", number):
                one.value = int(number)
            case ("write", "ok"):
                pass
            case ("cas", "ok" | "no" as said):
                one.swapped = said == "ok"
            case _:
                raise CraneError(f"{data!r} is no answer to {self.question(one)!r}")
        return True


class RedisStrings(Dialect):
    """Strings of a Redis."""

    def question(self, one: Operation) -> bytes:
        """See :meth:`Dialect.question`."""
        match one.kind:
            case "read":
                return request("GET", one.register)
            case "write":
                return request("SET", one.register, one.value)
            case "cas":
                return request("EVAL", _SWAP, 1, one.register, one.old, one.value)

    def understand(self, one: Operation, data: bytes) -> bool:
        """See :meth:`Dialect.understand`."""
        found = parse(data)
        if found is None:
            return False
        match (one.kind, found[0]):
            case ("read", None):
                one.value = 0
            case ("read", str(text)):
                one.value = int(text)
            case ("write", "OK"):
                pass
            case ("cas", int(number)):
                one.swapped = bool(number)
            case _:
                raise CraneError(f"{data!r} is no answer to {self.question(one)!r}")
        return True


@dataclass(slots=True)
class Registers:
    """Clients in threads of their own, from :meth:`start` to :meth:`stop`."""

    dialect: Dialect
    addresses: dict[int, Address]
    registers: int = 4
    clients: int = 6
    patience: float = 2.0
    """Seconds that a client waits for an answer."""
    pause: float = 0.01
    """Seconds between two operations of a client."""
    seed: int = 0
    operations: list[Operation] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Answers that were none."""
    answers: list[float] = field(default_factory=list)
    _values: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        for number in range(self.clients):
            thread = threading.Thread(target=self._client, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End every client after its answer or its patience."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        pick = random.Random(self.seed * 1000 + number)  # noqa: S311 - to be repeated
        places = itertools.cycle(sorted(self.addresses))
        for _ in range(number):
            next(places)
        # What this client read last, so that a swap now and then succeeds.
        known: dict[str, int] = {}
        # One whose operation may still be done later goes on as another client.
        names = itertools.count(number, self.clients)
        while not self._stop.is_set():
            try:
                link = _Link(self.addresses[next(places)], self.patience)
            except OSError:
                self._stop.wait(_RETRY_SECONDS)
                continue
            self.conversations.append(link.kept)
            name = next(names)
            try:
                while not self._stop.is_set():
                    self._one(link, name, pick, known)
                    self._stop.wait(self.pause)
            except OSError:
                pass
            except (CraneError, ValueError) as error:
                self.faults.append(str(error))
            finally:
                link.close()

    def _one(self, link: _Link, name: int, pick: random.Random, known: dict[str, int]) -> None:
        register = f"r{pick.randrange(self.registers)}"
        kinds: tuple[Kind, ...] = ("read", "write", "cas")
        kind = pick.choices(kinds, (5, 3, 2))[0]
        value = 0 if kind == "read" else next(self._values)
        one = Operation(name, register, kind, value, known.get(register, 0))
        question = self.dialect.question(one)
        one.begin = time.monotonic()
        self.operations.append(one)
        link.send(question)
        while not self.dialect.understand(one, link.receive()):
            pass
        one.end = time.monotonic()
        link.answered(one.end)
        self.answers.append(one.end)
        if kind != "cas" or one.swapped:
            known[register] = one.value


class _Link:
    """A connection that keeps what it carries, with one request at a time."""

    def __init__(self, address: Address, patience: float) -> None:
        self._socket = socket.create_connection(address, timeout=_CONNECT_SECONDS)
        self._socket.settimeout(patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = self._socket.getsockname()
        self.kept = Conversation((host, port), address)
        self._answer = b""

    def send(self, data: bytes) -> None:
        self.kept.exchanges.append(Exchange(time.monotonic(), len(self.kept.sent)))
        self.kept.sent += data
        self._answer = b""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """What has come of the answer so far, once there is more."""
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionResetError("closed by the server")
        self.kept.received += chunk
        self._answer += chunk
        return self._answer

    def answered(self, when: float) -> None:
        self.kept.exchanges[-1].end = when

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()
