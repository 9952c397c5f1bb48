from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crane.admin import AdminServer, UnreachableError, request
from crane.errors import CraneError


async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"got": arguments}


async def refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise CraneError("not now")


ROUTES = {("GET", "/v1/echo"): echo, ("POST", "/v1/refuse"): refuse}


def serving(work: Callable[[Path], Any]) -> Any:
    async def main() -> Any:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "s.sock"
            server = AdminServer(path, ROUTES)
            await server.start()
            try:
                return await asyncio.to_thread(work, path)
            finally:
                await server.stop()
                assert not path.exists()

    return asyncio.run(main())


def test_a_request_is_answered() -> None:
    assert serving(lambda path: request(path, "GET", "/v1/echo", {"a": 1})) == {"got": {"a": 1}}


def test_a_refusal_is_an_error_with_its_message() -> None:
    with pytest.raises(CraneError, match="not now"):
        serving(lambda path: request(path, "POST", "/v1/refuse"))
    with pytest.raises(CraneError, match="there is no GET /v2"):
        serving(lambda path: request(path, "GET", "/v2"))


def test_only_the_owner_may_connect() -> None:
    mode = serving(lambda path: stat.S_IMODE(path.stat().st_mode))
    assert mode == 0o600


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n[1]", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99999, b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 99999, b"431"),
    ],
)
def test_a_bad_request_is_refused(sent: bytes, status: bytes) -> None:
    def talk(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            with contextlib.suppress(BrokenPipeError):
                client.sendall(sent)
            return client.recv(100)

    assert serving(talk).startswith(b"HTTP/1.1 " + status)


def test_a_client_that_goes_away_disturbs_nobody() -> None:
    def talk(path: Path) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v1/echo HTT")
        return request(path, "GET", "/v1/echo")

    assert serving(talk) == {"got": {}}


def test_nobody_behind_the_socket(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        request(tmp_path / "none.sock", "GET", "/v1/echo")
