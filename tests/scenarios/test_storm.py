"""Faults at random, several at once, while clients write."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from scenario import Cluster, wait_for

from crane.chaos.failover import conclude
from crane.chaos.load import Load

FAULTS = 6


class Storm:
    """Does one thing after the other to a cluster, and puts it right again."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._pick = random.Random(seed)

    def blow(self) -> str:
        """One fault and its repair; what it was."""
        victims = self._pick.sample([1, 2, 3], 2)
        fault: Callable[[int, int], None] = self._pick.choice(
            [self.kill, self.pause, self.kill_and_pause, self.kill_two]
        )
        fault(*victims)
        return f"{fault.__name__} {victims}"

    def kill(self, one: int, _: int) -> None:
        self._cluster.kill(one)
        self._wait(1.0)
        self._cluster.restart(one)

    def pause(self, one: int, _: int) -> None:
        self._cluster.pause(one)
        self._wait(2.0)
        self._cluster.resume(one)

    def kill_and_pause(self, one: int, other: int) -> None:
        self._cluster.kill(one)
        self._cluster.pause(other)
        self._wait(1.0)
        self._cluster.resume(other)
        self._cluster.restart(one)

    def kill_two(self, one: int, other: int) -> None:
        self._cluster.kill(one)
        self._cluster.kill(other)
        self._wait(0.5)
        self._cluster.restart(one)
        self._cluster.restart(other)

    def _wait(self, most: float) -> None:
        time.sleep(self._pick.uniform(0.0, most))


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_whatever_happens(redis: Cluster, seed: int) -> None:
    storm = Storm(redis, seed)
    # Slower than it could be: a replica that starts does all of it again.
    load = Load(redis.addresses(), connections=9, interval=0.002)
    load.start()
    happened = []
    try:
        for _ in range(FAULTS):
            happened.append(storm.blow())
            count = len(load.answers)
            wait_for("more answers", lambda least=count + 20: len(load.answers) > least, 40.0)
            for number in (1, 2, 3):
                redis.wait_caught_up(number)
    finally:
        load.stop()
    outcome = conclude(redis, load, [])
    assert outcome.problems() == [], happened
    redis.must_settle()
