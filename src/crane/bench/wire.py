"""One small write and its answer as Redis and as etcd speak, for the driver they share.

etcd speaks gRPC over HTTP/2. The driver has one request under way on each
connection, so a request is two frames that are the same every time but for the
stream's number, and an answer is complete when the stream ends. That costs the
client less than any library would, and leaves the machine to the server.
"""

from __future__ import annotations

from typing import Protocol

from crane.errors import CraneError

KEY = b"bench:key"
VALUE = b"a value of 32 bytes, like a lock"


class Wire(Protocol):
    """One connection's side of a protocol."""

    def hello(self) -> bytes:
        """What is sent first."""

    def put(self) -> bytes:
        """The next write."""

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Take what came: how many writes are answered now, and what to send back.

        Raises:
            CraneError: when a write failed.
        """


class RedisWire:
    """``SET key value``."""

    _PUT = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(KEY), KEY, len(VALUE), VALUE)
    _DONE = b"+OK\r\n"

    def __init__(self) -> None:
        self._data = b""

    def hello(self) -> bytes:
        """Nothing comes before the first write."""
        return b""

    def put(self) -> bytes:
        """The write."""
        return self._PUT

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """See :class:`Wire`."""
        self._data += data
        if self._DONE.startswith(self._data):
            complete = self._data == self._DONE
            if complete:
                self._data = b""
            return int(complete), b""
        raise CraneError(f"Redis answered {self._data[:80]!r}")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_FRAME_HEAD = 9
_LARGEST_WINDOW = (1 << 31) - 1


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that is not indexed; ``name`` is encoded already."""
    return name + bytes((len(value),)) + value


class EtcdWire:
    """``etcdserverpb.KV/Put``."""

    _FIELDS = (
        b"\x83\x86"  # :method POST, :scheme http
        + _literal(b"\x04", b"/etcdserverpb.KV/Put")  # :path
        + _literal(b"\x01", b"localhost")  # :authority
        + _literal(b"\x0f\x10", b"application/grpc")  # content-type
        + _literal(b"\x00\x02te", b"trailers")
    )
    _MESSAGE = b"\x0a" + bytes((len(KEY),)) + KEY + b"\x12" + bytes((len(VALUE),)) + VALUE
    _BODY = b"\x00" + len(_MESSAGE).to_bytes(4, "big") + _MESSAGE

    def __init__(self) -> None:
        self._data = b""
        self._stream = -1
        self._answered = False

    def hello(self) -> bytes:
        """The preface, and room for every answer there will be."""
        return (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, b"")
            + frame(_WINDOW, 0, 0, (_LARGEST_WINDOW - 65535).to_bytes(4, "big"))
        )

    def put(self) -> bytes:
        """The write, on a stream of its own."""
        self._stream += 2
        self._answered = False
        return frame(_HEADERS, _END_HEADERS, self._stream, self._FIELDS) + frame(
            _DATA, _END_STREAM, self._stream, self._BODY
        )

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """See :class:`Wire`."""
        self._data += data
        done, back, begin = 0, b"", 0
        while len(self._data) - begin >= _FRAME_HEAD:
            size = int.from_bytes(self._data[begin : begin + 3], "big")
            end = begin + _FRAME_HEAD + size
            if len(self._data) < end:
                break
            kind, flags = self._data[begin + 3], self._data[begin + 4]
            payload = self._data[begin + _FRAME_HEAD : end]
            begin = end
            if kind == _DATA:
                self._answered = self._answered or size > 0
            elif kind in (_RESET, _GOAWAY):
                raise CraneError(f"etcd refused a write: {payload!r}")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                back += frame(kind, _ACK, 0, payload if kind == _PING else b"")
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                # An error comes as headers alone.
                if not self._answered:
                    raise CraneError("etcd answered a write with an error")
                done += 1
        self._data = self._data[begin:]
        return done, back
