"""An address that follows the leader, so that clients need to know only one.

The leader's machine has it on an interface and tells the network so; the others do
not. That needs the right to administer the network (root or CAP_NET_ADMIN and
CAP_NET_RAW). A guard process takes the address away when the node is killed:
otherwise its machine would go on to answer for it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crane.errors import CraneError
from crane.native import core

# Between two messages that the address is here.
_TELL_SECONDS = 2.0
# What the guard is told by a node that ends in order.
_FAREWELL = b"."
# For the kernel to close all sockets of a node that died.
_CLOSING_SECONDS = 1.0
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_REPLACE = 0x1, 0x4, 0x400, 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_ETHERNET_ARP = 0x0806


class VirtualAddress:
    """An IPv4 address on one interface of this machine. Not for several threads."""

    def __init__(self, address: str, interface: str) -> None:
        """``address`` with the length of its network, as ``192.0.2.10/24``; nothing is done yet.

        Raises:
            CraneError: when there is no such interface.
        """
        self._address = ipaddress.IPv4Interface(address)
        self._interface = interface
        try:
            self._index = socket.if_nametoindex(interface)
        except OSError as error:
            raise CraneError(
                f"field `virtual_interface`: this machine has no interface `{interface}`"
            ) from error

    @property
    def ip(self) -> str:
        """The address alone."""
        return str(self._address.ip)

    def __str__(self) -> str:
        return f"{self._address} on {self._interface}"

    def add(self) -> None:
        """Give this machine the address and tell the network; again if it has it.

        Raises:
            CraneError: when this process may not, or the interface is gone.
        """
        self._ask(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, ())
        self.tell()

    def remove(self) -> None:
        """Take the address from this machine, if it has it.

        Raises:
            CraneError: when this process may not.
        """
        self._ask(_RTM_DELADDR, 0, (errno.EADDRNOTAVAIL, errno.ENODEV))

    def tell(self) -> None:
        """Tell the network that the address is here; what it believed before is replaced.

        Raises:
            CraneError: when this process may not.
        """
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((self._interface, _ETHERNET_ARP))
                own: bytes = raw.getsockname()[4]
                if len(own) != 6:
                    return  # not an Ethernet: nobody asks there
                ip, everybody = self._address.ip.packed, b"\xff" * 6
                frame = everybody + own + struct.pack("!H", _ETHERNET_ARP)
                for operation in (1, 2):
                    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
                    raw.send(frame + arp + own + ip + everybody + ip)
        except OSError as error:
            raise self._refused(error.errno or 0) from error

    def _ask(self, kind: int, flags: int, harmless: tuple[int, ...]) -> None:
        """One request to the kernel's tables of addresses, see rtnetlink(7)."""
        ip = self._address.ip.packed
        body = struct.pack(
            "BBBBI", socket.AF_INET, self._address.network.prefixlen, 0, 0, self._index
        )
        for name in (_IFA_LOCAL, _IFA_ADDRESS):
            body += struct.pack("HH", 4 + len(ip), name) + ip
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        message = struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.bind((0, 0))
            netlink.send(message)
            answer = netlink.recv(4096)
        (said,) = struct.unpack_from("H", answer, 4)
        (code,) = struct.unpack_from("i", answer, 16)
        if said == _NLMSG_ERROR and code and -code not in harmless:
            raise self._refused(-code)

    def _refused(self, code: int) -> CraneError:
        mend = (
            "the node needs CAP_NET_ADMIN and CAP_NET_RAW for it, or leave `virtual_address` out"
            if code in (errno.EPERM, errno.EACCES)
            else "check `virtual_address` and `virtual_interface`"
        )
        return CraneError(f"the virtual address {self}: {os.strerror(code)}; {mend}")


class Holder:
    """A node's side: the address goes with the leadership. For the loop's thread only."""

    def __init__(
        self, address: str, interface: str, events: Callable[[dict[str, Any]], None]
    ) -> None:
        """Without ``address`` nothing is ever done; ``events`` is told what was."""
        self._where = (address, interface)
        self._events = events
        self._address: VirtualAddress | None = None
        self._guard: _Guard | None = None
        self._telling: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Find out now whether the address could be taken later.

        Raises:
            CraneError: when it could not.
        """
        if self._where[0]:
            address = VirtualAddress(*self._where)
            # What a start before this one may have left.
            address.remove()
            self._guard = _Guard(*self._where, self._hold_back(address))
            self._address = address

    def _hold_back(self, address: VirtualAddress) -> int | None:
        """Let connections go on at the next leader; what keeps their last words back."""
        native = core()
        try:
            kept: int = native.hold_back(address.ip, self._where[1])
        except native.EngineError as error:
            self._events({"kind": "warning", "message": str(error)})
            return None
        return kept

    def hold(self, *, leads: bool) -> None:
        """Have the address if this replica leads, and not otherwise."""
        if self._address is None:
            return
        held = self._telling is not None
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        try:
            if leads:
                self._address.add()
                self._tell_later()
            elif held:
                self._address.remove()
        except CraneError as error:
            self._events({"kind": "warning", "message": str(error)})
        if leads != held:
            message = f"{'took' if leads else 'gave up'} {self._address}"
            self._events({"kind": "virtual", "held": leads, "message": message})

    def _tell_later(self) -> None:
        self._telling = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell_again)

    def _tell_again(self) -> None:
        """One that stood still while it lost the leadership may have told otherwise."""
        assert self._address is not None
        with suppress(CraneError):
            self._address.tell()
        self._tell_later()

    def close(self) -> None:
        """Give the address up for good."""
        self.hold(leads=False)
        if self._guard is not None:
            self._guard.close()
            self._guard = None


class _Guard:
    """A process that takes the address away when this one is gone."""

    def __init__(self, address: str, interface: str, kept: int | None) -> None:
        """``kept`` is a descriptor that it shall have as long as it lives."""
        words = [sys.executable, "-m", "crane.virtual", address, interface]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if kept is None else (kept,),
        )

    def close(self) -> None:
        """Have it take the address away now, and wait until it has."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(_FAREWELL)
            self._process.stdin.close()
        self._process.wait()


def main(address: str, interface: str) -> int:
    """The guard: waits until whoever started it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    virtual = VirtualAddress(address, interface)
    said = b""
    with suppress(OSError):
        said = os.read(0, len(_FAREWELL))
    with suppress(CraneError):
        virtual.remove()
    if said != _FAREWELL:
        # It died, and the kernel may not be done with closing its sockets.
        time.sleep(_CLOSING_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
