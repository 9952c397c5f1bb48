"""The node's side of the sandbox: preparing what it needs, starting and ending it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from crane import environment, mounts, native, ownership, procfs, temporary
from crane.checkpoint import criu, files, identities, processes
from crane.child import Child
from crane.config import NodeConfig
from crane.errors import CraneError
from crane.sandbox import FIRST_PID, Restore, Spec

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - `SharedDir.create` refuses somebody else's


class SharedDir:
    """The directory on a tmpfs that a node and its program share.

    The outer directory keeps other users of the machine out; what is in
    ``inside`` may be opened by every user *within* the replica, because a
    server that changed to its own user starts further programs, and the loader
    must find the interposer and the segment for them too.
    """

    def __init__(self, cluster_id: str, replica: int) -> None:
        self.path = _SHARED_MEMORY / f"crane-{cluster_id[:12]}-{replica}"
        self.inside = self.path / "inside"
        self.segment = self.inside / "seg"
        self.trace = self.inside / "trace"
        self.files = self.inside / Path(identities.PLACE).name

    def create(self, interposer: Path) -> None:
        """Make it anew, with a copy of the interposer.

        A copy, so that a program that runs is not changed by a new build.
        """
        self.remove()
        self.path.mkdir(mode=0o700)
        self.inside.mkdir()
        self.inside.chmod(0o755)
        library = self.inside / native.interposer_path().name
        shutil.copyfile(interposer, library)
        library.chmod(0o755)

    def open_to_program(self) -> None:
        """Let every user within the replica map the segment."""
        self.segment.chmod(0o666)

    def forget_files(self) -> None:
        """Remove what told the interposer after a restore by which numbers files are known.

        They are this machine's, so the program is not to see them.
        """
        self.files.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it with all that is in it.

        Raises:
            CraneError: when it belongs to somebody else.
        """
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise CraneError(f"{self.path} belongs to another user; remove it")
        shutil.rmtree(self.path, ignore_errors=True)


def _temporary(config: NodeConfig) -> dict[str, list[str]]:
    """The temporary directories that the program gets of its own, and what it sees in them."""
    owned = [*(ownership.share(one)[0] for one in config.share), *config.private]
    words = [config.program, *config.argv, *config.env.values(), *owned]
    return temporary.own(words, config.cwd)


def start(
    config: NodeConfig,
    shared: SharedDir,
    *,
    layers: Path,
    output: Path,
    hidden: list[str],
    lock: int,
    errors: IO[bytes] | None,
    on_report: Callable[[dict[str, Any]], None],
    on_exit: Callable[[int], None],
    checkpoint: Path | None = None,
    keep: bool = False,
) -> Child:
    """Start the program in a replica of its own, or restore it from a checkpoint.

    ``keep`` leaves its files as an earlier start in ``layers`` left them.

    ``lock`` is inherited by the sandbox, so that the replica's state directory
    stays taken until the last of it has ended. ``errors`` is where the
    sandbox's own processes complain.
    """
    if keep:
        # What the file system keeps there is of the mount that is gone.
        for work in layers.glob("*/work"):
            mounts.wipe(work)
    else:
        mounts.wipe(layers)
        layers.mkdir(mode=0o700)
    restore = None if checkpoint is None else _restore(checkpoint, layers)
    output.touch()
    # Server processes of other users open /dev/stderr; outside, the state
    # directory keeps others away.
    output.chmod(0o666)
    library = native.interposer_path().name

    def spec(report: int) -> bytes:
        return Spec(
            parent=os.getpid(),
            report=report,
            hostname=config.name,
            layers=str(layers),
            control=str(shared.inside),
            output=str(output),
            program=config.program,
            argv=config.argv,
            env=environment.with_interposer(config.env, f"{mounts.CONTROL_DIR}/{library}"),
            cwd=config.cwd,
            hidden=hidden,
            temporary=list(_temporary(config).items()),
            shared=[ownership.share(one) for one in config.share],
            private=[
                (path, os.path.relpath(copy, layers))
                for path, copy in ownership.copies(config, layers.parent).items()
            ],
            limits=[list(one) for one in environment.limit_numbers(config.limits)],
            uid=config.uid,
            gid=config.gid,
            remove=[str(shared.path)],
            restore=restore,
        ).to_json()

    return Child(
        lambda _: [sys.executable, "-m", "crane.sandbox"],
        stdin=spec,
        output=errors,
        keep=[lock],
        on_report=on_report,
        on_exit=on_exit,
    )


def _restore(checkpoint: Path, layers: Path) -> Restore:
    """Put the files of a checkpoint into ``layers``, and say how to restore the rest."""
    tool = criu.find()
    process = processes.load(checkpoint)
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    work = layers.parent / "restore"
    work.mkdir(mode=0o700, exist_ok=True)
    files.load(checkpoint, layers)
    return Restore(
        checkpoint=str(checkpoint),
        work=str(work),
        root=process.root,
        last_pid=process.last_pid,
        before=processes.room_for_pids(checkpoint / processes.IMAGES, limit),
        criu=tool.path,
        environment=tool.environment(),
    )


def program_process(init: int) -> procfs.ProcessIdentity | None:
    """The program's first process as this machine knows it, from its replica's init."""
    for process in procfs.descendants(init, procfs.all_processes()):
        if process.parent == init and procfs.namespace_pid(process.pid) == FIRST_PID:
            return procfs.ProcessIdentity(process.pid, process.start_time)
    return None
