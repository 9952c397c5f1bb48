"""The little of Redis' protocol that a load and a check need."""

from __future__ import annotations

from typing import Self

from crane.chaos.cluster import Address, connect
from crane.errors import CraneError

Reply = str | int | list["Reply"] | None


class ReplyError(CraneError):
    """The server answered with an error."""


def request(*words: str | int) -> bytes:
    """A command as it goes over the wire."""
    parts = [str(word).encode() for word in words]
    head = f"*{len(parts)}\r\n".encode()
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def parse(data: bytes, begin: int = 0) -> tuple[Reply | ReplyError, int] | None:
    """The reply at ``begin`` and where it ends; ``None`` when it is not all there.

    Raises:
        CraneError: when it is no reply at all.
    """
    end = data.find(b"\r\n", begin)
    if end < 0:
        return None
    kind, text, rest = data[begin : begin + 1], data[begin + 1 : end].decode(), end + 2
    match kind:
        case b"+":
            found: tuple[Reply | ReplyError, int] | None = (text, rest)
        case b"-":
            found = (ReplyError(text), rest)
        case b":":
            found = (int(text), rest)
        case b"$":
            found = _bulk(data, int(text), rest)
        case b"*":
            found = _array(data, int(text), rest)
        case _:
            raise CraneError(f"this is not a reply of Redis: {data[begin : begin + 40]!r}")
    return found


def _bulk(data: bytes, size: int, begin: int) -> tuple[Reply, int] | None:
    if size < 0:
        return None, begin
    if len(data) < begin + size + 2:
        return None
    return data[begin : begin + size].decode(errors="replace"), begin + size + 2


def _array(data: bytes, count: int, begin: int) -> tuple[Reply, int] | None:
    if count < 0:
        return None, begin
    items: list[Reply] = []
    for _ in range(count):
        found = parse(data, begin)
        if found is None:
            return None
        item, begin = found
        if isinstance(item, ReplyError):
            raise item
        items.append(item)
    return items, begin


class Redis:
    """A connection that asks one thing at a time."""

    def __init__(self, address: Address, seconds: float = 10.0) -> None:
        """Connect; an answer that takes longer than ``seconds`` is an error."""
        self._socket = connect(address, seconds)
        self._data = b""

    def ask(self, *words: str | int) -> Reply:
        """Send a command and return its reply.

        Raises:
            ReplyError: when the server answers with an error.
            OSError: when the connection breaks or nothing comes in time.
        """
        self.send(*words)
        return self.receive()

    def send(self, *words: str | int) -> None:
        """Send a command without waiting for the reply."""
        self._socket.sendall(request(*words))

    def receive(self) -> Reply:
        """The next reply, as in :meth:`ask`."""
        while (found := parse(self._data)) is None:
            chunk = self._socket.recv(1 << 18)
            if not chunk:
                raise ConnectionResetError("the server closed the connection")
            self._data += chunk
        reply, end = found
        self._data = self._data[end:]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Use it in a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()
