"""What the nodes say to each other, over the connection that their engines have.

A piece of mail is the length of a header (4 bytes, little-endian), the header in
JSON, and bytes. It may be lost, so whoever asks for something asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from crane.life import Life

_HEADER = 4096


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a piece of mail is."""

    kind: str
    index: int = 0
    """Which one it is about: the checkpoint, or the attempt at a copy."""
    file: str = ""
    at: int = 0


def encode(header: Header, content: bytes = b"") -> bytes:
    """A piece of mail."""
    text = msgspec.json.encode(header)
    return len(text).to_bytes(4, "little") + text + content


def decode(mail: bytes) -> tuple[Header, bytes]:
    """Header and content of a piece of mail.

    Raises:
        ValueError: when it makes no sense.
    """
    length = int.from_bytes(mail[:4], "little")
    if len(mail) < 4 or length > min(_HEADER, len(mail) - 4):
        raise ValueError("its header is longer than it")
    return msgspec.json.decode(mail[4 : 4 + length], type=Header), mail[4 + length :]


Handler = Callable[[int, Header, bytes], None]


class Post:
    """Sends and delivers mail. Belongs to the event loop, and lasts as long as the node."""

    def __init__(self, own: int, warn: Callable[[str], None]) -> None:
        """``own`` is this replica; ``warn`` is told of mail that cannot be read."""
        self._own = own
        self._warn = warn
        self._life: Life | None = None
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, life: Life) -> None:
        """A life of the replica has begun: its engine has the connections."""
        self._life = life

    def end(self) -> None:
        """It ends; what is sent until another begins is lost."""
        self._life = None

    def route(self, kinds: tuple[str, ...], handler: Handler) -> None:
        """Have mail of these kinds handled: sender, header and content."""
        self._handlers.update(dict.fromkeys(kinds, handler))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a coroutine done beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def others(self) -> list[int]:
        """The other replicas, as far as this one knows."""
        status = self._life.status() if self._life is not None else {}
        found: list[int] = status.get("members", {}).get("peers", [])
        return sorted({*found} - {self._own})

    def send(self, to: int, mail: bytes) -> None:
        """Send mail to a replica."""
        if self._life is not None and self._life.engine is not None:
            self._life.engine.send_mail(to, mail)

    def deliver(self) -> None:
        """Hand on what has arrived."""
        engine = self._life.engine if self._life is not None else None
        while engine is not None and (mail := engine.next_mail()) is not None:
            sender, content = mail
            try:
                header, rest = decode(content)
            except ValueError as error:
                self._warn(f"replica {sender} sent what cannot be read: {error}")
                continue
            handler = self._handlers.get(header.kind)
            if handler is not None:
                handler(sender, header, rest)
