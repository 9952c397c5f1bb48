"""One fault under load: made, endured, healed, and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

from crane.chaos.faults import Fault, Scene
from crane.errors import CraneError

_WHOLE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault that was made and healed. Times are of ``time.monotonic``."""

    fault: str
    victim: int
    led: bool
    """Whether the victim was the leader."""
    begin: float
    healing: float
    """When its healing began."""
    whole: float
    """When every replica served again and had done what was agreed."""

    @property
    def recovery(self) -> float:
        """Seconds from the beginning of its healing to full strength."""
        return self.whole - self.healing


def strike(scene: Scene, fault: Fault, hold: float) -> Strike:
    """Make a fault, heal it ``hold`` seconds later, and wait for full strength.

    Raises:
        CraneError: when the cluster does not do what it must, or does not recover.
    """
    begin = time.monotonic()
    try:
        fault.make(scene)
        time.sleep(hold)
        healing = time.monotonic()
        fault.heal(scene)
        scene.cluster.wait_whole(_WHOLE_SECONDS)
    except CraneError as error:
        raise CraneError(f"{fault.says.format(victim=scene.victim)}: {error}") from error
    return Strike(
        fault=fault.name,
        victim=scene.victim,
        led=scene.victim == scene.leader,
        begin=begin,
        healing=healing,
        whole=time.monotonic(),
    )
