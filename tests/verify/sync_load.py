"""Files are written and synced on some connections while another one is answered."""

from __future__ import annotations

import socket
import sys


def main(host: str, port: int, rounds: int, writers: int) -> None:
    waiting = [socket.create_connection((host, port)) for _ in range(writers)]
    with socket.create_connection((host, port)) as other:
        for _ in range(rounds):
            for one in waiting:
                one.sendall(b"sync\n")
            for _ in range(5):
                other.sendall(b"ping\n")
                assert other.recv(64) == b"pong\n"
            for one in waiting:
                assert one.recv(64) == b"synced\n"
    for one in waiting:
        one.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
