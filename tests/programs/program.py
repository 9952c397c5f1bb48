"""What a definition in ``servers/`` says about a program.

One file a program, with a subclass of :class:`Program` and its instance as
``PROGRAM`` (or several as ``PROGRAMS``). Everything else is common to all:
``test_every_program.py`` runs the small sizes, ``make verify-programs`` the
full ones, both through the ``crane`` command as a user does.

A definition writes an ordinary configuration, knows one kind of request whose
answer acknowledges a value, and finds these values again on a replica: by
asking it, or in the files that it wrote.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crane import layers

Address = tuple[str, int]


class WrongAnswerError(Exception):
    """An answer that the program alone would not have given."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a check does."""

    requests: int
    """Acknowledged requests while the log for ``crane verify`` is recorded."""
    runs: int
    """Executions of that log; every second one beside busy processes."""
    writes: int
    """Acknowledged values before and again after the leader's death."""
    connections: int = 6
    """Clients at a time, spread over the replicas in the second check."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is started."""

    argv: Sequence[str]
    options: Sequence[str] = ()
    """Options of ``crane run`` that the user is told to give."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A replica to be looked at."""

    number: int
    address: Address
    said: str
    """What its program wrote to standard output and error since its last start."""
    layers: Path
    """The directory of its private layers."""

    def written(self, path: Path) -> Path:
        """Where the file that the program wrote as ``path`` is found from outside."""
        found = layers.where(self.layers, str(path))
        assert found is not None, f"{path} is not over a layer"
        return found


class Client(ABC):
    """One connection to a replica."""

    @abstractmethod
    def write(self, value: str) -> None:
        """Have ``value`` acknowledged.

        Raises:
            OSError: when the connection broke: the value may be there or not.
            WrongAnswerError: when the answer is wrong.
        """

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class Program(ABC):
    """A server, how it is loaded, and how to see what it has."""

    name: str
    packages: Sequence[str]
    """``COMMAND:PACKAGE`` each: a Debian package by a command or the path of a file in it."""
    settings = ""
    """Settings that differ from what the package brings, and why, for the table."""
    ci: Size | None = Size(requests=200, runs=3, writes=60)
    """For the test suite; ``None``: only ``make verify-programs`` runs it."""
    full = Size(requests=10_000, runs=5, writes=1000)
    ports = range(10_000, 20_000)
    """Those that it can be told to listen on."""
    restores = True
    """Whether checkpoints can be taken of it."""
    once = True
    """Whether the same value found twice is an error."""

    @abstractmethod
    def configure(self, place: Path, port: int) -> Setup:
        """Write configuration and initial files into the new directory ``place``.

        The program is started with ``place`` as its current directory. It can
        read all of it, and what it writes there stays in its replica.
        """

    @abstractmethod
    def client(self, address: Address) -> Client:
        """Connect; raises ``OSError`` when that is not possible."""

    @abstractmethod
    def kept(self, replica: Replica, place: Path, values: Sequence[str]) -> Iterable[str]:
        """The values that a replica has, each as often as it is there.

        ``values`` are all that may be there. Asked again until nothing is
        missing, for half a minute: some programs write their files late.
        """

    def ordinary(self, address: Address, place: Path) -> str | None:
        """A shell command: the program's usual client, through one replica.

        It must end with 0. In both checks it runs beside the writers, in the
        second one through a replica that lives when the leader dies.
        """
        return None

    def speed(self, address: Address, place: Path) -> str | None:
        """A shell command for ``make bench``: see ``speed.py``."""
        return None
