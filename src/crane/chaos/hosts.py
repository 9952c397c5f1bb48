"""A cluster whose replicas have machines of their own: a real ``crane node`` on each host.

Each has its state directory, on a disk of its own if wanted. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from crane.chaos import clocks, disks, owned
from crane.chaos.disks import Disk
from crane.chaos.network import Network
from crane.chaos.watched import Watched, wait_for
from crane.child import describe_exit
from crane.cluster import StateDir, Wanted, reconcile
from crane.errors import CraneError
from crane.node import last_line
from crane.registry import ClusterRunDir

_PEER_PORT = 7000
_START_SECONDS = 60.0
_LAST_WORDS = 4
_END_SECONDS = 10.0


def new_base() -> Path:
    """A new directory on a real disk, whose name tells whose it is."""
    parent = Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108
    disks.remove_left_behind(parent)
    base = parent / owned.new_name()
    base.mkdir(mode=0o700)
    return base


class Hosts(Watched):
    """A cluster on hosts; leaving the ``with`` block ends it and removes everything.

    To be used from the thread that made it: the nodes die with that thread.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        base: Path,
        own_disks: bool = False,
        own_clocks: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Make hosts for the cluster ``wanted``; nothing is started yet.

        ``base``, made by :func:`new_base`, holds everything and is removed at the
        end. With ``own_disks`` each replica has a disk of its own, with ``own_clocks``
        a wall clock. ``environment`` is added to that of the nodes, not to the
        program's.

        Raises:
            CraneError: when hosts cannot be made here.
        """
        self.base = base
        state = reconcile(None, structs.replace(wanted, listen=[]), str(base))
        self.size = len(state.listen)
        self.numbers = list(range(1, self.size + 1))
        self.network = Network(self.size)
        self.state = StateDir(base / "state")
        self.environment = {number: dict(environment or {}) for number in self.numbers}
        self._own_clocks = own_clocks
        if own_clocks:
            for number in self.numbers:
                self.set_clock(number, 0)
                self.environment[number] |= clocks.environment(self._clock(number))
        self.disks: dict[int, Disk] = {}
        self.cluster = structs.replace(
            state,
            peers={str(one): f"{self.network.address(one)}:{_PEER_PORT}" for one in self.numbers},
            listen=[self.network.address(one) for one in self.numbers],
        )
        root = base / "run"
        self.directory = ClusterRunDir(state.name, root)
        self._run_dir = str(root)
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for number in self.numbers:
                if own_disks:
                    place = self.place(number)
                    self.disks[number] = Disk(base / f"disk-{number}", place)
                self.configure(number)
            self.state.write(self.cluster)
        except BaseException:
            self.close()
            raise

    def _clock(self, number: int) -> Path:
        return self.base / f"clock-{number}"

    def set_clock(self, number: int, ahead: int) -> None:
        """Let a node's wall clock be so many seconds ahead of the machine's."""
        clocks.set_ahead(self._clock(number), ahead)

    def place(self, number: int) -> Path:
        """A replica's state directory."""
        return self.state.replica_dir(number)

    def configure(self, number: int) -> None:
        """Write a replica's configuration, where its directory was emptied or is new."""
        self.state.write_node_config(self.cluster, number)

    def start(self) -> None:
        """Start all replicas that do not run, and wait until all serve clients.

        Raises:
            CraneError: with what a node said when it ended, or when it takes too long.
        """
        for number in self.numbers:
            if not self.runs(number):
                self.launch(number)
        self.wait_serving()

    def wait_serving(self, seconds: float = _START_SECONDS) -> float:
        """Wait until every replica is healthy and listens; how long that took, in seconds."""

        def serves() -> bool:
            for number in self.numbers:
                self._must_run(number)
            rows = self.status().replicas
            return len(rows) == self.size and all(
                one.healthy and one.address is not None for one in rows
            )

        return wait_for("the start of every replica", serves, seconds)

    def launch(self, number: int) -> None:
        """Start a replica's node, no more."""
        words = [*self.network.inside(number), sys.executable, "-m", "crane", "node"]
        words += ["--config", str(self.place(number) / "node.toml"), "--parent", str(os.getpid())]
        if number in self._nodes:
            self._nodes[number].wait(_END_SECONDS)
        with self.node_log(number).open("ab") as log:
            self._nodes[number] = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "CRANE_RUN_DIR": self._run_dir, **self.environment[number]},
                # A Ctrl-C is for us; we end it.
                start_new_session=True,
            )

    def node_log(self, number: int) -> Path:
        """Where a node says what happens; not on its disk, which may be full."""
        return self.base / f"node-{number}.log"

    def said(self, begin: int = 0) -> str:
        """The last line of each node's log."""
        del begin
        return " / ".join(last_line(self.node_log(number)) for number in self.numbers)

    def runs(self, number: int) -> bool:
        """Whether a replica's node has not ended."""
        node = self._nodes.get(number)
        return node is not None and node.poll() is None

    def wait_ended(self, number: int, seconds: float = _END_SECONDS) -> str:
        """Wait until a node has ended by itself; its last words, newest last.

        Raises:
            CraneError: when it goes on.
        """
        wait_for(f"the end of replica {number}", lambda: not self.runs(number), seconds)
        lines = self.node_log(number).read_text(errors="replace").splitlines()
        # Another part of it may have had a word about the same fault after the reason.
        return " / ".join(lines[-_LAST_WORDS:])

    def _must_run(self, number: int) -> None:
        if not self.runs(number):
            code = self._nodes[number].poll()
            how = "" if code is None else f" ({describe_exit(code)})"
            raise CraneError(f"replica {number} ended{how}: {last_line(self.node_log(number))}")

    def restart(self, number: int) -> None:
        """Start a replica that has ended; returns when it takes part.

        Raises:
            CraneError: with its last words when it ends again, or when it takes too long.
        """
        self.launch(number)

        def there() -> bool:
            self._must_run(number)
            return self.replica(number).healthy

        wait_for(f"replica {number}'s start", there, _START_SECONDS)

    def end(self) -> None:
        """End all nodes; what they wrote stays until :meth:`close`."""
        for node in self._nodes.values():
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
                node.send_signal(signal.SIGCONT)
        for node in self._nodes.values():
            try:
                node.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        # A killed node's program ends by itself, a moment later.
        with suppress(CraneError):
            wait_for("the programs' end", lambda: not self.network.processes(), _END_SECONDS)

    def close(self) -> None:
        """End everything and take it away."""
        self.end()
        self.network.close()
        for disk in self.disks.values():
            disk.close()
        if self._own_clocks:
            clocks.remove_left_behind()
        shutil.rmtree(self.base, ignore_errors=True)
