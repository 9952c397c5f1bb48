"""Programs with children and signals: the same on all replicas, also when something dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import PYTHON, Cluster, wait_for

from crane import procfs
from crane.chaos.cluster import free_port

PARENT = Path(__file__).parent / "programs" / "parent.py"


@pytest.fixture
def parent(clusters: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    port = free_port()
    # It is told later of programs that lie there.
    cluster = clusters([PYTHON, str(PARENT), str(port)], port, cwd=tmp_path)
    cluster.start()
    return cluster


def ask(cluster: Cluster, number: int, line: str) -> str:
    with socket.create_connection((f"127.0.0.{number}", cluster.port), timeout=20) as connection:
        connection.sendall(line.encode() + b"\n")
        return connection.makefile().readline().strip()


def compiled(place: Path, name: str, text: str, *flags: str) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    source, program = place / f"{name}.c", place / name
    source.write_text(text)
    subprocess.run([compiler, "-o", program, source, *flags], check=True)
    return program


def test_helpers_are_heard_and_what_cannot_be_kept_in_step_is_not_started(
    parent: Cluster, tmp_path: Path
) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and not path.stat().st_mode & 0o1000:
            path.chmod(path.stat().st_mode | 0o111)
    prints = '#include <stdio.h>\nint main(void) { printf("by printf %d\\n", 7); return 3; }\n'
    helper = compiled(tmp_path, "helper", prints)
    static = compiled(tmp_path, "static", prints, "-static")
    library = tmp_path / "libgone.so"
    subprocess.run(["cc", "-shared", "-o", library, "-xc", "/dev/null"], check=True)
    broken = compiled(tmp_path, "broken", prints, "-Wl,--no-as-needed", str(library))
    library.unlink()
    for number in (1, 2, 3):
        assert ask(parent, number, f"run {helper}") == "3 by printf 7"
        assert ask(parent, number, "run env -i echo scrubbed") == "0 scrubbed"
        assert ask(parent, number, f"run {static}") == "errno 1"
        assert "is statically linked" in ask(parent, number, f"run sh -c {static}")
        # The loader's own words go to a placeholder, where nobody hears them.
        assert ask(parent, number, f"run {broken}") == "127"
        assert ask(parent, number, "run seq 3 5") == "0 3"
    parent.must_settle()
    assert "is statically linked" in parent.log.read_text()


def test_a_child_that_crashes_ends_on_all_replicas_alike(parent: Cluster) -> None:
    for number in (1, 2, 3):
        assert ask(parent, number, "crash") == str(-signal.SIGSEGV)
    parent.must_settle()


def test_a_signal_is_an_input_of_all_replicas(parent: Cluster) -> None:
    parent.crane("signal", "HUP")
    wait_for("the first signal", lambda: ask(parent, 1, "hangups") == "1")
    parent.kill(parent.leader())
    parent.crane("signal", "sighup")
    alive = next(one for one in (1, 2, 3) if one in parent.addresses())
    wait_for("the second signal", lambda: ask(parent, alive, "hangups") == "2")
    assert parent.crane("signal", "NONSENSE", good=False).returncode == 2
    parent.restart(next(row["id"] for row in parent.rows() if not row["healthy"]))
    parent.must_settle()
    assert {ask(parent, number, "hangups") for number in (1, 2, 3)} == {"2"}


def test_a_process_that_is_killed_from_outside_ends_its_replica(parent: Cluster) -> None:
    ask(parent, 1, "keep")
    parent.must_settle()
    children = [
        one.pid
        for one in procfs.all_processes()
        if one.pid in parent.processes()
        and PARENT.name in Path(f"/proc/{one.pid}/cmdline").read_text()
        and one.parent in parent.processes()
        and PARENT.name in Path(f"/proc/{one.parent}/cmdline").read_text()
        and b"sandbox" not in Path(f"/proc/{one.parent}/cmdline").read_bytes()
        and b"crane" not in Path(f"/proc/{one.parent}/cmdline").read_bytes()
    ]
    assert len(children) == 3
    os.kill(children[0], signal.SIGKILL)
    wait_for("its replica's end", lambda: sum(not row["healthy"] for row in parent.rows()) == 1)
    dead = next(row["id"] for row in parent.rows() if not row["healthy"])
    assert "was ended from outside (signal 9)" in parent.crane("logs", str(dead)).stdout
    healthy = next(row["id"] for row in parent.rows() if row["healthy"])
    assert ask(parent, healthy, "hangups") == "0"
