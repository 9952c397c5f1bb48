"""CivetWeb, the maintained fork of Mongoose: a pool of 50 threads, static files, an access log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup
from protocols import Http
from speed import ab

_PAGE = b"<p>" + b"CivetWeb " * 400 + b"</p>\n"
_REQUEST = re.compile(r"GET /page\.html\?(\S+) HTTP")


class CivetWeb(Program):
    name = "civetweb"
    settings = "`keep_alive_timeout_ms` longer than the 500 ms that a new leader may take"
    packages = ("civetweb:civetweb", "ab:apache2-utils")

    def configure(self, place: Path, port: int) -> Setup:
        site = place / "site"
        site.mkdir()
        (site / "page.html").write_bytes(_PAGE)
        place.chmod(0o755)
        configuration = place / "civetweb.conf"
        configuration.write_text(
            f"""listening_ports {port}
document_root {site}
num_threads 50
enable_keep_alive yes
keep_alive_timeout_ms 10000
access_log_file {place}/access.log
error_log_file {place}/error.log
"""
        )
        return Setup(argv=["civetweb", str(configuration)])

    def client(self, address: Address) -> Http:
        return Http(address, "/page.html?{}", _PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        log = replica.written(place / "access.log")
        return (one for one in _REQUEST.findall(log.read_text()) if one.startswith("w"))

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/page.html"
        return f"ab -q -n 500 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/page.html", keep_alive=False)


PROGRAM = CivetWeb()
