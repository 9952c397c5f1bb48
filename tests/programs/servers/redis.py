"""Redis with its append-only file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Client, Program, Replica, Setup, Size, WrongAnswerError
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
    packages = ("redis-server:redis-server", "redis-benchmark:redis-tools")

    def __init__(self, threads: int = 1) -> None:
        self.name = "redis" if threads == 1 else "redis-io-threads"
        self.threads = threads
        if threads > 1:
            # They count a million rounds before they look up, which takes its time.
            self.ci = Size(requests=150, runs=3, writes=40, connections=12)
            self.full = Size(requests=2000, runs=5, writes=300, connections=24)

    def configure(self, place: Path, port: int) -> Setup:
        argv = ["redis-server", "--port", str(port), "--appendonly", "yes"]
        if self.threads > 1:
            argv += ["--io-threads", str(self.threads), "--io-threads-do-reads", "yes"]
        return Setup(argv=argv)

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        yield from read_list(connection.redis, "values")
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        requests = "-n 2000 -c 10" if self.threads == 1 else "-t set,get -n 100 -c 30"
        return f"redis-benchmark -h {address[0]} -p {address[1]} {requests} -q"

    def speed(self, address: Address, place: Path) -> str:
        count = 60_000 if self.threads == 1 else 500
        options = f"-h {address[0]} -p {address[1]} -t set -n {count} -c 16 -q"
        return timed(f"redis-benchmark {options}", count)


PROGRAMS = [RedisServer(), RedisServer(threads=4)]
