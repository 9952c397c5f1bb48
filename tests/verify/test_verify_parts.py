"""The parts of verify, without a program."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import struct
from pathlib import Path

import pytest

from crane import layers
from crane.verify import comparison, disturbance, http, lines, operations, places, traces
from crane.verify.load import Lost

ROOT = Path(__file__).parents[2]


def test_operation_names_are_the_interposers() -> None:
    source = (ROOT / "crates" / "interposer" / "src" / "operations.rs").read_text()
    body = source.partition("enum Op {")[2].partition("}")[0]
    known, code = {}, 0
    for name, given in re.findall(r"^\s*(\w+)(?: = (\d+))?,", body, re.MULTILINE):
        code = int(given) if given else code + 1
        known[code] = name
    assert known == operations.OPERATIONS
    assert operations.operation_name(9999) == "operation 9999"


class Layers:
    """A replica's private layers, as an overlay leaves them."""

    def __init__(self, base: Path) -> None:
        self.upper = base / "root" / "upper"
        self.upper.mkdir(parents=True)
        (base / "root" / "work").mkdir()
        (base / "places.json").write_text('{"root": "/"}')
        self.base = base

    def written(self) -> layers.Files:
        found = layers.written(self.base)
        assert found is not None
        return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Layers, Layers]:
    return Layers(tmp_path / "a"), Layers(tmp_path / "b")


def test_equal_files_have_equal_digests_whatever_their_times(pair: tuple[Layers, Layers]) -> None:
    for number, one in enumerate(pair):
        (one.upper / "var").mkdir()
        (one.upper / "var" / "data").write_text("x" * 100_000)
        (one.upper / "link").symlink_to("var/data")
        os.mkfifo(one.upper / "pipe")
        os.utime(one.upper / "var" / "data", (number, number))
    left, right = (one.written() for one in pair)
    assert layers.digest(left) == layers.digest(right)
    assert {path: one.kind for path, one in left.items()} == {
        "/link": "link",
        "/pipe": "pipe",
        "/var": "directory",
        "/var/data": "file",
    }
    assert layers.differences(left, right) == []


def test_differences_of_files_are_named(pair: tuple[Layers, Layers]) -> None:
    one, other = pair
    for side, text in ((one, "abc"), (other, "abd")):
        (side.upper / "same").write_text("same")
        (side.upper / "content").write_text(text)
        (side.upper / "length").write_text("short")
        (side.upper / "mode").touch()
    (other.upper / "mode").chmod(0o600)
    (other.upper / "length").write_text("longer than the other")
    (one.upper / "only").mkdir()
    (one.upper / "kind").mkdir()
    (other.upper / "kind").touch()
    left, right = one.written(), other.written()
    assert layers.differences(left, right) == [
        "/content has another content",
        "/kind is a directory in the first, a file in the second",
        f"/length has {left['/length'].size} bytes in the first, 21 in the second",
        "/mode has another mode or owner",
        "/only exists only in the first",
    ]
    assert layers.digest(left) != layers.digest(right)


def test_layers_that_cannot_be_seen_are_not_taken_for_empty(tmp_path: Path) -> None:
    assert layers.written(tmp_path) is None
    assert layers.digest(None) is None
    assert Layers(tmp_path).written() == {}


def make_trace(path: Path, records: list[tuple[int, ...]], missed: int = 0) -> traces.Trace:
    traces.create(path, traces.Window(capacity=len(records)))
    with path.open("r+b") as file:
        file.write(struct.pack("<8sQQQQ", b"CRANETRC", len(records), 0, len(records), missed))
        file.seek(4096)
        for record in records:
            file.write(struct.pack("<QQQQQQII", *record))
    kept = traces.keep(path, path.with_suffix(".kept"))
    return traces.Trace(kept)


def operation(
    clock: int, *, output: int = 0, slot: int = 1, code: int = 16, lock: int = 0x6000
) -> tuple[int, ...]:
    return (clock, 1, output, 0x5000, 0x7000, lock, slot, code)


def test_the_first_record_that_differs_is_found(tmp_path: Path) -> None:
    plain = [operation(clock) for clock in range(1, 20_001)]
    one = make_trace(tmp_path / "one", plain)
    assert len(one) == 20_000
    assert one[3].name == "MutexLock"
    assert one.first_difference(make_trace(tmp_path / "same", plain)) is None
    for at in (0, 8191, 8192, 19_999):
        changed = list(plain)
        changed[at] = operation(at + 1, slot=2)
        other = make_trace(tmp_path / f"changed-{at}", changed)
        assert one.first_difference(other) == at
        assert other.first_difference(one) == at
    shorter = make_trace(tmp_path / "shorter", plain[:100])
    assert one.first_difference(shorter) == 100
    # A trace that was full says nothing about what came later.
    assert one.first_difference(make_trace(tmp_path / "full", plain[:100], missed=5)) is None
    assert [record.clock for record in one.around(1, 5, 2)] == [1, 2, 3, 4]


def test_executable_mappings_are_read() -> None:
    text = """\
555555554000-555555558000 r--p 00000000 fe:00 77   /opt/a b/server
555555558000-55555555c000 r-xp 00004000 fe:00 77   /opt/a b/server
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0    [vvar]
7ffff7fc5000-7ffff7fc7000 r-xp 00000000 00:00 0    [vdso]
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0
"""
    (one,) = places.parse_maps(text)
    assert one.path == "/opt/a b/server"
    images = places.Images([one])
    assert images.describe(0x555555558010) == "server+0x4010"
    assert images.describe(0x1234) == "0x1234"
    assert images.describe(0) == "?"


def test_functions_are_named_by_the_symbols_of_a_real_library() -> None:
    maps = places.parse_maps(Path("/proc/self/maps").read_text())
    libc = next(one for one in maps if "libc.so" in one.path)
    import ctypes

    address = ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value
    assert address is not None
    found = places.Images([libc]).describe(address + 4)
    assert "(qsort+0x4)" in found


def test_no_two_runs_in_a_row_are_treated_alike() -> None:
    plans = [disturbance.plan(number, hogs=True) for number in range(1, 20)]
    assert all(one != other for one, other in itertools.pairwise(plans))
    assert [one.hogs for one in plans[:4]] == [0, 2, 0, 2]
    assert str(plans[0]) == "-"
    assert not any(disturbance.plan(number, hogs=False).hogs for number in range(1, 20))


def test_the_first_epoch_that_differs_is_found(tmp_path: Path) -> None:
    def hashes(name: str, *changed: int, count: int = 5) -> Path:
        path = tmp_path / name
        text = [f"{n} {n * 10} {n in changed} aa" for n in range(2, 2 + count)]
        path.write_text("\n".join(text) + "\n")
        return path

    def first(one: Path, other: Path) -> tuple[int | None, int]:
        return comparison._first_epoch(one, other)

    plain = hashes("plain")
    assert first(plain, hashes("same")) == (None, 60)
    assert first(plain, hashes("early", 2)) == (2, 0)
    assert first(plain, hashes("late", 4, 5)) == (4, 30)
    assert first(plain, hashes("short", count=3)) == (5, 40)


def test_links_of_a_page_are_paths_on_the_same_server() -> None:
    page = b"""<a href="/a">a</a> <a href='b/c?x=1&amp;y=2'>b</a> <img src=/pic.png>
        <a href="https://elsewhere/x">e</a> <a href="//other/y">o</a> <a href="#here">h</a>
        <a href="mailto:a@b">m</a> <form action="/send"></form> <a href="/a">again</a>"""
    assert http.links(page) == ["/a", "/b/c?x=1&y=2", "/pic.png", "/send"]


class Answers:
    """A stream that gives what it is told to."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_batch_of_lines_ends_with_the_known_answer() -> None:
    def read(least: int, *pieces: bytes) -> list[bytes]:
        stream = Answers(*pieces)
        asyncio.run(lines.until_mark(stream, b"+PONG\r\n", least))  # type: ignore[arg-type]
        return stream.pieces

    assert read(2, b"+OK\r\n+PO", b"NG\r\n", b"next") == [b"next"]
    # An error that looks like the mark does not end a batch of more lines.
    assert read(2, b"+PONG\r\n", b"+PONG\r\n") == []
    with pytest.raises(Lost):
        read(2, b"+OK\r\n")


def test_requests_of_every_kind_can_be_read_by_their_protocol() -> None:
    pick = random.Random(1)
    text = lines.Lines(b"+PONG\r\n")
    for _ in range(200):
        line = text.single(pick)
        assert line.endswith(b"\r\n")
        assert line.count(b"\n") == 1
    web = http.Http("127.0.0.1:80", ["/", "/a?b=c"], keeps=True)
    for _ in range(200):
        head, _, body = web.single(pick).partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert len(body) == (int(length[1]) if length else 0)
