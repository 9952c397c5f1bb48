"""Where the native parts are: the engine module and the interposer library."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from crane.errors import CraneError

_LIBRARY = "libcrane_interposer.so"


def interposer_path() -> Path:
    """The interposer library: ``$CRANE_INTERPOSER``, else the one in the package.

    Raises:
        CraneError: when it is not there.
    """
    chosen = os.environ.get("CRANE_INTERPOSER")
    path = Path(chosen) if chosen else Path(__file__).parent / "_native" / _LIBRARY
    if not path.is_file():
        raise CraneError(f"the interposer library {path} is missing; `make build` makes it")
    return path.resolve()


def core() -> ModuleType:
    """The engine's module.

    Raises:
        CraneError: when it was not built.
    """
    try:
        from crane import _core
    except ImportError as error:
        raise CraneError(f"the engine cannot be loaded ({error}); `make build` makes it") from error
    return _core
