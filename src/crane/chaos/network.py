"""Machines of their own on one machine: network namespaces, joined by a bridge in one more.

What runs here, the clients of a trial, reaches them through one interface. It
needs root, ``ip`` and ``nft``. Links are cut by packet filter rules, so both
ends see what they would of a network that loses everything: silence.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import permutations
from pathlib import Path

from crane.chaos import owned
from crane.errors import CraneError
from crane.procfs import ProcessIdentity

CLIENTS = 0
"""Stands for this machine among the hosts' numbers."""

Link = tuple[int, int]
"""One direction: from this host to that one."""

_NAMESPACES = Path("/run/netns")
# Set aside for trials of networks (RFC 2544): no real network uses them.
_NET = "198.{}.{}"
_TOOLS = ("ip", "nft", "tc", "nsenter")


class Network:
    """Hosts 1 to ``count``; :meth:`close` takes them away. Not for several threads."""

    def __init__(self, count: int) -> None:
        """Make the hosts.

        Raises:
            CraneError: when this process may not, or a tool is missing.
        """
        if os.geteuid() != 0:
            raise CraneError("network namespaces as hosts need root")
        for tool in _TOOLS:
            if shutil.which(tool) is None:
                raise CraneError(
                    f"`{tool}` is missing; hosts need Debian's packages iproute2, nftables and"
                    " util-linux"
                )
        remove_left_behind()
        self.name = owned.new_name()
        self.hosts = list(range(1, count + 1))
        self._net = _free_net()
        # Interfaces have names of 15 characters at the most.
        self._uplink = f"crane{secrets.token_hex(4)}"
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        switch = self._namespace("switch")
        lines = [f"netns add {switch}"]
        lines += [f"netns add {self._namespace(host)}" for host in self.hosts]
        lines += [f"link add {self._uplink} type veth peer name h0 netns {switch}"]
        lines += [
            f"link add eth0 netns {self._namespace(host)} type veth"
            f" peer name h{host} netns {switch}"
            for host in self.hosts
        ]
        lines += [
            f"address add {self.address(CLIENTS)}/24 dev {self._uplink}",
            f"link set {self._uplink} up",
        ]
        _ip(lines)
        ports = [f"h{number}" for number in (CLIENTS, *self.hosts)]
        _ip(
            [
                "link add bridge type bridge",
                "link set bridge up",
                *(f"link set {port} master bridge" for port in ports),
                *(f"link set {port} up" for port in ports),
            ],
            switch,
        )
        for host in self.hosts:
            _ip(
                [
                    "link set lo up",
                    f"address add {self.address(host)}/24 dev eth0",
                    "link set eth0 up",
                ],
                self._namespace(host),
            )

    def address(self, host: int) -> str:
        """A host's IP address; :data:`CLIENTS` has one, too."""
        return f"{self._net}.{host or 254}"

    def inside(self, host: int) -> list[str]:
        """The beginning of a command line that runs the rest on a host, in the same process."""
        return ["nsenter", f"--net={_NAMESPACES / self._namespace(host)}", "--"]

    def cut(self, links: Iterable[Link]) -> None:
        """Lose everything on these links and on no other ones.

        Links between hosts and :data:`CLIENTS` count, too: they are cut on the host.
        """
        lost = set(links)
        for host in self.hosts:
            incoming = [self.address(one) for one, to in lost if to == host]
            # Where the clients are, no rules are made: that is the user's own machine.
            outgoing = [self.address(CLIENTS)] if (host, CLIENTS) in lost else []
            rules = "flush ruleset\n"
            if incoming or outgoing:
                rules += "table inet crane {\n"
                rules += _chain("input", "saddr", incoming) + _chain("output", "daddr", outgoing)
                rules += "}\n"
            _run([*self.inside(host), "nft", "-f", "-"], rules)

    def isolate(self, host: int, *, clients: bool) -> list[Link]:
        """The links that separate a host from the others, and with ``clients`` from them."""
        others = [one for one in self.hosts if one != host] + ([CLIENTS] if clients else [])
        return [link for other in others for link in permutations((host, other), 2)]

    def limit(self, host: int, kilobits: int | None) -> None:
        """Let a host send only so many kilobits a second; ``None`` lifts that."""
        tc = [*self.inside(host), "tc", "qdisc"]
        if kilobits is None:
            _run([*tc, "delete", "dev", "eth0", "root"])
        else:
            rate = ["tbf", "rate", f"{kilobits}kbit", "burst", "4kb", "latency", "400ms"]
            _run([*tc, "replace", "dev", "eth0", "root", *rate])

    def processes(self) -> list[int]:
        """The pids of what runs on the hosts."""
        return [pid for host in self.hosts for pid in _pids(self._namespace(host))]

    def close(self) -> None:
        """Take the hosts away; what still runs there is killed."""
        _remove([*(self._namespace(host) for host in self.hosts), self._namespace("switch")])

    def _namespace(self, who: int | str) -> str:
        return f"{self.name}.{who}"


def _chain(hook: str, field: str, addresses: Sequence[str]) -> str:
    rules = "".join(f"    ip {field} {address} drop\n" for address in addresses)
    return (
        f"  chain {hook} {{\n    type filter hook {hook} priority 0; policy accept;\n{rules}  }}\n"
    )


def remove_left_behind() -> None:
    """Take away the hosts of trials whose process has died."""
    if _NAMESPACES.is_dir():
        _remove([path.name for path in _NAMESPACES.iterdir() if owned.is_left_behind(path.name)])


def _remove(namespaces: Sequence[str]) -> None:
    for name in namespaces:
        if not (_NAMESPACES / name).exists():
            continue
        for pid in _pids(name):
            process = ProcessIdentity.of(pid)
            if process is not None:
                process.signal(signal.SIGKILL)
        # With a namespace its end of every pair of interfaces goes, and so the other end.
        with suppress(CraneError):
            _ip([f"netns delete {name}"])


def _pids(namespace: str) -> list[int]:
    """The pids in a network namespace, found by their own entries in /proc."""
    try:
        wanted = (_NAMESPACES / namespace).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                own = (entry / "ns/net").stat()
                if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry.name))
    return found


def _free_net() -> str:
    """The first three numbers of a network that this machine is not in."""
    known = _run(["ip", "-o", "address"])
    source = random.SystemRandom()
    for _ in range(100):
        net = _NET.format(source.choice((18, 19)), source.randrange(256))
        if f" {net}." not in known:
            return net
    raise CraneError("every network of 198.18.0.0/15 is taken on this machine")


def _ip(lines: Sequence[str], namespace: str | None = None) -> None:
    where = [] if namespace is None else ["-n", namespace]
    _run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: Sequence[str], text: str = "") -> str:
    """Run a command that must succeed; what it said.

    Raises:
        CraneError: with its own words when it did not.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise CraneError(f"`{' '.join(command)}` failed: {words}")
    return done.stdout
