from __future__ import annotations

import os
from pathlib import Path

import pytest

from crane import temporary


def test_what_is_named_is_kept() -> None:
    words = [
        "/usr/sbin/server",
        "--data=/var/tmp/data/now",
        "-o",
        "unix:/tmp/socket,/tmp//log",
        "/tmp/a name, with everything",
        "--tmpdir=/tmp",
        "/srv/tmp/other",
        "sub/file",
    ]
    assert temporary.own(words, "/var/tmp/here") == {
        "/tmp": ["a", "a name, with everything", "log", "socket"],
        "/var/tmp": ["data", "here"],
    }


def test_what_is_named_from_the_current_directory_is_kept() -> None:
    assert temporary.own(["server", "../tmp/config"], "/usr/lib")["/tmp"] == []
    assert temporary.own(["server", "../tmp/config"], "/usr")["/tmp"] == ["config"]


def test_the_current_directory_is_seen_as_it_is() -> None:
    assert temporary.own(["./server"], "/tmp") == {"/var/tmp": []}


def test_links_are_kept_with_what_they_lead_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/var/tmp/far/away")
    assert temporary.own([str(link)], "/")["/var/tmp"] == ["far"]


def test_files_are_copied_and_directories_are_left_to_mount(tmp_path: Path) -> None:
    machine, place = tmp_path / "machine", tmp_path / "place"
    (machine / "sub" / "deep").mkdir(parents=True)
    (machine / "sub").chmod(0o751)
    (machine / "tool").write_bytes(b"#!")
    (machine / "tool").chmod(0o755)
    (machine / "link").symlink_to("tool")
    (machine / "another").write_text("of somebody else")
    names = ["sub", "tool", "link", "absent"]
    assert temporary.prepare(str(machine), names, place) == [str(machine / "sub")]
    assert sorted(one.name for one in place.iterdir()) == ["link", "sub", "tool"]
    assert (place / "tool").stat().st_mode & 0o777 == 0o755
    assert (place / "sub").stat().st_mode & 0o777 == 0o751
    assert not any((place / "sub").iterdir())
    assert (place / "link").readlink() == Path("tool")
    assert place.stat().st_mode & 0o7777 == 0o1777
    # At a later start they are as at the first.
    (machine / "tool").write_bytes(b"changed")
    temporary.prepare(str(machine), names, place)
    assert (place / "tool").read_bytes() == b"#!"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_kept(tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    machine.mkdir()
    (machine / "file").touch()
    os.chown(machine / "file", 1234, 1235)
    temporary.prepare(str(machine), ["file"], tmp_path / "place")
    found = (tmp_path / "place" / "file").stat()
    assert (found.st_uid, found.st_gid) == (1234, 1235)
