"""What replicas compare before they trust each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cranes, needs_root
from msgspec import structs

from crane import manifest
from crane.config import NodeConfig
from crane.errors import CraneError

Make = Callable[..., NodeConfig]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    library = tmp_path / "libcrane_interposer.so"
    library.write_bytes(b"interposer")
    monkeypatch.setenv("CRANE_INTERPOSER", str(library))
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    (cwd / "lies.about").write_text("x")

    def config(*argv: str, **changes: object) -> NodeConfig:
        plain = NodeConfig(
            name="shop",
            cluster_id="0" * 32,
            id=1,
            peers={"1": "127.0.0.1:1"},
            argv=["sh", *argv],
            program="/bin/sh",
            cwd=str(cwd),
            env={"LANG": "C"},
            state_dir=str(tmp_path / "state"),
        )
        return structs.replace(plain, **changes)

    return config


def lines(config: NodeConfig) -> manifest.Lines:
    return manifest.collect(config, Path(config.state_dir))


def changed(one: NodeConfig | manifest.Lines, other: NodeConfig) -> list[str]:
    first = lines(one) if isinstance(one, NodeConfig) else one
    return manifest.differences(manifest.text(first), manifest.text(lines(other)))


def test_program_libraries_and_settings_are_in_it(make: Make) -> None:
    found = lines(make())
    assert {"interposer", "setting argv", "setting env.LANG", "setting uid"} <= set(found)
    names = [Path(one.removeprefix("file ")).name for one in found if one.startswith("file ")]
    assert "sh" in names
    assert "libc.so.6" in names
    assert changed(make(), make()) == []
    assert changed(make(), make(env={"LANG": "de_DE"}, quantum=7)) == [
        "setting env.LANG",
        "setting quantum",
    ]


def test_files_that_the_arguments_name_are_compared(make: Make, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "below").mkdir(parents=True)
    (site / "below" / "page").write_text("one")
    (tmp_path / "settings.conf").write_text("a")
    config = make("-c", str(tmp_path / "settings.conf"), f"--root={site}", ".", "no-such-file")
    before = lines(config)
    assert changed(before, config) == []
    (site / "below" / "page").write_text("two")
    (tmp_path / "settings.conf").chmod(0o600)
    assert changed(before, config) == [
        f"file {tmp_path}/settings.conf",
        f"file {site}/below/page",
    ]


def test_times_count_because_programs_show_them(make: Make, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("one")
    before = lines(make(str(page)))
    os.utime(page, (1, 1))
    assert changed(before, make(str(page))) == [f"file {page}"]


def test_the_current_directory_is_told_and_does_no_harm(make: Make) -> None:
    config = make()
    before = lines(config)
    assert "cwd lies.about" in before
    Path(config.cwd, "lies.about").write_text("another")
    assert lines(config) != before
    assert changed(before, config) == []


def test_what_the_program_finds_empty_is_left_out(make: Make, tmp_path: Path) -> None:
    inside = tmp_path / "cwd" / "state"
    (inside / "log").mkdir(parents=True)
    (inside / "log" / "LOCK").write_text("")
    found = lines(make(state_dir=str(inside)))
    assert "cwd state" in found
    assert not any("LOCK" in one for one in found)


def test_private_directories_are_compared_by_their_copies(make: Make, tmp_path: Path) -> None:
    config = make(private=["/srv/data"])
    copy = Path(config.state_dir) / "private" / "srv" / "data"
    copy.mkdir(parents=True)
    (copy / "table").write_text("one")
    before = lines(config)
    (copy / "table").write_text("two")
    assert changed(before, config) == ["private /srv/data/table"]


def test_a_log_is_not_executed_with_other_files(make: Make, tmp_path: Path) -> None:
    config, state = make(), tmp_path / "state"
    state.mkdir()
    assert manifest.check_history(lines(config), state, fresh=True, accept=False) == []
    assert manifest.check_history(lines(config), state, fresh=False, accept=False) == []
    other = lines(make(env={"LANG": "de_DE"}))
    with pytest.raises(CraneError, match=r"changed since the log was begun: setting env\.LANG"):
        manifest.check_history(other, state, fresh=False, accept=False)
    assert manifest.check_history(other, state, fresh=False, accept=True) == ["setting env.LANG"]
    assert manifest.check_history(other, state, fresh=False, accept=False) == []


def test_large_trees_are_one_line(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for number in range(5):
        (site / f"{number}\n").touch()
    monkeypatch.setattr(manifest, "_MAX_FILES", 5)
    small = lines(make(str(site)))
    assert len(manifest.text(small).splitlines()) == len(small)
    (site / "5").touch()
    assert lines(make(str(site)))[f"file {site}"] == "too large to be compared"


@needs_root
def test_a_start_with_another_program_file_is_refused(cranes: Cranes) -> None:
    program = cranes.state.parent / "program"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    cranes.run("--replicas", "1", "--", str(program))
    # The engine of these tests keeps no log; one that does has segments.
    (cranes.state / "replicas" / "1" / "log" / "log-00000001.seg").touch()
    program.write_text("#!/bin/sh\nexit 2\n")
    refused = cranes.run("--replicas", "1", "--", str(program))
    assert f"changed since the log was begun: file {program}" in refused.stderr
    accepted = cranes.run("--replicas", "1", "--accept-changes", "--", str(program))
    assert f"accepted, changed since the log was begun: file {program}" in accepted.stderr
