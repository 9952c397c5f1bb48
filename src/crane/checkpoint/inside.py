"""What is done within a replica's namespaces: ``python -m crane.checkpoint.inside``.

CRIU runs inside, so that it sees the program's own paths and pids and leaves the
namespaces out of the image. Only the IPC namespace is not entered, because CRIU
saves System V memory and semaphores with the namespace that they belong to.

Nothing may stay changed: the next pid that the kernel will give is put back, or
the next child of the program would have another pid than on other replicas.

The request is JSON on standard input, the answer JSON on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from crane import linux
from crane.checkpoint import identities

_NAMESPACES = {
    "mnt": linux.CLONE_NEWNS,
    "pid": linux.CLONE_NEWPID,
    "net": linux.CLONE_NEWNET,
    "uts": linux.CLONE_NEWUTS,
}
_GHOST_LIMIT = "16G"
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def main() -> None:
    """Enter, and dump the program there."""
    request: dict[str, Any] = json.load(sys.stdin)
    images = os.open(request["images"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    spaces = {
        os.open(f"/proc/{request['init']}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC): kind
        for name, kind in _NAMESPACES.items()
    }
    for space, kind in spaces.items():
        linux.setns(space, kind)
        os.close(space)
    os.chdir("/")
    child = os.fork()
    if child == 0:
        _within(request, images)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _within(request: dict[str, Any], images: int) -> NoReturn:
    """The first process of ours within; its own pid tells which came last."""
    code = 1
    last = os.getpid() - 1
    try:
        root = _root()
        answer: dict[str, Any] = {"root": root, "last_pid": last}
        if isinstance(root, int):
            done = subprocess.run(
                command(request["criu"], images, root),
                env=request["environment"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[images],
                check=False,
            )
            answer["code"] = done.returncode
            seen = [(*one[:6], os.fsencode(one[6])) for one in request["seen"]]
            pids = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal())
            # Not this process's own descriptors.
            own = (pid for pid in pids if pid not in (1, os.getpid()))
            answer["files"] = identities.find(seen, request["written"], own)
        LAST_PID.write_text(str(last))
        with os.fdopen(1, "w", closefd=False) as out:
            json.dump(answer, out)
        code = 0
    finally:
        os._exit(code)


def command(criu: str, images: int, root: int) -> list[str]:
    """CRIU's words for a dump of the tree of ``root`` to the open directory ``images``."""
    return [
        *(criu, "dump", "--tree", str(root)),
        *("--images-dir", f"/proc/self/fd/{images}", "--log-file", "dump.log", "-v2"),
        *("--leave-running", "--file-locks", "--ghost-limit", _GHOST_LIMIT),
        *("--manage-cgroups=ignore", "--network-lock", "skip"),
    ]


def _root() -> int | str:
    """The process of which all others are descendants, or why there is none."""
    children = Path("/proc/1/task/1/children").read_text().split()
    if len(children) == 1:
        return int(children[0])
    if not children:
        return "the program has ended"
    return (
        f"the program has {len(children)} processes without a parent"
        f" ({', '.join(sorted(children))}); let it run in the foreground"
    )


if __name__ == "__main__":
    main()
