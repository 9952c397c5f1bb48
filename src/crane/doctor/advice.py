"""Advice for programs by name, from one data file.

``crane doctor`` shows all that applies; ``crane run`` shows one line where a
setting is needed and not given.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

FILE = Path(__file__).parents[1] / "advice.toml"

Level = Literal["needed", "useful", "known"]


class Advice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to know about a program."""

    programs: list[str]
    """Patterns of file names, as a shell's."""
    level: Level
    """``needed``: it does not work otherwise; ``useful``: it works better; ``known``: no mend."""
    do: str
    """What to do."""
    why: str
    when: str = ""
    """A regular expression: only if the command line has a match."""
    unless: str = ""
    """A regular expression: not if the command line has a match."""

    def applies(self, names: Sequence[str], argv: Sequence[str]) -> bool:
        """Whether it is about a program with these file names, started so."""
        line = " ".join(argv)
        return (
            any(fnmatch.fnmatchcase(name, one) for name in names for one in self.programs)
            and (not self.when or re.search(self.when, line) is not None)
            and not (self.unless and re.search(self.unless, line))
        )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    advice: list[Advice]


def everything(file: Path = FILE) -> list[Advice]:
    """All of the file."""
    return msgspec.convert(tomllib.loads(file.read_text()), _File).advice


def about(files: Sequence[str], argv: Sequence[str]) -> list[Advice]:
    """The advice about a program that is the files of its interpreter chain, started so."""
    names = [Path(one).name for one in files]
    # `python3` is `python3.11` behind a link.
    names += [Path(one).resolve().name for one in files if Path(one).is_symlink()]
    return [one for one in everything() if one.applies(names, argv)]


def hint(files: Sequence[str], argv: Sequence[str]) -> str | None:
    """The line that ``crane run`` shows, if a setting is needed."""
    needed = [one for one in about(files, argv) if one.level == "needed"]
    if not needed:
        return None
    more = f" ({len(needed) - 1} more: `crane doctor`)" if len(needed) > 1 else ""
    return f"hint: {needed[0].do}: {needed[0].why}{more}"
