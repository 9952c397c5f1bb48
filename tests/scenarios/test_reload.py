"""A server reloads, reopens its logs and replaces its program file: as signals of the log."""

from __future__ import annotations

import http.client
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import Cluster, wait_for

from crane import layers
from crane.chaos.cluster import free_port

_CONFIGURATION = """
worker_processes 2;
user root;
pid {place}/nginx.pid;
error_log {place}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log {place}/access.log;
    server {{ listen 0.0.0.0:{port}; root {place}; }}
}}
"""


@pytest.fixture
def nginx(clusters: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None, "nginx is missing; `make test` installs it"
    port = free_port()
    (tmp_path / "index.html").write_text("a page\n")
    (tmp_path / "nginx.conf").write_text(_CONFIGURATION.format(place=tmp_path, port=port))
    # In the background, as its own package starts it.
    cluster = clusters([program, "-c", str(tmp_path / "nginx.conf")], port)
    cluster.start()
    return cluster


class Client(threading.Thread):
    """Asks one replica for the page again and again, each time on a new connection."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.address = (host, port)
        self.answered = 0
        self.failures: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            connection = http.client.HTTPConnection(*self.address, timeout=20)
            try:
                connection.request("GET", "/index.html")
                answer = connection.getresponse()
                if (answer.status, answer.read()) != (200, b"a page\n"):
                    self.failures.append(str(answer.status))
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()


@pytest.mark.timeout(120)
def test_reload_and_upgrade_under_load_lose_no_request(nginx: Cluster, tmp_path: Path) -> None:
    clients = [Client(f"127.0.0.{number}", nginx.port) for number in (1, 2, 3)]

    def answered_more() -> None:
        before = [one.answered for one in clients]
        wait_for(
            "answers to all",
            lambda: all(one.answered > was + 5 for one, was in zip(clients, before, strict=True)),
        )

    def said(text: str) -> Callable[[], bool]:
        def everywhere() -> bool:
            replicas = [nginx.state / "replicas" / str(number) for number in (1, 2, 3)]
            logs = [layers.where(one / "files", str(tmp_path / "error.log")) for one in replicas]
            return all(path and path.exists() and text in path.read_text() for path in logs)

        return everywhere

    for one in clients:
        one.start()
    try:
        answered_more()
        nginx.crane("signal", "HUP")
        wait_for("the reload", said("gracefully shutting down"))
        answered_more()
        nginx.crane("signal", "USR1")
        wait_for("reopened logs", said("reopening logs"))
        nginx.crane("signal", "USR2")
        wait_for("the new program", said("using inherited sockets"))
        answered_more()
    finally:
        for one in clients:
            one.enough.set()
        for one in clients:
            one.join()
    assert [one.failures for one in clients] == [[], [], []]
    nginx.must_settle()
