"""Clients for the definitions: HTTP by the standard library, and lines of text."""

from __future__ import annotations

import http.client
import socket

from program import Address, Client, WrongAnswerError

SECONDS = 30.0
"""How long an answer may take; a new leader is found much sooner."""


class Lines(Client):
    """A connection for protocols of lines; subclasses say what ``write`` sends."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> str:
        """The next line, without its end."""
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("closed by the server")
        return line.rstrip(b"\r\n").decode(errors="replace")

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        data = self.file.read(count)
        if len(data) < count:
            raise ConnectionResetError("closed by the server")
        return data

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Http(Client):
    """A keep-alive connection over which pages are fetched."""

    tells_length = True
    """Whether each answer says how long it is; if not, the end of the connection does."""

    def __init__(self, address: Address, path: str, expected: bytes | None = None) -> None:
        """``{}`` in ``path`` stands for the value; ``expected`` is the body, if it is known."""
        self.connection = http.client.HTTPConnection(*address, timeout=SECONDS)
        self.connection.connect()
        self.path = path
        self.expected = expected

    def write(self, value: str) -> None:
        body = self.ask("GET", self.path.format(value))
        if self.expected is not None and body != self.expected:
            raise WrongAnswerError(f"{value}: {len(body)} bytes instead of {len(self.expected)}")

    def ask(self, method: str, path: str, body: str | None = None) -> bytes:
        """Make a request that must succeed; its answer's body."""
        try:
            self.connection.request(method, path, body)
            answer = self.connection.getresponse()
            data = answer.read()
            ends_alone = answer.getheader("Content-Length") is None and not answer.chunked
            if self.tells_length and ends_alone:
                # The library takes headers that were cut off for whole ones.
                raise http.client.IncompleteRead(data)
        except http.client.HTTPException as error:
            # A connection that ended in the middle of an answer.
            self.connection.close()
            raise ConnectionResetError(repr(error)) from error
        if not 200 <= answer.status < 300:
            raise WrongAnswerError(f"{method} {path}: {answer.status} {answer.reason}")
        return data

    def close(self) -> None:
        self.connection.close()
