"""Copies of private directories that go from one replica to another."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crane import initial, ownership
from crane.config import NodeConfig
from crane.errors import CraneError
from crane.mail import Post, decode


class Network(Post):
    """The mail of one of several replicas in this process, of which some may be lost."""

    def __init__(self, own: int, everybody: dict[int, Network]) -> None:
        super().__init__(own, pytest.fail)
        self.everybody = everybody
        self.me = own
        everybody[own] = self
        self.lose: Callable[[bytes], bool] = lambda _: False

    def others(self) -> list[int]:
        return [one for one in self.everybody if one != self.me]

    def send(self, to: int, mail: bytes) -> None:
        if to in self.everybody and not self.lose(mail):
            header, content = decode(mail)
            handler = self.everybody[to]._handlers[header.kind]
            asyncio.get_running_loop().call_soon(handler, self.me, header, content)


class Replica:
    def __init__(
        self, number: int, base: Path, private: Path, everybody: dict[int, Network], **more: Any
    ) -> None:
        self.state = base / f"state-{number}"
        self.state.mkdir()
        self.config = NodeConfig(
            name="c",
            cluster_id="0" * 32,
            id=number,
            peers={"1": "127.0.0.1:1", "2": "127.0.0.1:2"},
            argv=["p"],
            program="/bin/true",
            cwd="/",
            env={},
            state_dir=str(self.state),
            private=[str(private)],
            **more,
        )
        self.said: list[dict[str, Any]] = []
        self.post = Network(number, everybody)
        self.giver = initial.Giver(self.config, self.state, self.post)
        self.taker = initial.Taker(self.config, self.state, self.post, self.said.append)
        self.copy = ownership.copies(self.config, self.state)[str(private)]

    def messages(self) -> str:
        return "\n".join(str(event.get("message")) for event in self.said)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A directory with everything that a file system has."""
    top = tmp_path / "data"
    (top / "dir").mkdir(parents=True)
    (top / "big").write_bytes(os.urandom(3 * initial.PIECE + 17))
    odd = os.fsencode(top) + b"/- odd\n\xff\xfe name"
    Path(os.fsdecode(odd)).write_text("odd")
    (top / ("long" * 60)).write_text("long")
    (top / "hard").hardlink_to(top / "big")
    (top / "link").symlink_to("/etc/passwd")
    (top / "dangling").symlink_to("../no/such")
    (top / "secret").write_text("s")
    (top / "secret").chmod(0o4710)
    with (top / "holes").open("wb") as file:
        file.truncate(5 << 20)
    os.mkfifo(top / "pipe")
    with suppress(OSError):  # a file system without them
        os.setxattr(top / "secret", "user.color", b"\0green\n")
    for path in (top / "secret", top / "dir"):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    (top / "dir").chmod(0o555)
    return top


def everything(top: Path) -> dict[str, Any]:
    """What a program can see of a tree."""
    found: dict[str, Any] = {}
    for directory, names, others in os.walk(top):
        for name in (*names, *others, "."):
            path = Path(directory, name)
            one = path.lstat()
            content: bytes | str = b""
            if stat.S_ISREG(one.st_mode):
                content = path.read_bytes()
            elif path.is_symlink():
                content = str(path.readlink())
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            mode = (one.st_mode, one.st_uid, one.st_gid, one.st_nlink, one.st_mtime_ns)
            found[str(path.relative_to(top))] = (*mode, content, attributes)
    return found


def test_all_begin_with_what_the_first_one_has(
    tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial, "_PIECE_SECONDS", 0.3)
    everybody: dict[int, Network] = {}
    one, two = (Replica(number, tmp_path, original, everybody) for number in (1, 2))
    as_it_was = everything(original)

    async def run() -> None:
        await asyncio.gather(one.taker.complete(), two.taker.complete())
        # What is changed later does not count: who comes later gets the copies.
        (original / "big").write_text("other")
        late = Replica(3, tmp_path, original, everybody, join=True)
        late.post.lose = lambda mail: b"get_private" in mail and not lost and not lost.append(mail)
        await late.taker.complete()
        assert everything(late.copy) == as_it_was
        assert "begins with replica 1's" in late.messages()
        assert "is not used" in late.messages()
        for replica in (one, two, late):
            await replica.giver.close()

    lost: list[bytes] = []
    asyncio.run(run())
    assert lost
    assert everything(one.copy) == everything(two.copy) == as_it_was
    assert not list(tmp_path.glob("*/private.new"))
    copying = [event for event in two.said if event["kind"] == "copying"]
    assert copying[-1]["done"] == copying[-1]["of"]


def test_nobody_makes_copies_while_another_may_have_them(tmp_path: Path, original: Path) -> None:
    everybody: dict[int, Network] = {}
    one = Replica(1, tmp_path, original, everybody)
    joins = Replica(9, tmp_path, original, everybody, join=True)

    async def run() -> None:
        waiting = [asyncio.create_task(each.taker.complete()) for each in (one, joins)]
        done, _ = await asyncio.wait(waiting, timeout=2.5)
        assert not done
        assert one.taker.status()["waits"] == (
            f"waits for replica 2, which may have it, to begin with the same {original}"
        )
        # It had it all the time.
        two = Replica(2, tmp_path, original, everybody)
        ownership.prepare(two.config, two.state, fresh=True)
        (original / "big").write_text("other")
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert everything(one.copy) == everything(joins.copy) == everything(two.copy)
        await two.giver.close()

    asyncio.run(run())


def test_what_does_not_arrive_whole_is_thrown_away(tmp_path: Path, original: Path) -> None:
    everybody: dict[int, Network] = {}
    one, two = (Replica(number, tmp_path, original, everybody) for number in (1, 2))
    ownership.prepare(one.config, one.state, fresh=True)
    handler = two.post._handlers["private"]

    def damage(sender: int, header: Any, content: bytes) -> None:
        handler(sender, header, content[:-1] + b"x" if header.at == initial.PIECE else content)

    two.post.route(("private",), damage)

    async def run() -> None:
        taking = asyncio.create_task(two.taker.complete())
        while "did not arrive as they were sent" not in two.messages():
            assert not taking.done()
            await asyncio.sleep(0.01)
        assert not two.copy.exists()
        two.post.route(("private",), handler)
        await asyncio.wait_for(taking, 20)
        await one.giver.close()

    asyncio.run(run())
    assert everything(two.copy) == everything(original)


def test_a_lost_copy_is_named(tmp_path: Path, original: Path) -> None:
    one = Replica(1, tmp_path, original, {})
    with pytest.raises(CraneError, match=r"own copy of .* is missing .*copy_private"):
        ownership.prepare(one.config, one.state, fresh=False)
