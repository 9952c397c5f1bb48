"""The log of a cluster, while it serves and when it has stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crane.chaos.cluster import Cluster, free_port
from crane.chaos.failover import redis_command
from crane.chaos.resp import Redis
from crane.verify.recording import copy_log

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    base = Path(tempfile.mkdtemp(prefix="crane-v-", dir="/var/tmp"))
    made = Cluster(
        redis_command(free_port()),
        base=base,
        name="production",
        environment={"CRANE_RUN_DIR": str(base / "run")},
    )
    with made:
        yield made


def verify(cluster: Cluster, *words: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    report = cluster.base / "verdict.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "crane", "verify", "--runs", "2", "--json", str(report)),
            *("--work", str(cluster.base / "work"), "--log", str(cluster.state), *words),
        ],
        env={**os.environ, "CRANE_RUN_DIR": str(cluster.base / "run")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done, json.loads(report.read_text()) if report.exists() else None


def test_a_log_is_verified_while_the_cluster_serves_and_after(cluster: Cluster) -> None:
    address = cluster.addresses()[cluster.leader()]
    with Redis(address, 20.0) as redis:
        for number in range(500):
            redis.ask("RPUSH", "list", number)
        done, verdict = verify(cluster)
        assert done.returncode == 0, done.stderr
        assert verdict["identical"]
        # What the replicas said of themselves, all of it.
        assert verdict["live_samples"] >= 1
        # They did not notice.
        assert redis.ask("LLEN", "list") == 500
    assert cluster.stop() == 0
    done, verdict = verify(cluster)
    assert done.returncode == 0, done.stderr
    assert verdict["identical"]
    assert verdict["runs"][0]["epoch"] >= 1
    wrong, _ = verify(cluster, "--", "redis-server", "--port", "1")
    assert wrong.returncode == 2
    assert "leave the program out" in wrong.stderr


def test_a_log_is_copied_whole_and_without_holes(tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.mkdir()
    (source / "meta").write_bytes(b"meta")
    content = os.urandom(3 << 20) + bytes(2 << 20) + b"end"
    (source / "log-00000001.seg").write_bytes(content)
    (source / "spare.tmp").write_bytes(bytes(100))
    copy_log(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "log-00000001.seg").read_bytes() == content
    assert sorted(one.name for one in (tmp_path / "copy").iterdir()) == [
        "log-00000001.seg",
        "meta",
    ]
