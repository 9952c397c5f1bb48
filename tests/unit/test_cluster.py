from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec import structs

from crane import cluster
from crane.cluster import StateDir, Wanted
from crane.errors import CraneError, UsageError

WANTED = Wanted(
    name="shop",
    argv=["redis-server", "--port", "6379"],
    program="/usr/bin/redis-server",
    cwd="/srv",
    env={"A": "1"},
    limits={},
    replicas=None,
    listen=[],
    durability=None,
    engine={},
)


def test_a_new_cluster_has_three_replicas_on_loopback() -> None:
    made = cluster.reconcile(None, WANTED, "/state")
    assert made.listen == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert made.durability == "disk"
    assert len(made.cluster_id) == 32


def known() -> cluster.ClusterState:
    made = cluster.reconcile(None, WANTED, "/state")
    return structs.replace(made, peers={"1": "a:1", "2": "b:2", "3": "c:3"})


def test_the_same_program_finds_its_cluster_as_it_was() -> None:
    before = known()
    again = structs.replace(WANTED, env={"A": "2"}, cwd="/tmp")
    assert cluster.reconcile(before, again, "/state") == before


def test_addresses_and_durability_may_change() -> None:
    again = structs.replace(WANTED, durability="memory", listen=["10.0.0.1", "10.0.0.2", "::1"])
    after = cluster.reconcile(known(), again, "/state")
    assert after.durability == "memory"
    assert after.listen == ["10.0.0.1", "10.0.0.2", "::1"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"argv": ["redis-server"]}, "/state holds the state of `redis-server --port 6379`"),
        ({"program": "/opt/redis-server"}, "/state holds the state of `redis-server"),
        ({"name": "other"}, "/state holds the state of cluster `shop`"),
        ({"replicas": 5}, "/state holds a cluster of 3 replicas"),
        ({"listen": ["127.0.0.1"]}, "1 listening addresses for 3 replicas"),
        ({"listen": ["127.0.0.1"] * 3}, "two replicas have the same --listen address"),
        ({"listen": ["127.0.0.1:1", "::1", "::2"]}, "`127.0.0.1:1` is not an IP address"),
    ],
)
def test_somebody_elses_state_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as error:
        cluster.reconcile(known(), structs.replace(WANTED, **change), "/state")
    assert says in str(error.value)


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match="another version of crane"):
        cluster.reconcile(structs.replace(known(), format=99), WANTED, "/state")


def test_the_state_directory_has_one_owner_and_keeps_what_is_written(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "s"), StateDir(tmp_path / "s")
    first.acquire()
    with pytest.raises(CraneError, match="another `crane run` uses the state"):
        second.acquire()
    assert first.read() is None
    first.write(known())
    first.release()
    second.acquire()
    found = second.read()
    assert found is not None
    assert found.replicas == [1, 2, 3]
    second.release()


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(CraneError, match=r"cluster\.json cannot be understood"):
        StateDir(tmp_path).read()


def test_replicas_differ_only_where_they_must(tmp_path: Path) -> None:
    state, directory = known(), StateDir(tmp_path)
    one, two = (directory.node_config(state, number) for number in (1, 2))
    different = {name for name in one.__struct_fields__ if getattr(one, name) != getattr(two, name)}
    assert different == {"id", "state_dir", "listen"}


def test_peer_ports_avoid_what_is_taken() -> None:
    tried: list[int] = []

    def is_free(host: str, port: int) -> bool:
        tried.append(port)
        return len(tried) > 3

    peers = cluster.choose_peers(2, is_free, random.Random(1))
    assert peers == {"1": f"127.0.0.1:{tried[3]}", "2": f"127.0.0.2:{tried[4]}"}
    with pytest.raises(CraneError, match="no free port"):
        cluster.choose_peers(1, lambda _host, _port: False)


@pytest.mark.parametrize(
    ("program", "name"),
    [("/usr/sbin/apache2", "apache2"), ("./My Server.py", "my-server-py"), ("/x/___", "cluster")],
)
def test_default_names(program: str, name: str) -> None:
    assert cluster.default_name(program) == name


def test_a_replica_comes_and_goes_and_its_number_is_not_used_again() -> None:
    state = known()
    adding = cluster.reserve(state, None, lambda _host, _port: True)
    assert adding.adding is not None
    assert (adding.adding.id, adding.adding.listen) == (4, "127.0.0.4")
    assert adding.replicas == [1, 2, 3]
    # The same again until it has joined.
    assert cluster.reserve(adding, None, lambda _host, _port: True) == adding
    with pytest.raises(UsageError, match="replica 4 is being added with --listen"):
        cluster.reserve(adding, "127.0.0.9", lambda _host, _port: True)
    four = cluster.joined(adding, 4)
    assert (four.replicas, four.listen[3], four.adding) == ([1, 2, 3, 4], "127.0.0.4", None)
    assert cluster.joined(four, 4) == four
    three = cluster.left(four, 1)
    assert (three.replicas, three.listen[0]) == ([2, 3, 4], state.listen[1])
    assert cluster.left(three, 1) == three
    five = cluster.reserve(cluster.left(three, 4), None, lambda _host, _port: True)
    assert five.adding is not None
    assert five.adding.id == 5
    undone = cluster.left(five, 5)
    assert (undone.replicas, undone.used, undone.initial) == ([2, 3], [1, 4, 5], [1, 2, 3])


def test_a_new_replica_has_its_own_client_address() -> None:
    with pytest.raises(UsageError, match="another replica has the --listen address"):
        cluster.reserve(known(), "127.0.0.2", lambda _host, _port: True)
    with pytest.raises(UsageError, match="is not an IP address"):
        cluster.reserve(known(), "localhost", lambda _host, _port: True)


def test_only_those_that_were_added_join(tmp_path: Path) -> None:
    state = cluster.reserve(known(), None, lambda _host, _port: True)
    state_dir = StateDir(tmp_path)
    new = state_dir.node_config(state, 4)
    assert (new.join, new.listen, sorted(new.peers)) == (True, "127.0.0.4", ["1", "2", "3", "4"])
    assert not state_dir.node_config(state, 1).join
    assert state_dir.node_config(cluster.joined(state, 4), 4).join
