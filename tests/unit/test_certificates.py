from __future__ import annotations

import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from crane import certificates, config, machines
from crane.certificates import Authority, Files
from crane.errors import CraneError, UsageError
from crane.remote import read_token

CLUSTER = "07" * 16


def node(**changes: object) -> config.NodeConfig:
    fields: dict[str, object] = {
        "name": "shop",
        "cluster_id": CLUSTER,
        "id": 1,
        "peers": {"1": "192.0.2.1:7000", "2": "[2001:db8::2]:7000"},
        "argv": ["/bin/true"],
        "program": "/bin/true",
        "cwd": "/",
        "env": {},
        "state_dir": "/var/lib/crane/shop",
    }
    return config.NodeConfig(**{**fields, **changes})  # type: ignore[arg-type]


def verifies(authority: Path, certificate: Path) -> bool:
    """Whether OpenSSL, which others use to look, says so, too."""
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", str(authority), str(certificate)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_replicas_certificate_is_by_the_authority_and_names_it(tmp_path: Path) -> None:
    files = Files.of(tmp_path / "1")
    Authority.of(CLUSTER, tmp_path / "authority").issue(1, files, days=10)
    assert files.complete()
    assert verifies(files.ca, files.certificate)
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(files.certificate)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"DNS:{certificates.identity(CLUSTER, 1)}" in shown.stdout
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    for path in [*files.ca.parent.rglob("*"), *(tmp_path / "authority").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path
    # The same authority again, and another one.
    Authority.of(CLUSTER, tmp_path / "authority").issue(2, Files.of(tmp_path / "2"), days=10)
    assert verifies(files.ca, Files.of(tmp_path / "2").certificate)
    Authority.of(CLUSTER, tmp_path / "other").issue(2, Files.of(tmp_path / "3"), days=10)
    assert not verifies(files.ca, Files.of(tmp_path / "3").certificate)


def test_another_clusters_authority_is_refused(tmp_path: Path) -> None:
    Authority.create(CLUSTER, tmp_path)
    with pytest.raises(CraneError, match="authority of another cluster"):
        Authority.load("08" * 16, tmp_path)
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(CraneError, match="holds no authority that can be read"):
        Authority.load(CLUSTER, tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(CraneError, match=r"ca\.key: the cluster's authority cannot be read"):
        Authority.load(CLUSTER, tmp_path)


def test_what_each_machine_gets_agrees(tmp_path: Path) -> None:
    made = machines.make(tmp_path / "made", node(), days=10, admin_port=7100)
    read = [config.load(one.place / "node.toml", config.NodeConfig) for one in made]
    assert [one.id for one in read] == [1, 2]
    assert [one.listen for one in read] == ["192.0.2.1", "2001:db8::2"]
    assert [one.admin_listen for one in read] == ["192.0.2.1:7100", "[2001:db8::2]:7100"]
    assert {one.cluster_id for one in read} == {CLUSTER}
    assert len({read_token(one.place / machines.TOKEN) for one in made}) == 1
    assert [one.host for one in made] == ["192.0.2.1", "2001:db8::2"]
    with pytest.raises(UsageError, match="is not empty"):
        machines.make(tmp_path / "made", node(), days=10, admin_port=None)


def test_certificates_are_renewed_and_authorities_replaced(tmp_path: Path) -> None:
    machines.make(tmp_path / "made", node(), days=10, admin_port=None)
    files = Files.of(tmp_path / "made" / "replicas" / "1")
    old = tmp_path / "old.crt"
    old.write_bytes(files.certificate.read_bytes())
    renewed = machines.renew(tmp_path / "made", [], days=20)
    assert [one.target for one in renewed] == ["/var/lib/crane/shop/tls"] * 2
    assert files.certificate.read_bytes() != old.read_bytes()
    assert certificates.end(files.certificate) > certificates.end(old)
    # One that did not exist.
    assert machines.renew(tmp_path / "made", [3], days=20)[0].host == "its machine"
    assert verifies(files.ca, Files.of(tmp_path / "made" / "replicas" / "3").certificate)
    machines.replace_authority(tmp_path / "made", keep_former=True)
    assert verifies(files.ca, files.certificate)
    machines.renew(tmp_path / "made", [], days=20)
    assert verifies(files.ca, files.certificate)
    assert verifies(files.ca, old)
    machines.replace_authority(tmp_path / "made", keep_former=False)
    assert verifies(files.ca, files.certificate)
    assert not verifies(files.ca, old)


def test_a_directory_of_no_cluster_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was made neither by `crane init` nor by `crane run`"):
        machines.renew(tmp_path, [], days=10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no machines were given"),
        (["192.0.2.1", "host"], "`host` is not a machine's IP address"),
        (["192.0.2.1:0"], "`192.0.2.1:0` is not a machine's IP address"),
        (["192.0.2.1", "192.0.2.1:7000"], "two machines have the same address"),
    ],
)
def test_wrong_machines_are_named(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        machines.addresses(words)


def test_machines_are_numbered_in_their_order() -> None:
    assert machines.addresses(["192.0.2.9,::1", "192.0.2.1:70"]) == {
        "1": "192.0.2.9:7000",
        "2": "[::1]:7000",
        "3": "192.0.2.1:70",
    }


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("x" * 40, 0o640, "others may read this token"),
        ("short", 0o600, "is no token"),
        ("two\nlines" * 9, 0o600, "is no token"),
        (None, 0, "the token cannot be read: No such file"),
    ],
)
def test_a_token_file_that_is_wrong_is_named(
    tmp_path: Path, text: str | None, mode: int, says: str
) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(CraneError, match=says):
        read_token(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_somebody_elses_token_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 40)
    file.chmod(0o600)
    os.chown(file, 65534, -1)
    with pytest.raises(CraneError, match="another user owns this token"):
        read_token(file)


def test_admin_listen_needs_token_and_tls() -> None:
    for changes in ({}, {"admin_token_file": "/t", "tls": False}):
        with pytest.raises(UsageError, match="needs `admin_token_file` and `tls`"):
            config.check_node(node(admin_listen="192.0.2.1:7100", **changes), "f")
    with pytest.raises(UsageError, match="field `admin_listen`"):
        config.check_node(node(admin_listen="host:1"), "f")
