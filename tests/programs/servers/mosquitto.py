"""mosquitto: retained messages with QoS 1, each acknowledged by a PUBACK."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, WrongAnswerError
from protocols import Lines
from speed import timed

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP = (
    0x10, 0x20, 0x30, 0x40, 0x82, 0x90, 0xC0, 0xD0,
)  # fmt: skip
_QOS1_RETAIN = 0x03


class Connection(Lines):
    """As much of MQTT 3.1.1 as is needed."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._packet = itertools.count(1)
        # Protocol level 4, a clean session, keep alive for 600 s, no name of our own.
        self._send(_CONNECT, b"\0\4MQTT\4\2\2\x58\0\0")
        self._expect(_CONNACK, b"\0\0")

    def write(self, value: str) -> None:
        number = (next(self._packet) % 0xFFFF).to_bytes(2)
        self._send(_PUBLISH | _QOS1_RETAIN, _text(f"kept/{value}") + number + value.encode() * 5)
        self._expect(_PUBACK, number)

    def retained(self) -> Iterable[str]:
        """The values of all retained messages."""
        self._send(_SUBSCRIBE, b"\0\1" + _text("kept/#") + b"\0")
        self._send(_PINGREQ, b"")
        while (packet := self._receive())[0] != _PINGRESP:
            kind, body = packet
            if kind & 0xF0 == _PUBLISH:
                size = int.from_bytes(body[:2])
                value = body[2 : 2 + size].decode().removeprefix("kept/")
                if body[2 + size :] != value.encode() * 5:
                    raise WrongAnswerError(f"{value} is retained as {body[2 + size :]!r}")
                yield value

    def _send(self, kind: int, body: bytes) -> None:
        size, rest = b"", len(body)
        while True:
            rest, low = rest >> 7, rest & 0x7F
            size += bytes([low | (0x80 if rest else 0)])
            if not rest:
                break
        self.send(bytes([kind]) + size + body)

    def _receive(self) -> tuple[int, bytes]:
        kind, size = self.exactly(1)[0], 0
        for shift in range(0, 28, 7):
            (byte,) = self.exactly(1)
            size |= (byte & 0x7F) << shift
            if not byte & 0x80:
                break
        return kind, self.exactly(size)

    def _expect(self, kind: int, body: bytes) -> None:
        found = self._receive()
        if found != (kind, body):
            raise WrongAnswerError(f"{found[0]:#x} {found[1]!r} instead of {kind:#x} {body!r}")


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2) + text.encode()


class Mosquitto(Program):
    name = "mosquitto"
    settings = "`--private` for its database"
    packages = ("mosquitto:mosquitto", "mosquitto_pub:mosquitto-clients")

    def configure(self, place: Path, port: int) -> Setup:
        data = place / "data"
        data.mkdir()
        # The broker drops its privileges to the user `mosquitto`.
        data.chmod(0o777)
        place.chmod(0o755)
        (place / "mosquitto.conf").write_text(
            f"listener {port} 0.0.0.0\n"
            "allow_anonymous true\n"
            "persistence true\n"
            f"persistence_location {data}/\n"
            "autosave_interval 2\n"
            "max_queued_messages 0\n"
            "log_dest stderr\n"
        )
        return Setup(
            argv=["mosquitto", "-c", str(place / "mosquitto.conf")],
            options=["--private", str(data)],
        )

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        yield from connection.retained()
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        where = f"-h {address[0]} -p {address[1]} -q 1 -t numbers"
        return (
            f"said=$(mktemp); mosquitto_sub {where} -C 300 > $said & heard=$!\n"
            # Numbers are sent until the subscriber has enough: it may come late.
            f"(while kill -0 $heard 2>/dev/null; do echo 7; sleep 0.01; done)"
            f" | mosquitto_pub {where} -l\n"
            f"wait $heard && test $(grep -c 7 $said) = 300 && rm $said"
        )

    def speed(self, address: Address, place: Path) -> str:
        where = f"-h {address[0]} -p {address[1]} -q 1 -t speed"
        one = f"seq 3000 | mosquitto_pub {where}"
        return timed(f"{one}/1 -l & {one}/2 -l & {one}/3 -l & wait", 9000)


PROGRAM = Mosquitto()
