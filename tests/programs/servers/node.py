"""Node.js with an HTTP server of its own: an event loop, a thread pool, a compiler at run time."""

from __future__ import annotations

import shutil
from pathlib import Path

from journal import Journal
from program import Setup

# The value is in the file before its answer leaves.
_SERVER = """
const fs = require('node:fs'), http = require('node:http'), crypto = require('node:crypto');
const page = '<p>' + 'node '.repeat(500) + '</p>\\n';
http.createServer((request, response) => {
  const line = `${request.url} ${Date.now()} ${Math.random()} ${crypto.randomUUID()}\\n`;
  fs.appendFile('journal', line, (error) => {
    response.statusCode = error ? 500 : 200;
    response.setHeader('content-length', page.length);
    response.end(page);
  });
}).listen(Number(process.argv[2]), '0.0.0.0');
"""


class Node(Journal):
    page = b"<p>" + b"node " * 500 + b"</p>\n"
    name = "node"
    packages = ("node:nodejs", "ab:apache2-utils")

    def configure(self, place: Path, port: int) -> Setup:
        (place / "server.js").write_text(_SERVER)
        return Setup(argv=[shutil.which("node") or "/usr/bin/node", "server.js", str(port)])


PROGRAM = Node()
