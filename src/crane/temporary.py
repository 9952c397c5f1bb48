"""Which of the machine's temporary files a program sees: those that it is told of.

What lies in ``/tmp`` and ``/var/tmp`` is no part of a program's initial state: it is
another on every machine, and comes and goes while the program runs. A program that
lists such a directory (databases and virtual machines clean up there when they start)
would do something else on each replica. So a replica has temporary directories of its
own, which are empty but for the entries that the command line, the environment or the
settings name. One that is the current directory is seen as it is.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

DIRECTORIES = ("/tmp", "/var/tmp")  # noqa: S108 - the machine's
_MODE = 0o1777


def own(words: Sequence[str], cwd: str) -> dict[str, list[str]]:
    """The temporary directories to replace, and the names in each that are kept.

    ``words`` are the command line, values of the environment and paths of the
    settings. Names that do not exist are kept as well.
    """
    known = [cwd, *words]
    known += [f"{cwd}/{word}" for word in words if not word.startswith("/")]
    texts = {os.path.normpath(word) if word.startswith("/") else word for word in known}
    texts |= {os.path.realpath(text) for text in texts if text.startswith("/")}
    found = {}
    for directory in DIRECTORIES:
        if os.path.realpath(directory) != directory or not Path(directory).is_dir():
            continue
        if os.path.realpath(cwd) != directory:
            found[directory] = sorted({one for text in texts for one in _names(directory, text)})
    return found


def _names(directory: str, text: str) -> set[str]:
    """The entries of ``directory`` that a text names."""
    # In front of it no other path, behind it the end of the path or of its first part.
    found = set(re.findall(rf"""(?<![\w./-]){re.escape(directory)}/+([^\s/:;,="']+)""", text))
    if text.startswith(f"{directory}/"):
        # All of it is one path, whatever characters are in it.
        found.add(text[len(directory) + 1 :].split("/", maxsplit=1)[0])
    return found - {"", ".", ".."}


def prepare(directory: str, names: Iterable[str], place: Path) -> list[str]:
    """Make ``place`` what the program finds in ``directory`` at its start.

    Files and links are copied. Returns the directories in it, which are to be
    mounted there; for them it has empty ones.
    """
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(_MODE)
    below = []
    for name in names:
        source, target = Path(directory, name), place / name
        if source.is_dir() and not source.is_symlink():
            target.mkdir(exist_ok=True)
            shutil.copystat(source, target)
            below.append(str(source))
        elif fresh and (source.is_file() or source.is_symlink()):
            shutil.copy2(source, target, follow_symlinks=False)
        else:
            continue
        found = source.lstat()
        # Without root all of it is ours anyway.
        with suppress(PermissionError):
            os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    return below
