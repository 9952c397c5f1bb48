"""The built-in load for servers that speak HTTP."""

from __future__ import annotations

import random
import re
from urllib.parse import urljoin, urlsplit

import h11

from crane.verify.load import Address, Lost, Protocol, Stream

_LINK = re.compile(rb"""(?:href|src|action)\s*=\s*["']?([^"'\s>#]+)""", re.IGNORECASE)
_MAX_PATHS = 40
_SIZES = (1, 40, 700, 5000)


class Http(Protocol):
    """Requests for what the first page leads to, and for what is not there."""

    name = "HTTP"

    def __init__(self, host: str, paths: list[str], *, keeps: bool) -> None:
        """``keeps`` says whether the server keeps connections for more requests."""
        self._host = host
        self._paths = paths
        self._keeps = keeps

    async def batch(self, stream: Stream, pick: random.Random, room: int) -> tuple[int, bool]:
        """See :meth:`Protocol.batch`."""
        count = pick.choice((1, 1, 2, room)) if self._keeps else 1
        made = [self._request(pick) for _ in range(count)]
        whole = b"".join(data for _, data in made)
        if pick.random() < 0.2:
            cut = pick.randrange(1, len(whole))
            await stream.send(whole[:cut], whole[cut:])
        else:
            await stream.send(whole)
        rest = b""
        for number, (method, _) in enumerate(made, 1):
            rest, going_on, _ = await _answer(stream, method, rest)
            if not going_on:
                return number, False
        return count, True

    def single(self, pick: random.Random) -> bytes:
        """See :meth:`Protocol.single`."""
        return self._request(pick)[1]

    def _request(self, pick: random.Random) -> tuple[str, bytes]:
        method = pick.choices(("GET", "HEAD", "POST"), (7, 1, 2))[0]
        path = pick.choice(self._paths)
        if pick.random() < 0.3:
            path += f"{'&' if '?' in path else '?'}n={pick.randrange(1000)}"
        body = b""
        if method == "POST":
            body = b"value=" + pick.randbytes(pick.choice(_SIZES)).hex().encode()
        return method, _encode(self._host, method, path, body)


async def probe(address: Address) -> Http | None:
    """Ask for ``/``; ``None`` when the answer is not HTTP."""
    host = f"{address[0]}:{address[1]}"
    stream = await Stream.open(address)
    try:
        await stream.send(_encode(host, "GET", "/", b""))
        first = await stream.receive()
        if not first.startswith(b"HTTP/"):
            return None
        _, keeps, page = await _answer(stream, "GET", first)
    finally:
        stream.close()
    return Http(host, ["/", *links(page), "/there-is-no-such-page"], keeps=keeps)


def links(page: bytes) -> list[str]:
    """The paths on the same server that a page leads to."""
    found: dict[str, None] = {}
    for match in _LINK.findall(page):
        text = match.decode("ascii", errors="ignore").replace("&amp;", "&")
        parts = urlsplit(urljoin("/", text))
        if parts.scheme or parts.netloc or not parts.path.startswith("/"):
            continue
        found[parts.path + (f"?{parts.query}" if parts.query else "")] = None
    return list(found)[:_MAX_PATHS]


def _encode(host: str, method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: crane-verify\r\n"
    if body:
        head += (
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        )
    return head.encode() + b"\r\n" + body


async def _answer(stream: Stream, method: str, received: bytes) -> tuple[bytes, bool, bytes]:
    """Read one answer, of which ``received`` is the beginning.

    Returns what came behind it, whether the connection goes on, and the body.
    """
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    body = bytearray()
    if received:
        parser.receive_data(received)
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive())
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                rest, _ = parser.trailing_data
                return rest, parser.their_state is h11.DONE, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise Lost
    except h11.RemoteProtocolError as error:
        raise Lost from error
