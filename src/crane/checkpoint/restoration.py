"""Restoring the processes of a checkpoint, as pid 1 of a new replica."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from crane import linux
from crane.checkpoint import criu, files, identities
from crane.checkpoint.inside import LAST_PID
from crane.checkpoint.processes import IMAGES
from crane.errors import CraneError

if TYPE_CHECKING:
    from crane.sandbox import Restore


class Restoration:
    """One restore, with its directories open, because they are not seen from within."""

    def __init__(self, wanted: Restore, limits: list[list[int]]) -> None:
        """``limits`` are the program's resource limits: number, soft, hard."""
        self._wanted = wanted
        self._limits = limits
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._checkpoint = os.open(wanted.checkpoint, flags)
        self._work = os.open(wanted.work, flags)

    def run(self) -> int:
        """Restore the processes within the replica; the pid of their first.

        They become children of this process when CRIU ends.

        Raises:
            CraneError: when CRIU cannot, in one line.
        """
        wanted = self._wanted
        checkpoint, work = f"/proc/self/fd/{self._checkpoint}", f"/proc/self/fd/{self._work}"
        files.extract(
            f"{checkpoint}/{files.SHM}",
            "/dev/shm",  # noqa: S108 - the replica's own
            [self._checkpoint],
        )
        LAST_PID.write_text(str(wanted.before))
        done = subprocess.run(
            [
                *(wanted.criu, "restore", "--restore-detached"),
                *("--images-dir", f"{checkpoint}/{IMAGES}", "--work-dir", work),
                *("--log-file", "restore.log", "-v2", "--file-locks"),
                "--manage-cgroups=ignore",
            ],
            env=wanted.environment,
            preexec_fn=self._lay_out,  # there is no other thread
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._checkpoint, self._work],
            check=False,
        )
        if done.returncode:
            why = criu.first_error(Path(work, "restore.log"))
            raise CraneError(f"CRIU cannot restore the program: {why}")
        self._identify(checkpoint)
        os.close(self._checkpoint)
        os.close(self._work)
        # The program's next child has the pid that it has on the other replicas.
        LAST_PID.write_text(str(wanted.last_pid))
        return wanted.root

    def _identify(self, checkpoint: str) -> None:
        """Tell the interposer by which numbers the kernel knows the program's files here."""
        found = json.loads(Path(checkpoint, identities.FILE).read_text())
        place = Path(identities.PLACE)
        place.write_bytes(identities.table(found))
        # For processes of every user within.
        place.chmod(0o644)

    def _lay_out(self) -> None:
        """Have CRIU's address space begin where the program's does.

        The processes that it makes keep that beginning of its own, below which the
        kernel puts what they map afterwards: it depends on randomisation and on the
        limit of the stack at the time of the exec.
        """
        linux.personality(linux.ADDR_NO_RANDOMIZE)
        for number, soft, hard in self._limits:
            if number == resource.RLIMIT_STACK:
                resource.setrlimit(number, (soft, hard))
