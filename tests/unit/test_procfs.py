from __future__ import annotations

import os
import signal
import subprocess

from conftest import wait_for

from crane import procfs
from crane.procfs import ProcessIdentity, ProcessStat


def test_command_names_may_hold_anything() -> None:
    rest = " ".join(str(number) for number in range(4, 22))
    found = procfs.parse_stat(f"12 (a) b (c) S 3 {rest} 777 5\n")
    assert found.pid == 12
    assert found.state == "S"
    assert found.parent == 3
    assert found.start_time == 21


def test_descendants_come_parents_first() -> None:
    def process(pid: int, parent: int) -> ProcessStat:
        return ProcessStat(pid=pid, state="S", parent=parent, start_time=0)

    table = [process(9, 7), process(7, 5), process(6, 5), process(5, 1), process(2, 1)]
    assert [one.pid for one in procfs.descendants(5, table)] == [6, 7, 9]


def test_an_identity_is_one_process_and_not_its_pid() -> None:
    own = ProcessIdentity.own()
    assert own.alive()
    other = ProcessIdentity(own.pid, own.start_time + 1)
    assert not other.alive()
    assert other.open() is None
    assert not other.signal(signal.SIGKILL)


def test_a_tree_is_stopped_and_goes_on() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"]) as shell:
        identity = ProcessIdentity.of(shell.pid)
        assert identity is not None

        def children() -> list[ProcessStat]:
            return procfs.descendants(shell.pid, procfs.all_processes())

        wait_for(lambda: len(children()) == 2)
        assert procfs.signal_tree(shell.pid, signal.SIGSTOP) == 2
        wait_for(lambda: all(one.stopped for one in children()))
        procfs.signal_tree(shell.pid, signal.SIGCONT)
        wait_for(lambda: not any(one.stopped for one in children()))
        procfs.signal_tree(shell.pid, signal.SIGKILL)
        shell.kill()
    assert not identity.alive()


def test_namespace_pid_of_an_ordinary_process_is_its_pid() -> None:
    assert procfs.namespace_pid(os.getpid()) == os.getpid()
    assert procfs.namespace_pid(2**22 + 1) is None
