"""Notes over HTTP, kept in SQLite: an ordinary program that knows nothing of replicas.

    python3 notes.py --port 8080
    curl -d 'buy milk' localhost:8080/notes
    curl localhost:8080/notes

It does everything that makes copies of a program drift apart: threads, a clock,
random ids, and a database file in the directory it was started in.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATABASE = "notes.db"
COLUMNS = ("id", "time", "text")


def connect() -> closing[sqlite3.Connection]:
    """A connection for one request; statements are their own transactions."""
    return closing(sqlite3.connect(DATABASE, isolation_level=None, timeout=30))


class Notes(BaseHTTPRequestHandler):
    """``POST /notes`` keeps the body; ``GET /notes`` lists, ``GET /notes/ID`` shows one."""

    protocol_version = "HTTP/1.1"
    server_version = "notes"

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path != "/notes" or not text:
            self.answer(HTTPStatus.BAD_REQUEST, {"error": "POST a text to /notes"})
            return
        note = (str(uuid.uuid4()), datetime.now(UTC).isoformat(), text)
        with connect() as database:
            database.execute("INSERT INTO notes VALUES (?, ?, ?)", note)
        self.answer(HTTPStatus.CREATED, dict(zip(COLUMNS, note, strict=True)))

    def do_GET(self) -> None:
        with connect() as database:
            rows = database.execute("SELECT id, time, text FROM notes ORDER BY rowid").fetchall()
        notes = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        if self.path == "/notes":
            self.answer(HTTPStatus.OK, notes)
            return
        wanted = self.path.removeprefix("/notes/")
        for note in notes:
            if note["id"] == wanted:
                self.answer(HTTPStatus.OK, note)
                return
        self.answer(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})

    def answer(self, status: HTTPStatus, content: object) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description="Notes over HTTP, kept in SQLite.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    with connect() as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, time TEXT, text TEXT)"
        )
    with ThreadingHTTPServer((options.host, options.port), Notes) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
