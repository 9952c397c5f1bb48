"""Lines for ``programs/files.py``: HOST PORT REQUESTS CONNECTIONS."""

import socket
import sys

host, port, requests, connections = sys.argv[1], *map(int, sys.argv[2:])
for number in range(connections):
    with socket.create_connection((host, port), 30) as client, client.makefile("rwb") as stream:
        for _ in range(requests // connections):
            stream.write(b"x" * (number + 1) + b"\r\n")
            stream.flush()
            assert stream.readline().endswith(b"local\r\n")
