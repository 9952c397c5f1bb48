"""Shell commands that measure a server by its usual client.

Each prints two numbers at its end: how many requests were answered, and how
many a second.
"""

from __future__ import annotations


def ab(url: str, *, keep_alive: bool = True, connections: int = 16, seconds: int = 3) -> str:
    """Apache's own tool, for ``seconds``; fails when a request did."""
    options = f"-q {'-k ' if keep_alive else ''}-t {seconds} -n 1000000 -c {connections}"
    return (
        f"ab {options} {url} | awk '/^Complete requests/ {{n = $3}} /^Failed requests/ {{f = $3}}"
        " /^Requests per second/ {r = $4} END {print n, r; exit f != 0}'"
    )


def timed(command: str, requests: int) -> str:
    """A command that makes a known number of requests."""
    return (
        f"begin=$(date +%s.%N); ( {command}\n) > /dev/null 2>&1 || exit 1; end=$(date +%s.%N);"
        f" echo \"{requests} $begin $end\" | awk '{{print $1, $1 / ($3 - $2)}}'"
    )
