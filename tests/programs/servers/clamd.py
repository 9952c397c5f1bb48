"""ClamAV's clamd on a TCP port, with a signature of the test's own; files come as streams."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, WrongAnswerError
from protocols import Lines
from speed import timed

_NAME = "Test.Crane"
_PATTERN = b"this is what the signature of the test looks for"
# With ExtendedDetectionInfo clamd logs what it found by its MD5 and length.
_FOUND = re.compile(rf"{re.escape(_NAME)}\.UNOFFICIAL\(([0-9a-f]{{32}}):\d+\) FOUND")
_CHUNK = 1000


def _content(value: str) -> bytes:
    return b"%b\n%b\n%b\n" % (value.encode() * 200, _PATTERN, value.encode())


class Connection(Lines):
    """clamd answers one command on a connection, so each value makes a new one."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.address = address
        self.fresh = True

    def write(self, value: str) -> None:
        if not self.fresh:
            self.close()
            super().__init__(self.address)
        self.fresh = False
        content = _content(value)
        self.send(b"nINSTREAM\n")
        for begin in range(0, len(content), _CHUNK):
            chunk = content[begin : begin + _CHUNK]
            self.send(struct.pack(">I", len(chunk)) + chunk)
        self.send(struct.pack(">I", 0))
        answer = self.line()
        if answer != f"stream: {_NAME}.UNOFFICIAL FOUND":
            raise WrongAnswerError(f"{value}: {answer}")


class Clamd(Program):
    name = "clamd"
    packages = ("clamd:clamav-daemon", "clamdscan:clamdscan")

    def configure(self, place: Path, port: int) -> Setup:
        signatures, files = place / "signatures", place / "files"
        signatures.mkdir()
        files.mkdir()
        (signatures / "test.ndb").write_text(f"{_NAME}:0:*:{_PATTERN.hex()}\n")
        for number in range(20):
            (files / str(number)).write_bytes(b"nothing is found in here\n" * (number * 50 + 1))
        place.chmod(0o755)
        (place / "clamd.conf").write_text(
            f"""Foreground yes
TCPSocket {port}
DatabaseDirectory {signatures}
LogFile {place}/clamd.log
LogTime yes
ExtendedDetectionInfo yes
"""
        )
        return Setup(argv=["clamd", "--config-file", str(place / "clamd.conf")])

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        by_digest = {hashlib.md5(_content(one)).hexdigest(): one for one in values}
        log = replica.written(place / "clamd.log").read_text()
        return (by_digest[one] for one in _FOUND.findall(log) if one in by_digest)

    def ordinary(self, address: Address, place: Path) -> str:
        host, port = address
        settings = f"printf 'TCPAddr %s\\nTCPSocket %s\\n' {host} {port}"
        scan = f"clamdscan --config-file=$c --stream --no-summary {place}/files"
        return f"c=$(mktemp) && {settings} > $c && {scan} && rm $c"

    def speed(self, address: Address, place: Path) -> str:
        # Each scan of a client is a connection for each file.
        count = sum(one.is_file() for one in (place / "files").rglob("*"))
        return timed(
            f"for turn in 1 2 3 4 5 6 7 8; do {self.ordinary(address, place)}; done", 8 * count
        )


PROGRAM = Clamd()
