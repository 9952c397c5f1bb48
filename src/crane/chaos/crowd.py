"""Clients that are in the way: some connect and say nothing, some ask and never read."""

from __future__ import annotations

import socket
from contextlib import suppress

from crane.chaos.watched import Address

_SILENT = 100
_GREEDY = 4
_STEP = 1 << 16
_MOST = 64 << 20


class Crowd:
    """Such clients of one replica at a time. Not for several threads."""

    def __init__(self, question: bytes | None) -> None:
        """``question`` is what those ask that do not read; ``None`` if none is known."""
        self._question = question
        self._clients: list[socket.socket] = []

    def gather(self, address: Address) -> None:
        """Connect them all; those that ask go on until nothing more is taken."""
        for number in range(_SILENT + _GREEDY):
            with suppress(OSError):
                client = socket.create_connection(address, timeout=1.0)
                self._clients.append(client)
                if number >= _SILENT and self._question is not None:
                    _ask(client, self._question)

    def disperse(self) -> None:
        """End all connections, without a good-bye."""
        for client in self._clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        self._clients.clear()


def _ask(client: socket.socket, question: bytes) -> None:
    """Send the question again and again, for half a second after it is no longer taken."""
    data = question * max(1, _STEP // len(question))
    client.settimeout(0.5)
    sent = 0
    with suppress(OSError):
        while sent < _MOST:
            sent += client.send(data)
