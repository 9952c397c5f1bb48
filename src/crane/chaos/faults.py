"""What can happen to a replica: each fault by its name, how to make it and how to heal it.

A fault is a description. It is made on one replica (the *victim*), lasts for a
while, and is healed; then the cluster must come back to full strength.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Flag, auto
from itertools import permutations
from pathlib import Path

from crane.chaos.crowd import Crowd
from crane.chaos.disks import Disk
from crane.chaos.hosts import Hosts
from crane.chaos.watched import Watched, wait_for
from crane.checkpoint import command as taking
from crane.checkpoint.store import Store
from crane.errors import CraneError

_END_SECONDS = 20.0
_SLOW_KILOBITS = 128
_JUMP_SECONDS = 3 * 3600
_SEGMENTS = "log-*.seg"


class Needs(Flag):
    """What must be there for a fault to be made."""

    NOTHING = 0
    HOSTS = auto()
    DISKS = auto()
    CLOCKS = auto()
    CHECKPOINTS = auto()


@dataclass(kw_only=True)
class Scene:
    """Where a fault is made."""

    cluster: Watched
    victim: int
    leader: int
    crowd: Crowd
    pick: random.Random
    grow: Callable[[], None] | None = None
    """Has the log grow by more than what is prepared on the disk, where the program is known."""

    @property
    def hosts(self) -> Hosts:
        """The cluster, which has hosts of its own."""
        assert isinstance(self.cluster, Hosts)
        return self.cluster

    @property
    def others(self) -> list[int]:
        """All replicas but the victim."""
        return [number for number in range(1, self.cluster.size + 1) if number != self.victim]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    says: str
    """What happens to replica ``{victim}``."""
    make: Callable[[Scene], None]
    heal: Callable[[Scene], None]
    needs: Needs = Needs.NOTHING
    breaks: bool = False
    """Whether the victim's clients may lose their connections."""
    ends: bool = False
    """Whether the victim's node ends, so that healing starts it again."""
    leads: bool = True
    """Whether it can befall the leader."""
    everyone: bool = False
    """Whether it befalls all replicas, so that nobody is served meanwhile."""


def _restart(scene: Scene) -> None:
    scene.cluster.restart(scene.victim)


def _kill_node(scene: Scene) -> None:
    scene.cluster.kill(scene.victim)


def _kill_program(scene: Scene) -> None:
    entry = scene.cluster.directory.nodes()[scene.victim]
    if entry.server is None:
        raise CraneError(f"replica {scene.victim} runs no program")
    entry.server.signal(signal.SIGKILL)
    wait_for(
        f"the end of replica {scene.victim}, whose program was killed",
        lambda: scene.victim not in scene.cluster.directory.nodes(),
        _END_SECONDS,
    )


def _pause(scene: Scene) -> None:
    scene.cluster.pause(scene.victim)


def _resume(scene: Scene) -> None:
    scene.cluster.resume(scene.victim)


def _power_cut(scene: Scene) -> None:
    """Everything at once; what was not synced is gone where disks are the replicas' own."""
    hosts = scene.hosts
    for disk in hosts.disks.values():
        disk.fail()
    for number in hosts.numbers:
        # One that noticed its disk first has ended by itself.
        with suppress(CraneError):
            hosts.kill(number)


def _power_back(scene: Scene) -> None:
    hosts = scene.hosts
    for number in hosts.numbers:
        hosts.wait_ended(number)
        _new_mount(hosts, number)
    hosts.start()


def _new_mount(hosts: Hosts, number: int) -> None:
    if number in hosts.disks:
        disk = hosts.disks[number]
        # The last of the program's processes may hold it for a moment longer.
        wait_for(f"the release of replica {number}'s disk", lambda: _unmounted(disk), _END_SECONDS)
        disk.mount()


def _unmounted(disk: Disk) -> bool:
    try:
        disk.unmount()
    except CraneError:
        return False
    return True


def _part(scene: Scene) -> None:
    scene.hosts.network.cut(scene.hosts.network.isolate(scene.victim, clients=False))


def _unplug(scene: Scene) -> None:
    scene.hosts.network.cut(scene.hosts.network.isolate(scene.victim, clients=True))


def _deafen(scene: Scene) -> None:
    scene.hosts.network.cut((other, scene.victim) for other in scene.others)


def _mute(scene: Scene) -> None:
    scene.hosts.network.cut((scene.victim, other) for other in scene.others)


def _part_two(scene: Scene) -> None:
    """The victim and the leader, or another if the victim leads."""
    other = scene.leader if scene.leader != scene.victim else scene.others[0]
    scene.hosts.network.cut(permutations((scene.victim, other), 2))


def _mend_network(scene: Scene) -> None:
    scene.hosts.network.cut(())


def _narrow(scene: Scene) -> None:
    scene.hosts.network.limit(scene.victim, _SLOW_KILOBITS)


def _widen(scene: Scene) -> None:
    scene.hosts.network.limit(scene.victim, None)


def _fill_disk(scene: Scene) -> None:
    hosts = scene.hosts
    hosts.disks[scene.victim].fill()
    if scene.grow is not None:
        scene.grow()
        words = hosts.wait_ended(scene.victim)
        if "no space is left" not in words:
            raise CraneError(f"replica {scene.victim}, whose disk is full, said: {words}")


def _free_disk(scene: Scene) -> None:
    hosts = scene.hosts
    hosts.disks[scene.victim].free()
    # It may have had all the space that it needed.
    if not hosts.runs(scene.victim):
        hosts.restart(scene.victim)


def _fail_disk(scene: Scene) -> None:
    scene.hosts.disks[scene.victim].fail()


def _replace_disk(scene: Scene) -> None:
    words = scene.hosts.wait_ended(scene.victim)
    if "nput/output error" not in words:
        raise CraneError(f"replica {scene.victim}, whose disk failed, said: {words}")
    _new_mount(scene.hosts, scene.victim)
    _restart(scene)


def _segments(scene: Scene) -> list[Path]:
    return sorted((scene.hosts.place(scene.victim) / "log").glob(_SEGMENTS))


def _written(path: Path) -> int:
    """Where the zeroes at the end of a preallocated file begin."""
    return len(path.read_bytes().rstrip(b"\0"))


def _tear_log(scene: Scene) -> None:
    """A record that was being written when the power went, and of which half is there."""
    scene.hosts.kill(scene.victim)
    last = _segments(scene)[-1]
    with last.open("r+b") as file:
        # Records end at multiples of eight bytes, and a record may end with zeroes.
        file.seek(-(-_written(last) // 8) * 8 + 64)
        file.write(scene.pick.randbytes(scene.pick.randrange(1, 300)))


def _damage_log(scene: Scene) -> None:
    """A bit of what was synced long ago is another."""
    scene.hosts.kill(scene.victim)
    path = scene.pick.choice(_segments(scene))
    size = _written(path)
    with path.open("r+b") as file:
        place = scene.pick.randrange(size // 4, max(size // 2, size // 4 + 1))
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ 1 << scene.pick.randrange(8)]))


def _lose_log(scene: Scene) -> None:
    """As an operator does who is told that it is damaged."""
    hosts, victim = scene.hosts, scene.victim
    hosts.launch(victim)
    words = hosts.wait_ended(victim)
    if "damaged" not in words and "lost what it had confirmed" not in words:
        raise CraneError(f"replica {victim} did not refuse its damaged log, it said: {words}")
    for path in (hosts.place(victim) / "log").iterdir():
        path.unlink()
    hosts.restart(victim)


def _damage_checkpoint(scene: Scene) -> None:
    """A byte of the newest checkpoint is another, and the replica needs it."""
    hosts, victim = scene.hosts, scene.victim
    taking.take(hosts.directory, victim)
    hosts.kill(victim)
    newest = Store(hosts.place(victim)).newest()
    if newest is None:
        raise CraneError(f"replica {victim} said that it took a checkpoint, and there is none")
    files = [path for path in sorted(newest.path.rglob("*")) if path.is_file()]
    path = max(files, key=lambda one: one.stat().st_size)
    with path.open("r+b") as file:
        place = scene.pick.randrange(path.stat().st_size)
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ 0xFF]))


def _clock_ahead(scene: Scene) -> None:
    scene.hosts.set_clock(scene.victim, _JUMP_SECONDS)


def _clock_behind(scene: Scene) -> None:
    scene.hosts.set_clock(scene.victim, -_JUMP_SECONDS)


def _clock_right(scene: Scene) -> None:
    scene.hosts.set_clock(scene.victim, 0)


def _crowd(scene: Scene) -> None:
    scene.crowd.gather(scene.cluster.addresses()[scene.victim])


def _disperse(scene: Scene) -> None:
    scene.crowd.disperse()


FAULTS: dict[str, Fault] = {
    one.name: one
    for one in (
        Fault(
            name="kill-node",
            says="replica {victim}'s node is killed",
            make=_kill_node,
            heal=_restart,
            breaks=True,
            ends=True,
        ),
        Fault(
            name="kill-program",
            says="replica {victim}'s program is killed",
            make=_kill_program,
            heal=_restart,
            breaks=True,
            ends=True,
        ),
        Fault(
            name="power-cut",
            says="all replicas lose power at once",
            make=_power_cut,
            heal=_power_back,
            needs=Needs.HOSTS | Needs.DISKS,
            breaks=True,
            everyone=True,
        ),
        Fault(
            name="pause",
            says="replica {victim} stands still",
            make=_pause,
            heal=_resume,
            breaks=True,
        ),
        Fault(
            name="partition",
            says="replica {victim} is cut off from the others",
            make=_part,
            heal=_mend_network,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="unplug",
            says="replica {victim} is cut off from everybody",
            make=_unplug,
            heal=_mend_network,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="deaf",
            says="replica {victim} hears no other replica",
            make=_deafen,
            heal=_mend_network,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="mute",
            says="replica {victim} is heard by no other replica",
            make=_mute,
            heal=_mend_network,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="lost-link",
            says="replica {victim} and one other do not hear each other",
            make=_part_two,
            heal=_mend_network,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="slow-network",
            says="replica {victim} sends slowly",
            make=_narrow,
            heal=_widen,
            needs=Needs.HOSTS,
            breaks=True,
        ),
        Fault(
            name="slow-clients",
            says="replica {victim} has clients that do not read, or say nothing",
            make=_crowd,
            heal=_disperse,
        ),
        Fault(
            name="full-disk",
            says="replica {victim}'s disk is full",
            make=_fill_disk,
            heal=_free_disk,
            needs=Needs.HOSTS | Needs.DISKS,
            breaks=True,
        ),
        Fault(
            name="failing-disk",
            says="replica {victim}'s disk fails every write and sync",
            make=_fail_disk,
            heal=_replace_disk,
            needs=Needs.HOSTS | Needs.DISKS,
            breaks=True,
            ends=True,
        ),
        Fault(
            name="torn-log",
            says="replica {victim} dies while it writes its log",
            make=_tear_log,
            heal=_restart,
            needs=Needs.HOSTS,
            breaks=True,
            ends=True,
        ),
        Fault(
            name="damaged-log",
            says="replica {victim} dies, and its log is damaged",
            make=_damage_log,
            heal=_lose_log,
            needs=Needs.HOSTS,
            breaks=True,
            ends=True,
        ),
        Fault(
            name="damaged-checkpoint",
            says="replica {victim} dies, and its newest checkpoint is damaged",
            make=_damage_checkpoint,
            heal=_restart,
            needs=Needs.HOSTS | Needs.CHECKPOINTS,
            breaks=True,
            ends=True,
            leads=False,
        ),
        Fault(
            name="clock-ahead",
            says="replica {victim}'s clock jumps three hours ahead",
            make=_clock_ahead,
            heal=_clock_right,
            needs=Needs.HOSTS | Needs.CLOCKS,
        ),
        Fault(
            name="clock-behind",
            says="replica {victim}'s clock jumps three hours back",
            make=_clock_behind,
            heal=_clock_right,
            needs=Needs.HOSTS | Needs.CLOCKS,
        ),
    )
}
