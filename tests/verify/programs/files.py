"""A server that shows what it sees of files: numbers, times, sockets, maps, deleted ones."""

from __future__ import annotations

import mmap
import os
import socket
import sys
import threading
from pathlib import Path

STATE = Path("state")


def shown(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"


def local(path: str) -> None:
    """Answers on a Unix socket, so that its name must lead there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(b"local")


def ask(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return client.recv(16).decode()


def main() -> None:
    STATE.mkdir()
    threading.Thread(target=local, args=("state/socket",), daemon=True).start()
    deleted = (STATE / "deleted").open("w+b")
    (STATE / "deleted").unlink()
    shared = mmap.mmap(-1, 4096)
    count = 0
    with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listener:
        while True:
            client, _ = listener.accept()
            with client, client.makefile("rwb") as stream:
                for line in stream:
                    count += 1
                    deleted.write(line)
                    deleted.flush()
                    shared[:8] = count.to_bytes(8, "little")
                    target = STATE / f"file-{count % 7}"
                    temporary = STATE / "temporary"
                    temporary.write_bytes(line)
                    temporary.rename(target)
                    other = STATE / f"file-{(count + 3) % 7}"
                    facts = [
                        str(count),
                        shown(target.stat()),
                        shown((other if count > 7 else target).stat()),
                        shown(os.fstat(deleted.fileno())),
                        shown(Path("/etc/passwd").stat()),
                        shown(Path("/usr/bin").stat()),
                        shown(STATE.stat()),
                        ask("state/socket"),
                    ]
                    stream.write((" ".join(facts) + "\r\n").encode())
                    stream.flush()


main()
