"""From a program to a verdict: record, execute, compare, search."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crane import native
from crane.checkpoint import criu
from crane.errors import CraneError
from crane.verify import comparison, disturbance, live, recording, search
from crane.verify.comparison import Difference
from crane.verify.disturbance import Disturbance
from crane.verify.recording import Recording
from crane.verify.replay import Execution, execute
from crane.verify.traces import Window
from crane.verify.verdict import Verdict

Sayer = Callable[[str], None]

_OVERLAY = "overlay"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked for."""

    argv: list[str]
    runs: int
    replicas: int
    log: Path | None
    load: live.Load
    hogs: bool
    keep: bool
    timeout: float
    work: Path | None
    options: list[str]
    """Options of ``crane run`` while recording."""
    checkpoint: bool = False
    """Go through a checkpoint in every run but the first."""


def verify(wanted: Wanted, say: Sayer) -> Verdict:
    """Verify a program.

    Raises:
        CraneError: when it cannot be recorded or executed.
    """
    native.core()
    native.interposer_path()
    if wanted.checkpoint:
        criu.find()
    base = _work_directory(wanted.work)
    try:
        return asyncio.run(_with_signals(_Check(wanted, base, say)))
    finally:
        if wanted.keep:
            say(f"everything is kept in {base}; --log {base / 'recording'} repeats it")
        else:
            shutil.rmtree(base, ignore_errors=True)


async def _with_signals(check: _Check) -> Verdict:
    """End what was started when this process is asked to end."""
    task = asyncio.ensure_future(check.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise CraneError("stopped before the verdict", exit_code=130) from None


class _Check:
    def __init__(self, wanted: Wanted, base: Path, say: Sayer) -> None:
        self._wanted = wanted
        self._base = base
        self._say = say
        self._number = 0
        self._park_after: int | None = None

    async def run(self) -> Verdict:
        made, requests = await self._recording()
        runs: list[Execution] = []
        difference: Difference | None = None
        for number in range(1, self._wanted.runs + 1):
            treatment = disturbance.plan(number, hogs=self._wanted.hogs)
            if self._wanted.checkpoint and runs:
                # At another place in each run.
                self._park_after = _place(runs[0].outcome.epochs, number - 1, self._wanted.runs)
            done = await self._execute(made, treatment)
            runs.append(done)
            found = comparison.compare(runs[0], done) if number > 1 else None
            outcome = done.outcome
            state = "" if number == 1 else ", identical" if found is None else ", DIFFERENT"
            self._say(f"run {number} of {self._wanted.runs}: {outcome.seconds:.1f} s{state}")
            difference = difference or found
        samples = comparison.samples_found(made.live, runs[0])
        difference = difference or comparison.compare_live(made.live, runs[0])
        operation = None
        if difference is not None and (difference.epoch or difference.between):
            operation = await self._search(made, runs, difference)
        return Verdict(
            program=made.config.argv,
            requests=requests,
            epochs=runs[0].outcome.epochs,
            clock=runs[0].outcome.clock,
            runs=[one.outcome for one in runs],
            live_samples=samples,
            identical=difference is None,
            difference=difference,
            operation=operation,
            notes=_notes(runs),
        )

    async def _recording(self) -> tuple[Recording, int | None]:
        wanted = self._wanted
        if wanted.log is not None:
            found = recording.find(wanted.log.resolve(), wanted.argv, self._base, os.environ)
            return found, None
        self._say(f"recording `{' '.join(wanted.argv)}` under load")
        made, requests = await live.record(
            wanted.argv,
            replicas=wanted.replicas,
            work=self._base,
            directory=self._base / "recording",
            what=wanted.load,
            options=wanted.options,
        )
        answered = "" if requests is None else f"{requests} requests in "
        self._say(f"recorded {answered}{made.count} epochs")
        return made, requests

    async def _execute(
        self, made: Recording, treatment: Disturbance, window: Window | None = None
    ) -> Execution:
        self._number += 1
        return await execute(
            made,
            self._base / "runs" / str(self._number),
            self._number,
            treatment,
            base=self._base,
            timeout=self._wanted.timeout,
            window=window,
            park_after=self._park_after,
        )

    async def _search(
        self, made: Recording, runs: list[Execution], difference: Difference
    ) -> search.Finding | None:
        self._say("looking for the first operation that differs")
        names = {f"run {one.outcome.run}": one.outcome.run for one in runs}
        first, second = names.get(difference.first, 1), names.get(difference.second, 2)
        hogs = self._wanted.hogs
        finding, _ = await search.first_operation(
            lambda treatment, window: self._execute(made, treatment, window),
            (disturbance.plan(first, hogs=hogs), disturbance.plan(second, hogs=hogs)),
            difference.clock,
        )
        return finding


def _place(epochs: int, nth: int, runs: int) -> int:
    """After how many of the epochs the checkpoint of run ``nth`` (from 1) is taken."""
    return max(1, min(epochs - 1, epochs * nth // runs))


def _notes(runs: list[Execution]) -> list[str]:
    """What the runs had to say, each thing once, and what could not be compared."""
    notes = dict.fromkeys(text for one in runs for text in one.messages)
    if any(one.files is None for one in runs):
        notes["the program's files were not compared: they are in memory only; give a --work"] = (
            None
        )
    first = runs[0].outcome
    if not first.complete:
        end = f" ({first.end})" if first.end else ""
        notes[f"the program ended before its log did{end}, in epoch {first.epoch}"] = None
    return list(notes)


def _work_directory(chosen: Path | None) -> Path:
    """A new directory where a file system can be laid over another.

    Raises:
        CraneError: when it cannot be made.
    """
    place = chosen or Path(tempfile.gettempdir())
    if chosen is None and _file_system(place) == _OVERLAY:
        place = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private directory
    try:
        place.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="crane-verify-", dir=place))
    except OSError as error:
        raise CraneError(
            f"cannot use {place}: {error.strerror}; choose another place with --work"
        ) from error


def _file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on."""
    from crane.mounts import is_below, parse_mountinfo

    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    found = ""
    longest = -1
    for one in parse_mountinfo(text):
        if is_below(str(path.resolve()), one.path) and len(one.path) >= longest:
            longest, found = len(one.path), one.fstype
    return found
