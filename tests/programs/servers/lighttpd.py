"""lighttpd with static files and an access log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup
from protocols import Http
from speed import ab

_PAGE = b"<p>" + b"lighttpd " * 400 + b"</p>\n"
_REQUEST = re.compile(r"GET /page\.html\?(\S+) HTTP")


class Lighttpd(Program):
    name = "lighttpd"
    packages = ("lighttpd:lighttpd", "ab:apache2-utils")

    def configure(self, place: Path, port: int) -> Setup:
        site = place / "site"
        site.mkdir()
        (site / "page.html").write_bytes(_PAGE)
        place.chmod(0o755)
        (place / "lighttpd.conf").write_text(
            f"""server.document-root = "{site}"
server.port = {port}
server.modules = ("mod_accesslog", "mod_dirlisting")
server.errorlog = "{place}/error.log"
accesslog.filename = "{place}/access.log"
mimetype.assign = (".html" => "text/html")
index-file.names = ("page.html")
"""
        )
        return Setup(argv=["lighttpd", "-D", "-f", str(place / "lighttpd.conf")])

    def client(self, address: Address) -> Http:
        return Http(address, "/page.html?{}", _PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        log = replica.written(place / "access.log")
        return (one for one in _REQUEST.findall(log.read_text()) if one.startswith("w"))

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/"
        return f"ab -q -k -n 1000 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/")


PROGRAM = Lighttpd()
