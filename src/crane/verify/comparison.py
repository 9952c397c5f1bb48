"""What must be equal between executions, and where they begin to differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from crane import layers
from crane.verify.recording import Sample
from crane.verify.replay import Execution

# Not results, or said by another of them.
_FREE = {"run", "beside", "seconds", "entries"}
_WORDS = {
    "schedule_hash": "schedule",
    "output_hash": "output",
    "files": "files",
    "said": "standard output",
    "clock": "logical clock",
    "end": "end of the program",
}
_SHOWN = 12


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How two executions of one log differ."""

    first: str
    second: str
    """The executions: ``run 1``, ``the recorded replica 2``."""
    what: list[str]
    """Which results differ."""
    epoch: int | None = None
    """The first epoch at whose end they differ; ``None``: the hashes are all equal."""
    clock: int = 0
    """Logical clock from which on they may differ."""
    files: list[str] = []
    """Which files differ and how."""
    between: tuple[int, int] | None = None
    """Where only samples are known: equal at the first epoch, different at the second."""


@dataclass(frozen=True)
class _Epoch:
    number: int
    clock: int
    output: str
    schedule: str


def compare(first: Execution, second: Execution) -> Difference | None:
    """How two executions differ, ``None`` when they are identical."""
    left, right = structs.asdict(first.outcome), structs.asdict(second.outcome)
    what = [
        _WORDS.get(name, name) for name in left if name not in _FREE and left[name] != right[name]
    ]
    epoch, clock = _first_epoch(first.hashes, second.hashes)
    if epoch is not None and "schedule" not in what and "output" not in what:
        what.append("epochs")
    if not what:
        return None
    names: list[str] = []
    if first.files is not None and second.files is not None:
        names = layers.differences(first.files, second.files)
    if first.outcome.said != second.outcome.said:
        names.append(_first_line(first.said, second.said))
    return Difference(
        first=f"run {first.outcome.run}",
        second=f"run {second.outcome.run}",
        what=what,
        epoch=epoch,
        clock=clock,
        files=names[:_SHOWN],
    )


def compare_live(live: list[Sample], run: Execution) -> Difference | None:
    """How the recorded replicas differ from an execution, as far as they were sampled."""
    known = {one.number: one for one in _epochs(run.hashes)}
    agreed: dict[int, int] = {}
    for sample in sorted(live, key=lambda one: one.epoch):
        epoch = known.get(sample.epoch)
        if epoch is None:
            continue
        pairs = {
            "logical clock": (sample.clock, epoch.clock),
            "schedule": (sample.schedule_hash, epoch.schedule),
            "output": (sample.output_hash, epoch.output),
        }
        what = [name for name, (one, other) in pairs.items() if one != other]
        if what:
            return Difference(
                first=f"the recorded replica {sample.replica}",
                second=f"run {run.outcome.run}",
                what=what,
                between=(agreed.get(sample.replica, 0), sample.epoch),
            )
        agreed[sample.replica] = sample.epoch
    return None


def samples_found(live: list[Sample], run: Execution) -> int:
    """How many samples of the recorded replicas could be compared with an execution."""
    known = {one.number for one in _epochs(run.hashes)}
    return sum(one.epoch in known for one in live)


def _epochs(path: Path) -> list[_Epoch]:
    """The epochs of a file of hashes; a last line that was cut off is left out."""
    found = []
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) == 4:
            found.append(_Epoch(int(fields[0]), int(fields[1]), fields[2], fields[3]))
    return found


def _first_epoch(first: Path, second: Path) -> tuple[int | None, int]:
    """The first epoch that differs, and the clock at the end of the last equal one."""
    left, right = _epochs(first), _epochs(second)
    clock = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            return one.number, clock
        clock = one.clock
    if len(left) != len(right):
        longer = left if len(left) > len(right) else right
        return longer[min(len(left), len(right))].number, clock
    return None, clock


def _first_line(first: Path, second: Path) -> str:
    left = first.read_text(errors="replace").splitlines()
    right = second.read_text(errors="replace").splitlines()
    for number, (one, other) in enumerate(zip(left, right, strict=False), 1):
        if one != other:
            return f"line {number} of the program's own output: {one!r} and {other!r}"
    return f"the program's own output has {len(left)} lines and {len(right)} lines"
