"""Three members of etcd on this machine."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from crane.chaos.cluster import Address, free_port, wait_for
from crane.errors import CraneError

_START_SECONDS = 30.0
_END_SECONDS = 10.0
_HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Members:
    """A cluster of etcd; leaving the ``with`` block ends it."""

    def __init__(self, base: Path) -> None:
        """``base`` will hold the members' data."""
        self._base = base
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients = free_port(_HOSTS)
        self._peers = free_port(_HOSTS)

    @property
    def pids(self) -> list[int]:
        """The members' processes."""
        return [process.pid for process in self._processes]

    def __enter__(self) -> Self:
        """Start the members and wait for a leader."""
        members = ",".join(
            f"m{number}=http://{host}:{self._peers}" for number, host in enumerate(_HOSTS)
        )
        try:
            for number, host in enumerate(_HOSTS):
                self._start(number, host, members)
            wait_for("an election of etcd", self._elected, _START_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the members."""
        self._end()

    def _start(self, number: int, host: str, members: str) -> None:
        directory = self._base / f"m{number}"
        directory.mkdir(mode=0o700, parents=True)
        client, peer = f"http://{host}:{self._clients}", f"http://{host}:{self._peers}"
        words = [
            "etcd", "--name", f"m{number}", "--data-dir", str(directory / "data"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", members, "--initial-cluster-state", "new",
            "--initial-cluster-token", f"bench-{self._peers}",
            # Its lines about slow disks would be work that is not the benchmark's.
            "--logger", "zap", "--log-level", "error",
        ]  # fmt: skip
        with (directory / "log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
            )

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(_END_SECONDS)

    def _elected(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                raise CraneError(f"etcd ended with exit status {process.returncode}")
        try:
            return self.leader() is not None
        except (OSError, KeyError, StopIteration):
            return False

    def leader(self) -> Address:
        """The client address of the member that leads.

        Raises:
            StopIteration: when there is none.
        """
        found = []
        for host in _HOSTS:
            status = ask((host, self._clients), "/v3/maintenance/status", {})
            found.append((host, status["header"]["member_id"], status.get("leader")))
        return next((host, self._clients) for host, own, leader in found if own == leader)


def ask(address: Address, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A call of etcd's JSON gateway, for what is not measured."""
    request = urllib.request.Request(
        f"http://{address[0]}:{address[1]}{path}", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
        found: dict[str, Any] = json.load(answer)
        return found


def value_of(address: Address, key: bytes) -> bytes:
    """The value of a key, read through consensus; empty when there is none."""
    body = {"key": base64.b64encode(key).decode()}
    pairs = ask(address, "/v3/kv/range", body).get("kvs", [])
    return base64.b64decode(pairs[0]["value"]) if pairs else b""
