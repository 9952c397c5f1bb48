"""The built-in load for servers that answer lines of text.

The words are ones that many such servers know. One that a server does not
know is answered by an error, which is a request like any other.
"""

from __future__ import annotations

import random
import string

from crane.verify.load import Address, Lost, Protocol, Stream

_PING = b"PING\r\n"
_SIZES = (1, 8, 60, 500, 3000)
_FORMS = (
    "PING",
    "ECHO {value}",
    "SET {key} {value}",
    "SET {key} {value}",
    "GET {key}",
    "GET {key}",
    "DEL {key}",
    "APPEND {key} {small}",
    "EXISTS {key}",
    "EXPIRE {key} 1",
    "TTL {key}",
    "INCR counter-{number}",
    "DECR counter-{number}",
    "LPUSH list-{number} {small}",
    "RPOP list-{number}",
    "LRANGE list-{number} 0 5",
    "HSET hash-{number} {small} {value}",
    "HGETALL hash-{number}",
    "SADD set-{number} {small}",
    "SMEMBERS set-{number}",
    "SPOP set-{number}",
    "ZADD order-{number} {number} {small}",
    "ZRANGE order-{number} 0 5",
    "KEYS {key}*",
    "RANDOMKEY",
    "DBSIZE",
    "TIME",
    "INFO",
    "STATS",
    "VERSION",
    "HELP",
)


class Lines(Protocol):
    """Batches of lines, each ended by one whose answer is known."""

    name = "lines of text"

    def __init__(self, mark: bytes) -> None:
        """``mark`` is the answer to ``PING``, by which the end of a batch is known."""
        self._mark = mark

    async def batch(self, stream: Stream, pick: random.Random, room: int) -> tuple[int, bool]:
        """See :meth:`Protocol.batch`."""
        count = pick.choice((1, 1, 2, room))
        whole = b"".join(self.single(pick) for _ in range(count)) + _PING
        if pick.random() < 0.2:
            cut = pick.randrange(1, len(whole))
            await stream.send(whole[:cut], whole[cut:])
        else:
            await stream.send(whole)
        await until_mark(stream, self._mark, count + 1)
        return count + 1, True

    def single(self, pick: random.Random) -> bytes:
        """See :meth:`Protocol.single`."""
        line = pick.choice(_FORMS).format(
            key=f"key-{pick.randrange(2000)}",
            number=pick.randrange(10),
            small=_text(pick, 8),
            value=_text(pick, pick.choice(_SIZES)),
        )
        return line.encode() + b"\r\n"


async def probe(address: Address) -> Lines | None:
    """Send ``PING`` twice; ``None`` when that is not answered by equal lines."""
    stream = await Stream.open(address)
    try:
        answers = []
        for _ in range(2):
            await stream.send(_PING)
            answers.append(await _whole_line(stream))
    finally:
        stream.close()
    return Lines(answers[0]) if answers[0] == answers[1] else None


async def until_mark(stream: Stream, mark: bytes, least: int) -> None:
    """Read until the answer that ends a batch, and at least so many lines."""
    tail, count = b"", 0
    while count < least or not tail.endswith(mark):
        data = await stream.receive()
        if not data:
            raise Lost
        count += data.count(b"\n")
        tail = (tail + data)[-len(mark) :]


async def _whole_line(stream: Stream) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = await stream.receive()
        if not more or len(data) > 65536:
            raise Lost
        data += more
    return data


def _text(pick: random.Random, length: int) -> str:
    return "".join(pick.choices(string.ascii_letters + string.digits, k=length))
