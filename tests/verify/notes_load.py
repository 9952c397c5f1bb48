"""Load for the notes example: ``notes_load.py HOST PORT REQUESTS CONNECTIONS``.

One request in ten writes a note; the others read one, all, or none.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor


def client(host: str, port: int, requests: int, seed: int) -> None:
    pick = random.Random(seed)
    connection = http.client.HTTPConnection(host, port, timeout=60)
    known: list[str] = []
    for number in range(requests):
        kind = pick.random()
        if kind < 0.1 or not known:
            text = f"client {seed} note {number} " + "x" * pick.choice((0, 10, 300))
            connection.request("POST", "/notes", text)
        elif kind < 0.15:
            connection.request("GET", "/notes")
        elif kind < 0.2:
            connection.request("GET", f"/notes/{seed}-{number}")
        else:
            connection.request("GET", f"/notes/{pick.choice(known)}")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        if answer.status == http.HTTPStatus.CREATED:
            known.append(body["id"])
        elif kind >= 0.2 and answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"a note that was written is not there: {body}")
        if pick.random() < 0.02:
            connection.close()


def main() -> None:
    host, port, requests, connections = sys.argv[1], *map(int, sys.argv[2:])
    share = -(-requests // connections)
    with ThreadPoolExecutor(connections) as pool:
        clients = [pool.submit(client, host, port, share, seed) for seed in range(connections)]
    for one in clients:
        one.result()


main()
