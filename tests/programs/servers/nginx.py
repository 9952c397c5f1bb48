"""nginx with static files and an access log: one worker, and two that share the port."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup
from protocols import Http
from speed import ab

PAGE = b"<p>" + b"nginx " * 3000 + b"</p>\n"
_REQUEST = re.compile(r"GET /page\.html\?(w\S+) HTTP")


def let_in(place: Path) -> None:
    """Let workers, which are not root any more, look for files below ``place``."""
    for path in (place, *place.parents):
        if path.stat().st_mode & 0o1000:  # /tmp and its like, which are open already
            break
        path.chmod(path.stat().st_mode | 0o111)


def configuration(place: Path, listen: str, workers: int, mutex: str) -> str:
    """A file for ``nginx -c``, with everything that it writes in ``place``."""
    site = place / "site"
    site.mkdir()
    site.chmod(0o755)
    (site / "page.html").write_bytes(PAGE)
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""worker_processes {workers};
user www-data;
pid {place}/nginx.pid;
error_log {place}/error.log info;
events {{ worker_connections 256; accept_mutex {mutex}; }}
http {{
    {temporary}
    access_log {place}/access.log;
    sendfile on;
    types {{ text/html html; }}
    server {{ listen {listen}; root {site}; index page.html; }}
}}
"""


def logged(replica: Replica, place: Path) -> list[str]:
    """The values in the access log of a replica."""
    return _REQUEST.findall(replica.written(place / "access.log").read_text())


class Nginx(Program):
    packages = ("nginx:nginx-light", "ab:apache2-utils")

    def __init__(self, name: str, workers: int, mutex: str) -> None:
        self.name, self.workers, self.mutex = name, workers, mutex

    def configure(self, place: Path, port: int) -> Setup:
        let_in(place)
        text = configuration(place, f"0.0.0.0:{port}", self.workers, self.mutex)
        (place / "nginx.conf").write_text("daemon off;\n" + text)
        return Setup(argv=["nginx", "-c", str(place / "nginx.conf")])

    def client(self, address: Address) -> Http:
        return Http(address, "/page.html?{}", PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        return logged(replica, place)

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/"
        return f"ab -q -k -n 1000 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/")


PROGRAMS = [
    Nginx("nginx", 1, "off"),
    Nginx("nginx-2-workers", 2, "off"),
    Nginx("nginx-2-workers-mutex", 2, "on"),
]
