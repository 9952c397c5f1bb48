"""Registers over TCP: an ordinary program that knows nothing of replicas.

    python3 register.py --port 7100
    printf 'write x 1\\ncas x 1 2\\nread x\\n' | nc localhost 7100

Requests and answers are lines:

    read NAME             value VALUE, or none
    write NAME VALUE      ok
    cas NAME OLD NEW      ok, or no: the register has another value (none for OLD: nothing)

A thread for each client, and a lock: small enough that every history of it can be checked.
"""

from __future__ import annotations

import argparse
import socketserver
import threading

registers: dict[str, str] = {}
lock = threading.Lock()


def answer(line: str) -> str:
    """Do what a line asks for."""
    match line.split():
        case ["read", name]:
            value = registers.get(name)
            return "none" if value is None else f"value {value}"
        case ["write", name, value]:
            registers[name] = value
            return "ok"
        case ["cas", name, old, new]:
            if registers.get(name, "none") != old:
                return "no"
            registers[name] = new
            return "ok"
        case _:
            return "error: say read NAME, write NAME VALUE or cas NAME OLD NEW"


class Client(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        for line in self.rfile:
            with lock:
                said = answer(line.decode(errors="replace"))
            self.wfile.write(f"{said}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=7100)
    with Server(("", parser.parse_args().port), Client) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
