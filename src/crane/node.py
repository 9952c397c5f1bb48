"""One replica: the engine, the program in its sandbox, and the admin socket.

The same code serves ``crane run``, which starts one node for each replica on
one machine, and ``crane node`` on a machine of its own. The node only waits:
for the engine's events, the sandbox's reports, admin requests and signals.

Ending a replica kills its program at once. A request to end would be an input
that the other replicas do not get, and what the program has on disk is thrown
away anyway: the log has it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from crane import (
    certificates,
    hang,
    initial,
    manifest,
    native,
    ownership,
    privileges,
    procfs,
    start,
)
from crane.admin import AdminServer
from crane.checkpoint.manager import Manager, ending
from crane.checkpoint.store import Store
from crane.child import describe_exit
from crane.crash import Crashes, Crashing
from crane.errors import CraneError
from crane.life import Life
from crane.mail import Post
from crane.registry import ClusterRunDir, NodeEntry
from crane.remote import Door
from crane.verdicts import Verdicts
from crane.virtual import Holder

if TYPE_CHECKING:
    from crane.checkpoint.store import Checkpoint
    from crane.config import NodeConfig

Events = Callable[[dict[str, Any]], None]

_ROOM = 16 << 20
"""Bytes of free disk without which a program cannot be restored."""
_RESTORED_AT_MOST = 3
_ANSWER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Finish:
    """The node ends."""

    code: int


@dataclass(frozen=True, slots=True)
class Again:
    """The replica begins another life, from the checkpoint or the beginning of its log."""

    origin: Checkpoint | None
    share: Path | None = None
    """Where the log says that the program begins anew, with its files as they are."""


class Node:
    """A replica from its start to its end."""

    def __init__(self, config: NodeConfig, events: Events) -> None:
        """Prepare; ``events`` is told what happens, in the order it happens."""
        self._config = config
        self._events = events
        self._who = str(config.id)
        self._state = Path(config.state_dir)
        self._run_dir = ClusterRunDir(config.name)
        self._lock = -1
        self._life: Life | None = None
        self._post = Post(config.id, self._warn)
        self._checkpoints = Manager(config, Store(self._state), self._post, self._events)
        self._giver = initial.Giver(config, self._state, self._post)
        self._taker = initial.Taker(config, self._state, self._post, self._events)
        self._restoring: asyncio.Task[None] | None = None
        self._attached = False
        self._address: str | None = None
        self._attach_timer: asyncio.TimerHandle | None = None
        self._virtual = Holder(config.virtual_address, config.virtual_interface, events)
        self._stuck: hang.Explanation | None = None
        self._explaining: asyncio.Task[None] | None = None
        self._not_restored = 0
        self._fresh = False
        self._verdicts = Verdicts(config.id, self._state, self._checkpoints, self, events)
        self._crashing = Crashing(config, Crashes(), self)
        self._next: asyncio.Future[Finish | Again]
        self._finished: Finish | None = None
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._questions = itertools.count()

    async def run(self) -> int:
        """Serve until a signal, a request, the program's or the engine's end.

        Returns the exit code.

        Raises:
            CraneError: when the replica cannot be started.
        """
        self._next = asyncio.get_running_loop().create_future()
        # First, so that a start that is cut short is cleaned up after, too.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._finish, 0)
        start.check(self._config, self._run_dir)
        admin = AdminServer(
            self._run_dir.socket(self._who),
            {
                ("GET", "/v1/status"): self._status,
                ("GET", "/v1/threads"): self._threads,
                ("POST", "/v1/signal"): self._signal,
                ("POST", "/v1/checkpoint"): self._take_checkpoint,
                ("POST", "/v1/ask"): self._ask,
                ("GET", "/v1/config"): self._tell_config,
                ("POST", "/v1/stop"): self._stop,
            },
            door=Door.of(self._config),
            warn=self._warn,
        )
        self._lock = await start.hold(self._state)
        watch: asyncio.Task[None] | None = None
        expiry: asyncio.Task[None] | None = None
        try:
            self._run_dir.create()
            self._register()
            await admin.start()
            self._virtual.prepare()
            log_dir = self._state / "log"
            self._fresh = not any(log_dir.glob("log-*.seg"))
            if self._config.copy_private and ownership.missing(self._config, self._state):
                await self._get_initial_files()
                if self._finished is not None:
                    return self._finished.code
            agreed = self._compare_files(fresh=self._fresh)
            self._checkpoints.agreed = agreed
            watch = asyncio.create_task(self._checkpoints.watch())
            if self._config.tls:
                file = certificates.Files.of(self._state).certificate
                expiry = asyncio.create_task(certificates.watch(file, self._warn))
            return await self._live(agreed)
        finally:
            await ending(watch)
            await ending(expiry)
            await self._giver.close()
            self._virtual.close()
            await admin.stop()
            self._run_dir.remove(self._who)
            os.close(self._lock)

    async def _get_initial_files(self) -> None:
        """Have the private directories that the others began with, in a life without a program.

        The others take this replica for one that has still to be compared with them.
        """
        found = manifest.collect(self._config, self._state, initial=False)
        self._life = Life(
            self._config,
            agreed=manifest.text(found),
            lock=self._lock,
            origin=None,
            on_engine=self._engine_event_before,
            on_report=self._sandbox_report,
            on_exit=self._sandbox_exit,
        )
        taking: asyncio.Task[None] | None = None
        try:
            self._life.start(program=False)
            self._post.begin(self._life)
            taking = asyncio.create_task(self._taker.complete())
            either: list[asyncio.Future[Any]] = [taking, self._next]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
        finally:
            await ending(taking)
            await self._end_life()

    def _engine_event_before(self, event: dict[str, Any]) -> None:
        """What the engine says in a life without a program."""
        match event.get("kind"):
            case "mail":
                self._post.deliver()
            case "differs":
                self._verdicts.files_differ(event)
            case "fatal":
                self.fail(str(event.get("message", "the engine failed")))
            case "warning" | "role" | "members":
                self._events(event)

    async def _live(self, agreed: str) -> int:
        """One life after another, until one is the last; the exit code."""
        following: Finish | Again = Again(await asyncio.to_thread(self._checkpoints.origin))
        while isinstance(following, Again):
            if self._finished is not None:
                return self._finished.code
            self._next = asyncio.get_running_loop().create_future()
            self._life = Life(
                self._config,
                agreed=agreed,
                lock=self._lock,
                origin=following.origin,
                share=following.share,
                on_engine=self._engine_event,
                on_report=self._sandbox_report,
                on_exit=self._sandbox_exit,
            )
            try:
                self._life.start()
                self._crashing.begin(self._life, fresh=self._fresh)
                self._checkpoints.begin(self._life)
                self._post.begin(self._life)
                self._register()
                self._attach_timer = asyncio.get_running_loop().call_later(
                    self._config.attach_timeout, self._attach_late
                )
                following = await self._next
            finally:
                await self._end_life()
        return following.code

    async def _end_life(self) -> None:
        self._cancel_timer()
        self._virtual.hold(leads=False)
        if not self._next.done():
            self._next.set_result(Finish(1))
        self._checkpoints.end()
        self._post.end()
        restoring, self._restoring = self._restoring, None
        await ending(restoring)
        await self._crashing.end()
        if self._life is not None:
            await self._life.end()
        self._life = None
        self._attached, self._stuck, self._address = False, None, None

    # Starting

    def _compare_files(self, *, fresh: bool) -> str:
        """Look at all initial files; what replicas compare."""
        config = self._config
        # Copies of what this machine has, where they are not to be another replica's.
        ownership.prepare(config, self._state, fresh=fresh)
        found = manifest.collect(config, self._state)
        changed = manifest.check_history(
            found, self._state, fresh=fresh, accept=config.accept_changes
        )
        if changed:
            message = f"accepted, changed since the log was begun: {manifest.shown(changed)}"
            self._events({"kind": "warning", "message": message})
        return manifest.text(found)

    def _register(self) -> None:
        life = self._life
        sandbox = life.sandbox if life is not None else None
        self._run_dir.write(
            self._who,
            NodeEntry(
                process=procfs.ProcessIdentity.own(),
                id=self._config.id,
                peers=sorted(int(number) for number in self._config.peers),
                argv=self._config.argv,
                log=str(self._state / "server.log"),
                sandbox=procfs.ProcessIdentity.of(sandbox.pid) if sandbox else None,
                server=life.server if life is not None else None,
                address=self._address,
            ),
        )

    # What happens

    def _engine_event(self, event: dict[str, Any]) -> None:
        match event.get("kind"):
            case "restored" | "disagreement":
                pass  # the sandbox reports; what is found of it comes a moment later
            case "parked" | "unparked":
                self._checkpoints.event(event)
            case "stuck":
                self._explaining = asyncio.create_task(self._explain(event))
            case "differs":
                self._verdicts.files_differ(event)
            case "diverged" | "other_diverged" | "undecided":
                self._verdicts.results_differ(event, lambda: self._status({}))
            case "mail":
                self._post.deliver()
            case "needs_checkpoint":
                if self._restoring is None:
                    self._restoring = asyncio.create_task(self._rejoin(event["index"]))
            case "restart":
                self._crashing.log_says(event["share"])
            case "fatal":
                self.fail(str(event.get("message", "the engine failed")))
            case kind:
                self._note(str(kind), event)
                self._events(event)

    def _note(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "attached":
                self._attached = True
                self._cancel_timer()
            case "server_exit" if "wait_status" in event:
                self._crashing.ended_in_order()
            case "listening" if self._address is None:
                self._fresh = False
                self._crashing.served()
                self._address = str(event.get("address"))
                self._register()
            case "role":
                # Taken only when the engine is ready for the clients that come with it.
                if event.get("role") != "leader":
                    self._virtual.hold(leads=False)
            case "address":
                self._virtual.hold(leads=True)
                if self._life is not None and self._life.engine is not None:
                    self._life.engine.address_held()
            case "moving":
                self._stuck = None
            case "goes_on" if self._life is not None:
                # Whoever had the turn first put the table right that all its processes share.
                self._life.shared.forget_files()
            case "answer":
                asked = self._asked.pop(event["number"], None)
                if asked is not None and not asked.done():
                    asked.set_result(event["answer"])

    async def _rejoin(self, index: int) -> None:
        """The log was cut behind what this replica has: begin from another's checkpoint."""
        message = (
            f"the log that this replica misses was cut; it needs a checkpoint of entry {index}"
        )
        if self._checkpoints.impossible is not None:
            self.fail(f"{message} or later, and {self._checkpoints.impossible}")
            return
        self._events({"kind": "message", "message": message})
        self.again(await self._checkpoints.fetch_at_least(index))

    def again(self, origin: Checkpoint | None, share: Path | None = None) -> None:
        """Begin another life."""
        if not self._next.done():
            self._next.set_result(Again(origin, share))

    def begin_with(self, share: Path) -> None:
        """Begin another life where the log says so, with the files as they are."""
        self.again(None, share)

    async def heal(self, epoch: int) -> None:
        """Begin anew from before ``epoch``: what happened then was wrong."""
        await self._verdicts.heal(epoch)

    def tell(self, event: dict[str, Any]) -> None:
        """Tell what happens."""
        self._events(event)

    def _sandbox_report(self, report: dict[str, Any]) -> None:
        match report.get("event"):
            case "server":
                self._register()
                self._program_runs()
            case "warning":
                self._events({"kind": "warning", "message": report["message"]})
            case "first_exit":
                self._events({"kind": "background"})
            case "failed":
                self._not_started(report["message"])
            case "ended":
                self._crashing.program_ended(report["code"], report["lost"])

    def _program_runs(self) -> None:
        life = self._life
        if life is None:
            return
        self._events({"kind": "started", "server_pid": life.server and life.server.pid})
        if life.origin is not None:
            self._attached = True
            self._cancel_timer()
            self._not_restored = 0
            self._events({"kind": "restored", "index": life.origin.index})

    def _not_started(self, message: str) -> None:
        """The program was not started or restored; an earlier checkpoint may do."""
        origin = self._life.origin if self._life is not None else None
        if origin is None:
            self.fail(message)
            return
        free = os.statvfs(self._state)
        if free.f_bavail * free.f_frsize < _ROOM:
            # Not the checkpoint's fault, and it is needed when there is room again.
            self.fail(f"{message}; the disk of {self._state} is full: free some space")
            return
        self._checkpoints.reject(origin, message)
        self._not_restored += 1
        if self._not_restored > _RESTORED_AT_MOST:
            self.fail(f"no checkpoint can be restored here: {message}")
            return
        self.again(self._checkpoints.origin())

    def end_with_program(self, code: int) -> None:
        """End, because the program has."""
        how = describe_exit(code)
        position = self._life.status().get("epoch") if self._life is not None else None
        if self._life is not None and self._life.engine is not None:
            with suppress(Exception):
                self._life.engine.server_exited(how)
        self._events(
            {
                "kind": "server_exited",
                "status": how,
                "code": code,
                "attached": self._attached,
                "epoch": position if self._config.on_crash == "stop" else None,
                "output": last_line(self._state / "server.log"),
            }
        )
        self._finish(1)

    async def _explain(self, holder: dict[str, Any]) -> None:
        """The engine noticed that the program makes no progress although it has work."""
        life = self._life
        if life is None:
            return
        found = await asyncio.to_thread(hang.explain, life.init, holder, life.threads())
        if found.gone:
            self.fail(f"the program cannot go on: {found.reason}")
            return
        if self._stuck is not None:
            return  # told already
        self._stuck = found
        seconds = holder.get("seconds", 0)
        self._events(
            {
                **msgspec.to_builtins(found),
                "kind": "stuck",
                "message": f"no progress for {seconds:.0f} s: {found.reason}",
            }
        )

    def _sandbox_exit(self, code: int) -> None:
        if self._crashing.is_under_way:
            return  # with its program
        self.fail(f"the replica's sandbox ended unexpectedly ({describe_exit(code)})")

    def _attach_late(self) -> None:
        program = Path(self._config.program).name
        self.fail(
            f"the interposer did not report in from `{program}` within"
            f" {self._config.attach_timeout:g} s, so nothing would be replicated; does the program"
            f" clear LD_PRELOAD? its output is in {self._state / 'server.log'}"
        )

    def _warn(self, message: str) -> None:
        self._events({"kind": "warning", "message": message})

    def fail(self, message: str) -> None:
        """End because of an error; only the first is told."""
        if self._finished is None:
            self._events({"kind": "failed", "message": message})
            self._finish(1)

    def _finish(self, code: int) -> None:
        if self._finished is None:
            self._finished = Finish(code)
        if not self._next.done():
            self._next.set_result(self._finished)

    def _cancel_timer(self) -> None:
        if self._attach_timer is not None:
            self._attach_timer.cancel()
            self._attach_timer = None

    # Admin requests

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        life = self._life
        return {
            "name": self._config.name,
            "id": self._config.id,
            "node_pid": os.getpid(),
            "server_pid": life and life.server and life.server.pid,
            "attached": self._attached,
            "stuck": self._stuck,
            "engine": life.status() if life is not None else {},
            "checkpoints": self._checkpoints.status(),
            "initial": self._taker.status(),
        }

    async def _threads(self, _: dict[str, Any]) -> dict[str, Any]:
        life = self._life
        if life is None:
            return {"id": self._config.id, "threads": []}
        found = await asyncio.to_thread(hang.threads, life.init, life.threads())
        return {"id": self._config.id, "threads": found}

    async def _signal(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = arguments.get("number")
        engine = self._life.engine if self._life is not None else None
        if engine is None or not self._attached:
            raise CraneError("the program has not started")
        if not isinstance(number, int):
            raise CraneError("`number` is missing")
        try:
            engine.signal(number)
        except (native.core().EngineError, OverflowError) as error:
            raise CraneError(str(error)) from error
        return {"number": number}

    async def _take_checkpoint(self, _: dict[str, Any]) -> dict[str, Any]:
        return (await self._checkpoints.take()).summary()

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Pass a question to the leader, wherever it is; its answer."""
        engine = self._life.engine if self._life is not None else None
        if engine is None:
            raise CraneError("this replica is still starting; try again")
        number = next(self._questions)
        answer = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        engine.ask(number, msgspec.json.encode(question).decode())
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return msgspec.json.decode(await answer, type=dict[str, Any])
        except TimeoutError:
            return {"error": "the leader does not answer; does a majority run?", "again": True}
        finally:
            self._asked.pop(number, None)

    async def _tell_config(self, _: dict[str, Any]) -> dict[str, Any]:
        config: dict[str, Any] = msgspec.to_builtins(self._config)
        return config

    async def _stop(self, _: dict[str, Any]) -> dict[str, Any]:
        # After the answer has left.
        asyncio.get_running_loop().call_later(0.05, self._finish, 0)
        return {"stopping": True}


def last_line(path: Path, size: int = 4096) -> str:
    """The last line that is not empty in a file's last ``size`` bytes."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main(config: NodeConfig, events: Events, parent: int | None) -> int:
    """Run a node; with ``parent``, die at once when that process does.

    Raises:
        CraneError: when the replica cannot be started.
    """
    if parent is not None:
        from crane import linux

        # Killed, not asked: a paused node would not hear a request. The log is
        # made for that, and the sandbox cleans up behind us.
        linux.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            return 1
    os.umask(0o077)
    privileges.limit(privileges.NODE)
    return asyncio.run(Node(config, events).run())
