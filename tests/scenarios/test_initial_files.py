"""Replicas on machines of which only the first has what the program begins with."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from machines import HOSTS, Machines
from scenario import PYTHON, wait_for

from crane import manifest, ownership
from crane.chaos.cluster import free_port
from crane.config import NodeConfig, load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines of their own need root")
NEW_HOST = "127.0.0.4"


@pytest.fixture
def site() -> Iterator[Path]:
    """What replica 1's machine has; the others have an empty directory, or another one."""
    made = Path(tempfile.mkdtemp(prefix="crane-site-", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "page.html").write_text("hello\n")
    (made / "large").write_bytes(os.urandom(50 << 20))
    Path(os.fsdecode(os.fsencode(made) + b"/- \n\xff.txt")).write_text("odd\n")
    (made / "of-others").write_text("secret\n")
    (made / "of-others").chmod(0o4640)
    os.chown(made / "of-others", 12345, 54321)
    with suppress(OSError):
        os.setxattr(made / "of-others", "user.color", b"green")
    (made / "link").symlink_to("page.html")
    (made / "dir").mkdir(mode=0o750)
    os.utime(made / "dir", ns=(7, 1_234_567_890_123_456_789))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def machines(site: Path) -> Iterator[Machines]:
    def command(port: int) -> list[str]:
        return [PYTHON, "-m", "http.server", "--directory", str(site), str(port)]

    made = Machines(command, ["--private", str(site)])
    try:
        yield made
    finally:
        made.close()


def elsewhere(site: Path, other: Path) -> list[str]:
    """Words that run a command on a machine that has ``other`` at the place of ``site``."""
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(other), str(site)]


def ask(machines: Machines, host: str, path: str) -> bytes:
    url = f"http://{host}:{machines.port}/{path}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        found: bytes = answer.read()
        return found


def serves(machines: Machines, host: str) -> bool:
    with suppress(OSError):
        return ask(machines, host, "page.html") == b"hello\n"
    return False


def lines(place: Path) -> dict[str, Any]:
    """What can be seen of a replica's own copy."""
    config = load(place / "node.toml", NodeConfig)
    found = manifest.collect(config, place)
    top = next(iter(ownership.copies(config, place).values()))
    for path in top.rglob("*"):
        names = os.listxattr(path, follow_symlinks=False)
        found[f"attributes {path.relative_to(top)}"] = str(
            [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        )
    own = ("setting", "cwd", "file")
    return {name: value for name, value in found.items() if not name.startswith(own)}


def test_the_first_ones_directory_goes_to_all(
    machines: Machines, site: Path, tmp_path: Path
) -> None:
    nothing, other = tmp_path / "nothing", tmp_path / "other"
    nothing.mkdir()
    other.mkdir()
    (other / "page.html").write_text("not this one\n")
    large = hashlib.sha256((site / "large").read_bytes()).digest()
    machines.start(2, *elsewhere(site, nothing))
    machines.start(3, *elsewhere(site, other))
    waits = f"waits for replica 1, which has it, to begin with the same {site}"
    for number in (2, 3):
        wait_for("the reason", lambda n=number: waits in machines.log(n).read_text())
    shown = machines.crane("status").stdout
    assert waits in shown
    machines.start(1)
    for number, host in enumerate(HOSTS, 1):
        wait_for(f"replica {number}", lambda h=host: serves(machines, h), 60)
        assert hashlib.sha256(ask(machines, host, "large")).digest() == large
        assert ask(machines, host, "link") == b"hello\n"
    first = lines(machines.place(1))
    assert len(first) > 10
    assert lines(machines.place(2)) == lines(machines.place(3)) == first
    said = machines.log(3).read_text()
    assert f"begins with replica 1's {site}; this machine's own is not used" in said
    assert "copies the initial files of replica 1: " in said
    # The machines' own are as they were.
    assert not list(nothing.iterdir())
    assert (other / "page.html").read_text() == "not this one\n"

    # What the first one has now does not count any more: neither for one whose disk is lost,
    machines.stop(1)
    (site / "page.html").write_text("changed\n")
    for one in ("log", "private", "files", "manifest"):
        path = machines.place(1) / one
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    machines.start(1)
    wait_for("replica 1", lambda: serves(machines, HOSTS[0]), 60)
    # nor for one that is new.
    place = machines.place(4)
    place.mkdir()
    address = f"{NEW_HOST}:{free_port((NEW_HOST,))}"
    node = place / "node.toml"
    command = ["member", "add", f"4={address}", "--config", str(node), "--timeout", "60"]
    adding = machines.begin(*command)
    try:
        wait_for("its file", lambda: node.exists() and "id = 4" in node.read_text())
        text, admin = node.read_text(), f'"{NEW_HOST}:{machines.admin}"'
        for number in (1, 2, 3):
            text = text.replace(f'"{machines.place(number)}"', f'"{place}"')
            text = text.replace(f'"{HOSTS[number - 1]}:{machines.admin}"', admin)
        node.write_text(text)
        machines.crane("init", "--renew", str(machines.made), "--replica", "4")
        machines.start(4, *elsewhere(site, nothing))
        assert adding.wait(60) == 0
    finally:
        adding.kill()
        adding.wait()
    wait_for("replica 4", lambda: serves(machines, NEW_HOST), 60)
    assert lines(place) == lines(machines.place(1)) == first


def test_without_copying_others_are_refused(machines: Machines, site: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        file = machines.place(number) / "node.toml"
        text = file.read_text()
        assert "copy_private = true" in text
        file.write_text(text.replace("copy_private = true", "copy_private = false"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "page.html").write_text("not this one\n")
    machines.start(1)
    machines.start(2)
    machines.start(3, *elsewhere(site, other))
    for number in (1, 2, 3):
        wait_for(
            "the refusal",
            lambda n=number: f"private {site}/page.html" in machines.log(n).read_text(),
        )
    assert machines.nodes.pop(3).wait(20) == 1
