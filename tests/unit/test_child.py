from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import pytest

from crane import child
from crane.child import Child, JsonLines


def test_lines_come_whole_however_they_are_cut() -> None:
    lines = JsonLines()
    assert lines.feed(b'{"a": ') == []
    assert lines.feed(b'1}\nnonsense\n{"b": 2}\n{"c"') == [{"a": 1}, {"b": 2}]
    assert lines.feed(b": 3}\n") == [{"c": 3}]


def run(program: str, **options: Any) -> tuple[list[dict[str, Any]], int]:
    async def main() -> tuple[list[dict[str, Any]], int]:
        reports: list[dict[str, Any]] = []
        codes: list[int] = []
        process = Child(
            lambda fd: [sys.executable, "-c", program, str(fd)],
            on_report=reports.append,
            on_exit=codes.append,
            **options,
        )
        async with asyncio.timeout(20):
            await process.wait()
        assert not process.running
        (code,) = codes
        return reports, code

    return asyncio.run(main())


def test_reports_come_before_the_end() -> None:
    many = "import os, sys\nfor n in range(5000): os.write(int(sys.argv[1]), b'{\"n\": %d}\\n' % n)"
    reports, code = run(many + "\nsys.exit(3)")
    assert [one["n"] for one in reports] == list(range(5000))
    assert code == 3


def test_input_is_handed_over() -> None:
    program = "import os, sys; os.write(int(sys.argv[1]), sys.stdin.buffer.read())"
    reports, _ = run(program, stdin=lambda fd: b'{"fd": %d}\n' % fd)
    assert reports[0]["fd"] > 2


@pytest.mark.parametrize("deaf", [False, True])
def test_ending_asks_and_then_kills(deaf: bool) -> None:
    async def main() -> int:
        ready = asyncio.Event()
        codes: list[int] = []
        ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
        program = (
            f"import os, signal, sys; {ignore} os.write(int(sys.argv[1]), b'{{}}\\n');"
            "os.kill(os.getpid(), signal.SIGSTOP); signal.pause()"
        )
        process = Child(
            lambda fd: [sys.executable, "-c", program, str(fd)],
            on_report=lambda _: ready.set(),
            on_exit=codes.append,
        )
        async with asyncio.timeout(20):
            await ready.wait()
            await process.end(0.3 if deaf else 10)
        return codes[0]

    assert asyncio.run(main()) == (-signal.SIGKILL if deaf else -signal.SIGTERM)


def test_exit_codes_in_words() -> None:
    assert child.describe_exit(2) == "exit status 2"
    assert child.describe_exit(-11) == "killed by SIGSEGV"
    assert child.describe_exit(-63) == "killed by signal 63"
    assert child.shell_code(-9) == 137
