"""What Python reads that others wrote, given what nobody would write.

The same for the engine is in ``crates/fuzz``. ``CRANE_FUZZ_EXAMPLES`` says how many examples
are tried of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crane import config, mail
from crane.admin import AdminServer
from crane.checkpoint import store
from crane.errors import UsageError

strange = settings(
    max_examples=int(os.environ.get("CRANE_FUZZ_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def spliced(*words: bytes) -> st.SearchStrategy[bytes]:
    """Bytes made of words that mean something, and of others."""
    piece = st.sampled_from(words) | st.binary(max_size=9)
    return st.lists(piece, max_size=24).map(b"".join)


class Recorder:
    """Takes what the server writes."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def served(data: bytes) -> bytes:
    """What the admin server answers to these bytes and their end."""

    async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"got": len(arguments)}

    async def main() -> bytes:
        routes = {("GET", "/v1/echo"): echo, ("POST", "/v1/echo"): echo}
        server = AdminServer(Path("unused"), routes)
        reader, writer = asyncio.StreamReader(), Recorder()
        reader.feed_data(data)
        reader.feed_eof()
        await server._serve(reader, writer)  # type: ignore[arg-type]
        assert writer.closed
        return writer.data

    return asyncio.run(main())


def request_of(method: bytes, body: bytes) -> bytes:
    head = b"%s /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % (method, len(body)) + body


def check_answer(asked: bytes, data: bytes) -> int:
    """The status of an answer, 0 for none; it must be whole."""
    client = h11.Connection(h11.CLIENT)
    method = "HEAD" if asked.startswith(b"HEAD ") else "GET"
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    if not data:
        return 0
    client.receive_data(data)
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    return answer.status_code


@strange
@given(
    spliced(
        *(b"GET POST HEAD CONNECT /v1/echo / HTTP/1.1 HTTP/1.0 host: content-length: 7".split()),
        b" ",
        b"\r\n",
        b"\r\n\r\n",
        b"transfer-encoding: chunked",
        b"connection: upgrade",
        b"upgrade: h2c",
        b"expect: 100-continue",
        b'{"a": 1}',
        b"5\r\n",
    )
)
@example(b"HEAD /v1/echo HTTP/1.1\r\nhost: x\r\n\r\n")
@example(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
def test_the_admin_server_bears_any_bytes(data: bytes) -> None:
    check_answer(data, served(data))


@strange
@given(st.binary(max_size=40) | values.map(lambda value: repr(value).encode()))
@example(b'{"\xff": 1}')
@example(b"[" * 3000)
@example(b'{"a":' * 3000)
def test_the_admin_server_bears_any_body(body: bytes) -> None:
    asked = request_of(b"POST", body)
    assert check_answer(asked, served(asked)) in (200, 400)


KEYS = b"id peers name command cluster_id listen_host [ ] = \" ' , . { } 1 0 -7 true nan".split()


@strange
@given(spliced(*KEYS, b"\n", b"[[", b"]]", b"1e999", b"9" * 5000, b"1979-99-99"))
@example(b"a = " + b"9" * 5000)
@example(b"a = " + b"[" * 5000)
@example(b"\xff")
def test_settings_are_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "strange.toml"
    path.write_bytes(data)
    for kind in (config.NodeConfig, config.ClusterFile):
        with contextlib.suppress(UsageError):
            config.load(path, kind)  # type: ignore[type-var]


def manifest() -> dict[str, Any]:
    names = (store.SHARE, "images/pages-1.img")
    fields: dict[str, Any] = {"format": store.FORMAT, "files": {}}
    for name in names:
        fields["files"][name] = {"size": 3, "sha256": "0" * 64}
    return fields


@strange
@given(st.binary(max_size=60), st.dictionaries(st.sampled_from(["format", "files", "x"]), values))
@example(b"[" * 3000, {})
@example(b'{"x":' * 3000, {})
@example(b'{"files": {"\xff": 1}}', {})
def test_manifests_are_refused_in_words(data: bytes, changes: dict[str, Any]) -> None:
    changed = msgspec.json.encode({**manifest(), **changes})
    for text in (data, changed):
        with contextlib.suppress(ValueError):
            store.decode_manifest(text)


@strange
@given(st.binary(max_size=60))
@example((3000).to_bytes(4, "little") + b"[" * 3000)
def test_mail_is_refused_in_words(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        mail.decode(data)
