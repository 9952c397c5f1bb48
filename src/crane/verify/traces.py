"""Traces: one record for each scheduled operation, as the interposer writes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crane.errors import CraneError
from crane.verify.operations import operation_name

_MAGIC = b"CRANETRC"
# magic, capacity, first clock, records written, records that found no room
_HEAD = struct.Struct("<8sQQQQ")
_HEAD_LENGTH = 4096
# clock, epoch, output hash, caller, stack pointer, object, thread slot, operation
_RECORD = struct.Struct("<QQQQQQII")
_CHUNK = 8192 * _RECORD.size


class Window(msgspec.Struct, frozen=True):
    """Which operations are recorded."""

    first: int = 0
    """Logical clock of the first."""
    capacity: int = 1 << 19
    """How many at most."""


@dataclass(frozen=True)
class Operation:
    """One record."""

    clock: int
    epoch: int
    output: int
    """Running hash of the output before the operation."""
    caller: int
    """Where the program goes on after its call; 0: not known."""
    stack: int
    object: int
    """Address of the object that it is on; 0: none in memory."""
    slot: int
    code: int

    @property
    def name(self) -> str:
        """The operation in words."""
        return operation_name(self.code)


def create(path: Path, window: Window) -> None:
    """Make an empty trace that the interposer can fill."""
    with path.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, window.capacity, window.first, 0, 0))
        file.truncate(_HEAD_LENGTH + window.capacity * _RECORD.size)
    # Programs change their user; outside, the directory keeps others away.
    path.chmod(0o666)


def keep(source: Path, target: Path) -> Path:
    """Copy what was written of a trace out of the shared memory."""
    with source.open("rb") as file:
        head = file.read(_HEAD_LENGTH)
        _, _, _, count, _ = _HEAD.unpack_from(head)
        with target.open("wb") as out:
            out.write(head)
            # As long as it was, so that it can be filled further.
            out.truncate(source.stat().st_size)
            left = count * _RECORD.size
            while left and (data := file.read(min(left, 1 << 20))):
                out.write(data)
                left -= len(data)
    target.chmod(source.stat().st_mode & 0o7777)
    return target


class Trace:
    """A trace that is read."""

    def __init__(self, path: Path) -> None:
        """Read ``path``.

        Raises:
            CraneError: when it is no trace.
        """
        data = path.read_bytes()
        if len(data) < _HEAD_LENGTH or not data.startswith(_MAGIC):
            raise CraneError(f"{path} is not a trace")
        self._count: int
        self.missed: int
        _, _, _, self._count, self.missed = _HEAD.unpack_from(data)
        self._data = memoryview(data)[_HEAD_LENGTH : _HEAD_LENGTH + self._count * _RECORD.size]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Operation:
        return Operation(*_RECORD.unpack_from(self._data, number * _RECORD.size))

    def around(self, number: int, before: int, after: int) -> list[Operation]:
        """The operations around one of them, as far as there are any."""
        return [
            self[one] for one in range(max(0, number - before), min(len(self), number + after + 1))
        ]

    def first_difference(self, other: Trace) -> int | None:
        """Number of the first record that is not in the other trace, too.

        ``None`` when the traces are equal as far as they were recorded.
        """
        left, right = self._data, other._data
        common = min(len(left), len(right))
        for start in range(0, common, _CHUNK):
            end = min(start + _CHUNK, common)
            if left[start:end] == right[start:end]:
                continue
            for at in range(start, end, _RECORD.size):
                if left[at : at + _RECORD.size] != right[at : at + _RECORD.size]:
                    return at // _RECORD.size
        if len(left) != len(right) and not (self.missed or other.missed):
            return common // _RECORD.size
        return None
