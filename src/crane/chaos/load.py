"""A load on a replicated Redis that remembers every acknowledged write.

Every client has one connection to one replica and waits for each answer. It
appends unique values to a list of its own, so the length that comes back says
at once whether a write was lost or applied twice; and now and then it asks how
long a neighbour's list is, who talks to another replica: less than what that
one was told before is a stale read. When its connection breaks, or it has lost
its patience with a replica, it goes on through the next one, as a client with a
list of servers does.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

from crane.chaos.journal import Journal
from crane.chaos.resp import Reply, ReplyError, parse, request
from crane.chaos.watched import Address

_READ_EVERY = 4
_RECONNECT_SECONDS = 0.01
_CONNECT_SECONDS = 1.0
_TICK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Break:
    """A connection that broke."""

    time: float
    replica: int
    reason: str


@dataclass(slots=True)
class _Client:
    """One connection's state."""

    journal: Journal
    neighbour: Journal
    replica: int
    """Where it is connected, or tries to."""
    socket: socket.socket | None = None
    data: bytes = b""
    value: str | None = None
    """The write under way; ``None`` for a read."""
    least: int = 0
    """The least length that the read under way may answer."""
    sent: float = 0.0
    due: float = 0.0
    """When the next request or connection is due."""
    count: int = 0
    waiting: bool = False
    connecting: bool = False
    longest: float = 0.0


@dataclass(slots=True)
class Load:
    """Clients in a thread of their own, from :meth:`start` to :meth:`stop`.

    Times are of ``time.monotonic``. The lists grow while it runs and may be read
    at any time.
    """

    addresses: dict[int, Address]
    connections: int = 6
    name: str = "journal"
    """What the lists' names begin with."""
    interval: float = 0.0
    """Seconds between two requests of a client, 0 for none."""
    patience: float = float("inf")
    """Seconds after which a client gives up a connection that does not answer."""
    answers: list[float] = field(default_factory=list)
    """When an answer came."""
    breaks: list[Break] = field(default_factory=list)
    journals: list[Journal] = field(default_factory=list)
    begun: float = 0.0
    ended: float = 0.0
    _clients: list[_Client] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def start(self) -> None:
        """Connect the clients, spread over the replicas, and let them write."""
        replicas = sorted(self.addresses)
        self.journals = [Journal(f"{self.name}:{number}") for number in range(self.connections)]
        for number, journal in enumerate(self.journals):
            neighbour = self.journals[(number + 1) % self.connections]
            self._clients.append(_Client(journal, neighbour, replicas[number % len(replicas)]))
        self.begun = time.monotonic()
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every client after its answer, or after a second without one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self.ended = time.monotonic()
        if self._failure is not None:
            raise self._failure

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time without any answer between two moments, in seconds."""
        inside = [one for one in list(self.answers) if begin < one < end]
        return max(later - earlier for earlier, later in pairwise([begin, *inside, end]))

    def longest_wait(self) -> float:
        """The longest time that one request waited for its answer, in seconds."""
        return max(client.longest for client in self._clients)

    def on(self, replica: int) -> int:
        """How many clients are connected to a replica."""
        return sum(
            one.replica == replica and one.socket is not None and not one.connecting
            for one in self._clients
        )

    # The thread

    def _main(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                self._run(selector)
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self._failure = error

    def _run(self, selector: selectors.BaseSelector) -> None:
        patience = None
        while True:
            now = time.monotonic()
            if self._stop.is_set():
                patience = patience or now + 1.0
                if now > patience or not any(client.waiting for client in self._clients):
                    break
            else:
                for client in self._clients:
                    self._go_on(client, now, selector)
            for key, _ in selector.select(_TICK_SECONDS):
                self._receive(key.data, selector)
        for client in self._clients:
            if client.socket is not None:
                self._drop(client, selector)

    def _go_on(self, client: _Client, now: float, selector: selectors.BaseSelector) -> None:
        if client.socket is not None and (client.waiting or client.connecting):
            patience = _CONNECT_SECONDS if client.connecting else self.patience
            if now > client.sent + patience:
                self._broken(client, TimeoutError("no answer"), selector)
            return
        if now < client.due:
            return
        if client.socket is None:
            self._connect(client, now, selector)
        else:
            self._send(client, now, selector)

    def _connect(self, client: _Client, now: float, selector: selectors.BaseSelector) -> None:
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(made, selectors.EVENT_WRITE, client)
        client.socket, client.data, client.due = made, b"", 0.0
        client.connecting, client.sent = True, now
        try:
            made.connect(self.addresses[client.replica])
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(client, error, selector)

    def _connected(self, client: _Client, selector: selectors.BaseSelector) -> None:
        """The connection was made or refused."""
        assert client.socket is not None
        number = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._broken(client, OSError(number, os.strerror(number)), selector)
            return
        selector.modify(client.socket, selectors.EVENT_READ, client)
        client.connecting = False

    def _next_replica(self, client: _Client, now: float) -> None:
        replicas = sorted(self.addresses)
        client.replica = replicas[(replicas.index(client.replica) + 1) % len(replicas)]
        client.due = now + _RECONNECT_SECONDS

    def _send(self, client: _Client, now: float, selector: selectors.BaseSelector) -> None:
        assert client.socket is not None
        client.count += 1
        if client.count % _READ_EVERY == 0:
            client.value, client.least = None, client.neighbour.lengths().start
            data = request("LLEN", client.neighbour.key)
        else:
            client.value = f"{client.journal.key}:{client.count}"
            data = request("RPUSH", client.journal.key, client.value)
        client.waiting, client.sent = True, now
        client.due = now + self.interval
        try:
            client.socket.send(data)  # so short that it always fits
        except OSError as error:
            self._broken(client, error, selector)

    def _receive(self, client: _Client, selector: selectors.BaseSelector) -> None:
        assert client.socket is not None
        if client.connecting:
            self._connected(client, selector)
            return
        try:
            chunk = client.socket.recv(65536)
            if not chunk:
                raise ConnectionResetError("closed by the server")
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(client, error, selector)
            return
        client.data += chunk
        found = parse(client.data)
        if found is None:
            return
        reply, end = found
        client.data = client.data[end:]
        if not client.waiting or client.data:
            client.journal.faults.append(f"an answer nobody asked for: {chunk!r}")
        self._answered(client, reply)

    def _answered(self, client: _Client, reply: Reply | ReplyError) -> None:
        now = time.monotonic()
        self.answers.append(now)
        client.longest = max(client.longest, now - client.sent)
        client.waiting = False
        if client.value is None:
            if not isinstance(reply, int) or reply < client.least:
                client.journal.faults.append(
                    f"{client.neighbour.key} has {reply}, but {client.least} were acknowledged"
                )
            return
        if isinstance(reply, ReplyError):
            client.journal.faults.append(f"{client.value}: {reply}")
            return
        client.journal.acknowledged.append(client.value)
        if reply not in client.journal.lengths():
            client.journal.faults.append(
                f"{client.value} made the list {reply} long, not {client.journal.lengths()}"
            )

    def _broken(self, client: _Client, error: OSError, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        refused = client.connecting
        if not refused:
            self.breaks.append(Break(now, client.replica, str(error)))
        self._drop(client, selector)
        self._next_replica(client, now)
        if not refused:
            client.due = now

    def _drop(self, client: _Client, selector: selectors.BaseSelector) -> None:
        assert client.socket is not None
        selector.unregister(client.socket)
        client.socket.close()
        client.socket = None
        if client.waiting and client.value is not None:
            client.journal.uncertain.append(client.value)
        client.waiting = client.connecting = False
