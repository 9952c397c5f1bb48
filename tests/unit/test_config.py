from __future__ import annotations

from pathlib import Path

import pytest

from crane import config
from crane.errors import UsageError

GOOD = """
name = "shop"
cluster_id = "0123456789abcdef0123456789abcdef"
id = 2
argv = ["redis-server"]
program = "/usr/bin/redis-server"
cwd = "/"
state_dir = "/var/lib/x"
[peers]
1 = "10.0.0.1:7117"
2 = "[fe80::1]:7117"
[env]
A = "b"
"""


def load(tmp_path: Path, text: str) -> config.NodeConfig:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return config.load(file, config.NodeConfig)


def test_a_node_file_survives_writing_and_reading(tmp_path: Path) -> None:
    first = load(tmp_path, GOOD)
    assert load(tmp_path, config.dump(first)) == first
    assert first.durability == "disk"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("id = 2", "id = 3"), "field `id`: replica 3 is not one of `peers` (1, 2)"),
        (("id = 2", 'id = "2"'), "field `id`: expected `int`, got `str`"),
        (("id = 2", "ID = 2"), "unknown field `ID`; "),
        (("[env]", "[evn]"), "unknown field `evn`; did you mean `env`?"),
        (('cwd = "/"', ""), "field `cwd` is missing; add it"),
        (('cwd = "/"', 'cwd = "x"'), "field `cwd`: expected `str` matching"),
        (("10.0.0.1:7117", "10.0.0.1"), "field `peers.1`: `10.0.0.1` is not of the form host:port"),
        (("10.0.0.1:", "db1:"), "field `peers.1`: 'db1' does not appear to be"),
        (("[fe80::1]:7117", "10.0.0.1:7117"), "two replicas have the same address"),
        (('cwd = "/"', 'cwd = "/"\nlisten = "home"'), "field `listen`: `home` is not an IP"),
        (('cwd = "/"', 'cwd = "/"\nlimits = {core = [5, 1]}'), "field `limits.core`: the soft"),
        (('cwd = "/"', 'cwd = "/"\nport_map = {x = 1}'), "field `port_map`: `x` is not a port"),
        (('cwd = "/"', "cwd = "), "is not valid TOML"),
    ],
)
def test_errors_name_file_field_and_mend(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, GOOD.replace(*change))
    assert str(error.value).startswith(f"{tmp_path}/node.toml: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"/none\.toml: there is no such file"):
        config.load(tmp_path / "none.toml", config.ClusterFile)


def test_engine_settings_are_handed_on(tmp_path: Path) -> None:
    import json

    node = load(tmp_path, GOOD.replace("[env]", "[engine]\nelection_ms = 150\n[env]"))
    text = config.engine_config(node, agreed="a\tb\n", log_dir=Path("/l"), segment=Path("/s"))
    assert json.loads(text) == {
        "cluster_id": node.cluster_id,
        "tls": {
            "ca": "/var/lib/x/tls/ca.crt",
            "certificate": "/var/lib/x/tls/node.crt",
            "key": "/var/lib/x/tls/node.key",
        },
        "name": "shop",
        "id": 2,
        "peers": {"1": "10.0.0.1:7117", "2": "[fe80::1]:7117"},
        "join": False,
        "agreed": "a\tb\n",
        "listen_host": "127.0.0.1",
        "virtual_host": None,
        "port_map": {},
        "log_dir": "/l",
        "segment": "/s",
        "durability": "disk",
        "quantum": 100,
        "preempt": True,
        "vote": False,
        "restart": True,
        "checkpoint": None,
        "budget": 100_000,
        "election_ms": 150,
    }


def test_addresses() -> None:
    assert config.split_address("[::1]:80") == ("::1", 80)
    for wrong in ("a", "a:", ":1", "a:0", "a:65536", "a:b"):
        with pytest.raises(ValueError, match="host:port"):
            config.split_address(wrong)
