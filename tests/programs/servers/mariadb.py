"""MariaDB with InnoDB, beside sysbench's transactions and mysqlslap's statements."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, Size, WrongAnswerError
from protocols import Lines
from speed import timed

_INSTALL = Path("/usr/bin/mariadb-install-db")
_INIT = """CREATE DATABASE IF NOT EXISTS shop;
CREATE DATABASE IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS shop.kept (number INT AUTO_INCREMENT PRIMARY KEY, value VARCHAR(60));
"""
_LOG_SIZE = "--innodb-log-file-size=8M"
# Protocol 4.1 with long lengths, without TLS; see "Client/Server Protocol" in MariaDB's manual.
_CAPABILITIES = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000
_OK, _ERROR, _END = 0x00, 0xFF, 0xFE


class Connection(Lines):
    """MariaDB's protocol as far as statements in text need it."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        try:
            self._packet()  # the server's greeting
            head = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, 45)
            self._send(head + b"root\0\0mysql_native_password\0", 1)
            answer = self._packet()
        except OSError:
            self.close()
            raise
        if answer[0] != _OK:
            self.close()
            raise ConnectionRefusedError(answer.decode(errors="replace"))

    def write(self, value: str) -> None:
        self.ask(f"INSERT INTO shop.kept (value) VALUES ('{value}')")

    def ask(self, statement: str) -> list[str]:
        """The first column of a statement's rows."""
        self._send(b"\3" + statement.encode(), 0)
        first = self._packet()
        if first[0] == _ERROR:
            raise WrongAnswerError(f"{statement}: {first[3:].decode(errors='replace')}")
        if first[0] == _OK:
            return []
        while self._packet()[0] != _END:
            pass  # what the columns are
        rows = []
        while (row := self._packet())[0] != _END:
            rows.append(row[1 : 1 + row[0]].decode())  # a short text, after its length
        return rows

    def _send(self, data: bytes, number: int) -> None:
        self.send(struct.pack("<I", len(data))[:3] + bytes([number]) + data)

    def _packet(self) -> bytes:
        head = self.exactly(4)
        return self.exactly(int.from_bytes(head[:3], "little"))


class MariaDb(Program):
    name = "mariadb"
    packages = (
        "mariadbd:mariadb-server",
        "mariadb-install-db:mariadb-server",
        "mysqlslap:mariadb-client",
        "sysbench:sysbench",
    )
    settings = "`innodb-use-native-aio=0`: Linux's own asynchronous input and output is not virtual"
    ci = Size(requests=60, runs=3, writes=30)
    full = Size(requests=1000, runs=5, writes=300)

    def configure(self, place: Path, port: int) -> Setup:
        data = place / "data"
        command = [str(_INSTALL), "--no-defaults", "--user=root", f"--datadir={data}", _LOG_SIZE]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(command, check=True, capture_output=True)
        (place / "init.sql").write_text(_INIT)
        server = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        options = [
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={place}/socket",
            f"--pid-file={place}/pid",
            f"--init-file={place}/init.sql",
            f"--port={port}",
            "--bind-address=0.0.0.0",
            "--skip-name-resolve",
            "--skip-grant-tables",
            "--innodb-use-native-aio=0",
            "--innodb-buffer-pool-size=32M",
            _LOG_SIZE,
        ]
        return Setup(argv=[server, *options])

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        yield from connection.ask("SELECT value FROM shop.kept ORDER BY number")
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        transactions = f"{self._sysbench(address)} --threads=2 --time=0 --events=20"
        host, port = address
        slap = f"mysqlslap --no-defaults -h {host} -P {port} -u root --create-schema=slap"
        slap += " --auto-generate-sql --concurrency=3 --number-of-queries=60"
        return f"{transactions} prepare && {transactions} run && {slap}"

    def speed(self, address: Address, place: Path) -> str:
        base = self._sysbench(address)
        run = timed(f"{base} --threads=4 --time=0 --events=200 run", 200)
        return f"{base} prepare > /dev/null && {run}"

    def _sysbench(self, address: Address) -> str:
        host, port = address
        return (
            f"sysbench oltp_read_write --mysql-host={host} --mysql-port={port} --mysql-user=root"
            " --mysql-db=bench --tables=2 --table-size=200"
        )


PROGRAM = MariaDb()
