"""Connections whose threads spin on memory until another connection's thread ends it."""

from __future__ import annotations

import socket
import sys


def ask(connection: socket.socket, word: str, answer: str) -> None:
    connection.sendall(word.encode() + b"\n")
    said = connection.recv(64).decode().strip()
    assert said == answer, said


def main(host: str, port: int, rounds: int, spinners: int) -> None:
    with socket.create_connection((host, port)) as other:
        for _ in range(rounds):
            waiting = [socket.create_connection((host, port)) for _ in range(spinners)]
            for one in waiting:
                one.sendall(b"spin\n")
                ask(other, "ping", "pong")
            ask(other, "set", "set")
            for one in waiting:
                assert one.recv(64) == b"seen\n"
                one.close()
            ask(other, "clear", "clear")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
