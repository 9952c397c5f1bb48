"""The processes of a replica: into a checkpoint, and the facts to restore them by."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from crane.checkpoint import criu, files, identities
from crane.errors import CraneError

IMAGES, PROCESS, SEGMENT, INTERPOSER = "images", "process.json", "segment", "interposer"

_ROOM = 200
"""Pids that CRIU may need for itself while it restores."""


class Process(msgspec.Struct, frozen=True):
    """What has to be known of the processes beside CRIU's images."""

    root: int
    """Pid, within, of the process that all others descend from."""
    last_pid: int
    """The last pid that the kernel gave within."""


def save(
    init: int, layers: Path, interposer: Path, seen: Sequence[identities.Seen], target: Path
) -> Process:
    """Put the processes below ``init``, which stand still, and their files into ``target``.

    They go on to stand still. ``interposer`` is the library that they have mapped,
    ``seen`` are the files that they have seen.

    Raises:
        CraneError: when that is not possible, in one line.
    """
    tool = criu.find()
    images = target / IMAGES
    images.mkdir(mode=0o700)
    request = {
        "init": init,
        "images": str(images),
        "criu": tool.path,
        "environment": tool.environment(),
        "seen": [(*one[:6], os.fsdecode(one[6])) for one in seen],
        "written": identities.written(layers),
    }
    done = subprocess.run(
        [sys.executable, "-m", "crane.checkpoint.inside"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()
        raise CraneError(f"cannot enter the replica: {last[-1] if last else done.returncode}")
    answer = json.loads(done.stdout)
    if not isinstance(answer["root"], int):
        raise CraneError(f"no checkpoint: {answer['root']}")
    if answer["code"]:
        raise CraneError(f"CRIU cannot save the program: {criu.first_error(images / 'dump.log')}")
    process = Process(root=answer["root"], last_pid=answer["last_pid"])
    (target / identities.FILE).write_text(json.dumps(answer["files"]))
    files.save(layers, init, target)
    shutil.copyfile(interposer, target / INTERPOSER)
    (target / PROCESS).write_bytes(msgspec.json.encode(process))
    return process


def load(checkpoint: Path) -> Process:
    """The facts that :func:`save` wrote."""
    return msgspec.json.decode((checkpoint / PROCESS).read_bytes(), type=Process)


def room_for_pids(images: Path, limit: int) -> int:
    """A pid after which :data:`_ROOM` are free of those in the images.

    CRIU's own processes must not take a pid that one of the program's has.
    """
    found = (re.fullmatch(r"core-(\d+)\.img", path.name) for path in images.iterdir())
    taken = sorted(int(one[1]) for one in found if one)
    # Pids below 300 are given again only to system processes.
    before = 300
    for pid in [*taken, limit]:
        if pid - before > _ROOM:
            return before
        before = max(before, pid)
    raise CraneError("the program has so many threads that there is no room for CRIU's own")
