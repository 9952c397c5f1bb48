"""The admin API: JSON over HTTP/1.1 on a Unix socket, and elsewhere if asked.

The socket lies in a directory of its owner alone, which is the access control;
callers from elsewhere come over TLS and show a token (``remote.py``). The server
takes one request a connection and costs nothing while nobody asks.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h11
import msgspec

from crane.errors import CraneError
from crane.remote import Door, Remote

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Routes = Mapping[tuple[str, str], Handler]

_MAX_BODY = 64 * 1024
_REQUEST_SECONDS = 5.0
_STRANGERS = 16
"""Connections from elsewhere at a time; more wait in the system's queue, which is as long."""
_WARN_AGAIN_SECONDS = 60.0
_UNAUTHORIZED = 401
_WARNINGS = 64


class AdminServer:
    """Answers requests with what ``routes`` return for (method, path).

    A handler's :class:`CraneError` becomes status 409 with its message. With
    ``door`` it also answers callers from elsewhere; ``warn`` is told of those
    that are refused, not more than once a minute of each.
    """

    def __init__(
        self,
        path: Path,
        routes: Routes,
        *,
        door: Door | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._path = path
        self._routes = routes
        self._door = door
        self._tell = warn
        self._warned: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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
        if self._door is not None:
            self._listen(self._door)

    def _listen(self, door: Door) -> None:
        context = door.context()
        family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener = listener
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((door.host, door.port))
        except OSError as error:
            raise CraneError(
                f"cannot listen on {door.host}:{door.port} for the admin API: {error.strerror};"
                " correct `admin_listen`"
            ) from error
        listener.listen(_STRANGERS)
        listener.setblocking(False)
        self._spawn(self._accept(listener, door, context))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        self._path.unlink(missing_ok=True)

    # Callers from elsewhere

    async def _accept(self, listener: socket.socket, door: Door, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        places = asyncio.Semaphore(_STRANGERS)
        while True:
            await places.acquire()
            try:
                client, address = await loop.sock_accept(listener)
            except OSError:
                places.release()  # no descriptors, or it went away
                await asyncio.sleep(0.1)
                continue
            self._spawn(self._greet(client, str(address[0]), door, context, places))

    async def _greet(
        self,
        client: socket.socket,
        host: str,
        door: Door,
        context: ssl.SSLContext,
        places: asyncio.Semaphore,
    ) -> None:
        """Serve one caller, in bounded time until it has shown the token."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=context,
                ssl_handshake_timeout=_REQUEST_SECONDS,
                ssl_shutdown_timeout=_REQUEST_SECONDS,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            await self._serve(reader, writer, door=door, host=host)
        except (OSError, ssl.SSLError):
            self._warn(f"an admin connection from {host} was refused: it does not speak TLS")
        finally:
            client.close()
            places.release()

    def _warn(self, text: str) -> None:
        now = time.monotonic()
        for known in [one for one, at in self._warned.items() if at + _WARN_AGAIN_SECONDS < now]:
            del self._warned[known]
        if self._tell is not None and text not in self._warned and len(self._warned) < _WARNINGS:
            self._warned[text] = now
            self._tell(text)

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        door: Door | None = None,
        host: str = "",
    ) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request, body = await _read_request(connection, reader, door)
            status, answer = await self._answer(request, body)
            writer.write(_response(connection, status, answer))
            async with asyncio.timeout(_REQUEST_SECONDS):
                await writer.drain()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == _UNAUTHORIZED:
                self._warn(f"an admin request from {host} was refused: it does not show the token")
            if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                writer.write(_response(connection, error.error_status_hint, {"error": str(error)}))
                with suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(_REQUEST_SECONDS):
                        await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # the client went away or never asked
        finally:
            writer.close()
            if door is not None:
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(_REQUEST_SECONDS):
                        await writer.wait_closed()

    async def _answer(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, Any]]:
        key = (request.method.decode(), request.target.decode())
        handler = self._routes.get(key)
        if handler is None:
            return 404, {"error": f"there is no {key[0]} {key[1]}"}
        try:
            arguments = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return 400, {"error": f"the body is not a JSON object: {error}"}
        try:
            return 200, await handler(arguments)
        except CraneError as error:
            return 409, {"error": str(error)}


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader, door: Door | None
) -> tuple[h11.Request, bytes]:
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Request):
            # Before any of the body.
            if door is not None and not door.admits(_authorization(event)):
                raise h11.RemoteProtocolError("the token is missing or wrong", _UNAUTHORIZED)
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MAX_BODY:
                raise h11.RemoteProtocolError("the body is too long", 413)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            raise ConnectionResetError


def _authorization(request: h11.Request) -> bytes:
    """The header that shows who calls; empty when there is none, or more than one."""
    found = [value for name, value in request.headers if name == b"authorization"]
    return found[0] if len(found) == 1 else b""


def _response(connection: h11.Connection, status: int, answer: dict[str, Any]) -> bytes:
    content = msgspec.json.encode(answer)
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(content))),
        ("connection", "close"),
    ]
    if status == _UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    head = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    with suppress(h11.LocalProtocolError):  # to HEAD there is no more to an answer
        content = connection.send(h11.Data(data=content)) or b""
        return head + content + (connection.send(h11.EndOfMessage()) or b"")
    return head


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
    path: Path | Remote,
    method: str,
    target: str,
    arguments: dict[str, Any] | None = None,
    *,
    timeout: float = 2.0,
) -> dict[str, Any]:
    """Ask the process behind an admin socket, or a node elsewhere; its answer.

    Raises:
        UnreachableError: when it does not answer within ``timeout`` seconds.
        CraneError: with its message, when it refuses.
    """
    headers: dict[str, str] = {}
    connection: http.client.HTTPConnection
    if isinstance(path, Remote):
        connection, headers = path.connection(timeout), path.headers()
    else:
        connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target, msgspec.json.encode(arguments or {}), headers)
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
