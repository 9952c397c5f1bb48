"""PostgreSQL, a process for each client with shared memory, beside pgbench's transactions."""

from __future__ import annotations

import os
import pwd
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Address, Program, Replica, Setup, Size, WrongAnswerError
from protocols import Lines
from servers.nginx import let_in
from speed import timed

# The server refuses to run as root.
_USER = "postgres"
_AS_USER = ("/usr/bin/setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")
_VERSION_3 = 196608


def _programs() -> Path:
    """Where the newest version's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else Path("/usr/lib/postgresql/bin")


class Connection(Lines):
    """The simple queries of PostgreSQL's protocol; see its manual, "Message Formats"."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        try:
            words = b"user\0postgres\0database\0postgres\0\0"
            self.send(struct.pack(">II", 8 + len(words), _VERSION_3) + words)
            self._rows()
        except OSError:
            self.close()
            raise
        except WrongAnswerError as error:
            self.close()
            raise ConnectionRefusedError(str(error)) from error

    def write(self, value: str) -> None:
        self.ask(f"INSERT INTO kept (value) VALUES ('{value}')")

    def ask(self, statement: str) -> list[str]:
        """The first column of a statement's rows."""
        text = statement.encode() + b"\0"
        self.send(b"Q" + struct.pack(">I", 4 + len(text)) + text)
        return self._rows()

    def _rows(self) -> list[str]:
        rows, wrong = [], ""
        while True:
            kind, length = struct.unpack(">cI", self.exactly(5))
            body = self.exactly(length - 4)
            match kind:
                case b"D":
                    (size,) = struct.unpack_from(">i", body, 2)
                    rows.append(body[6 : 6 + size].decode())
                case b"E":
                    wrong = body.replace(b"\0", b" ").decode(errors="replace")
                    if b"SFATAL" in body:
                        raise WrongAnswerError(wrong)
                case b"Z":  # ready for the next query
                    if wrong:
                        raise WrongAnswerError(wrong)
                    return rows


class PostgreSql(Program):
    name = "postgresql"
    packages = ("pg_ctlcluster:postgresql",)
    settings = "`--private` with its data directory"
    ci = Size(requests=60, runs=3, writes=30)
    full = Size(requests=1000, runs=5, writes=300)

    def configure(self, place: Path, port: int) -> Setup:
        let_in(place)
        data = place / "data"
        data.mkdir(mode=0o700)
        user = pwd.getpwnam(_USER)
        os.chown(data, user.pw_uid, user.pw_gid)
        programs = _programs()
        made = [
            *_AS_USER,
            str(programs / "initdb"),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "postgres",
        ]
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, cwd="/")
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all all trust\n")
        alone = [*_AS_USER, str(programs / "postgres"), "--single", "-D", str(data), "postgres"]
        table = b"CREATE TABLE kept (number SERIAL PRIMARY KEY, value VARCHAR(60));\n"
        subprocess.run(alone, input=table, check=True, capture_output=True, cwd="/")
        options = ["-D", str(data), "-p", str(port), "-h", "0.0.0.0", "-k", ""]
        return Setup(
            argv=[*_AS_USER, str(programs / "postgres"), *options],
            options=["--private", str(data)],
        )

    def client(self, address: Address) -> Connection:
        return Connection(address)

    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        connection = self.client(replica.address)
        yield from connection.ask("SELECT value FROM kept ORDER BY number")
        connection.close()

    def ordinary(self, address: Address, place: Path) -> str:
        run = self._pgbench(address)
        none = "grep '^number of failed transactions: 0 '"
        return f"{run} -q -i postgres && {run} -c 3 -t 20 postgres | {none}"

    def speed(self, address: Address, place: Path) -> str:
        run = self._pgbench(address)
        return f"{run} -q -i postgres 2> /dev/null && {timed(f'{run} -c 4 -t 200 postgres', 800)}"

    def _pgbench(self, address: Address) -> str:
        host, port = address
        return f"{_programs() / 'pgbench'} -h {host} -p {port} -U postgres"


PROGRAM = PostgreSql()
