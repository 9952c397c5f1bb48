"""The sandbox with real namespaces, mounts and processes, without the interposer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for

from crane import procfs
from crane.sandbox import Spec, ended_badly

SOURCE = Path(__file__).parents[2] / "src"
NOBODY = 65534


class Place:
    """The directories of a sandbox, and a way to start a shell command in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.output = base / "output"
        self.output.touch()
        for name in ("layers", "control", "replicas"):
            (base / name).mkdir()

    def spec(self, command: str, **changes: Any) -> Spec:
        return replace(
            Spec(
                parent=os.getpid(),
                report=-1,
                hostname="shop",
                layers=str(self.base / "layers"),
                control=str(self.base / "control"),
                output=str(self.output),
                program="/bin/sh",
                argv=["sh", "-c", command],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/tmp",
                hidden=[str(self.base)],
                remove=[str(self.base / "control")],
            ),
            **changes,
        )

    def start(self, spec: Spec) -> tuple[subprocess.Popen[bytes], int]:
        """Start it; the keeper and the descriptor of its reports."""
        reports, write = os.pipe()
        lock = os.open(self.base, os.O_RDONLY)
        keeper = subprocess.Popen(
            [sys.executable, "-m", "crane.sandbox"],
            stdin=subprocess.PIPE,
            # As a node does with its state directory's lock.
            pass_fds=[write, lock],
            env={"PYTHONPATH": str(SOURCE)},
        )
        os.close(write)
        os.close(lock)
        assert keeper.stdin is not None
        with keeper.stdin:
            keeper.stdin.write(replace(spec, report=write).to_json())
        return keeper, reports

    def run(self, command: str, **changes: Any) -> list[dict[str, Any]]:
        """Run a command to its end; what was reported."""
        keeper, reports = self.start(self.spec(command, **changes))
        with os.fdopen(reports) as lines:
            found = [json.loads(line) for line in lines]
        assert keeper.wait(20) == 0 or found[-1]["event"] == "failed"
        return found

    def said(self) -> str:
        return self.output.read_text()


@pytest.fixture
def place() -> Iterator[Place]:
    base = Path(tempfile.mkdtemp(prefix="crane-sandbox-"))
    mounted = Path("/proc/self/mounts").read_text()
    try:
        yield Place(base)
        assert Path("/proc/self/mounts").read_text() == mounted
    finally:
        shutil.rmtree(base)


def names(reports: list[dict[str, Any]]) -> list[str]:
    return [one["event"] for one in reports if one["event"] != "warning"]


def test_the_program_has_a_world_of_its_own(place: Place) -> None:
    reports = place.run("echo $$ `hostname` `pwd`; umask; sort /proc/net/dev | grep -c :; exit 3")
    assert names(reports) == ["init", "server", "ended"]
    assert reports[-1]["code"] == 3
    assert place.said().splitlines() == ["1000 shop /tmp", "0022", "1"]


def test_pids_are_the_same_every_time(place: Place) -> None:
    command = "for i in 1 2 3; do sh -c 'echo $$'; done"
    place.run(command)
    first = place.said()
    place.output.write_text("")
    shutil.rmtree(place.base / "layers")
    (place.base / "layers").mkdir()
    place.run(command)
    assert first == place.said()
    assert first.split() == ["1001", "1002", "1003"]


def test_what_it_writes_stays_inside(place: Place) -> None:
    marker = Path("/tmp") / f"crane-test-{os.getpid()}"
    place.run(f"echo x > {marker}; cat {marker}; echo y > /dev/shm/z; ls /dev/shm")
    assert place.said().split() == ["x", "z"]
    assert not marker.exists()
    assert not Path("/dev/shm/z").exists()


def test_it_sees_neither_its_own_state_nor_other_processes(place: Place) -> None:
    place.run(f"ls {place.base}; echo /proc/[0-9]*; ls /dev /.crane | tr '\\n' ' '")
    processes, listing = place.said().splitlines()
    assert processes == "/proc/1 /proc/1000"
    assert "null" in listing
    assert "server.log" in listing
    assert "vda" not in listing


def test_signals_addresses_and_privileges_are_as_agreed(place: Place) -> None:
    place.run(
        "grep -E 'Sig(Blk|Ign)|NoNewPrivs' /proc/self/status | cut -f2; cat /proc/self/personality;"
        " ulimit -n; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0",
        limits=[[7, 512, 512]],
    )
    blocked, ignored, privileges, persona, files, fds, stdin = place.said().split()
    assert (int(blocked, 16), int(ignored, 16), privileges) == (0, 0, "1")
    assert int(persona, 16) == 0x40000
    assert files == "512"
    assert int(fds) == 4  # the three and the listing itself
    assert stdin == "/dev/null"


def test_signals_that_the_starter_ignored_are_not_ignored(place: Place) -> None:
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        place.run("grep -E 'SigIgn' /proc/self/status | cut -f2")
    finally:
        signal.signal(signal.SIGHUP, kept)
    assert int(place.said(), 16) == 0


def test_a_crash_takes_the_rest_with_it(place: Place) -> None:
    reports = place.run("sleep 300 & kill -SEGV $$")
    assert reports[-1] == {"event": "ended", "code": -signal.SIGSEGV, "lost": ""}


def test_a_program_may_go_into_the_background(place: Place) -> None:
    reports = place.run("(sleep 0.2; echo later) & exit 0")
    assert names(reports) == ["init", "server", "first_exit", "ended"]
    assert place.said() == "later\n"


def test_what_cannot_start_says_why(place: Place) -> None:
    missing = place.run("true", program="/no/such")
    assert missing[-1]["event"] == "failed"
    assert missing[-1]["message"] == (
        "the program cannot execute /no/such: No such file or directory"
    )
    nowhere = place.run("true", cwd="/no/where")
    assert nowhere[-1]["message"] == (
        "the program cannot start in /no/where: No such file or directory"
    )


def test_ending_well_is_exit_code_zero_only() -> None:
    assert not ended_badly(0)
    assert ended_badly(1 << 8)
    assert ended_badly(signal.SIGKILL)


def replica_processes(place: Place) -> list[int]:
    """Every process of the machine that has this sandbox's mounts."""
    found = []
    for process in procfs.all_processes():
        try:
            mounts = Path(f"/proc/{process.pid}/mounts").read_text()
        except OSError:
            continue
        if process.alive and str(place.base) in mounts:
            found.append(process.pid)
    return found


def test_asking_the_keeper_ends_everything(place: Place) -> None:
    keeper, reports = place.start(place.spec("sleep 300 & setsid sleep 300 & wait"))
    with os.fdopen(reports) as lines:
        while json.loads(lines.readline())["event"] != "server":
            pass
        assert replica_processes(place)
        keeper.terminate()
        assert keeper.wait(10) == 0
    assert replica_processes(place) == []


@pytest.mark.parametrize("paused", [False, True])
def test_a_killed_parent_leaves_nothing(place: Place, *, paused: bool) -> None:
    """As when the node is killed: also while the program's processes are stopped."""
    script = (
        "import json, os, sys, time; sys.path.insert(0, sys.argv[1]);"
        "from test_sandbox import Place; from pathlib import Path;"
        "place = Place.__new__(Place); place.base = Path(sys.argv[2]);"
        "place.output = place.base / 'output';"
        "keeper, reports = place.start(place.spec('sleep 300 & setsid sleep 300 & wait'));"
        "lines = os.fdopen(reports);\n"
        "while json.loads(lines.readline())['event'] != 'server': pass\n"
        "print(keeper.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(place.base)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        keeper = procfs.ProcessIdentity.of(int(parent.stdout.readline()))
    assert keeper is not None
    wait_for(lambda: len(replica_processes(place)) >= 4)
    if paused:
        init = next(one.pid for one in procfs.all_processes() if one.parent == keeper.pid)
        procfs.signal_tree(init, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    wait_for(lambda: not keeper.alive() and not replica_processes(place), 10)
    assert not (place.base / "control").exists(), "the shared directory is left"


def test_a_killed_keeper_leaves_nothing(place: Place) -> None:
    keeper, reports = place.start(place.spec("sleep 300"))
    with os.fdopen(reports) as lines:
        while json.loads(lines.readline())["event"] != "server":
            pass
        keeper.kill()
        keeper.wait(10)
    wait_for(lambda: replica_processes(place) == [], 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_it_works_without_root(place: Place) -> None:
    """In a user namespace: own uid, no capabilities, everything else the same."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("needs a Python that every user may run")
    shutil.copytree(SOURCE / "crane", place.base / "source" / "crane")
    (place.base / "copy").mkdir()
    (place.base / "copy" / "old").write_text("old")
    for path in [place.base, *place.base.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    reports, write = os.pipe()
    spec = place.spec(
        "id -u; echo $$; touch /usr/x; grep CapEff /proc/self/status; hostname;"
        " cat /srv/old; echo; echo new > /srv/new; cat /srv/new; echo x > /etc/passwd || echo no",
        private=[("/srv", "../copy")],
        shared=[("/etc", False)],
    )
    keeper = subprocess.Popen(
        [python, "-m", "crane.sandbox"],
        stdin=subprocess.PIPE,
        pass_fds=[write],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": str(place.base / "source"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    os.close(write)
    assert keeper.stdin is not None
    with keeper.stdin:
        keeper.stdin.write(replace(spec, report=write).to_json())
    with os.fdopen(reports) as lines:
        found = [json.loads(line) for line in lines]
    keeper.wait(20)
    if found[-1]["event"] == "failed" and "namespaces" in found[-1]["message"]:
        pytest.skip(found[-1]["message"])
    assert names(found) == ["init", "server", "ended"]
    said = [one for one in place.said().splitlines() if not one.startswith("sh:")]
    status = f"CapEff:\t{'0' * 16}"
    assert said == [str(NOBODY), "1000", status, "shop", "old", "new", "no"]
    assert not (place.base / "copy" / "new").exists()


def test_starting_is_quick(place: Place) -> None:
    began = time.monotonic()
    place.run("true")
    assert time.monotonic() - began < 5
