"""An echo server of lines that stops reading from who says so; one thread, no limits of its own."""

import selectors
import socket
import sys

listener = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=4096)
listener.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
kept = []
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            client, _ = listener.accept()
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(4096)
        if data.startswith(b"STALL"):
            selector.unregister(key.fileobj)
            kept.append(key.fileobj)
        elif data:
            key.fileobj.send(data.replace(b"PING", b"+PONG"))
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
