"""What is left on a program's stacks is the same on every replica: programs write it out."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import Cluster

from crane.chaos.cluster import free_port

SOURCE = Path(__file__).parent / "programs" / "leavings.c"


@pytest.mark.timeout(90)
def test_sums_of_the_stack_do_not_differ(clusters: Callable[..., Cluster], tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed"
    program, port = tmp_path / "leavings", free_port()
    subprocess.run([compiler, "-O1", "-w", "-o", program, SOURCE], check=True)
    cluster = clusters([str(program), str(port)], port)
    cluster.start()
    said = []
    # Through each replica: only one has the client and writes to it.
    for number in (1, 2, 3):
        with socket.create_connection((f"127.0.0.{number}", port), timeout=20) as connection:
            lines = connection.makefile()
            for _ in range(20):
                connection.sendall(b"go\n")
                said += [lines.readline(), lines.readline()]
    assert all(len(line) == 17 for line in said)
    # Compares what each replica's program has written.
    cluster.must_settle()
