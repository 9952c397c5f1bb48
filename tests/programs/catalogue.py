"""The definitions in ``servers/``. As a command it prints the packages they need."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from program import Program

SERVERS = Path(__file__).with_name("servers")


def programs() -> list[Program]:
    """All of them, by name."""
    found: list[Program] = []
    for path in sorted(SERVERS.glob("*.py")):
        module = importlib.import_module(f"servers.{path.stem}")
        found += getattr(module, "PROGRAMS", None) or [module.PROGRAM]
    return sorted(found, key=lambda one: one.name)


def named(name: str) -> Program:
    """The one of this name."""
    return next(one for one in programs() if one.name == name)


def main() -> None:
    """Print ``COMMAND:PACKAGE`` for each, as ``.ci/packages`` takes it."""
    chosen = [named(name) for name in sys.argv[1:]] or programs()
    print(*sorted({pair for one in chosen for pair in one.packages}))


if __name__ == "__main__":
    main()
