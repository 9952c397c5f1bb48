"""The benchmarks' own arithmetic and protocols."""

from __future__ import annotations

import time

import pytest

from crane.bench import redis_benchmark, results
from crane.bench.driver import Speed, summary
from crane.bench.idle import cpu_seconds
from crane.bench.wire import EtcdWire, RedisWire, frame
from crane.errors import CraneError

CSV = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",'
    '"p99_latency_ms","max_latency_ms"\n'
    '"SET","1234.5","0.1","0.1","0.25","0.4","0.75","3.0"\n'
)
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK = 1, 1


def test_redis_benchmarks_figures() -> None:
    assert redis_benchmark.parse("WARNING: no config\n" + CSV) == Speed(1234.5, 0.25, 0.75)
    with pytest.raises(CraneError, match="unexpected"):
        redis_benchmark.parse("nothing")


def test_a_summary_of_times() -> None:
    speed = summary([0.001 * number for number in range(1, 101)], 2.0)
    assert speed == Speed(50.0, pytest.approx(51.0), pytest.approx(100.0))
    with pytest.raises(CraneError, match="not one"):
        summary([], 1.0)


def test_medians_and_ratios() -> None:
    rounds = [Speed(300.0, 1.0, 9.0), Speed(100.0, 2.0, 7.0), Speed(200.0, 3.0, 8.0)]
    fast, slow = results.row("set", 1, "fast", rounds), results.row("set", 1, "slow", rounds[1:2])
    assert (fast.rate, fast.p50_ms, fast.p99_ms) == (200.0, 2.0, 8.0)
    results.compare([fast, slow], {"slow": ["fast", "absent"]})
    assert slow.ratios == {"fast": 0.5}
    assert fast.ratios == {}
    assert results.cells([slow])[0][-1] == "0.50 x fast"


def test_redis_answers() -> None:
    wire = RedisWire()
    assert wire.put().startswith(b"*3\r\n$3\r\nSET\r\n")
    assert wire.feed(b"+O") == (0, b"")
    assert wire.feed(b"K\r\n") == (1, b"")
    with pytest.raises(CraneError, match="READONLY"):
        wire.feed(b"-READONLY\r\n")


def test_etcd_answers() -> None:
    wire = EtcdWire()
    first, second = wire.put(), wire.put()
    assert first != second
    assert len(first) == len(second)
    done = (
        frame(HEADERS, 4, 3, b"h")
        + frame(DATA, 0, 3, b"message")
        + frame(HEADERS, 4 | END_STREAM, 3, b"t")
    )
    for end in range(len(done)):
        assert EtcdWire().feed(done[:end]) == (0, b"")
    assert wire.feed(done[:12]) == (0, b"")
    assert wire.feed(done[12:]) == (1, b"")


def test_etcd_wants_some_things_back() -> None:
    wire = EtcdWire()
    ping = frame(PING, 0, 0, b"12345678")
    assert wire.feed(frame(SETTINGS, 0, 0, b"\0" * 6) + ping) == (
        0,
        frame(SETTINGS, ACK, 0, b"") + frame(PING, ACK, 0, b"12345678"),
    )
    assert wire.feed(frame(SETTINGS, ACK, 0, b"")) == (0, b"")


@pytest.mark.parametrize(
    "bad",
    [
        frame(HEADERS, 4 | END_STREAM, 1, b"only"),
        frame(RESET, 0, 1, b"\0\0\0\1"),
        frame(GOAWAY, 0, 0, b"bye"),
    ],
)
def test_etcd_errors_are_errors(bad: bytes) -> None:
    wire = EtcdWire()
    wire.put()
    with pytest.raises(CraneError, match="etcd"):
        wire.feed(bad)


def test_processor_time_is_counted() -> None:
    import os

    before = cpu_seconds([os.getpid()])
    begin = time.process_time()
    while time.process_time() - begin < 0.05:
        pass
    assert 0.04 < cpu_seconds([os.getpid()]) - before < 5.0
