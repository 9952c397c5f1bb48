"""A server that starts other programs and takes signals, one line a request."""

import ctypes
import os
import signal
import socketserver
import subprocess
import sys

hangups: list[int] = []


def hang_up(signal_number, frame):  # type: ignore[no-untyped-def]
    hangups.append(signal_number)


def crash() -> str:
    child = os.fork()
    if child == 0:
        ctypes.string_at(0)
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def run(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"errno {error.errno}"
    return f"{done.returncode} {done.stdout.strip()} {done.stderr.strip()}".strip()


def keep() -> str:
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return str(child)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            words = line.decode().split()
            if words[0] == "hangups":
                answer = str(len(hangups))
            elif words[0] == "crash":
                answer = crash()
            elif words[0] == "keep":
                answer = keep()
            else:
                answer = run(*words[1:])
            self.wfile.write(answer.encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


signal.signal(signal.SIGHUP, hang_up)
Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
