"""The writers as a command, for ``crane verify --load``: NAME HOST PORT REQUESTS CONNECTIONS."""

from __future__ import annotations

import sys

from catalogue import named
from writers import Writers

_SECONDS = 300.0


def main() -> None:
    """Exits with 1 when a request failed."""
    name, host, port, requests, connections = sys.argv[1:]
    writers = Writers(named(name), {1: (host, int(port))}, int(connections))
    writers.start(int(requests))
    writers.join(_SECONDS)
    for text in [*writers.faults, *(text for _, _, text in writers.breaks)]:
        print(text, file=sys.stderr)
    sys.exit(1 if writers.faults or writers.breaks else 0)


main()
