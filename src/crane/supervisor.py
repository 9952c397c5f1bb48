"""``crane run``: the nodes of one machine, from their start to their end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

from msgspec import structs

from crane import config, launch, native, procfs, progress
from crane.admin import AdminServer
from crane.child import Child
from crane.cluster import (
    ClusterState,
    StateDir,
    Wanted,
    choose_peers,
    is_free,
    joined,
    left,
    reconcile,
    reserve,
)
from crane.errors import CraneError
from crane.registry import RUN, ClusterRunDir, RunEntry

Sayer = Callable[[str, bool], None]

_NODE_SECONDS = 6.0
_LATE_SECONDS = 10.0
_RESTART_SECONDS = 60.0
_RELEASE_SECONDS = 5.0
_RELEASE_POLL_SECONDS = 0.01


def prepare(state_dir: StateDir, wanted: Wanted) -> ClusterState:
    """Find or make the cluster's state and write the nodes' configurations.

    Raises:
        CraneError: when the state is another cluster's or an address is taken.
    """
    known = state_dir.read()
    state = reconcile(known, wanted, str(state_dir.path))
    if known is None:
        state = structs.replace(state, peers=choose_peers(len(state.listen), is_free))
    for number, address in state.peers.items():
        host, port = config.split_address(address)
        if not is_free(host, port):
            raise CraneError(
                f"replica {number} needs {address} to reach the others and another process has it;"
                f" end that one, or change `peers` in {state_dir.path / 'cluster.json'}"
            )
    state_dir.write(state)
    for replica in state.replicas:
        state_dir.write_node_config(state, replica)
    return state


class Supervisor:
    """A run: starts the nodes, tells the user what happens, ends what it started."""

    def __init__(self, state: ClusterState, state_dir: StateDir, say: Sayer) -> None:
        """``say`` is given a line and whether it is a warning."""
        self._state = state
        self._dir = state_dir
        self._say = say
        self._run_dir = ClusterRunDir(state.name)
        self._files = ExitStack()
        self._nodes: dict[int, Child] = {}
        self._back: dict[int, asyncio.Future[None]] = {}
        self._late: asyncio.TimerHandle | None = None
        self._stopping = False
        self._progress = progress.Progress(
            Path(state.program).name,
            state.replicas,
            {
                number: str(state_dir.replica_dir(number) / "server.log")
                for number in state.replicas
            },
        )
        self._done: asyncio.Future[progress.End | None]

    async def run(self) -> None:
        """Serve until the user or the program ends it.

        Raises:
            CraneError: when the program ended or could not be started.
        """
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        self._run_dir.create()
        self._register()
        admin = AdminServer(
            self._run_dir.socket(RUN),
            {
                ("POST", "/v1/restart"): self._restart,
                ("POST", "/v1/stop"): self._stop,
                ("POST", "/v1/member/reserve"): self._reserve,
                ("POST", "/v1/member/start"): self._start_added,
                ("POST", "/v1/member/joined"): self._joined,
                ("POST", "/v1/member/left"): self._left,
            },
        )
        await admin.start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt)
        try:
            for replica in self._state.replicas:
                self._start(replica)
            self._late = loop.call_later(_LATE_SECONDS, self._report_late)
            end = await self._done
        finally:
            if self._late is not None:
                self._late.cancel()
            await self._end_nodes()
            await admin.stop()
            self._run_dir.remove(RUN)
            self._files.close()
        if end is not None:
            raise CraneError(end.message, exit_code=end.exit_code)

    def _register(self) -> None:
        self._run_dir.write(
            RUN,
            RunEntry(
                process=procfs.ProcessIdentity.own(),
                state_dir=str(self._dir.path),
                argv=self._state.argv,
                replicas=self._state.replicas,
            ),
        )

    def _start(self, number: int) -> None:
        directory = self._dir.replica_dir(number)
        command = [
            sys.executable,
            "-m",
            "crane",
            "node",
            "--config",
            str(directory / "node.toml"),
            "--parent",
            str(os.getpid()),
        ]
        with (directory / "node.log").open("ab") as log:
            self._nodes[number] = self._spawn(number, command, log)
        self._progress.started(number)

    def _spawn(self, number: int, command: list[str], log: IO[bytes]) -> Child:
        return Child(
            lambda report: [*command, "--report", str(report)],
            on_report=lambda event: self._act(self._progress.event(number, event)),
            on_exit=partial(self._node_ended, number),
            output=log,
            # Ctrl-C reaches the whole foreground group; the nodes wait for us.
            new_session=True,
        )

    def _node_ended(self, number: int, code: int) -> None:
        # A killed node could not; its sandbox does too, and it is gone by then or soon.
        launch.SharedDir(self._state.cluster_id, number).remove()
        if not self._stopping:
            self._act(self._progress.exited(number, code))
        waiting = self._back.pop(number, None)
        if waiting is not None and not waiting.done():
            replica = self._progress.replicas.get(number)
            reason = (
                replica and replica.failure
            ) or f"see {self._dir.replica_dir(number) / 'node.log'}"
            waiting.set_exception(CraneError(f"replica {number} did not start: {reason}"))

    def _act(self, actions: Iterable[progress.Action]) -> None:
        for action in actions:
            match action:
                case progress.Say(text, warning):
                    # Elections among replicas that are being ended are no news.
                    if warning or not self._done.done():
                        self._say(text, warning)
                case progress.Removed(number):
                    self._forget(number)
                case progress.Ready():
                    self._announce()
                case progress.Back(number):
                    waiting = self._back.pop(number, None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
                        self._say(f"replica {number} is back", False)
                case progress.End():
                    if not self._done.done():
                        self._done.set_result(action)

    def _announce(self) -> None:
        if self._late is not None:
            self._late.cancel()
        count = len(self._state.replicas)
        self._say(f"`{shlex.join(self._state.argv)}` runs on {count} replicas:", False)
        for line in self._progress.summary():
            self._say(f"  {line}", False)
        self._say(
            f"clients may use any of them; `crane status --name {self._state.name}` looks closer,"
            " Ctrl-C stops it",
            False,
        )

    def _report_late(self) -> None:
        line = self._progress.late(_LATE_SECONDS)
        self._say(line.text, line.warning)

    # Ending

    def _interrupt(self) -> None:
        if self._done.done():
            for node in self._nodes.values():
                node.signal(signal.SIGKILL)
        else:
            self._say("stopping", False)
            self._done.set_result(None)

    async def _end_nodes(self) -> None:
        self._stopping = True
        await asyncio.gather(*(node.end(_NODE_SECONDS) for node in self._nodes.values()))
        for number in {*self._state.replicas, *self._nodes}:
            await self._wait_released(number)
            launch.SharedDir(self._state.cluster_id, number).remove()
            self._run_dir.remove(str(number))

    async def _wait_released(self, number: int) -> None:
        """Wait until the last process of a replica has ended.

        That is its node, unless the node was killed: its sandbox then ends by
        itself, a moment later, and holds the replica's lock until it has.
        """
        try:
            lock = os.open(self._dir.replica_dir(number) / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                while not _free(lock):
                    await asyncio.sleep(_RELEASE_POLL_SECONDS)
        except TimeoutError:
            self._say(f"processes of replica {number} have not ended", True)
        finally:
            os.close(lock)

    # Admin requests

    async def _stop(self, _: dict[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.05, self._interrupt)
        return {"stopping": True}

    # Members; `crane member` decides when, with the leader

    def _change(self, state: ClusterState) -> None:
        """Write down what the cluster is from now on."""
        self._dir.write(state)
        self._state = state
        self._register()

    async def _reserve(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A number and addresses for a new replica; the same again until it has joined."""
        if not self._progress.ready:
            raise CraneError("the cluster is still starting; try again when it serves")
        self._change(reserve(self._state, arguments.get("listen"), is_free))
        adding = self._state.adding
        assert adding is not None
        self._dir.write_node_config(self._state, adding.id)
        return {"id": adding.id, "address": adding.address, "listen": adding.listen}

    async def _start_added(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = self._number(arguments)
        running = self._nodes.get(number)
        if running is None or not running.running:
            self._start(number)
        return {"replica": number}

    async def _joined(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = self._number(arguments)
        self._change(joined(self._state, number))
        self._dir.write_node_config(self._state, number)
        return {"replica": number}

    async def _left(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A replica was removed: end it, and throw its state away if asked to."""
        number = int(arguments["replica"])
        adding = self._state.adding
        if number not in {*self._state.replicas, *self._state.used, adding and adding.id}:
            return {"replica": number, "directory": None}  # it is on another machine
        self._forget(number)
        node = self._nodes.get(number)
        if node is not None and node.running:
            await node.end(_NODE_SECONDS)
        self._nodes.pop(number, None)
        await self._wait_released(number)
        launch.SharedDir(self._state.cluster_id, number).remove()
        self._run_dir.remove(str(number))
        directory = self._dir.replica_dir(number)
        if arguments.get("purge"):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        return {"replica": number, "directory": str(directory)}

    def _forget(self, number: int) -> None:
        """A replica is none any more."""
        if number in self._progress.replicas:
            self._say(f"replica {number} has left the cluster", False)
        self._progress.left(number)
        if number not in self._state.used:
            self._change(left(self._state, number))

    def _number(self, arguments: dict[str, Any]) -> int:
        number = arguments.get("replica")
        adding = self._state.adding
        known = [*self._state.replicas, *([adding.id] if adding else [])]
        if isinstance(number, int) and number in known:
            return number
        names = ", ".join(str(one) for one in known)
        raise CraneError(f"there is no replica {number}; there are {names}", exit_code=2)

    async def _restart(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = arguments.get("replica")
        if number not in self._progress.replicas:
            known = ", ".join(str(one) for one in self._state.replicas)
            raise CraneError(f"there is no replica {number}; there are {known}", exit_code=2)
        if not self._progress.ready:
            raise CraneError("the cluster is still starting; try again when it serves")
        if number in self._back:
            raise CraneError(f"replica {number} is being started already")
        waiting = asyncio.get_running_loop().create_future()
        self._back[number] = waiting
        node = self._nodes[number]
        if node.running:
            # Its own end must not answer the request, so that comes afterwards.
            del self._back[number]
            self._progress.stopping(number)
            await node.end(_NODE_SECONDS)
            self._back[number] = waiting
        if self._done.done():
            raise CraneError("the cluster is being stopped")
        self._start(number)
        try:
            async with asyncio.timeout(_RESTART_SECONDS):
                await waiting
        except TimeoutError:
            self._back.pop(number, None)
            raise CraneError(
                f"replica {number} has not reported in after {_RESTART_SECONDS:g} s; see"
                f" {self._dir.replica_dir(number) / 'node.log'}"
            ) from None
        return {"replica": number}


def _free(lock: int) -> bool:
    """Whether nobody holds the lock of this descriptor; it is ours then."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run(state_dir: StateDir, wanted: Wanted, say: Sayer) -> None:
    """Run a cluster in the foreground.

    Raises:
        CraneError: for whatever prevents or ends it, but for the user's own wish.
    """
    native.core()
    native.interposer_path()
    os.umask(0o077)
    if ClusterRunDir(wanted.name).in_use():
        raise CraneError(
            f"a cluster `{wanted.name}` runs already; `crane stop --name {wanted.name}` ends it,"
            " or give this one another --name"
        )
    state_dir.acquire()
    try:
        state = prepare(state_dir, wanted)
        if state.cwd != wanted.cwd:
            say(f"the program is started in {state.cwd}, as when this cluster was made", False)
        asyncio.run(Supervisor(state, state_dir, say).run())
    finally:
        state_dir.release()
