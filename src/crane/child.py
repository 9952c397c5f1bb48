"""A started process on the event loop: its reports, its end, and ending it.

Nothing here polls: reports come from a pipe, the end from a pidfd.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import msgspec

_MAX_LINE = 1 << 20


class JsonLines:
    """Splits what a pipe carries into JSON objects, one a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The objects that ``data`` completes; lines that are not objects are dropped."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            self._rest = b""
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.DecodeError:
                continue
        return found


class Child:
    """A process of ours that reports over a pipe.

    ``on_report`` is called for each reported object, ``on_exit`` once after the
    last of them with the exit code (negative: the signal).
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        on_report: Callable[[dict[str, Any]], None],
        on_exit: Callable[[int], None],
        stdin: Callable[[int], bytes] | None = None,
        output: IO[bytes] | int | None = None,
        environment: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
        new_session: bool = False,
    ) -> None:
        """Start the process.

        ``command`` and ``stdin`` are given the number of the report descriptor;
        ``keep`` are further descriptors it inherits.
        """
        self._on_report = on_report
        self._on_exit = on_exit
        self._lines = JsonLines()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._reports, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        try:
            self._popen = subprocess.Popen(
                list(command(write)),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[write, *keep],
                start_new_session=new_session,
            )
            if stdin:
                assert self._popen.stdin is not None
                with self._popen.stdin as pipe:
                    pipe.write(stdin(write))
        except BaseException:
            os.close(self._reports)
            raise
        finally:
            os.close(write)
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._reports, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    def _read(self) -> bool:
        """Take what the pipe has; false at its end or when it is empty."""
        try:
            data = os.read(self._reports, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reports)
            return False
        for report in self._lines.feed(data):
            self._on_report(report)
        return True

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        code = self._popen.wait()
        while self._read():
            pass
        self._loop.remove_reader(self._reports)
        os.close(self._reports)
        os.close(self._pidfd)
        self._ended.set()
        self._on_exit(code)

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.is_set()

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.running:
            self._popen.send_signal(number)

    async def wait(self) -> None:
        """Wait until the process has ended and ``on_exit`` was called."""
        await self._ended.wait()

    async def end(self, patience: float) -> None:
        """End the process: asked first, killed after ``patience`` seconds.

        A paused process is woken, because it would not notice the request.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(patience):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()


def describe_exit(code: int) -> str:
    """An exit code in words: ``exit status 3`` or ``killed by SIGSEGV``."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def shell_code(code: int) -> int:
    """The exit code with which a shell reports the same end."""
    return code if code >= 0 else 128 - code
