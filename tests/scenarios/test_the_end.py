"""However a run ends, nothing of it is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from scenario import PYTHON, Cluster, wait_for

from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(redis: Cluster, number: signal.Signals) -> None:
    assert redis.process is not None
    with redis.redis(1) as client:
        assert client.ask("SET", "k", "v") == "OK"
        redis.process.send_signal(number)
        assert redis.process.wait(20) == 0
    assert redis.remains() == []
    assert redis.said().splitlines()[-1] == "crane: stopping"


def test_it_ends_also_with_a_dead_and_a_paused_replica(redis: Cluster) -> None:
    redis.kill(1)
    redis.pause(2)
    assert redis.stop() == 0
    assert redis.remains() == []


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2, 0.3, 0.5])
def test_it_ends_while_it_starts(clusters: Callable[..., Cluster], seconds: float) -> None:
    """Wherever the start is cut short, and a restart with it."""
    port = free_port()
    cluster = clusters(redis_command(port), port)
    cluster.launch()
    assert cluster.process is not None
    wait_for("the first node's start", lambda: list(cluster.state.glob("replicas/*/node.log")))
    time.sleep(seconds)
    assert cluster.stop() == 0
    assert cluster.remains() == []
    cluster.start()
    cluster.kill(1)
    restart = threading.Thread(target=cluster.crane, args=("restart", "1"), kwargs={"good": False})
    restart.start()
    time.sleep(seconds)
    assert cluster.stop() == 0
    restart.join()
    assert cluster.remains() == []


def test_it_ends_right_after_a_node_died(redis: Cluster) -> None:
    assert redis.process is not None
    pid = redis.rows()[0]["node_pid"]
    os.kill(pid, signal.SIGKILL)
    assert redis.stop() == 0
    assert redis.remains() == []


def test_it_ends_while_a_background_child_is_at_work(redis: Cluster) -> None:
    with redis.redis(1) as client:
        client.ask("DEBUG", "POPULATE", 100_000)
        client.ask("BGSAVE")
    assert redis.stop() == 0
    assert redis.remains() == []


def test_a_killed_run_leaves_nothing_either(redis: Cluster) -> None:
    assert redis.process is not None
    redis.process.kill()
    redis.process.wait(20)
    wait_for("the end of the nodes", lambda: not redis.processes())
    # The names of a killed run are taken away by the next command that looks.
    redis.crane("list")
    wait_for("the end of all the rest", lambda: redis.remains() == [])


def test_crane_stop(redis: Cluster) -> None:
    redis.crane("stop")
    assert redis.process is not None
    assert redis.process.wait(20) == 0
    assert redis.remains() == []


def test_a_second_run_goes_on_where_the_first_ended(redis: Cluster) -> None:
    with redis.redis(1) as client:
        assert client.ask("SET", "k", "v") == "OK"
        seconds = int(client.ask("TIME")[0])  # type: ignore[index,arg-type]
    assert redis.stop() == 0
    redis.start()
    for number in (1, 2, 3):
        with redis.redis(number) as client:
            assert client.ask("GET", "k") == "v"
            assert int(client.ask("TIME")[0]) >= seconds  # type: ignore[index,arg-type]
    redis.must_settle()


def test_a_program_in_the_background(clusters: Callable[..., Cluster]) -> None:
    """One that daemonises is still found, served and ended."""
    port = free_port()
    program = (
        "import http.server, os\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        f"http.server.test(http.server.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')\n"
    )
    cluster = clusters([PYTHON, "-c", program], port)
    cluster.start()
    assert cluster.stop() == 0
    assert cluster.remains() == []
