"""Asks for the processor's time-stamp counter again and again."""

from __future__ import annotations

import socket
import sys


def main(host: str, port: int, rounds: int) -> None:
    last = 0
    with socket.create_connection((host, port)) as connection:
        for number in range(rounds):
            connection.sendall(b"run\n" if number % 10 == 9 else b"tsc\n")
            first, second, processor = map(int, connection.recv(64).split())
            assert last < first < second, (last, first, second)
            assert processor == 0
            last = second


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
