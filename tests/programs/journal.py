"""Programs written for the check: an HTTP server that keeps a line for each request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica
from protocols import Http
from speed import ab


class Journal(Program):
    """Answers every path with ``page`` when a line that begins with it is in ``journal``."""

    page: bytes

    def client(self, address: Address) -> Http:
        return Http(address, "/{}", self.page)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        lines = replica.written(place / "journal").read_text().splitlines()
        return [path[1:] for path, *_ in map(str.split, lines) if path.startswith("/w")]

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/"
        return f"ab -q -k -n 500 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/")
