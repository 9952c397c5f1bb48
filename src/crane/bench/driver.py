"""A driver that waits for each answer: the same loop for everything it measures."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from crane.bench.wire import Wire
from crane.chaos.cluster import Address, connect
from crane.errors import CraneError

_SILENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Speed:
    """What one round showed."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds that half of them took at most."""
    p99: float
    """Milliseconds that 99 of 100 took at most."""


def measure(address: Address, make: Callable[[], Wire], connections: int, seconds: float) -> Speed:
    """Write as fast as answers come, one request under way on each connection.

    Raises:
        CraneError: when a write fails or no answer comes.
    """
    poll = select.epoll()
    clients: dict[int, tuple[socket.socket, Wire]] = {}
    sent: dict[int, float] = {}
    taken: list[float] = []
    try:
        for _ in range(connections):
            client, wire = connect(address), make()
            client.setblocking(False)
            clients[client.fileno()] = (client, wire)
            poll.register(client, select.EPOLLIN)
        begin = time.perf_counter()
        for number, (client, wire) in clients.items():
            sent[number] = time.perf_counter()
            client.send(wire.hello() + wire.put())
        end = begin + seconds
        now = begin
        while now < end:
            ready = poll.poll(_SILENCE_SECONDS)
            if not ready:
                raise CraneError(f"{address[0]}:{address[1]} does not answer any more")
            for number, _ in ready:
                client, wire = clients[number]
                done, back = wire.feed(client.recv(65536))
                now = time.perf_counter()
                if done:
                    taken.append(now - sent[number])
                    sent[number] = now
                    back += wire.put()
                if back:
                    client.send(back)
    finally:
        poll.close()
        for client, _ in clients.values():
            client.close()
    return summary(taken, now - begin)


def summary(taken: list[float], seconds: float) -> Speed:
    """The speed of requests that took these times, in seconds, within so long."""
    if not taken:
        raise CraneError("not one request was answered")
    taken.sort()
    count = len(taken)
    return Speed(count / seconds, taken[count // 2] * 1e3, taken[count * 99 // 100] * 1e3)
