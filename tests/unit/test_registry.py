from __future__ import annotations

import os
from pathlib import Path

import pytest

from crane import registry
from crane.errors import CraneError, UsageError
from crane.procfs import ProcessIdentity
from crane.registry import RUN, ClusterRunDir, NodeEntry, RunEntry


def register(root: Path, name: str, process: ProcessIdentity) -> ClusterRunDir:
    directory = ClusterRunDir(name, root)
    directory.create()
    directory.write(RUN, RunEntry(process=process, state_dir="/s", argv=["x"], replicas=[1]))
    directory.write("1", NodeEntry(process=process, id=1, peers=[1], argv=["x"], log="/l"))
    return directory


def test_a_living_cluster_is_found(tmp_path: Path) -> None:
    directory = register(tmp_path / "run", "shop", ProcessIdentity.own())
    assert [one.name for one in registry.running(tmp_path / "run")] == ["shop"]
    assert list(directory.nodes()) == [1]
    assert registry.choose(None, tmp_path / "run").name == "shop"
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    # This process's pid, but of an earlier process that had it.
    reused = ProcessIdentity(os.getpid(), ProcessIdentity.own().start_time - 1)
    directory = register(tmp_path / "run", "shop", reused)
    directory.socket(RUN).touch()
    assert not directory.in_use()
    assert not directory.path.exists()


def test_an_entry_nobody_understands_is_removed(tmp_path: Path) -> None:
    directory = ClusterRunDir("shop", tmp_path / "run")
    directory.create()
    (directory.path / "run.json").write_text("{}")
    assert directory.run() is None


def test_choosing_says_what_there_is(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with pytest.raises(UsageError, match="no cluster runs on this machine"):
        registry.choose(None, root)
    for name in ("one", "two"):
        register(root, name, ProcessIdentity.own())
    with pytest.raises(UsageError, match="choose one with --name: one, two"):
        registry.choose(None, root)
    with pytest.raises(UsageError, match="no cluster `x` runs on this machine; running are: one"):
        registry.choose("x", root)
    assert registry.choose("two", root).name == "two"


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/")
    with pytest.raises(CraneError, match="belongs to another user"):
        ClusterRunDir("shop", tmp_path / "run").create()
