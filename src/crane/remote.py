"""The admin API from elsewhere: over TLS, for who has the token.

A node shows the certificate that it shows to the other replicas, and the caller
shows the token of a file. The token is never an argument of a command, in a
log, or in the environment.
"""

from __future__ import annotations

import hmac
import http.client
import os
import re
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

from crane.certificates import Files
from crane.config import NodeConfig, split_address
from crane.errors import CraneError

_SHORTEST_TOKEN = 20


def read_token(path: Path) -> bytes:
    """The token in a file that only its owner may read.

    Raises:
        CraneError: naming what is wrong with the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(4096).strip()
    except OSError as error:
        raise CraneError(f"{path}: the token cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
        raise CraneError(f"{path}: others may read this token; chmod 600 it")
    if found.st_uid not in (0, os.geteuid()):
        raise CraneError(f"{path}: another user owns this token; chown it")
    if len(text) < _SHORTEST_TOKEN or not re.fullmatch(rb"[A-Za-z0-9._~+/=-]+", text):
        raise CraneError(
            f"{path}: is no token: one line of at least {_SHORTEST_TOKEN} letters and digits; make"
            " one with `openssl rand -hex 32`"
        )
    return text


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node listens for callers from elsewhere."""

    host: str
    port: int
    files: Files
    token: bytes = field(repr=False)

    @classmethod
    def of(cls, config: NodeConfig) -> Door | None:
        """That of a node, if it has one.

        Raises:
            CraneError: when the token cannot be used.
        """
        if config.admin_listen is None or config.admin_token_file is None:
            return None
        host, port = split_address(config.admin_listen)
        token = read_token(Path(config.admin_token_file))
        return cls(host, port, Files.of(Path(config.state_dir)), token)

    def context(self) -> ssl.SSLContext:
        """The node's side of TLS.

        Raises:
            CraneError: when the certificate cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        try:
            context.load_cert_chain(self.files.certificate, self.files.key)
        except (OSError, ssl.SSLError) as error:
            raise CraneError(f"{self.files.certificate} cannot be used: {error}") from error
        return context

    def admits(self, authorization: bytes) -> bool:
        """Whether a header shows the token; takes the same time wherever it differs."""
        return hmac.compare_digest(authorization, b"Bearer " + self.token)


@dataclass(frozen=True, slots=True)
class Remote:
    """A node elsewhere, for its caller."""

    host: str
    port: int
    ca: Path
    """The certificate of the cluster's authority: nobody else is told the token."""
    token: bytes = field(repr=False)

    def __str__(self) -> str:
        """As it was given."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A connection that is made at the first request.

        Raises:
            CraneError: when the authority's certificate cannot be read.
        """
        # The authority has made certificates for this cluster's replicas alone;
        # which of them answers does not matter.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise CraneError(f"{self.ca}: is no certificate that can be read: {error}") from error
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)

    def headers(self) -> dict[str, str]:
        """What shows who calls."""
        return {"Authorization": f"Bearer {self.token.decode()}"}
