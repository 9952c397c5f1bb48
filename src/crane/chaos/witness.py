"""The log as the witness of what clients saw.

The replicated log says in which order requests were taken. It is executed once
more, and then

* every byte that a client received is what the program answers to that
  client's bytes at their place in the log;
* what the log has of a connection is what its client sent, from the beginning;
* a request that was answered is in the log, and before everything that any
  client asked afterwards.

Together: every answer is one that the program alone would have given, to the
requests in the order of the log, which keeps to real time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from crane.chaos.traffic import Conversation
from crane.chaos.watched import Address
from crane.verify.disturbance import Disturbance
from crane.verify.recording import Recording, find
from crane.verify.replay import execute

_CONNECTED, _CAME, _SENT = 1, 2, 3
_HEAD = struct.Struct("<BQQI")
_AF_INET = 2
_SHOWN = 5


@dataclass(slots=True)
class Told:
    """What the log and its execution say of one connection."""

    client: Address
    came: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Bytes that had come after each piece, and the log index of that piece."""

    def index_of(self, byte: int) -> int | None:
        """Where in the log the byte of this number is, counted from 0."""
        return next((index for end, index in self.places if end > byte), None)


class Answered(NamedTuple):
    """An answered exchange: times of ``time.monotonic``, and its places in the log."""

    begin: float
    end: float
    first: int
    """Log index of its first byte."""
    last: int
    """Log index of its last byte."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison came to."""

    connections: int
    exchanges: int
    """Answered exchanges that were compared."""
    lost: int
    """Answered ones that are not in the log."""
    problems: list[str]


def executed(state: Path, work: Path, timeout: float = 600.0) -> list[Told]:
    """Execute the log of a cluster that has ended; what each connection carried.

    ``state`` is its state directory, ``work`` a new directory.

    Raises:
        CraneError: when the log cannot be read or executed.
    """
    work.mkdir(parents=True)
    recording: Recording = find(state, [], work, {})
    file = work / "witness"
    asyncio.run(
        execute(
            recording,
            work / "execution",
            1,
            Disturbance(),
            base=state,
            timeout=timeout,
            witness=file,
        )
    )
    return read(file.read_bytes())


def read(data: bytes) -> list[Told]:
    """The connections of a witness file, in the order in which they were made."""
    found: dict[int, Told] = {}
    position = 0
    while position < len(data):
        kind, number, index, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        content = data[position : position + length]
        position += length
        if kind == _CONNECTED:
            found[number] = Told(_address(content))
        elif kind == _CAME:
            one = found[number]
            one.came += content
            one.places.append((len(one.came), index))
        elif kind == _SENT and number in found:
            found[number].sent += content
    return list(found.values())


def _address(raw: bytes) -> Address:
    """An address from raw sockaddr bytes."""
    family, port = struct.unpack_from("<H", raw)[0], struct.unpack_from(">H", raw, 2)[0]
    host = raw[4:8] if family == _AF_INET else raw[8:24]
    return str(ipaddress.ip_address(host)), port


def compare(conversations: Sequence[Conversation], log: Iterable[Told]) -> Verdict:
    """Compare what clients saw with what the log says."""
    by_client: dict[Address, list[Told]] = defaultdict(list)
    for each in log:
        by_client[each.client].append(each)
    problems: list[str] = []
    answered: list[Answered] = []
    lost = compared = 0
    for one in conversations:
        told = _partner(one, by_client[one.client])
        if told is None:
            if one.received:
                lost += sum(bool(exchange.end) for exchange in one.exchanges)
                problems.append(f"the log knows nothing of {_name(one)}, which was answered")
            continue
        if not bytes(one.sent).startswith(bytes(told.came)):
            problems.append(f"the log has other bytes of {_name(one)} than it sent")
        if not bytes(told.sent).startswith(bytes(one.received)):
            at = _first_difference(told.sent, one.received)
            problems.append(
                f"{_name(one)} received other bytes than the log leads to, from byte {at}:"
                f" {bytes(one.received[at : at + 40])!r}, not {bytes(told.sent[at : at + 40])!r}"
            )
        ends = [exchange.sent for exchange in one.exchanges[1:]] + [len(one.sent)]
        for exchange, end in zip(one.exchanges, ends, strict=True):
            if not exchange.end:
                continue
            compared += 1
            first, last = told.index_of(exchange.sent), told.index_of(end - 1)
            if first is None or last is None:
                lost += 1
                problems.append(f"an answered request of {_name(one)} is not in the log")
            else:
                answered.append(Answered(exchange.begin, exchange.end, first, last))
    early = out_of_time(answered)
    if early:
        problems.append(f"{early} requests are in the log before ones answered earlier")
    if len(problems) > _SHOWN:
        problems = [*problems[:_SHOWN], f"and {len(problems) - _SHOWN} more"]
    return Verdict(len(conversations), compared, lost, problems)


def _partner(one: Conversation, candidates: list[Told]) -> Told | None:
    """The connection of the log that a conversation is; ports are used again in order."""
    for told in candidates:
        if told.came and bytes(one.sent).startswith(bytes(told.came)):
            candidates.remove(told)
            return told
    return None


def out_of_time(answered: Sequence[Answered]) -> int:
    """How many stand in the log before something that was answered before they were asked."""
    found = 0
    latest = -1
    ended = iter(sorted(answered, key=lambda one: one.end))
    following = next(ended, None)
    for one in sorted(answered, key=lambda one: one.begin):
        while following is not None and following.end < one.begin:
            latest = max(latest, following.last)
            following = next(ended, None)
        found += one.first <= latest
    return found


def _first_difference(one: bytearray, other: bytearray) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _name(one: Conversation) -> str:
    return f"the connection from {one.client[0]}:{one.client[1]}"
