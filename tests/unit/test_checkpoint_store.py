"""Checkpoints on the disk, and their way from one replica to another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from test_checkpoint_schedule import manifest

from crane.checkpoint import exchange
from crane.checkpoint.exchange import PIECE, Fetcher
from crane.checkpoint.store import (
    Checkpoint,
    Manifest,
    Store,
    decode_manifest,
    names_in,
    sum_of,
)
from crane.errors import CraneError
from crane.mail import decode, encode

CONTENT = {
    "share.json": b"{}",
    "segment": b"s" * (3 * PIECE + 17),
    "interposer": b"i",
    "process.json": b"{}",
    "files.json": b"[]",
    "images/core-1000.img": b"",
    "images/pages-1.img": bytes(range(256)) * 1024,
}


def made(store: Store, index: int = 7, **fields: Any) -> Checkpoint:
    new = store.begin()
    (new / "images").mkdir()
    for name, content in CONTENT.items():
        (new / name).write_bytes(content)
    files = {name: sum_of(new / name) for name in names_in(new)}
    return store.finish(new, manifest(index=index, files=files, **fields))


def test_the_newest_is_found_and_the_oldest_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.newest() is None
    for index in (7, 30, 9):
        made(store, index).verify()
    store.begin()  # an unfinished one
    assert [one.index for one in store.all()] == [30, 9, 7]
    store.keep(2)
    assert [one.index for one in store.all()] == [30, 9]
    assert store.path.stat().st_mode & 0o77 == 0
    for file in store.path.rglob("*"):
        assert file.is_dir() or file.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_damage_is_found_and_named(tmp_path: Path, name: str) -> None:
    checkpoint = made(Store(tmp_path))
    with (checkpoint.path / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(CraneError, match=f"{name} is damaged: it has another length"):
        checkpoint.verify()


def test_a_flipped_bit_a_lost_and_an_added_file_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    checkpoint = made(store)
    (checkpoint.path / "segment").write_bytes(b"t" * len(CONTENT["segment"]))
    with pytest.raises(CraneError, match="another content"):
        checkpoint.verify()
    (checkpoint.path / "segment").unlink()
    with pytest.raises(CraneError, match="No such file"):
        checkpoint.verify()
    again = made(store, 8)
    (again.path / "images/core-1.img").touch()
    with pytest.raises(CraneError, match="does not belong"):
        again.verify()
    store.reject(again)
    assert [one.index for one in store.all()] == [7]


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "/etc/passwd", "images/../../x", "a/b", ".new", "images/", "a\n"]
)
def test_a_manifest_names_no_file_outside(name: str) -> None:
    good = {one: {"size": 1, "sha256": ""} for one in CONTENT}
    bad = msgspec.json.encode(manifest(files={**good, name: {"size": 1, "sha256": ""}}))
    with pytest.raises(ValueError, match="it names the file"):
        decode_manifest(bad)


@given(some.binary(max_size=200))
def test_any_mail_is_read_or_refused(mail: bytes) -> None:
    try:
        header, content = decode(mail)
    except ValueError:
        return
    assert decode(encode(header, content)) == (header, content)


class Post:
    """Two replicas' mail, of which some is lost."""

    def __init__(self, theirs: Store, lose: set[int]) -> None:
        self.theirs, self.lose, self.count = theirs, lose, 0
        self.fetcher = Fetcher(self.send, lambda: [2])

    def send(self, to: int, mail: bytes) -> None:
        self.count += 1
        if self.count in self.lose:
            return
        answer = exchange.answer(self.theirs, decode(mail)[0])
        assert answer is not None
        header, content = decode(answer)
        asyncio.get_running_loop().call_soon(self.fetcher.mail, to, header, content)

    def fetch(self, ours: Store, fits: Any = lambda _: True) -> Checkpoint | None:
        async def run() -> Checkpoint | None:
            return await self.fetcher.fetch(ours, fits=fits, progress=print, needed=True)

        return asyncio.run(run())


def test_a_checkpoint_is_copied_although_mail_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_PIECE_SECONDS", 0.05)
    theirs, ours = Store(tmp_path / "2"), Store(tmp_path / "1")
    (tmp_path / "2").mkdir()
    (tmp_path / "1").mkdir()
    made(theirs, 7)
    original = made(theirs, 9)
    copied = Post(theirs, lose={3, 6}).fetch(ours)
    assert copied is not None
    copied.verify()
    assert copied.manifest == original.manifest
    assert [one.index for one in ours.all()] == [9]


def test_one_that_is_damaged_or_of_another_cluster_is_not_taken(tmp_path: Path) -> None:
    theirs, ours = Store(tmp_path / "2"), Store(tmp_path / "1")
    (tmp_path / "2").mkdir()
    (tmp_path / "1").mkdir()
    assert Post(theirs, set()).fetch(ours) is None
    original = made(theirs)
    (original.path / "segment").write_bytes(b"t" * len(CONTENT["segment"]))
    with pytest.raises(CraneError, match="of replica 2 could not be copied"):
        Post(theirs, set()).fetch(ours)
    assert ours.all() == []

    def other(one: Manifest) -> bool:
        return one.cluster_id != original.manifest.cluster_id

    assert Post(theirs, set()).fetch(ours, other) is None
