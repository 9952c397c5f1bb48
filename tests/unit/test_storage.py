"""Shared and private paths, and ``crane files``, with real sandboxes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import Cranes, needs_root, wait_for

from crane import ownership
from crane.errors import UsageError

pytestmark = needs_root


@pytest.fixture
def data(cranes: Cranes) -> Path:
    """A directory of the machine with two files, of which a program will change one."""
    made = cranes.state.parent / "data"
    made.mkdir()
    (made / "kept").write_text("kept\n")
    (made / "old").write_text("old\n")
    return made


@pytest.fixture
def writing(cranes: Cranes, data: Path) -> subprocess.Popen[str]:
    """Two replicas of a program that made, changed and deleted files and goes on."""
    script = "echo new > sub/new; echo changed >> old; rm kept; ln -s new sub/link; sleep 600"
    options = ["--replicas", "2", "--private", str(data), "--"]
    (data / "sub").mkdir()
    process = cranes.start(*options, "sh", "-c", f"cd {data}; {script}")
    wait_for(lambda: _link_is_there(cranes, data))
    return process


def _link_is_there(cranes: Cranes, data: Path) -> bool:
    return all(
        f"{data}/sub/link" in cranes.crane("files", "list", number).stdout for number in ("1", "2")
    )


def test_what_was_written_is_found_compared_and_copied(
    cranes: Cranes, data: Path, writing: subprocess.Popen[str]
) -> None:
    listed = json.loads(cranes.crane("files", "list", "2", "--json").stdout)["files"]
    kinds = {path: one["kind"] for path, one in listed.items()}
    assert kinds == {
        f"{data}/kept": "deleted",
        f"{data}/old": "file",
        f"{data}/sub": "directory",
        f"{data}/sub/link": "link",
        f"{data}/sub/new": "file",
    }
    same = cranes.crane("files", "diff")
    assert (same.returncode, same.stdout) == (0, "replicas 1, 2: the same 5 entries\n")
    found = Path(cranes.crane("files", "path", "1", f"{data}/old").stdout.strip())
    assert found.read_text() == "old\nchanged\n"
    found.write_text("not what it wrote\n")
    other = cranes.crane("files", "diff", "2", "1")
    assert other.returncode == 1
    assert other.stdout == f"{data}/old has 12 bytes in replica 2, 18 in replica 1 (replica 1)\n"
    gone = cranes.crane("files", "path", "1", f"{data}/kept")
    assert "deleted" in gone.stderr
    target = cranes.state.parent / "copies"
    assert cranes.crane("files", "copy", "2", f"{data}/sub", str(target)).returncode == 0
    assert (target / "sub" / "new").read_text() == "new\n"
    assert (target / "sub" / "link").readlink() == Path("new")
    # The machine's own is as it was.
    assert (data / "kept").exists()
    assert (data / "old").read_text() == "old\n"


def test_what_was_written_is_thrown_away_when_nobody_uses_it(
    cranes: Cranes, data: Path, writing: subprocess.Popen[str]
) -> None:
    refused = cranes.crane("files", "clean")
    assert refused.returncode == 1
    assert "runs; stop it first" in refused.stderr
    writing.terminate()
    writing.wait(30)
    options = ["--state", str(cranes.state)]
    assert "new" in cranes.crane("files", "list", *options).stdout
    assert "MiB were freed" in cranes.crane("files", "clean", *options).stdout
    assert "has no files here" in cranes.crane("files", "list", *options).stderr


def test_a_private_directory_begins_as_its_copy(cranes: Cranes, data: Path) -> None:
    command = ["--replicas", "1", "--private", str(data), "--", "sh", "-c", f"cat {data}/old"]
    (data / "old").chmod(0o640)
    os.utime(data / "old", (1_000_000_000, 1_000_000_000))
    cranes.run(*command)
    copy = cranes.state / "replicas" / "1" / "private" / str(data).lstrip("/") / "old"
    found = copy.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, 1_000_000_000)
    # Later the machine's own has no influence.
    (data / "old").write_text("another\n")
    cranes.run(*command)
    said = (cranes.state / "replicas" / "1" / "server.log").read_text()
    assert said == "old\nold\n"
    other = cranes.run("--replicas", "1", "--private", "/srv", *command[4:])
    assert f"holds a cluster with --private {data}" in other.stderr


def test_a_shared_path_is_the_machines_own(cranes: Cranes, data: Path) -> None:
    out = cranes.state.parent / "out"
    out.mkdir()
    (out / "before").write_text("before\n")
    script = f"cat {out}/before; echo x > {out}/new; echo y > {data}/new; cat {out}/new"
    cranes.run(
        *("--replicas", "1", "--share", f"{out}:rw", "--share", str(data)),
        *("--", "sh", "-c", script),
    )
    said = (cranes.state / "replicas" / "1" / "server.log").read_text()
    assert said.splitlines()[0] == "before"
    assert "Read-only file system" in said
    assert said.splitlines()[-1] == "x"
    assert (out / "new").read_text() == "x\n"
    assert not (data / "new").exists()


@pytest.mark.parametrize(
    ("shared", "private", "message"),
    [
        (["/"], [], "always has its own"),
        ([], ["/proc/self"], "always has its own"),
        (["/no/such"], [], "make it first"),
        ([], ["/etc/hostname"], "is not a directory"),
        (["/etc"], ["/etc/apt"], "lies in /etc"),
        (["/etc"], ["/etc"], "both shared and private"),
        (["/etc", "/etc:rw"], [], "give it once"),
    ],
)
def test_paths_that_cannot_be_are_refused(
    shared: list[str], private: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ownership.check(shared, private)


def test_paths_are_written_down_whole(tmp_path: Path) -> None:
    texts = ["b/../a", "/srv/", "out:rw", "a"]
    assert ownership.normal(texts, tmp_path) == sorted(
        [str(tmp_path / "a"), "/srv", f"{tmp_path}/out:rw"]
    )
