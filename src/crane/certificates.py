"""Certificates: how the replicas of a cluster know each other.

A cluster has an authority of its own. Each replica has a certificate by it
whose name says which replica of which cluster it is; nothing else in it counts.
The engine shows and checks them (``tls.rs``). The authority's key is needed
only to make certificates: no node reads it.

Importing what makes certificates takes a while, so it is done where one is made.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crane import durable
from crane.errors import CraneError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY = "authority"
"""The authority's directory, in that of its cluster."""
DIRECTORY = "tls"
"""The directory of a replica's certificate, in its state directory."""

_CERTIFICATES = "ca.crt"
_AUTHORITY_KEY = "ca.key"
_CERTIFICATE = "node.crt"
_KEY = "node.key"

_DAY = dt.timedelta(days=1)
_AUTHORITY_DAYS = 20 * 365
# Clocks differ, also between the machine that makes them and those that check.
_BEFORE = _DAY
_FIRST_LOOK_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 24 * 3600.0
_WARNING = 30 * _DAY


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one replica, in its state directory."""

    ca: Path
    """The authority's certificates: one, or two while it is being replaced."""
    certificate: Path
    key: Path

    @classmethod
    def of(cls, state_dir: Path) -> Files:
        """Those of the replica with this state directory."""
        directory = state_dir / DIRECTORY
        return cls(directory / _CERTIFICATES, directory / _CERTIFICATE, directory / _KEY)

    def complete(self) -> bool:
        """Whether all of them are there."""
        return all(one.is_file() for one in (self.ca, self.certificate, self.key))


def identity(cluster_id: str, replica: int) -> str:
    """The name in a replica's certificate."""
    return f"replica-{replica}.{_domain(cluster_id)}"


def _domain(cluster_id: str) -> str:
    return f"{cluster_id}.crane.internal"


def end(certificate: Path) -> dt.datetime:
    """When a certificate's time is over.

    Raises:
        CraneError: when the file is not a certificate.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise CraneError(f"{certificate} cannot be read as a certificate: {error}") from error


async def watch(certificate: Path, tell: Callable[[str], None]) -> None:
    """Tell in time that a node's certificate will be refused."""
    # Not while everything starts: what reads it is slow to import.
    pause = _FIRST_LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = _LOOK_AGAIN_SECONDS
        with suppress(CraneError):
            until = await asyncio.to_thread(end, certificate)
            if until - dt.datetime.now(dt.UTC) < _WARNING:
                tell(
                    f"this replica's certificate is good until {until:%Y-%m-%d}, then the others"
                    " refuse it; `crane init --renew` makes a new one"
                )


class Authority:
    """The authority of a cluster, which makes its replicas' certificates."""

    def __init__(
        self, cluster_id: str, directory: Path, key: ec.EllipticCurvePrivateKey, chain: bytes
    ) -> None:
        self._cluster_id = cluster_id
        self._directory = directory
        self._key = key
        self._chain = chain

    @classmethod
    def create(cls, cluster_id: str, directory: Path) -> Authority:
        """Make one for a cluster and keep it in ``directory``.

        One that is there is replaced, but stays in ``ca.crt``: replicas accept
        the certificates of both until they are given the new one's alone.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(cluster_id, key)
        own = certificate.public_bytes(serialization.Encoding.PEM)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        before = directory / _CERTIFICATES
        former = _first(before.read_bytes()) if before.exists() else b""
        durable.write(directory / _AUTHORITY_KEY, _pem(key))
        durable.write(before, own + former)
        return cls(cluster_id, directory, key, own + former)

    @classmethod
    def load(cls, cluster_id: str, directory: Path) -> Authority:
        """The one that is kept in ``directory``.

        Raises:
            CraneError: when it is not there, damaged or of another cluster.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            chain = (directory / _CERTIFICATES).read_bytes()
            secret = (directory / _AUTHORITY_KEY).read_bytes()
            key = serialization.load_pem_private_key(secret, password=None)
            own = x509.load_pem_x509_certificate(chain)
        except OSError as error:
            raise CraneError(
                f"{error.filename}: the cluster's authority cannot be read: {error.strerror}"
            ) from error
        except (TypeError, ValueError) as error:
            raise CraneError(f"{directory} holds no authority that can be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != own.public_key():
            raise CraneError(f"{directory}: the key is not that of the first certificate")
        if own.subject != _subject(_domain(cluster_id)):
            raise CraneError(f"{directory} holds the authority of another cluster")
        return cls(cluster_id, directory, key, chain)

    @classmethod
    def of(cls, cluster_id: str, directory: Path) -> Authority:
        """The one in ``directory``, made if it is not there."""
        if (directory / _AUTHORITY_KEY).exists():
            return cls.load(cluster_id, directory)
        return cls.create(cluster_id, directory)

    def issue(self, replica: int, files: Files, *, days: int) -> None:
        """Make a replica's certificate with a new key, good for ``days``, into its files."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.load_pem_x509_certificate(self._chain)
        name = identity(self._cluster_id, replica)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(name, own.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        files.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.key.parent.chmod(0o700)
        durable.write(files.key, _pem(key))
        durable.write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        self.trust(files)

    def forget_former(self) -> None:
        """Accept certificates of the newest authority alone."""
        self._chain = _first(self._chain)
        durable.write(self._directory / _CERTIFICATES, self._chain)

    def trust(self, files: Files) -> None:
        """Give a replica the authority's certificates."""
        durable.write(files.ca, self._chain)


def _first(chain: bytes) -> bytes:
    """The first certificate of several."""
    mark = b"-----END CERTIFICATE-----\n"
    return chain[: chain.index(mark) + len(mark)]


def _self_signed(cluster_id: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    domain = _domain(cluster_id)
    return (
        _builder(domain, _subject(domain), key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(
            x509.NameConstraints(permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = dt.datetime.now(dt.UTC)
    until = now + days * _DAY
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    """A distinguished name; its parts are at most 64 characters, which cluster ids fit into."""
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
