"""``crane run`` and the commands around it, with real processes and a stand-in engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cranes, needs_root, wait_for

from crane import procfs
from crane.registry import ClusterRunDir

pytestmark = needs_root


def row(cranes: Cranes, number: int) -> dict[str, object]:
    answer = json.loads(cranes.crane("status", "--json", "--name", cranes.name).stdout)
    assert answer["name"] == cranes.name
    found: dict[str, object] = answer["replicas"][number - 1]
    return found


def remains(cranes: Cranes) -> list[str]:
    """Everything a run must not leave behind."""
    left = [str(path) for path in Path("/dev/shm").glob(f"crane-{cluster_id(cranes)[:12]}-*")]
    left += [str(path) for path in cranes.run_dir.glob("*")]
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if "crane-test" in line]
    for process in procfs.all_processes():
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if process.alive and str(cranes.run_dir).encode() in environ:
            left.append(f"process {process.pid}")
        if process.alive and f"CRANE_TEST={cranes.name}".encode() in environ:
            left.append(f"program {process.pid}")
    return left


def cluster_id(cranes: Cranes) -> str:
    found: str = json.loads((cranes.state / "cluster.json").read_text())["cluster_id"]
    return found


def test_a_cluster_serves_and_ctrl_c_leaves_nothing(cranes: Cranes) -> None:
    process = cranes.start("--", "sh", "-c", "echo hello; sleep 300; exit")
    wait_for(lambda: cranes.crane("logs", "2").stdout)
    assert {row(cranes, number)["role"] for number in (1, 2, 3)} == {"leader", "follower"}
    assert row(cranes, 2)["address"] == "127.0.0.2:6379"
    assert row(cranes, 2)["healthy"] is True
    assert f"{cranes.name}  3/3  sh -c" in cranes.crane("list").stdout
    assert cranes.crane("logs", "2").stdout == "hello\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert remains(cranes) == []


def test_a_killed_run_leaves_nothing(cranes: Cranes) -> None:
    process = cranes.start("--", "sleep", "300")
    cranes.crane("pause", "2")
    process.kill()
    process.wait(20)
    name = ClusterRunDir(cranes.name, cranes.run_dir)
    wait_for(lambda: not name.in_use())
    wait_for(lambda: remains(cranes) == [])


def test_faults_and_repair(cranes: Cranes) -> None:
    process = cranes.start("--", "sleep", "300")
    before = row(cranes, 1)
    assert cranes.crane("kill", "1").returncode == 0
    dead = row(cranes, 1)
    assert (dead["role"], dead["healthy"], dead["node_pid"]) == ("down", False, None)
    for pid in (before["node_pid"], before["server_pid"]):
        assert isinstance(pid, int)
        found = procfs.stat(pid)
        assert found is None or not found.alive
    assert "replica 1 is down" in cranes.crane("pause", "1").stderr

    assert cranes.crane("restart", "1").returncode == 0
    assert row(cranes, 1)["healthy"] is True

    assert cranes.crane("pause", "2").returncode == 0
    paused = row(cranes, 2)
    assert (paused["role"], paused["state"]) == ("down", "paused")
    for pid in (paused["node_pid"], paused["server_pid"]):
        assert isinstance(pid, int)
        found = procfs.stat(pid)
        assert found is not None
        assert found.stopped
    assert cranes.crane("resume", "2").returncode == 0
    assert row(cranes, 2)["healthy"] is True

    # A paused replica can be killed, and a living one restarted.
    cranes.crane("pause", "3")
    assert cranes.crane("kill", "3").returncode == 0
    assert cranes.crane("restart", "3").returncode == 0
    assert cranes.crane("restart", "2").returncode == 0

    assert cranes.crane("stop").returncode == 0
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "replica 1 is back" in output
    assert "replica 1 is down: killed by SIGKILL" in errors
    assert remains(cranes) == []


def test_the_state_is_found_again(cranes: Cranes) -> None:
    cranes.start("--", "sleep", "300")
    peers = (cranes.state / "replicas" / "1" / "node.toml").read_text()
    again = cranes.run("--", "sleep", "300")
    assert again.returncode == 1
    assert f"a cluster `{cranes.name}` runs already" in again.stderr
    cranes.crane("stop")
    cranes.start("--", "sleep", "300")
    assert (cranes.state / "replicas" / "1" / "node.toml").read_text() == peers
    cranes.crane("stop")
    other = cranes.run("--", "sleep", "301")
    assert other.returncode == 2
    assert "holds the state of `sleep 300`" in other.stderr


def test_the_programs_output_is_kept(cranes: Cranes) -> None:
    ended = cranes.run("--", "sh", "-c", "echo first; echo last words; exit 7")
    assert ended.returncode == 7
    # The stand-in serves at once, so that one replica's end may come before the run's.
    line = ended.stderr.splitlines()[-1]
    assert "`sh` ended with exit status 7" in line
    assert 'it said: "last words"' in line
    logs = [path.read_text() for path in cranes.state.glob("replicas/*/server.log")]
    assert "first\nlast words\n" in logs
    assert remains(cranes) == []


def test_a_program_that_ends_well_is_an_error_all_the_same(cranes: Cranes) -> None:
    ended = cranes.run("--", "true")
    assert ended.returncode == 1
    assert "`true` ended with exit status 0" in ended.stderr


def test_an_interposer_that_does_not_report_in(cranes: Cranes, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    process = cranes.start("--", "sleep", "300")
    text = (cranes.state / "replicas" / "1" / "node.toml").read_text()
    cranes.crane("stop")
    process.wait(20)
    file.write_text(text.replace("attach_timeout = 20.0", "attach_timeout = 0.3"))
    ended = subprocess.run(
        [sys.executable, "-m", "crane", "node", "--config", str(file)],
        env={**cranes.environment, "CRANE_TEST_ENGINE": "detached"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "the interposer did not report in from `sleep` within 0.3 s" in ended.stderr
    assert remains(cranes) == []


def test_an_engine_that_refuses(cranes: Cranes) -> None:
    ended = cranes.run("--", "sleep", "300", CRANE_TEST_ENGINE="refuse")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.endswith(": the log belongs to another cluster; give another state_dir")
    assert remains(cranes) == []


def test_a_taken_port_is_named(cranes: Cranes) -> None:
    import socket

    cranes.start("--", "sleep", "300")
    cranes.crane("stop")
    peers = json.loads((cranes.state / "cluster.json").read_text())["peers"]
    host, port = peers["2"].split(":")
    with socket.create_server((host, int(port))):
        ended = cranes.run("--", "sleep", "300")
    assert ended.returncode == 1
    assert f"replica 2 needs {host}:{port}" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "no program was given"),
        (["run", "--", "no-such-program"], 127, "`no-such-program` was not found in PATH"),
        (["run", "--", "./none"], 127, "`./none` does not exist"),
        (["run", "--name", "A B", "--", "sleep"], 2, "`A B` is not a cluster name"),
        (["run", "--replicsa", "3", "--", "sleep"], 2, "--replicsa"),
        (["run", "-n", "0", "--", "sleep"], 2, "0 is not in the range"),
        (["run", "-f", "/no/file", "--", "sleep"], 2, "/no/file: there is no such file"),
        (["status"], 2, "no cluster runs on this machine; start one with `crane run"),
        (["kill", "x"], 2, "'x' is not a valid integer range"),
        (["kill"], 2, "Missing argument 'REPLICA'"),
        (["stauts"], 2, "No such command 'stauts'"),
        (["node", "--config", "/no/file"], 2, "/no/file: there is no such file"),
    ],
)
def test_wrong_usage_is_one_line(
    cranes: Cranes, arguments: list[str], code: int, says: str
) -> None:
    ended = cranes.crane(*arguments)
    assert ended.returncode == code
    (line,) = ended.stderr.splitlines()
    assert line.startswith("crane: error: ")
    assert says in line


def test_a_cluster_file(cranes: Cranes, tmp_path: Path) -> None:
    file = tmp_path / "crane.toml"
    file.write_text(
        'command = ["sh", "-c", "echo $GREETING from `pwd`; exit 4"]\n'
        'replicas = 1\ndurability = "memory"\ncwd = "."\n[env]\nGREETING = "hello"\n'
    )
    ended = cranes.run("-f", str(file))
    assert ended.returncode == 4
    assert f'it said: "hello from {tmp_path}"' in ended.stderr
    written = json.loads((cranes.state / "cluster.json").read_text())
    assert (written["durability"], list(written["peers"])) == ("memory", ["1"])


def test_an_idle_cluster_costs_nothing(cranes: Cranes) -> None:
    """Context switches are counted, because so little time is not measurable."""
    process = cranes.start("--", "sleep", "300")

    def children() -> list[int]:
        return [one.pid for one in procfs.descendants(process.pid, procfs.all_processes())]

    # Node, keeper, init and program of each replica.
    wait_for(lambda: len(children()) == 12)
    pids = [process.pid, *children()]

    def switches() -> int:
        total = 0
        for pid in pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    def calm() -> bool:
        before = switches()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        return switches() == before

    wait_for(calm)
    os.kill(process.pid, signal.SIGTERM)
