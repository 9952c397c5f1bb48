"""memcached with four worker threads and its background threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, WrongAnswerError
from protocols import Lines
from speed import timed

_KEYS_AT_ONCE = 100


class Connection(Lines):
    def write(self, value: str) -> None:
        data = value.encode() * 20
        self.send(b"set %b 0 0 %d\r\n%b\r\n" % (value.encode(), len(data), data))
        answer = self.line()
        if answer != "STORED":
            raise WrongAnswerError(f"set {value}: {answer}")

    def present(self, keys: Sequence[str]) -> Iterable[str]:
        self.send(f"get {' '.join(keys)}\r\n".encode())
        while (line := self.line()) != "END":
            _, key, _, size = line.split()
            data = self.exactly(int(size) + 2)[:-2]
            if data != key.encode() * 20:
                raise WrongAnswerError(f"get {key}: {data!r}")
            yield key


class Memcached(Program):
    name = "memcached"
    packages = ("memcached:memcached", "memcslap:libmemcached-tools")

    def configure(self, place: Path, port: int) -> Setup:
        return Setup(
            argv=["memcached", "-t", "4", "-p", str(port), "-l", "0.0.0.0", "-u", "memcache"]
        )

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        for begin in range(0, len(values), _KEYS_AT_ONCE):
            yield from connection.present(values[begin : begin + _KEYS_AT_ONCE])
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        host, port = address
        return f"memcslap --servers={host}:{port} --concurrency=4 --execute-number=200 --test=get"

    def speed(self, address: Address, place: Path) -> str:
        host, port = address
        clients = f"memcslap --servers={host}:{port} --concurrency=8"
        return timed(f"{clients} --execute-number=4000 --test=set", 32_000)


PROGRAM = Memcached()
