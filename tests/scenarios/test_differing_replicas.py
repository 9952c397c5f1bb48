"""Replicas that do not begin with the same files refuse each other, and say why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenario import PYTHON, Cluster, wait_for

from crane.chaos.cluster import free_port


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "site"
    made.mkdir()
    (made / "page.html").write_text("hello\n")
    yield made
    shutil.rmtree(made)


def start(clusters: Callable[..., Cluster], site: Path) -> Cluster:
    port = free_port()
    command = [PYTHON, "-m", "http.server", "--directory", str(site), str(port)]
    cluster = clusters(command, port, options=["--private", str(site)])
    cluster.start()
    return cluster


def copy(cluster: Cluster, number: int, site: Path) -> Path:
    """A replica's own copy of the page."""
    private = cluster.state / "replicas" / str(number) / "private"
    return private / str(site / "page.html").lstrip("/")


def test_one_with_another_file_cannot_come_back(
    clusters: Callable[..., Cluster], site: Path
) -> None:
    cluster = start(clusters, site)
    follower = cluster.follower()
    cluster.kill(follower)
    directory = cluster.state / "replicas" / str(follower)
    # As on a machine whose disk was lost and whose files are others.
    shutil.rmtree(directory / "log")
    page = copy(cluster, follower, site)
    page.write_text("other\n")
    # It may be refused before or after `crane restart` saw it start.
    cluster.crane("restart", str(follower), good=False)
    wait_for("the message", lambda: "not the same here as on replica" in cluster.said())
    assert f"private {site}/page.html" in cluster.said()
    # The others have a majority and did not care.
    wait_for("a leader", lambda: cluster.leader() != follower)
    # Made equal, it catches up.
    source = copy(cluster, next(one for one in (1, 2, 3) if one != follower), site)
    shutil.copy2(source, page)
    shutil.rmtree(directory / "log")
    (directory / "manifest").unlink()
    cluster.restart(follower)
    cluster.wait_caught_up(follower)
    cluster.must_settle()


def test_a_log_is_refused_by_a_program_that_changed(
    clusters: Callable[..., Cluster], site: Path
) -> None:
    cluster = start(clusters, site)
    follower = cluster.follower()
    cluster.kill(follower)
    copy(cluster, follower, site).write_text("other\n")
    done = cluster.crane("restart", str(follower), good=False)
    assert done.returncode == 1
    assert f"changed since the log was begun: private {site}/page.html" in done.stderr
