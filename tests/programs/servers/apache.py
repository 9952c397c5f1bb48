"""Apache httpd in its three ways, with static files, CGI and PHP, and its access log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, Size
from protocols import Http
from speed import ab

PAGE = b"<p>" + b"apache " * 2500 + b"</p>\n"
ANSWER = b"done\n"
_MODULES = Path("/usr/lib/apache2/modules")
_REQUEST = re.compile(r'"GET /\S*\?(w\S+) HTTP\S*" 200 ')

# What the request names goes into a file, and the answer says so.
_CGI = """#!/bin/sh
echo "$QUERY_STRING" >> {place}/values
echo "Content-Type: text/plain"
echo "Content-Length: 5"
echo
echo done
"""
_PHP = """<?php
file_put_contents('{place}/values', $_SERVER['QUERY_STRING'] . "\\n", FILE_APPEND | LOCK_EX);
header('Content-Type: text/plain');
header('Content-Length: 5');
echo "done\\n";
"""


def _modules(names: Sequence[str]) -> str:
    lines = ""
    for name in names:
        lines += f"LoadModule {name}_module {_MODULES}/mod_{name}.so\n"
    return lines


class Apache(Program):
    packages: tuple[str, ...] = ("apache2:apache2", "ab:apache2-utils")
    full = Size(requests=5000, runs=5, writes=500)

    def __init__(self, way: str, script: str = "") -> None:
        self.name = f"apache-{way}" + (f"-{script}" if script else "")
        self.way, self.script = way, script
        if (way, script) in (("worker", ""), ("prefork", "cgi")):
            self.ci = None  # the others have what is special in them
        if script and self.ci is not None:
            self.ci = Size(requests=60, runs=3, writes=30)
        if script:
            self.full = Size(requests=1000, runs=5, writes=200)
        if script == "php":
            module = f"{_MODULES}/libphp8.2.so"
            self.packages = (*self.packages, f"{module}:libapache2-mod-php8.2")

    def configure(self, place: Path, port: int) -> Setup:
        site = place / "site"
        site.mkdir()
        (place / "run").mkdir()
        (site / "page.html").write_bytes(PAGE)
        names = [f"mpm_{self.way}", "authz_core", "dir", "mime", "status"]
        extra = ""
        if self.script == "cgi":
            names.append("cgi" if self.way == "prefork" else "cgid")
            script = site / "run.cgi"
            script.write_text(_CGI.format(place=place))
            script.chmod(0o755)
            extra = (
                f"AddHandler cgi-script .cgi\n<Directory {site}>\nOptions ExecCGI\n</Directory>\n"
            )
            if self.way != "prefork":
                extra += f"ScriptSock {place}/run/cgid.sock\n"
        elif self.script == "php":
            (site / "run.php").write_text(_PHP.format(place=place))
            extra = f"LoadModule php_module {_MODULES}/libphp8.2.so\n"
            extra += "<FilesMatch \\.php$>\nSetHandler application/x-httpd-php\n</FilesMatch>\n"
        for path in (place, *place.parents):
            if path.stat().st_mode & 0o1000:  # /tmp and its like, which are open already
                break
            path.chmod(path.stat().st_mode | 0o111)
        (place / "values").touch()
        (place / "values").chmod(0o666)
        (place / "run").chmod(0o777)
        (place / "httpd.conf").write_text(
            f"""ServerRoot {place}
{_modules(names)}ServerName test
Listen 0.0.0.0:{port}
User www-data
Group www-data
PidFile {place}/run/httpd.pid
DefaultRuntimeDir {place}/run
ErrorLog {place}/error.log
LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
CustomLog {place}/access.log common
TypesConfig /etc/mime.types
DocumentRoot {site}
KeepAlive On
MaxKeepAliveRequests 0
<Directory {site}>
Require all granted
</Directory>
{extra}"""
        )
        argv = ["/usr/sbin/apache2", "-f", str(place / "httpd.conf"), "-D", "FOREGROUND"]
        return Setup(argv=argv)

    def client(self, address: Address) -> Http:
        if self.script:
            return Http(address, f"/run.{self.script}?{{}}", ANSWER)
        return Http(address, "/page.html?{}", PAGE)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        if self.script:
            return replica.written(place / "values").read_text().split()
        return _REQUEST.findall(replica.written(place / "access.log").read_text())

    def ordinary(self, address: Address, place: Path) -> str:
        url = f"http://{address[0]}:{address[1]}/page.html"
        return f"ab -q -k -n 1000 -c 8 {url} | grep 'Failed requests: *0$'"

    def speed(self, address: Address, place: Path) -> str:
        page = f"run.{self.script}" if self.script else "page.html"
        return ab(f"http://{address[0]}:{address[1]}/{page}")


PROGRAMS = [
    Apache("event"),
    Apache("worker"),
    Apache("prefork"),
    Apache("event", "cgi"),
    Apache("prefork", "cgi"),
    Apache("prefork", "php"),
]
