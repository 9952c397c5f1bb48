"""Every fault, made on real nodes with machines, disks and clocks of their own, under load."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from scenario import wait_for

from crane import wish
from crane.chaos import plan
from crane.chaos.crowd import Crowd
from crane.chaos.failover import conclude, redis_command
from crane.chaos.faults import FAULTS, Needs, Scene
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.load import Load
from crane.chaos.resp import Redis, request
from crane.chaos.strike import strike

_PORT = 6379
_BLOB = 1 << 20
_PATIENCE = 3.0
# Nobody's clients may be disturbed that are not the victim's, but for these: those
# that befall everybody, and the one whose victim and leader are both cut off.
_DISTURBING = {"power-cut", "lost-link"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    wanted, _ = wish.wanted(redis_command(_PORT), name="faults")
    with Hosts(wanted, base=new_base(), own_disks=True, own_clocks=True) as made:
        yield made


def test_a_damaged_checkpoint_is_not_used() -> None:
    wanted, _ = wish.wanted(redis_command(_PORT), name="faults")
    with Hosts(wanted, base=new_base()) as hosts:
        test_a_fault_loses_nothing(hosts, "damaged-checkpoint", leads=False)


@pytest.mark.parametrize(
    ("name", "leads"),
    [
        *(
            (name, True)
            for name, fault in FAULTS.items()
            if name != "full-disk" and Needs.CHECKPOINTS not in fault.needs
        ),
        ("slow-network", False),
        # The last, as it makes the log long that replicas replay when they start.
        ("full-disk", True),
    ],
)
def test_a_fault_loses_nothing(hosts: Hosts, name: str, leads: bool) -> None:
    fault = FAULTS[name]
    if fault.needs & ~plan.available(hosts=True):
        pytest.skip(f"{name} cannot be made here: {fault.needs & ~plan.available(hosts=True)}")
    leader = hosts.leader()
    victim = (
        leader if leads and fault.leads else next(one for one in hosts.numbers if one != leader)
    )
    load = Load(hosts.addresses(), name=f"{name}:{leads}", patience=_PATIENCE)
    scene = Scene(
        cluster=hosts,
        victim=victim,
        leader=leader,
        crowd=Crowd(request("GET", "blob")),
        pick=random.Random(name),
        grow=lambda: grow(hosts, victim),
    )
    load.start()
    try:
        wait_for("some answers", lambda: len(load.answers) > 50)
        done = strike(scene, fault, 1.0)
        count = len(load.answers)
        wait_for("answers afterwards", lambda: len(load.answers) > count + 50)
    finally:
        load.stop()
    outcome = conclude(hosts, load, [])
    assert outcome.problems() == []
    assert outcome.lost == 0
    # Far above what it takes, so that a busy machine does not fail it.
    assert load.longest_gap(done.begin, load.answers[-1]) < (15.0 if fault.everyone else 8.0)
    allowed = {1, 2, 3} if name in _DISTURBING else {victim} if fault.breaks else set()
    broken = [one for one in load.breaks if one.replica not in allowed]
    assert not broken


def grow(hosts: Hosts, victim: int) -> None:
    """Have so much agreed that the log needs more than what is on the disk already."""
    other = next(one for one in hosts.numbers if one != victim)
    with Redis((hosts.network.address(other), _PORT), 60.0) as redis:
        for number in range(48):
            assert redis.ask("SET", "blob", f"{number:04}" * (_BLOB // 4)) == "OK"
