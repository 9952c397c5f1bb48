"""Hosts with an address that goes with the leadership."""

from __future__ import annotations

import subprocess
import time

from msgspec import structs
from scenario import wait_for

from crane import config as configuration
from crane import wish
from crane.chaos.failover import redis_command
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.resp import Redis
from crane.checkpoint.schedule import Policy

PORT = 6379


class VirtualHosts(Hosts):
    """Hosts 1 to 3, and an address that the leader's has besides its own."""

    @property
    def virtual(self) -> str:
        return self.network.address(100)

    def configure(self, number: int) -> None:
        super().configure(number)
        node = self.state.node_config(self.cluster, number)
        node = structs.replace(node, virtual_address=f"{self.virtual}/24", virtual_interface="eth0")
        (self.place(number) / "node.toml").write_text(configuration.dump(node))

    def holders(self) -> list[int]:
        """Which hosts have the address, by their own tables."""
        found = []
        for number in self.numbers:
            words = [*self.network.inside(number), "ip", "-4", "-o", "address"]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            if f"{self.virtual}/" in said:
                found.append(number)
        return found

    def leads(self) -> int:
        """The leader, as soon as there is one."""
        wait_for("a leader", lambda: any(one.role == "leader" for one in self.status().replicas))
        return self.leader()

    def node_pid(self, number: int) -> int:
        pid = self.replica(number).node_pid
        assert pid is not None
        return pid

    def mend(self) -> None:
        """Heal and start everything, and see that nothing was lost."""
        self.network.cut([])
        for number in self.numbers:
            if not self.runs(number):
                self.restart(number)
        self.wait_settled()


def virtual_redis() -> VirtualHosts:
    """A Redis on three hosts; nothing is started yet."""
    wanted, _ = wish.wanted(redis_command(PORT), name="virtual")
    # A replica that begins from a checkpoint knows no connections from before it.
    wanted = structs.replace(wanted, checkpoints=Policy(interval=0, log_mib=0))
    return VirtualHosts(wanted, base=new_base())


def through(hosts: VirtualHosts, seconds: float = 20.0) -> Redis:
    """A connection through the virtual address, as soon as there is one."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            with Redis((hosts.virtual, PORT), 1.0) as client:
                client.ask("PING")
            return Redis((hosts.virtual, PORT), seconds)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
