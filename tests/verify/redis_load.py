"""Load for redis-server: ``redis_load.py HOST PORT REQUESTS CONNECTIONS``.

Everything that brings in time, chance, threads and children: expiry, random
picks, lazy freeing, background saves and rewrites, scripts, blocking reads,
publishing, INFO and other views of the server itself.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

RARE = (
    "BGSAVE",
    "BGREWRITEAOF",
    "INFO everything",
    "MEMORY STATS",
    "MEMORY DOCTOR",
    "CLIENT LIST",
    "SLOWLOG GET 10",
    "LATENCY DOCTOR",
    "DEBUG JMAP",
    "DEBUG RELOAD",
    "LASTSAVE",
    "DEBUG DIGEST",
    "COMMAND COUNT",
    "CONFIG GET *",
    "FLUSHALL ASYNC",
    "MEMORY PURGE",
    "ACL GENPASS",
    "CLIENT KILL TYPE pubsub",
)
COMMON = (
    "SET {key} {value}",
    "SET {key} {value} PX {ms}",
    "GET {key}",
    "GETEX {key} PX {ms}",
    "PTTL {key}",
    "UNLINK {key}",
    "RPUSH list:{n} {value} {value} {value}",
    "LPOP list:{n}",
    "UNLINK list:{n}",
    "SADD set:{n} {small} {small} {small}",
    "SPOP set:{n}",
    "SRANDMEMBER set:{n} 3",
    "HSET hash:{n} {small} {value} {small} {value}",
    "HRANDFIELD hash:{n} 2",
    "HSCAN hash:{n} 0",
    "ZADD order:{n} {ms} {small}",
    "ZRANDMEMBER order:{n}",
    "PFADD guess:{n} {small}",
    "PFCOUNT guess:{n}",
    "RANDOMKEY",
    "SCAN {n}",
    "TIME",
    "XADD stream:{n} * field {value}",
    "XRANGE stream:{n} - + COUNT 3",
    "XTRIM stream:{n} MAXLEN 20",
    "PUBLISH news {small}",
    "BLPOP list:{n} 0.01",
    "OBJECT FREQ {key}",
    "OBJECT IDLETIME {key}",
    "DUMP {key}",
    "EVAL return{{redis.call('TIME'),math.random(),redis.call('INCR',KEYS[1])}} 1 count:{n}",
    "MULTI",
    "EXEC",
    "DBSIZE",
    "WAIT 0 5",
    "SORT set:{n} ALPHA",
    "GETRANGE {key} 0 20",
    "SETBIT bits:{n} {ms} 1",
    "BITCOUNT bits:{n}",
)


class Client:
    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.file = self.socket.makefile("rb")

    def send(self, commands: list[list[bytes]]) -> None:
        parts = []
        for words in commands:
            parts.append(b"*%d\r\n" % len(words))
            parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))

    def answer(self) -> None:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(line)
        count = int(line[1:]) if line[:1] in b"$*" else 0
        if line[:1] == b"$" and count >= 0:
            self.file.read(count + 2)
        elif line[:1] == b"*":
            for _ in range(max(0, count)):
                self.answer()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def commands(pick: random.Random) -> Iterator[list[bytes]]:
    while True:
        rare = pick.random() < 0.01
        form = pick.choice(RARE if rare else COMMON)
        text = form.format(
            key=f"key:{pick.randrange(3000)}",
            n=pick.randrange(20),
            ms=pick.randrange(1, 4000),
            small=f"{pick.randrange(10**6)}",
            value="v" * pick.choice((1, 10, 100, 2000)) + str(pick.random()),
        )
        yield text.encode().split(b" ")


def client(host: str, port: int, requests: int, seed: int) -> None:
    pick = random.Random(seed)
    wanted = commands(pick)
    one: Client | None = None
    done = 0
    while done < requests:
        if one is None:
            one = Client(host, port)
        batch = [next(wanted) for _ in range(pick.choice((1, 1, 3, 10)))]
        try:
            one.send(batch)
            stays = pick.random() >= 0.005
            for _ in batch if stays else ():
                one.answer()
                done += 1
        except ConnectionError:
            stays = False  # CLIENT KILL, by itself or by another
        if not stays:
            with suppress(OSError):
                one.close()
            one = None


def main() -> None:
    host, port, requests, connections = sys.argv[1], *map(int, sys.argv[2:])
    share = -(-requests // connections)
    with ThreadPoolExecutor(connections) as pool:
        clients = [pool.submit(client, host, port, share, seed) for seed in range(connections)]
    for one in clients:
        one.result()


main()
