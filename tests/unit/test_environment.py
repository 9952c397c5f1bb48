from __future__ import annotations

import resource

import pytest

from crane import environment


def test_what_belongs_to_the_shell_is_left_out() -> None:
    shell = {
        "PATH": "/bin",
        "PGDATA": "/data",
        "TZ": "UTC",
        "SSH_CONNECTION": "x",
        "CRANE_RUN_DIR": "x",
        "XDG_RUNTIME_DIR": "x",
        "NOTIFY_SOCKET": "x",
        "LISTEN_FDS": "1",
        "OLDPWD": "/x",
        "PWD": "/y",
        "_": "x",
        "NOT_TEXT": "\udcff",
    }
    assert environment.agreed(shell, {"EXTRA": "1", "TZ": "CET"}, "/srv") == {
        "EXTRA": "1",
        "OPENSSL_ia32cap": "~0x4000000000000000:~0x40000",
        "PATH": "/bin",
        "PGDATA": "/data",
        "PWD": "/srv",
        "TZ": "CET",
    }


def test_the_order_does_not_depend_on_the_shell() -> None:
    one = environment.agreed({"B": "1", "A": "2"}, {}, "/")
    two = environment.agreed({"A": "2", "B": "1"}, {}, "/")
    assert list(one) == list(two)


def test_the_interposer_comes_before_other_preloads() -> None:
    assert environment.with_interposer({}, "/i.so") == {"LD_PRELOAD": "/i.so"}
    both = environment.with_interposer({"LD_PRELOAD": "/jemalloc.so"}, "/i.so")
    assert both == {"LD_PRELOAD": "/i.so:/jemalloc.so"}


def test_limits_are_written_down_and_read_back() -> None:
    limits = environment.current_limits()
    assert environment.unreachable_limit(limits) is None
    for number, soft, hard in environment.limit_numbers(limits):
        assert resource.getrlimit(number) == (soft, hard)


def test_a_limit_above_this_processs_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    assert environment.unreachable_limit({"nofile": (5, 10)}) is None
    assert environment.unreachable_limit({"nofile": (5, 11)}) == "nofile"
    assert environment.unreachable_limit({"core": (0, environment.UNLIMITED)}) == "core"
