"""What a replicated program sees of the world it is started in.

The environment is input: one more variable moves the stack and can change what
a program answers. So it is taken once, from the shell that first runs the
cluster, written down, and given to every replica on every start in one order.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping

from crane.config import UNLIMITED

# Variables that describe the terminal, the login or the supervisor of
# `crane run`, not the program: they differ from one start to the next, or they
# name things that do not exist inside a replica.
_DROPPED = frozenset(
    {
        "_",
        "COLORTERM",
        "COLUMNS",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LINES",
        "LS_COLORS",
        "MAIL",
        "MAINPID",
        "MANAGERPID",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PS1",
        "PWD",
        "SHLVL",
        "STY",
        "TERM",
        "TERM_PROGRAM",
        "TERM_PROGRAM_VERSION",
        "TMUX",
        "TMUX_PANE",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "WINDOWID",
        "XAUTHORITY",
        "XDG_RUNTIME_DIR",
    }
)
_DROPPED_PREFIXES = (
    "CRANE_",
    "LISTEN_FD",
    "LISTEN_PID",
    "SSH_",
    "SUDO_",
    "WAYLAND_",
    "XDG_SESSION_",
)

# OpenSSL uses the processor's own randomness, which is in no log, unless told not to:
# bits 62 (rdrand) and 64 + 18 (rdseed) of its capability vector, OPENSSL_ia32cap(3).
_DEFAULTS = {
    "OPENSSL_ia32cap": "~0x4000000000000000:~0x40000",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

# Limits a program can see or run into. Those of CPU time and of a user's
# processes count what else runs on the machine, so they cannot be agreed.
_LIMITS = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "stack": resource.RLIMIT_STACK,
}


def agreed(environment: Mapping[str, str], extra: Mapping[str, str], cwd: str) -> dict[str, str]:
    """The environment of the program, in the order it will have.

    ``environment`` is that of ``crane run``; ``extra`` comes from the cluster
    file and is taken as it is.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if (name == "CRANE_ADDRESS" or not name.startswith(_DROPPED_PREFIXES))
        and name not in _DROPPED
        and is_text(name + value)
    }
    return dict(sorted({**_DEFAULTS, **kept, "PWD": cwd, **extra}.items()))


def is_text(value: str) -> bool:
    """Whether ``value`` can be written into a configuration: it was UTF-8 for the system."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_interposer(environment: Mapping[str, str], library: str) -> dict[str, str]:
    """Put the interposer before whatever the program preloads anyway."""
    others = environment.get("LD_PRELOAD", "")
    preload = f"{library}:{others}" if others else library
    return dict(sorted({**environment, "LD_PRELOAD": preload}.items()))


def current_limits() -> dict[str, tuple[int, int]]:
    """The resource limits of this process, to be written down for the program."""
    return {
        name: (_plain(soft), _plain(hard))
        for name, (soft, hard) in (
            (name, resource.getrlimit(number)) for name, number in _LIMITS.items()
        )
    }


def limit_numbers(limits: Mapping[str, tuple[int, int]]) -> list[tuple[int, int, int]]:
    """``setrlimit`` arguments for agreed limits.

    Raises:
        KeyError: for a limit that is not one of the agreed ones.
    """
    return [(_LIMITS[name], _raw(soft), _raw(hard)) for name, (soft, hard) in limits.items()]


def unreachable_limit(limits: Mapping[str, tuple[int, int]]) -> str | None:
    """The first agreed limit that this process may not set, ``None`` when it may set all."""
    for name, (_, hard) in limits.items():
        _, possible = resource.getrlimit(_LIMITS[name])
        if possible != resource.RLIM_INFINITY and (hard == UNLIMITED or hard > possible):
            return name
    return None


def known_limits() -> list[str]:
    """The names a configuration may use in ``limits``."""
    return list(_LIMITS)


def _plain(value: int) -> int:
    return UNLIMITED if value == resource.RLIM_INFINITY else value


def _raw(value: int) -> int:
    return resource.RLIM_INFINITY if value == UNLIMITED else value
