"""HAProxy in front of nginx, which listens on a Unix socket of the same group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup
from protocols import Http
from servers.nginx import PAGE, configuration, let_in, logged
from speed import ab


class Haproxy(Program):
    name = "haproxy"
    packages = ("haproxy:haproxy", "nginx:nginx-light", "ab:apache2-utils")
    # nginx puts itself into the background, so the two have no common first process.
    restores = False
    settings = "`nbthread 1`: its threads take turns by atomic operations"

    def configure(self, place: Path, port: int) -> Setup:
        let_in(place)
        (place / "nginx.conf").write_text(
            configuration(place, f"unix:{place}/nginx.socket", 1, "off")
        )
        (place / "haproxy.cfg").write_text(
            f"""global
    nbthread 1
    maxconn 500
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend front
    bind 0.0.0.0:{port}
    default_backend pages
backend pages
    server nginx unix@{place}/nginx.socket check inter 1s
"""
        )
        start = f"nginx -c {place}/nginx.conf && exec haproxy -f {place}/haproxy.cfg"
        return Setup(argv=["sh", "-c", start])

    def client(self, address: Address) -> Http:
        return Http(address, "/page.html?{}", PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        return logged(replica, place)

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/"
        return f"ab -q -k -n 1000 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/")


PROGRAM = Haproxy()
