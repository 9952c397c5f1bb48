"""A server that is found by multicast: it answers questions to a group on a port."""

from __future__ import annotations

import socket
import struct
import sys

group, port = sys.argv[1], int(sys.argv[2])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind(("0.0.0.0", port))
member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("0.0.0.0"))
asked.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
count = 0
while True:
    question, peer = asked.recvfrom(4096)
    count += 1
    asked.sendto(b"%d %b" % (count, question), peer)
