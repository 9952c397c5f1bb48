"""Gerbera, a UPnP media server: browse and fetch over HTTP, discovery over UDP."""

from __future__ import annotations

import html
import json
import re
import shlex
import sys
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlencode

from program import Address, Program, Replica, Setup, Size, WrongAnswerError
from protocols import Http
from speed import ab

_SEARCH = """
import socket, sys
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(3)
question = (
    b"M-SEARCH * HTTP/1.1\\r\\nHOST: 239.255.255.250:1900\\r\\n"
    b'MAN: "ssdp:discover"\\r\\nMX: 1\\r\\nST: upnp:rootdevice\\r\\n\\r\\n'
)
for attempt in range(10):
    asker.sendto(question, (sys.argv[1], 1900))
    try:
        answer = asker.recv(4096)
    except TimeoutError:
        continue
    assert b"/description.xml" in answer, answer
    break
else:
    sys.exit("nobody answered")
"""
_BROWSE = """<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<u:Browse xmlns:u="urn:schemas-upnp-org:service:ContentDirectory:1">
<ObjectID>0</ObjectID><BrowseFlag>BrowseDirectChildren</BrowseFlag><Filter>*</Filter>
<StartingIndex>0</StartingIndex><RequestedCount>0</RequestedCount><SortCriteria></SortCriteria>
</u:Browse></s:Body></s:Envelope>"""
_TITLE = re.compile(r"<dc:title>(w[^<]*)</dc:title>")


class Library(Http):
    """Makes containers by the web interface, one for each value."""

    tells_length = False

    def __init__(self, address: Address) -> None:
        super().__init__(address, "")
        self.session = self.call(req_type="auth", action="get_sid")["sid"]

    def call(self, **arguments: object) -> dict[str, object]:
        body = self.ask("GET", f"/content/interface?{urlencode(arguments)}")
        # Its answers end with the connection, so one that broke is a short one.
        if not body.endswith(b"}"):
            raise ConnectionResetError("closed by the server")
        answer: dict[str, object] = json.loads(body)
        if answer.get("success") is not True:
            raise WrongAnswerError(f"{arguments}: {answer}")
        return answer

    def write(self, value: str) -> None:
        self.call(
            req_type="add_object",
            sid=self.session,
            parent_id=0,
            obj_type="container",
            **{"class": "object.container", "title": value},
        )

    def browse(self) -> str:
        """What the top of the library holds, as a UPnP client asks."""
        self.connection.putrequest("POST", "/upnp/control/cds")
        body = _BROWSE.encode()
        for name, text in (
            ("SOAPACTION", '"urn:schemas-upnp-org:service:ContentDirectory:1#Browse"'),
            ("Content-Type", "text/xml"),
            ("Content-Length", str(len(body))),
        ):
            self.connection.putheader(name, text)
        self.connection.endheaders(body)
        return html.unescape(self.connection.getresponse().read().decode())


class Gerbera(Program):
    name = "gerbera"
    packages = ("gerbera:gerbera", "curl:curl")
    settings = "`[env] CRANE_ADDRESS` for clients that use the address it tells them"

    ports = range(49_152, 60_000)

    # Each browse is some thousand operations.
    full = Size(requests=1000, runs=5, writes=200)

    def configure(self, place: Path, port: int) -> Setup:
        media = place / "media"
        media.mkdir()
        (place / "home" / "settings").mkdir(parents=True)
        with wave.open(str(media / "tune.wav"), "wb") as tune:
            tune.setnchannels(1)
            tune.setsampwidth(2)
            tune.setframerate(8000)
            tune.writeframes(bytes(8000))
        home = str(place / "home")
        where = ["-m", home, "-f", "settings", "-p", str(port), "-a", str(media)]
        return Setup(argv=["gerbera", *where])

    def client(self, address: Address) -> Library:
        return Library(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        library = self.client(replica.address)
        titles = _TITLE.findall(library.browse())
        library.close()
        return titles

    def ordinary(self, address: Address, place: Path) -> str:
        host, port = address
        search = f"{sys.executable} -c {shlex.quote(_SEARCH)} {host}"
        fetch = f"curl -fsS http://{host}:{port}/description.xml | grep -q MediaServer"
        return f"{search} && {fetch}"

    def speed(self, address: Address, place: Path) -> str:
        return ab(f"http://{address[0]}:{address[1]}/description.xml", keep_alive=False)


PROGRAM = Gerbera()
