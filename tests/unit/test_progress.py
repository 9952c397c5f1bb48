from __future__ import annotations

import signal
from typing import Any

import pytest

from crane.progress import Action, Back, End, Progress, Ready, Removed, Say

LOGS = {1: "/l1", 2: "/l2", 3: "/l3"}


def fresh() -> Progress:
    progress = Progress("redis-server", [1, 2, 3], LOGS)
    for number in (1, 2, 3):
        progress.started(number)
    return progress


def tell(progress: Progress, number: int, **event: Any) -> list[Action]:
    return list(progress.event(number, event))


def serving() -> Progress:
    progress = fresh()
    tell(progress, 1, kind="role", role="leader", term=1, leader=1)
    actions: list[Action] = []
    for number in (1, 2, 3):
        assert actions == []
        tell(progress, number, kind="attached")
        actions = tell(progress, number, kind="listening", address=f"127.0.0.{number}:6379")
    assert actions == [Ready()]
    return progress


def ended(code: int, status: str, output: str = "") -> dict[str, Any]:
    return {"kind": "server_exited", "code": code, "status": status, "output": output}


def texts(actions: list[Action]) -> list[str]:
    return [action.text for action in actions if isinstance(action, Say)]


def test_it_is_ready_when_all_serve_and_one_leads() -> None:
    assert serving().summary() == [
        "replica 1  leader    127.0.0.1:6379",
        "replica 2  follower  127.0.0.2:6379",
        "replica 3  follower  127.0.0.3:6379",
    ]


def test_elections_are_told_once() -> None:
    progress = serving()
    assert texts(tell(progress, 2, kind="role", role="candidate", term=2, leader=0)) == []
    assert texts(tell(progress, 2, kind="role", role="leader", term=2, leader=2)) == [
        "replica 2 leads now (term 2)"
    ]
    assert texts(tell(progress, 3, kind="role", role="follower", term=2, leader=2)) == []
    assert texts(tell(progress, 1, kind="role", role="follower", term=1, leader=1)) == []


def test_a_killed_replica_is_told_and_the_others_go_on() -> None:
    progress = serving()
    assert texts(list(progress.exited(2, -signal.SIGKILL))) == [
        "replica 2 is down: killed by SIGKILL",
        "2 of 3 replicas go on; `crane restart 2` brings it back",
    ]
    told = texts(list(progress.exited(3, -signal.SIGKILL)))
    assert told[1].startswith("no majority: 1 of 3 replicas run and 2 are needed")
    assert not any(isinstance(one, End) for one in progress.exited(1, -signal.SIGKILL))


def test_a_restarted_replica_is_back_when_it_attached() -> None:
    progress = serving()
    list(progress.exited(2, -signal.SIGKILL))
    progress.started(2)
    assert tell(progress, 2, kind="attached") == [Back(2)]
    assert texts(tell(progress, 2, kind="caught_up")) == ["replica 2 has caught up"]


@pytest.mark.parametrize(("code", "exit_code"), [(0, 1), (3, 3), (-signal.SIGSEGV, 139)])
def test_the_programs_end_ends_the_run(code: int, exit_code: int) -> None:
    progress = serving()
    tell(progress, 1, **ended(code, "somehow"))
    first = list(progress.exited(1, 1))
    assert texts(first)[0] == "replica 1 is down: `redis-server` ended there with somehow"
    tell(progress, 2, **ended(code, "somehow", "Bye"))
    (end,) = progress.exited(2, 1)
    assert isinstance(end, End)
    assert end.exit_code == exit_code
    assert end.message.startswith('`redis-server` ended with somehow; it said: "Bye"')


def test_the_last_replicas_program_end_ends_the_run() -> None:
    progress = serving()
    list(progress.exited(1, -signal.SIGKILL))
    list(progress.exited(2, -signal.SIGKILL))
    tell(progress, 3, **ended(1, "exit status 1"))
    assert [one for one in progress.exited(3, 1) if isinstance(one, End)]


def test_a_failed_start_ends_the_run_with_its_reason() -> None:
    progress = fresh()
    tell(progress, 2, kind="failed", message="127.0.0.2:6379 is in use")
    assert list(progress.exited(2, 1)) == [End("replica 2: 127.0.0.2:6379 is in use", 1)]
    (end,) = fresh().exited(3, -signal.SIGKILL)
    assert end == End("replica 3 ended while it started (killed by SIGKILL); see /l3", 1)
    progress = fresh()
    tell(progress, 1, **ended(1, "exit status 1", "bad config"))
    (end,) = progress.exited(1, 1)
    assert isinstance(end, End)
    assert 'ended with exit status 1 before it served clients; it said: "bad config"' in end.message


def test_a_slow_start_says_what_is_missing() -> None:
    progress = fresh()
    assert "replica 1 has not started its program" in progress.late(20).text
    for number in (1, 2, 3):
        tell(progress, number, kind="attached")
    assert "not elected a leader" in progress.late(20).text
    tell(progress, 1, kind="role", term=1, leader=1)
    assert "does not listen" in progress.late(20).text


def test_warnings_and_divergence_are_told() -> None:
    progress = serving()
    told = {"kind": "diverged", "replicas": [3], "epoch": 7, "message": "replica 3 diverged"}
    assert tell(progress, 3, **told) == [Say("replica 3 diverged", warning=True)]
    assert tell(progress, 1, **told) == []
    assert tell(progress, 3, kind="warning", message="disk is full") == [
        Say("replica 3: disk is full", warning=True)
    ]
    assert tell(progress, 2, kind="warning", message="disk is full") == []


def test_a_stopped_replica_is_no_warning() -> None:
    progress = serving()
    progress.stopping(2)
    (first, _) = progress.exited(2, 0)
    assert first == Say("replica 2 is down: stopped")


def test_a_removed_replica_is_no_failure() -> None:
    removed = "replica 2 was removed from the cluster by entry 9 of the log"
    for progress in (serving(), fresh()):
        tell(progress, 2, kind="failed", message=removed)
        assert list(progress.exited(2, 1)) == [Removed(2)]
        progress.left(2)
        assert sorted(progress.replicas) == [1, 3]
        # What it still says is nobody's.
        assert tell(progress, 2, kind="warning", message="late") == []
        assert list(progress.exited(2, 1)) == []


def test_a_change_of_the_members_is_told_once() -> None:
    progress = serving()
    first = tell(progress, 1, kind="members", index=7, voters=[1, 2, 3], learners=[4])
    assert texts(first) == ["the replicas are 1, 2, 3; 4 catching up"]
    for index in (7, 8, 5):
        told = tell(progress, 2, kind="members", index=index, voters=[1, 2, 3], learners=[4])
        assert told == []
