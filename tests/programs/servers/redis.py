"""Redis with its append-only file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Client, Program, Replica, Setup, WrongAnswerError
from speed import timed

from crane.chaos.failover import read_list
from crane.chaos.resp import Redis


class Connection(Client):
    def __init__(self, address: Address) -> None:
        self.redis = Redis(address, 30.0)

    def write(self, value: str) -> None:
        answer = self.redis.ask("RPUSH", "values", value)
        if not isinstance(answer, int):
            raise WrongAnswerError(f"RPUSH {value}: {answer}")

    def close(self) -> None:
        self.redis.close()


class RedisServer(Program):
    name = "redis"
    packages = ("redis-server:redis-server", "redis-benchmark:redis-tools")

    def configure(self, place: Path, port: int) -> Setup:
        return Setup(argv=["redis-server", "--port", str(port), "--appendonly", "yes"])

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        yield from read_list(connection.redis, "values")
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        return f"redis-benchmark -h {address[0]} -p {address[1]} -n 2000 -c 10 -q"

    def speed(self, address: Address, place: Path) -> str:
        options = f"-h {address[0]} -p {address[1]} -t set -n 60000 -c 16 -q"
        return timed(f"redis-benchmark {options}", 60_000)


PROGRAM = RedisServer()
