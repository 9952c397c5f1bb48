"""Who is let in, what is told to whom, and what others can read."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from machines import HOSTS, Machines
from scenario import Cluster, wait_for

from crane import privileges, procfs
from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command


def others_may(path: Path) -> bool:
    """Whether users who do not own a file may do anything with it."""
    found = path.lstat()
    return bool(found.st_mode & 0o077) and not stat.S_ISLNK(found.st_mode)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        for number in (1, 2, 3):
            made.start(number)
        for number in (1, 2, 3):
            made.wait_serving(number)
        yield made
    finally:
        made.close()


def test_what_init_made_serves_and_is_seen_from_elsewhere(machines: Machines) -> None:
    for host in HOSTS:
        assert f"root@{host}:/STATE" in machines.said
    rows = json.loads(machines.status().stdout)["replicas"]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert sorted(row["role"] for row in rows) == ["follower", "follower", "leader"]


def test_what_init_made_is_its_owners_alone(machines: Machines) -> None:
    for path in [machines.made, *machines.made.rglob("*")]:
        inside = path.relative_to(machines.made).parts
        if "files" not in inside and path.name != "server.log":
            assert not others_may(path), path


def test_the_admin_api_is_for_who_has_the_token(machines: Machines, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("x" * 43)
    wrong.chmod(0o600)
    done = machines.status("--token-file", str(wrong), good=False)
    assert done.returncode == 1
    assert "the token is missing or wrong" in done.stderr
    wait_for(
        "the warning", lambda: "does not show the token" in machines.log(1).read_text(), seconds=5
    )
    wrong.chmod(0o640)
    done = machines.status("--token-file", str(wrong), good=False)
    assert "others may read this token; chmod 600 it" in done.stderr
    # Another cluster's authority: the token is not shown to whoever answers.
    other = machines.base / "other"
    if not other.exists():
        machines.crane("init", "-m", "127.0.0.1", "-o", str(other), "--", "redis-server")
    done = machines.status("--ca", str(other / "authority" / "ca.crt"), good=False)
    assert "certificate verify failed" in done.stderr


def talk(machines: Machines, sent: bytes, *, tls: bool = True) -> bytes:
    """What the admin API of replica 1 answers to some bytes."""
    with socket.create_connection(("127.0.0.1", machines.admin), timeout=20) as plain:
        context = ssl.create_default_context(cafile=str(machines.made / "admin" / "ca.crt"))
        context.check_hostname = False
        with context.wrap_socket(plain) if tls else plain as client:
            with suppress(OSError):
                client.sendall(sent)
            got = b""
            with suppress(OSError):
                while more := client.recv(4096):
                    got += more
    return got


def test_the_admin_api_does_not_hear_strangers_out(machines: Machines) -> None:
    token = (machines.made / "admin" / "admin.token").read_text().strip()
    head = "GET /v1/status HTTP/1.1\r\nHost: x\r\n"
    good = f"{head}Authorization: Bearer {token}\r\n\r\n"
    assert talk(machines, good.encode()).startswith(b"HTTP/1.1 200")
    for wrong in (
        f"{head}\r\n",
        f"{head}Authorization: Bearer {token[:-1]}\r\n\r\n",
        f"{head}Authorization: Basic {token}\r\n\r\n",
        good.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n"),
        # Refused at the head: what it would send is not waited for.
        "POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
    ):
        got = talk(machines, wrong.encode())
        assert got.startswith(b"HTTP/1.1 401"), got
        assert b"www-authenticate: Bearer" in got
    assert talk(machines, f"{head}A: {'x' * 99_999}".encode()).startswith(b"HTTP/1.1 431")
    assert talk(machines, good.encode(), tls=False) == b""
    # Those who say nothing are given up, and others served when they are.
    silent = [socket.create_connection(("127.0.0.1", machines.admin)) for _ in range(20)]
    try:
        assert talk(machines, good.encode()).startswith(b"HTTP/1.1 200")
    finally:
        for one in silent:
            one.close()
    assert all(machines.serves(number) for number in (1, 2, 3))


def test_secrets_are_in_no_log_argument_or_environment(machines: Machines) -> None:
    secrets = [(machines.made / "admin" / "admin.token").read_bytes().strip()]
    for key in machines.made.rglob("*.key"):
        secrets += [line for line in key.read_bytes().splitlines() if not line.startswith(b"-")]
    assert len(secrets) > 8
    processes = machines.processes()
    assert len(processes) >= 6
    places = [*machines.base.glob("*.log"), *machines.made.rglob("*.log")]
    places += [machines.place(n) / "manifest" for n in (1, 2, 3)]
    places += [Path(f"/proc/{pid}/{what}") for pid in processes for what in ("cmdline", "environ")]
    places += [*(machines.base / "run").rglob("*.json")]
    for place in places:
        with suppress(ProcessLookupError):
            said = place.read_bytes()
            assert not [one for one in secrets if one in said], place


def test_the_program_does_not_find_the_keys(machines: Machines) -> None:
    init = procfs.descendants(machines.nodes[1].pid, procfs.all_processes())
    servers = [one.pid for one in init if procfs.namespace_pid(one.pid) == 1000]
    assert servers
    seen = Path(f"/proc/{servers[0]}/root{machines.place(1)}")
    assert not seen.exists() or not list(seen.iterdir())


def privileges_of(pid: int) -> tuple[int, int, bool]:
    """The capabilities it has, those that what it executes can have, and whether that is final."""
    found = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(found["CapPrm"], 16), int(found["CapBnd"], 16), found["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="others than root have no privileges")
def test_privileges_are_given_up(machines: Machines) -> None:
    node = machines.nodes[1].pid
    children = procfs.descendants(node, procfs.all_processes())
    (server,) = [one.pid for one in children if procfs.namespace_pid(one.pid) == 1000]
    own, bounding, final = privileges_of(server)
    assert final
    here = privileges_of(os.getpid())[1]
    assert own == bounding == here & sum(1 << number for number in privileges.PROGRAM)
    assert not own & 1 << 21  # CAP_SYS_ADMIN
    for pid in (node, *(one.pid for one in children if one.pid != server)):
        own, bounding, final = privileges_of(pid)
        assert final
        assert not (own | bounding) & ~sum(1 << number for number in privileges.NODE), pid


def test_certificates_are_made_anew_while_it_serves(machines: Machines) -> None:
    before = (machines.place(2) / "tls" / "node.crt").read_bytes()
    # A new authority, beside the former; then certificates by it.
    for words in (["--authority", "new"], []):
        said = machines.crane("init", "--renew", str(machines.made), *words).stdout
        assert "crane restart 2" in said
        for number in (2, 1, 3):
            machines.stop(number)
            machines.start(number)
            machines.wait_serving(number)
    assert (machines.place(2) / "tls" / "node.crt").read_bytes() != before


def test_files_are_their_owners_whatever_the_umask(clusters: Callable[..., Cluster]) -> None:
    port = free_port()
    cluster = clusters(redis_command(port), port)
    cluster.base.chmod(0o755)
    before = os.umask(0)
    try:
        cluster.start()
    finally:
        os.umask(before)
    with cluster.redis(1) as client:
        client.ask("SET", "a", "b")
    cluster.kill(2)
    cluster.restart(2)
    seen = 0
    for top in (cluster.state, cluster.run_dir, *Path("/dev/shm").glob(f"crane-{_id(cluster)}*")):
        assert not others_may(top), top
        for path in top.rglob("*"):
            inside = path.relative_to(top).parts
            # The program's own, below directories that others cannot enter.
            if top == cluster.state and ("files" in inside or path.name == "server.log"):
                continue
            if top.parent == Path("/dev/shm"):
                continue
            seen += 1
            assert not others_may(path), path
    assert seen > 30
    keys = [path.relative_to(cluster.state) for path in cluster.state.rglob("*.key")]
    assert {str(key) for key in keys} >= {"authority/ca.key", "replicas/1/tls/node.key"}


def _id(cluster: Cluster) -> str:
    text = (cluster.state / "cluster.json").read_text()
    found = re.search(r'"cluster_id": "(\w{12})', text)
    assert found is not None
    return found[1]
