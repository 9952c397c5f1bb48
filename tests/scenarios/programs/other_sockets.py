"""A server without TCP: a Unix socket, and UDP on the port that it is given."""

from __future__ import annotations

import selectors
import socket
import sys

path, port = sys.argv[1], int(sys.argv[2])
ready = selectors.DefaultSelector()
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
ready.register(listener, selectors.EVENT_READ)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", port))
ready.register(datagrams, selectors.EVENT_READ)
count = 0
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            client, _ = listener.accept()
            ready.register(client, selectors.EVENT_READ)
        elif key.fileobj is datagrams:
            asked, peer = datagrams.recvfrom(65536)
            count += 1
            datagrams.sendto(b"%d %b" % (count, asked), peer)
        else:
            client = key.fileobj
            asked = client.recv(4096)
            if asked:
                count += 1
                client.sendall(b"%d %b" % (count, asked))
            else:
                ready.unregister(client)
                client.close()
