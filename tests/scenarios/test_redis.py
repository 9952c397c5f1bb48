"""Redis on three replicas, as its clients see it."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from scenario import Cluster, wait_for

from crane.chaos.resp import ReplyError

EVERY = (1, 2, 3)


def cli(cluster: Cluster, replica: int, *words: str) -> str:
    done = subprocess.run(
        ["redis-cli", "-h", f"127.0.0.{replica}", "-p", str(cluster.port), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def test_a_write_through_one_replica_is_read_through_each(shared_redis: Cluster) -> None:
    for writer in EVERY:
        key = f"written-through-{writer}"
        with shared_redis.redis(writer) as redis:
            assert redis.ask("SET", key, "a value") == "OK"
        for reader in EVERY:
            with shared_redis.redis(reader) as redis:
                assert redis.ask("GET", key) == "a value"


def test_its_own_clients_work_unchanged(shared_redis: Cluster) -> None:
    assert cli(shared_redis, 1, "SET", "by-cli", "x") == "OK"
    assert cli(shared_redis, 2, "GET", "by-cli") == "x"
    for connections in ("1", "50"):
        words = ["redis-benchmark", "-h", "127.0.0.3", "-p", str(shared_redis.port), "--csv"]
        words += ["-t", "set,get,incr,lpush,lrange_100", "-n", "1000", "-c", connections]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        # A heading and a line for each test.
        assert len(done.stdout.splitlines()) >= 6, done.stdout
        assert "rror" not in done.stdout


def test_randomness_and_identity_are_the_same_everywhere(shared_redis: Cluster) -> None:
    found = []
    for replica in EVERY:
        with shared_redis.redis(replica) as redis:
            info = str(redis.ask("INFO", "server"))
        found.append(
            [line for line in info.splitlines() if line.startswith(("run_id", "process_id"))]
        )
    assert len(found[0]) == 2
    assert found[0] == found[1] == found[2]


def test_time_goes_on_and_never_back(shared_redis: Cluster) -> None:
    before = time.time()
    times = []
    for _ in range(3):
        for replica in EVERY:
            with shared_redis.redis(replica) as redis:
                seconds, microseconds = redis.ask("TIME")  # type: ignore[misc]
            times.append(int(seconds) + int(microseconds) / 1e6)
    assert times == sorted(times)
    assert abs(times[-1] - before) < 5.0


def test_keys_expire_by_time(shared_redis: Cluster) -> None:
    with shared_redis.redis(1) as one, shared_redis.redis(2) as two:
        assert one.ask("SET", "short", "x", "PX", 300) == "OK"
        assert two.ask("GET", "short") == "x"
        assert one.ask("SET", "long", "x", "EX", 1000) == "OK"
        wait_for("the end of the key", lambda: two.ask("EXISTS", "short") == 0, 5.0)
        assert one.ask("GET", "short") is None
        assert one.ask("GET", "long") == "x"


def test_keys_expire_without_any_request(shared_redis: Cluster) -> None:
    """The server's own timer finds them: time passes also while nothing comes in."""
    with shared_redis.redis(3) as redis:
        before = int(str(redis.ask("INFO", "stats")).split("expired_keys:")[1].split()[0])
        for number in range(20):
            redis.ask("SET", f"fleeting-{number}", "x", "PX", 100)
        time.sleep(1.0)
        after = int(str(redis.ask("INFO", "stats")).split("expired_keys:")[1].split()[0])
    assert after - before == 20


def test_a_background_save_forks_and_ends_well(shared_redis: Cluster) -> None:
    with shared_redis.redis(2) as redis:
        redis.ask("SET", "saved", "x" * 10_000)
        last = redis.ask("LASTSAVE")
        wait_for("the next second", lambda: redis.ask("TIME")[0] > str(last), 5.0)  # type: ignore[index,operator]
        assert "started" in str(redis.ask("BGSAVE"))
        # Writes go on meanwhile.
        for number in range(200):
            redis.ask("SET", f"during-{number}", "y")

        def saved() -> bool:
            info = str(redis.ask("INFO", "persistence"))
            return "rdb_bgsave_in_progress:0" in info

        wait_for("the end of the save", saved, 20.0)
        info = str(redis.ask("INFO", "persistence"))
        assert "rdb_last_bgsave_status:ok" in info
        assert redis.ask("LASTSAVE") > last  # type: ignore[operator]
    dumps = sorted(shared_redis.state.glob("replicas/*/files/**/dump.rdb"))
    assert len({path.read_bytes() for path in dumps}) == 1
    assert len({path.relative_to(shared_redis.state).parts[1] for path in dumps}) == 3


def test_scripts(shared_redis: Cluster) -> None:
    script = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1]) .. '!'"
    with shared_redis.redis(1) as redis:
        assert redis.ask("EVAL", script, 1, "by-script", "hello") == "hello!"
        # Random, but the same on every replica: the digests are compared at the end.
        redis.ask("EVAL", "return redis.call('SET', KEYS[1], math.random())", 1, "random")
        with pytest.raises(ReplyError, match="oops"):
            redis.ask("EVAL", "return redis.error_reply('oops')", 0)
    with shared_redis.redis(3) as redis:
        assert redis.ask("GET", "by-script") == "hello"


def test_a_blocked_client_is_woken_through_another_replica(shared_redis: Cluster) -> None:
    with shared_redis.redis(1) as waiting, shared_redis.redis(2) as giving:
        waiting.send("BLPOP", "queue", 0)

        def blocked() -> bool:
            return "blocked_clients:1" in str(giving.ask("INFO", "clients"))

        wait_for("the client's blocking", blocked, 5.0)
        assert giving.ask("RPUSH", "queue", "for you") == 1
        assert waiting.receive() == ["queue", "for you"]


def test_a_blocked_client_gives_up_in_time(shared_redis: Cluster) -> None:
    with shared_redis.redis(3) as redis:
        begin = time.monotonic()
        assert redis.ask("BLPOP", "nothing", "0.4") is None
        assert 0.3 < time.monotonic() - begin < 3.0


def test_messages_reach_subscribers_on_other_replicas(shared_redis: Cluster) -> None:
    with (
        shared_redis.redis(1) as hears,
        shared_redis.redis(2) as too,
        shared_redis.redis(3) as says,
    ):
        assert hears.ask("SUBSCRIBE", "news") == ["subscribe", "news", 1]
        assert too.ask("SUBSCRIBE", "news") == ["subscribe", "news", 1]
        assert says.ask("PUBLISH", "news", "hello") == 2
        assert hears.receive() == too.receive() == ["message", "news", "hello"]


def test_large_values(shared_redis: Cluster) -> None:
    value = "0123456789abcdef" * 320_000  # 5 MB
    with shared_redis.redis(1) as redis:
        assert redis.ask("SET", "large", value) == "OK"
    with shared_redis.redis(2) as redis:
        assert redis.ask("GET", "large") == value
        assert redis.ask("DEL", "large") == 1


def test_a_client_that_reads_slowly_holds_nobody_up(shared_redis: Cluster) -> None:
    value = "x" * 1_000_000
    with shared_redis.redis(1) as slow, shared_redis.redis(1) as other:
        slow.ask("SET", "slow", value)
        for _ in range(20):
            slow.send("GET", "slow")
        for _ in range(50):
            assert other.ask("PING") == "PONG"
        for _ in range(20):
            assert slow.receive() == value
        assert slow.ask("DEL", "slow") == 1


def test_pipelined_requests_are_answered_in_order(shared_redis: Cluster) -> None:
    with shared_redis.redis(2, seconds=60.0) as redis:
        redis.ask("SET", "counter", 0)
        for _ in range(5_000):
            redis.send("INCR", "counter")
        assert [redis.receive() for _ in range(5_000)] == list(range(1, 5_001))


def test_clients_on_all_replicas_at_once(shared_redis: Cluster) -> None:
    replies: list[int] = []

    def add(replica: int) -> None:
        with shared_redis.redis(replica, seconds=60.0) as redis:
            replies.extend(int(str(redis.ask("INCR", "shared"))) for _ in range(100))

    threads = [threading.Thread(target=add, args=(1 + number % 3,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == list(range(1, 901))


def test_many_short_connections(shared_redis: Cluster) -> None:
    for number in range(150):
        with shared_redis.redis(1 + number % 3) as redis:
            assert redis.ask("ECHO", f"{number}") == f"{number}"
    with shared_redis.redis(1) as redis:
        wait_for(
            "the end of the connections",
            lambda: "connected_clients:1\r" in str(redis.ask("INFO", "clients")),
        )


def test_afterwards_the_memories_are_the_same(shared_redis: Cluster) -> None:
    digests = set()
    for replica in EVERY:
        with shared_redis.redis(replica, seconds=60.0) as redis:
            digests.add(redis.ask("DEBUG", "DIGEST"))
    assert len(digests) == 1
    shared_redis.must_settle()
