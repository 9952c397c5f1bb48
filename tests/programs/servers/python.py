"""Two servers in Python: the standard library's web server and the notes example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, Size, WrongAnswerError
from protocols import Http
from speed import ab

# Not a version manager's shell script.
_PYTHON = "/usr/bin/python3"
_NOTES = Path(__file__).parents[3] / "examples" / "notes" / "notes.py"
_PAGE = b"<p>hello</p>\n" * 500
_REQUEST = re.compile(r'"GET /page\.html\?(\S+) HTTP')


class HttpServer(Program):
    name = "http.server"
    packages = (f"{_PYTHON}:python3",)

    def configure(self, place: Path, port: int) -> Setup:
        (place / "page.html").write_bytes(_PAGE)
        return Setup(argv=[_PYTHON, "-m", "http.server", str(port)])

    def client(self, address: Address) -> Http:
        return Http(address, "/page.html?{}", _PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        return _REQUEST.findall(replica.said)

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/page.html", keep_alive=False)


class Writing(Http):
    def write(self, value: str) -> None:
        note = json.loads(self.ask("POST", "/notes", value))
        if note["text"] != value:
            raise WrongAnswerError(f"{value} was answered with {note}")


class Notes(Program):
    name = "notes"
    packages = (f"{_PYTHON}:python3",)
    full = Size(requests=3000, runs=5, writes=300)

    def configure(self, place: Path, port: int) -> Setup:
        return Setup(argv=[_PYTHON, str(_NOTES), "--port", str(port)])

    def client(self, address: Address) -> Writing:
        return Writing(address, "/notes")

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        client = self.client(replica.address)
        found = json.loads(client.ask("GET", "/notes"))
        client.close()
        return [note["text"] for note in found]


PROGRAMS = [HttpServer(), Notes()]
