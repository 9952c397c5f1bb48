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
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from crane import config as configuration
from crane import environment, hang, launch, manifest, native, ownership, procfs
from crane.admin import AdminServer
from crane.child import Child, describe_exit
from crane.config import NodeConfig
from crane.errors import CraneError, UsageError
from crane.registry import ClusterRunDir, NodeEntry, run_root

if TYPE_CHECKING:
    from crane._core import Engine

Events = Callable[[dict[str, Any]], None]

_LOCK_SECONDS = 5.0
_SANDBOX_SECONDS = 3.0


class Node:
    """A replica from its start to its end."""

    def __init__(self, config: NodeConfig, events: Events) -> None:
        """Prepare; ``events`` is told what happens, in the order it happens."""
        self._config = config
        self._events = events
        self._who = str(config.id)
        self._state = Path(config.state_dir)
        self._run_dir = ClusterRunDir(config.name)
        self._shared = launch.SharedDir(config.cluster_id, config.id)
        self._output = self._state / "server.log"
        self._lock = -1
        self._engine: Engine | None = None
        self._sandbox: Child | None = None
        self._init = 0
        self._server: procfs.ProcessIdentity | None = None
        self._attached = False
        self._address: str | None = None
        self._attach_timer: asyncio.TimerHandle | None = None
        self._stuck: hang.Explanation | None = None
        self._explaining: asyncio.Task[None] | None = None
        self._done: asyncio.Future[int]

    async def run(self) -> int:
        """Serve until a signal, a request, the program's or the engine's end.

        Returns the exit code.

        Raises:
            CraneError: when the replica cannot be started.
        """
        self._done = asyncio.get_running_loop().create_future()
        # First, so that a start that is cut short is cleaned up after, too.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._finish, 0)
        self._check()
        admin = AdminServer(
            self._run_dir.socket(self._who),
            {
                ("GET", "/v1/status"): self._status,
                ("GET", "/v1/threads"): self._threads,
                ("POST", "/v1/signal"): self._signal,
                ("POST", "/v1/stop"): self._stop,
            },
        )
        self._take_state_dir()
        try:
            self._run_dir.create()
            self._register()
            await admin.start()
            self._start_engine()
            self._start_program()
            return await self._done
        finally:
            await self._end()
            await admin.stop()
            self._run_dir.remove(self._who)
            os.close(self._lock)

    # Starting

    def _check(self) -> None:
        config = self._config
        for place in (config.state_dir, *config.hide):
            for what, path in (("cwd", config.cwd), ("program", config.program)):
                if Path(path).is_relative_to(place):
                    raise UsageError(
                        f"`{what}` ({path}) lies in {place}, which the program cannot see; move it"
                    )
        unknown = [name for name in config.limits if name not in environment.known_limits()]
        if unknown:
            raise UsageError(
                f"field `limits.{unknown[0]}`: no such limit; known are"
                f" {', '.join(environment.known_limits())}"
            )
        beyond = environment.unreachable_limit(config.limits)
        if beyond is not None:
            raise CraneError(
                f"the agreed resource limit `{beyond}` is above what this process may set; raise it"
                " (ulimit -H, LimitXXX= of the unit) or lower it in every replica's `limits`"
            )
        running = self._run_dir.nodes().get(config.id)
        if running is not None:
            raise CraneError(
                f"replica {config.id} of `{config.name}` runs already (pid {running.process.pid});"
                " stop it first"
            )

    def _take_state_dir(self) -> None:
        """Hold the state directory, waiting shortly for a killed predecessor's remains."""
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._state.chmod(0o700)
            path = self._state / "lock"
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CraneError(
                f"cannot use the state directory {self._state}: {error.strerror}"
            ) from error
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._lock)
                    raise CraneError(
                        f"another process holds the state directory {self._state}; stop it first"
                    ) from None
                time.sleep(0.02)
            else:
                return

    def _start_engine(self) -> None:
        core = native.core()
        log_dir = self._state / "log"
        log_dir.mkdir(mode=0o700, exist_ok=True)
        agreed = self._compare_files(fresh=not any(log_dir.glob("log-*.seg")))
        self._shared.create(native.interposer_path())
        text = configuration.engine_config(
            self._config, agreed=agreed, log_dir=log_dir, segment=self._shared.segment
        )
        try:
            self._engine = core.Engine(text)
            assert self._engine is not None
            self._shared.open_to_program()
            asyncio.get_running_loop().add_reader(self._engine.event_fd(), self._engine_events)
            self._engine.start()
        except core.EngineError as error:
            raise CraneError(str(error)) from error

    def _compare_files(self, *, fresh: bool) -> str:
        """Make the private copies and look at all initial files; what replicas compare."""
        config = self._config
        ownership.prepare(config, self._state, fresh=fresh)
        found = manifest.collect(config, self._state)
        changed = manifest.check_history(
            found, self._state, fresh=fresh, accept=config.accept_changes
        )
        if changed:
            message = f"accepted, changed since the log was begun: {manifest.shown(changed)}"
            self._events({"kind": "warning", "message": message})
        return manifest.text(found)

    def _start_program(self) -> None:
        config = self._config
        self._sandbox = launch.start(
            config,
            self._shared,
            layers=self._state / "files",
            output=self._output,
            hidden=sorted({config.state_dir, str(run_root()), *config.hide}),
            lock=self._lock,
            errors=sys.stderr.buffer,
            on_report=self._sandbox_report,
            on_exit=self._sandbox_exit,
        )
        self._register()
        self._attach_timer = asyncio.get_running_loop().call_later(
            config.attach_timeout, self._attach_late
        )

    def _register(self) -> None:
        sandbox = self._sandbox
        self._run_dir.write(
            self._who,
            NodeEntry(
                process=procfs.ProcessIdentity.own(),
                id=self._config.id,
                peers=sorted(int(number) for number in self._config.peers),
                argv=self._config.argv,
                log=str(self._output),
                sandbox=procfs.ProcessIdentity.of(sandbox.pid) if sandbox else None,
                server=self._server,
                address=self._address,
            ),
        )

    # What happens

    def _engine_events(self) -> None:
        assert self._engine is not None
        while (text := self._engine.next_event()) is not None:
            event = msgspec.json.decode(text, type=dict[str, Any])
            match event.get("kind"):
                case "attached":
                    self._attached = True
                    self._cancel_timer()
                case "listening" if self._address is None:
                    self._address = str(event.get("address"))
                    self._register()
                case "stuck":
                    self._explaining = asyncio.create_task(self._explain(event))
                    continue
                case "moving":
                    self._stuck = None
                case "differs":
                    self._replica_differs(event)
                    continue
                case "fatal":
                    self._fail(str(event.get("message", "the engine failed")))
                    continue
            self._events(event)

    def _replica_differs(self, event: dict[str, Any]) -> None:
        """Another replica has other files or settings."""
        other, names = event["replica"], ", ".join(event["names"])
        if event["outvoted"]:
            self._fail(
                f"not the same here as on replica {other}: {names}; make them equal and start it"
                " again"
            )
            return
        if event["refused"]:
            message = f"replica {other} is refused, it has not the same: {names}"
        else:
            message = (
                f"the current directory is not the same as on replica {other}: {names}; what the"
                " program reads there must be"
            )
        self._events({"kind": "warning", "message": message})

    def _sandbox_report(self, report: dict[str, Any]) -> None:
        match report.get("event"):
            case "init":
                self._init = report["pid"]
                if self._engine is not None:
                    self._engine.program_started(self._init)
            case "server":
                self._server = launch.program_process(self._init)
                self._register()
                self._events({"kind": "started", "server_pid": self._server and self._server.pid})
            case "warning":
                self._events({"kind": "warning", "message": report["message"]})
            case "first_exit":
                self._events({"kind": "background"})
            case "failed":
                self._fail(report["message"])
            case "ended":
                self._program_ended(report["code"])

    def _program_ended(self, code: int) -> None:
        how = describe_exit(code)
        if self._engine is not None:
            with suppress(Exception):
                self._engine.server_exited(how)
        self._events(
            {
                "kind": "server_exited",
                "status": how,
                "code": code,
                "attached": self._attached,
                "output": last_line(self._output),
            }
        )
        self._finish(1)

    async def _explain(self, holder: dict[str, Any]) -> None:
        """The engine noticed that the program makes no progress although it has work."""
        found = await asyncio.to_thread(hang.explain, self._init, holder, self._thread_rows())
        if found.gone:
            self._fail(f"the program cannot go on: {found.reason}")
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

    def _thread_rows(self) -> list[dict[str, Any]]:
        if self._engine is None:
            return []
        return msgspec.json.decode(self._engine.threads(), type=list[dict[str, Any]])

    def _sandbox_exit(self, code: int) -> None:
        self._fail(f"the replica's sandbox ended unexpectedly ({describe_exit(code)})")

    def _attach_late(self) -> None:
        program = Path(self._config.program).name
        self._fail(
            f"the interposer did not report in from `{program}` within"
            f" {self._config.attach_timeout:g} s, so nothing would be replicated; does the program"
            f" clear LD_PRELOAD? its output is in {self._output}"
        )

    def _fail(self, message: str) -> None:
        """End because of an error; only the first is told."""
        if not self._done.done():
            self._events({"kind": "failed", "message": message})
            self._finish(1)

    def _finish(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    def _cancel_timer(self) -> None:
        if self._attach_timer is not None:
            self._attach_timer.cancel()
            self._attach_timer = None

    async def _end(self) -> None:
        """Leave nothing behind; the program goes first, then what it talked to."""
        self._cancel_timer()
        if not self._done.done():
            self._done.set_result(1)
        if self._sandbox is not None:
            await self._sandbox.end(_SANDBOX_SECONDS)
        if self._engine is not None:
            asyncio.get_running_loop().remove_reader(self._engine.event_fd())
            self._engine.stop()
            self._engine = None
        self._shared.remove()

    # Admin requests

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        engine: dict[str, Any] = {}
        if self._engine is not None:
            engine = msgspec.json.decode(self._engine.status())
        return {
            "name": self._config.name,
            "id": self._config.id,
            "node_pid": os.getpid(),
            "server_pid": self._server and self._server.pid,
            "attached": self._attached,
            "stuck": self._stuck,
            "engine": engine,
        }

    async def _threads(self, _: dict[str, Any]) -> dict[str, Any]:
        rows = self._thread_rows()
        found = await asyncio.to_thread(hang.threads, self._init, rows)
        return {"id": self._config.id, "threads": found}

    async def _signal(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = arguments.get("number")
        if self._engine is None or not self._attached:
            raise CraneError("the program has not started")
        if not isinstance(number, int):
            raise CraneError("`number` is missing")
        try:
            self._engine.signal(number)
        except (native.core().EngineError, OverflowError) as error:
            raise CraneError(str(error)) from error
        return {"number": number}

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
    return asyncio.run(Node(config, events).run())
