"""Discovery by multicast: a question to a group has one answer, also without the old leader."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from crane import wish
from crane.chaos.hosts import Hosts, new_base

_PORT = 19_077
_GROUP = "239.255.77.77"
_PROGRAM = Path(__file__).parent / "programs" / "groups.py"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


def ask(hosts: Hosts, question: bytes) -> list[tuple[bytes, str]]:
    """All answers to a question that is sent until there is one, and whose they are."""
    own = socket.inet_aton(hosts.network.address(0))
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        client.settimeout(2.0)
        for _ in range(10):
            client.sendto(question, (_GROUP, _PORT))
            try:
                answers = [client.recvfrom(4096)]
            except TimeoutError:
                continue  # as any datagram, it may be lost
            client.settimeout(0.5)
            try:
                while True:
                    answers.append(client.recvfrom(4096))
            except TimeoutError:
                return [(answer, peer[0]) for answer, peer in answers]
    raise AssertionError("nobody answers")


def test_a_question_to_a_group_has_one_answer() -> None:
    command = ["/usr/bin/python3", str(_PROGRAM), _GROUP, str(_PORT)]
    wanted, _ = wish.wanted(command, name="groups")
    with Hosts(wanted, base=new_base()) as hosts:
        addresses = {hosts.network.address(number) for number in hosts.numbers}
        ((first, peer),) = ask(hosts, b"who is there")
        assert first == b"1 who is there"
        assert peer in addresses
        leader = hosts.leader()
        hosts.kill(leader)
        hosts.wait_ended(leader)
        ((second, other),) = ask(hosts, b"and now")
        number, _, question = second.partition(b" ")
        # One program on all replicas: it counts on, and nothing twice.
        assert int(number) >= 2
        assert question == b"and now"
        assert other in addresses - {hosts.network.address(leader)}
        hosts.restart(leader)
        hosts.wait_settled()
        assert len(ask(hosts, b"all again")) == 1
