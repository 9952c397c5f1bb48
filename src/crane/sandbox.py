"""The processes around a replicated program: ``python -m crane.sandbox``.

::

    node ── keeper ── init (pid 1 of the replica) ── program (pid 1000)

The **keeper** makes the namespaces and waits. It is never paused, and when the
node dies, however it dies, it ends the replica and removes the shared segment.
The **init** enters the file system, starts the program and reaps whatever the
program leaves behind; nothing else is ever forked there, so that pids inside
are the same on every replica. When init ends, the kernel ends every process of
the replica with it.

The specification comes on standard input as JSON (:class:`Spec`), what happens
goes to the report descriptor as JSON lines (``event`` is one of ``init``,
``server``, ``warning``, ``first_exit``, ``ended``, ``failed``). As root the
namespaces are made directly; otherwise in a user namespace in which the user
keeps the own uid and only this module's processes hold capabilities, which the
program loses when it is started.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from crane import errors, linux, mounts, privileges

if TYPE_CHECKING:
    from crane.checkpoint import restoration

FIRST_PID = 1000
"""The program's pid inside; below it a checkpoint tool finds room for its own."""

_NAMESPACES = linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET


@dataclass(frozen=True, slots=True)
class Restore:
    """What is needed to restore the program's processes."""

    checkpoint: str
    """The directory of the checkpoint."""
    work: str
    """A directory for CRIU's log."""
    root: int
    """The process that all others descend from."""
    last_pid: int
    """The pid that was given last."""
    before: int
    """A pid after which CRIU's own processes have room."""
    criu: str
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything the sandbox has to know."""

    parent: int
    """The node's pid."""
    report: int
    """The descriptor for reports."""
    hostname: str
    layers: str
    control: str
    output: str
    program: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    hidden: list[str] = field(default_factory=list)
    limits: list[list[int]] = field(default_factory=list)
    """``[resource, soft, hard]`` each."""
    uid: int | None = None
    gid: int | None = None
    shared: list[tuple[str, bool]] = field(default_factory=list)
    """Paths of the machine itself, and whether the program may write there."""
    temporary: list[tuple[str, list[str]]] = field(default_factory=list)
    """Temporary directories of the replica's own, and the names kept in each."""
    private: list[tuple[str, str]] = field(default_factory=list)
    """Directories of the replica's own, and their copies relative to ``layers``."""
    remove: list[str] = field(default_factory=list)
    """Directories the keeper removes when the node died."""
    restore: Restore | None = None
    """Restore the program from a checkpoint; ``None``: start it."""

    def to_json(self) -> bytes:
        """The form in which it is handed over."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Spec:
        """Read what :meth:`to_json` wrote."""
        fields = json.loads(text)
        if fields["restore"] is not None:
            fields["restore"] = Restore(**fields["restore"])
        return cls(**fields)


def ended_badly(status: int) -> bool:
    """Whether a wait status is other than exit code 0.

    A first process that ends well may have put itself into the background, so
    the replica lives on while any of its processes does. One that ends badly
    takes the rest with it.
    """
    return os.waitstatus_to_exitcode(status) != 0


def main() -> NoReturn:
    """The keeper."""
    spec = Spec.from_json(sys.stdin.buffer.read())
    _keep_descriptors_from_the_program()
    waited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    linux.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != spec.parent:
        _remove(spec)
        sys.exit(1)
    try:
        privileged = _make_namespaces()
    except OSError as error:
        _report(spec, event="failed", message=_explain_namespaces(error))
        sys.exit(1)
    alive_read, alive_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        _run_init(spec, alive_read, privileged=privileged)
    os.close(alive_read)
    _report(spec, event="init", pid=init)
    asked = False
    while True:
        received = signal.sigwait(waited)
        if received != signal.SIGCHLD:
            asked = True
            os.kill(init, signal.SIGKILL)
        elif os.waitpid(init, os.WNOHANG)[0] == init:
            break
    # The signal alone decides: a killed node is still our parent while the last
    # of its threads ends, and one that lives needs nothing of it any more.
    if asked or os.getppid() != spec.parent:
        _remove(spec)
    sys.exit(0)


def _keep_descriptors_from_the_program() -> None:
    """Close at exec what was handed to us: the report pipe, the state directory's lock."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this listing is gone by then
            if int(entry.name) > 2:
                os.set_inheritable(int(entry.name), False)


def _make_namespaces() -> bool:
    """Leave the machine's namespaces, all but the mount namespace; whether as root."""
    if os.geteuid() == 0:
        linux.unshare(_NAMESPACES)
        return True
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    linux.unshare(_NAMESPACES)
    return False


def _explain_namespaces(error: OSError) -> str:
    return (
        f"cannot make the replica's namespaces ({error.strerror}); run as root, or allow user"
        " namespaces (`sysctl user.max_user_namespaces`, `kernel.unprivileged_userns_clone=1`,"
        " `kernel.apparmor_restrict_unprivileged_userns=0`)"
    )


def _remove(spec: Spec) -> None:
    for path in spec.remove:
        shutil.rmtree(path, ignore_errors=True)


def _report(spec: Spec, **event: Any) -> None:
    """Tell the node; a node that is gone needs no report."""
    with suppress(OSError):
        os.write(spec.report, json.dumps(event).encode() + b"\n")


def _run_init(spec: Spec, alive: int, *, privileged: bool) -> NoReturn:
    """Pid 1 of the replica: start the program, reap, and end with the last process."""
    status = 1
    try:
        linux.set_parent_death_signal(signal.SIGKILL)
        # A keeper that died before that call left the pipe's other end closed.
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
        # Its directories are not seen from within.
        restoration = None if spec.restore is None else _restoration(spec.restore, spec.limits)
        durable = _prepare(spec, privileged=privileged)
        server = _start(spec) if restoration is None else restoration.run()
        if server is not None:
            _serve(spec, server, durable=durable)
        status = 0
    except errors.CraneError as error:
        _report(spec, event="failed", message=str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _report(spec, event="failed", message=f"cannot set the replica up: {place}{error.strerror}")
    finally:
        os._exit(status)


def _prepare(spec: Spec, *, privileged: bool) -> bool:
    """Enter the replica's file system; whether what is written there is on a disk."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    socket.sethostname(spec.hostname)
    linux.set_interface_up("lo")
    linux.unshare(linux.CLONE_NEWNS)
    os.umask(0o022)
    durable = mounts.enter(
        mounts.Layout(
            layers=spec.layers,
            control=spec.control,
            output=spec.output,
            hidden=tuple(spec.hidden),
            privileged=privileged,
            shared=tuple((path, writable) for path, writable in spec.shared),
            private=tuple((path, copy) for path, copy in spec.private),
            temporary=tuple((path, tuple(names)) for path, names in spec.temporary),
        ),
        lambda text: _report(spec, event="warning", message=text),
    )
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(FIRST_PID - 1))
    return durable


def _restoration(restore: Restore, limits: list[list[int]]) -> restoration.Restoration:
    # What it imports is not needed by a replica that starts its program.
    from crane.checkpoint import restoration

    return restoration.Restoration(restore, limits)


def _start(spec: Spec) -> int | None:
    """Start the program; its pid, or ``None`` when that failed and was reported."""
    failed_read, failed_write = os.pipe()
    server = os.fork()
    if server == 0:
        _exec(spec, failed_write)
    os.close(failed_write)
    with os.fdopen(failed_read, "rb") as failed:
        message = failed.read().decode()
    if message:
        os.waitpid(server, 0)
        _report(spec, event="failed", message=message)
        return None
    return server


def _serve(spec: Spec, server: int, *, durable: bool) -> None:
    """Wait until every process of the replica has ended."""
    _report(spec, event="server", pid=server)
    first = 0
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        # When the first process has put itself into the background and ended well,
        # a restored replica begins with another.
        if pid != server or pid != FIRST_PID:
            continue
        first = status
        if ended_badly(status):
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everything in here but this process
        elif _others_remain():
            _report(spec, event="first_exit")
    lost = mounts.kept_in_memory(durable=durable)
    _report(spec, event="ended", code=os.waitstatus_to_exitcode(first), lost=lost)


def _others_remain() -> bool:
    """Whether the replica has processes besides this one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _exec(spec: Spec, failed: int) -> NoReturn:
    """Become the program."""
    step = "start"
    try:
        os.setsid()
        step = "open its output file"
        output = os.open(
            f"{mounts.CONTROL_DIR}/server.log", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        )
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number, soft, hard in spec.limits:
            step = f"set its resource limit {number}"
            resource.setrlimit(number, (soft, hard))
        if spec.gid is not None:
            step = f"become group {spec.gid}"
            os.setgroups([])
            os.setgid(spec.gid)
        if spec.uid is not None:
            step = f"become user {spec.uid}"
            os.setuid(spec.uid)
        step = f"start in {spec.cwd}"
        os.chdir(spec.cwd)
        step = "fix its addresses"
        linux.personality(linux.ADDR_NO_RANDOMIZE)
        # Of root's. Also for others setuid helpers would drop the interposer; now
        # their bit has no effect.
        step = "give up privileges"
        privileges.limit(privileges.PROGRAM)
        linux.set_no_new_privileges()
        # An ignored signal stays ignored: Python ignores some, nohup and shells others.
        linux.default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        step = f"execute {spec.program}"
        os.execve(spec.program, spec.argv, spec.env)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(failed, f"the program cannot {step}: {reason}".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
