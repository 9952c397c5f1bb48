"""The admin API: JSON over HTTP/1.1 on a Unix socket.

The socket lies in a directory of its owner alone, which is the access control.
The server takes one request a connection and costs nothing while nobody asks.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import h11
import msgspec

from crane.errors import CraneError

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Routes = Mapping[tuple[str, str], Handler]

_MAX_BODY = 64 * 1024
_REQUEST_SECONDS = 5.0


class AdminServer:
    """Answers requests with what ``routes`` return for (method, path).

    A handler's :class:`CraneError` becomes status 409 with its message.
    """

    def __init__(self, path: Path, routes: Routes) -> None:
        self._path = path
        self._routes = routes
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a socket that a killed process left is replaced."""
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        except OSError as error:
            raise CraneError(
                f"cannot listen on {self._path}: {error.strerror or error}; set CRANE_RUN_DIR to a"
                " short path"
            ) from error
        finally:
            os.umask(mask)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request, body = await _read_request(connection, reader)
            status, answer = await self._answer(request, body)
            writer.write(_response(connection, status, answer))
            await writer.drain()
        except h11.RemoteProtocolError as error:
            if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                writer.write(_response(connection, error.error_status_hint, {"error": str(error)}))
        except (TimeoutError, ConnectionError):
            pass  # the client went away or never asked
        finally:
            writer.close()

    async def _answer(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, Any]]:
        key = (request.method.decode(), request.target.decode())
        handler = self._routes.get(key)
        if handler is None:
            return 404, {"error": f"there is no {key[0]} {key[1]}"}
        try:
            arguments = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
        except msgspec.DecodeError as error:
            return 400, {"error": f"the body is not a JSON object: {error}"}
        try:
            return 200, await handler(arguments)
        except CraneError as error:
            return 409, {"error": str(error)}


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request, bytes]:
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MAX_BODY:
                raise h11.RemoteProtocolError("the body is too long", 413)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            raise ConnectionResetError


def _response(connection: h11.Connection, status: int, answer: dict[str, Any]) -> bytes:
    content = msgspec.json.encode(answer)
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(content))),
        ("connection", "close"),
    ]
    parts = (
        connection.send(h11.Response(status_code=status, headers=headers)),
        connection.send(h11.Data(data=content)),
        connection.send(h11.EndOfMessage()),
    )
    return b"".join(part for part in parts if part)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnreachableError(CraneError):
    """Nobody answers on an admin socket."""


def request(
    path: Path,
    method: str,
    target: str,
    arguments: dict[str, Any] | None = None,
    *,
    timeout: float = 2.0,
) -> dict[str, Any]:
    """Ask the process behind an admin socket; its answer.

    Raises:
        UnreachableError: when it does not answer within ``timeout`` seconds.
        CraneError: with its message, when it refuses.
    """
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target, msgspec.json.encode(arguments or {}))
        response = connection.getresponse()
        content = response.read()
        answer = msgspec.json.decode(content, type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise UnreachableError(f"no answer on {path}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise CraneError(str(answer.get("error", f"refused with status {response.status}")))
    return answer
