"""What ``crane run`` makes of the nodes' reports: decisions, without effects.

:class:`Progress` is told what the nodes report and which of them ended, and
answers with what to say and what to do. It starts nothing and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crane.child import describe_exit, shell_code


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the user."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Every replica serves clients and one of them leads."""


@dataclass(frozen=True, slots=True)
class Back:
    """A restarted replica takes part again."""

    replica: int


@dataclass(frozen=True, slots=True)
class Removed:
    """A replica ended because it is none any more: the others removed it."""

    replica: int


@dataclass(frozen=True, slots=True)
class End:
    """The run is over: one line of error and the exit code."""

    message: str
    exit_code: int


Action = Say | Ready | Back | Removed | End

_REMOVED = "was removed from the cluster"
"""What a node says that ends because of that."""


@dataclass(slots=True)
class Replica:
    """What is known of one replica."""

    running: bool = False
    attached: bool = False
    addresses: list[str] = field(default_factory=list)
    failure: str | None = None
    """The error it reported before it ended."""
    ended: dict[str, Any] | None = None
    """The report of its program's end."""
    quarter: int = 0
    """How much of what it needs it has copied, as it was last told."""
    stopping: bool = False
    """It was told to end, so its end is no news."""


class Progress:
    """The state of a run as its nodes report it."""

    def __init__(self, program: str, replicas: list[int], logs: dict[int, str]) -> None:
        """``logs`` are the files to point at when a replica fails."""
        self._program = program
        self._logs = logs
        self.replicas = {number: Replica() for number in replicas}
        self.ready = False
        self.leader: int | None = None
        self.term = 0
        self.members_index = 0
        self._members_told = ""
        self._warned: set[str] = set()

    @property
    def majority(self) -> int:
        """How many replicas must run for the cluster to serve."""
        return len(self.replicas) // 2 + 1

    @property
    def up(self) -> int:
        """How many replicas run."""
        return sum(replica.running for replica in self.replicas.values())

    def started(self, number: int) -> None:
        """A node was started."""
        self.replicas[number] = Replica(running=True)

    def stopping(self, number: int) -> None:
        """A node was told to end."""
        self.replicas[number].stopping = True

    def left(self, number: int) -> None:
        """A replica is none any more."""
        self.replicas.pop(number, None)
        if self.leader == number:
            self.leader = None

    def event(  # noqa: PLR0912 - a line for each kind
        self, number: int, event: dict[str, Any]
    ) -> Iterator[Action]:
        """A node reported something."""
        replica = self.replicas.get(number)
        if replica is None:
            return
        match event.get("kind"):
            case "attached" | "restored":
                replica.attached = True
                if self.ready:
                    yield Back(number)
            case "listening":
                yield from self._listening(number, str(event.get("address")))
            case "role":
                yield from self._role(event)
            case "members":
                yield from self._members(event)
            case "caught_up" if self.ready:
                yield Say(f"replica {number} has caught up")
            case "failed":
                replica.failure = str(event.get("message"))
            case "server_exited":
                replica.ended = event
            case "warning" | "message":
                yield from self._warning(number, str(event.get("message")))
            case "copying":
                yield from self._copying(number, event)
            case "stuck":
                yield Say(f"replica {number}: {event.get('message')}", warning=True)
            case _:
                yield from self._told(number, event)
        yield from self._check_ready()

    def _told(self, number: int, event: dict[str, Any]) -> Iterator[Action]:
        """What is only passed on."""
        match event.get("kind"):
            case "background":
                yield Say(f"replica {number}: `{self._program}` went on in the background")
            case "moving":
                yield Say(f"replica {number}: the program goes on")
            case "crashed":
                yield from self._crashed(event)
            case "diverged":
                yield from self._diverged(event)

    def _copying(self, number: int, event: dict[str, Any]) -> Iterator[Action]:
        """Something that the replica needs is copied: a bar at each quarter."""
        replica = self.replicas[number]
        done, whole = int(event["done"]), max(1, int(event["of"]))
        quarter = done * 4 // whole
        if event.get("needed") and quarter != replica.quarter:
            replica.quarter = quarter
            yield Say(
                f"replica {number} copies {event['what']} of replica {event['from']}:"
                f" [{'#' * (quarter * 5):20}] {done * 100 // whole}% of {whole / (1 << 20):.1f} MiB"
            )

    def _warning(self, number: int, message: str) -> Iterator[Action]:
        """What every replica finds on this machine is told once."""
        if message not in self._warned:
            self._warned.add(message)
            yield Say(f"replica {number}: {message}", warning=True)

    def _crashed(self, event: dict[str, Any]) -> Iterator[Action]:
        """The program ended by its own fault and begins anew: told by the first replica."""
        which = f"crash {event['times']}"
        if which not in self._warned:
            self._warned.add(which)
            text = f"`{self._program}` crashed on every replica ({event['status']})"
            yield Say(f"{text} and begins anew in {event['delay']:g} s", warning=True)

    def _diverged(self, event: dict[str, Any]) -> Iterator[Action]:
        """A replica's program came to other results: told once, whoever says it first."""
        which = f"{event.get('replicas')} {event.get('epoch')}"
        if which not in self._warned:
            self._warned.add(which)
            yield Say(str(event.get("message")), warning=True)

    def _listening(self, number: int, address: str) -> Iterator[Action]:
        replica = self.replicas[number]
        if address not in replica.addresses:
            replica.addresses.append(address)
            if self.ready:
                yield Say(f"replica {number} serves clients on {address}")

    def _role(self, event: dict[str, Any]) -> Iterator[Action]:
        term, leader = int(event.get("term") or 0), event.get("leader")
        if not leader or term < self.term or (term, leader) == (self.term, self.leader):
            return
        changed = leader != self.leader
        self.term, self.leader = term, int(leader)
        if self.ready and changed:
            yield Say(f"replica {leader} leads now (term {term})")

    def _members(self, event: dict[str, Any]) -> Iterator[Action]:
        """Others take part than before; every node tells of it, and the first is heard."""
        if int(event["index"]) <= self.members_index:
            return
        self.members_index = int(event["index"])
        voters, learners = event["voters"], event["learners"]
        text = f"the replicas are {', '.join(map(str, voters))}"
        if learners:
            text += f"; {', '.join(map(str, learners))} catching up"
        if text != self._members_told:
            self._members_told = text
            yield Say(text)

    def _check_ready(self) -> Iterator[Action]:
        if self.ready or self.leader is None:
            return
        if all(one.running and one.attached and one.addresses for one in self.replicas.values()):
            self.ready = True
            yield Ready()

    def exited(self, number: int, code: int) -> Iterator[Action]:
        """A node ended with ``code`` (negative: by a signal)."""
        replica = self.replicas.get(number)
        if replica is None:
            return
        replica.running = False
        if self.leader == number:
            self.leader = None
        if replica.failure is not None and _REMOVED in replica.failure:
            yield Removed(number)
            yield from self._check_ready()
            return
        if not self.ready:
            yield self._failed_start(number, code)
            return
        ended = [one.ended for one in self.replicas.values() if one.ended is not None]
        if ended and (len(ended) >= self.majority or self.up == 0):
            yield self._program_end(number, ended[-1])
            return
        if replica.stopping:
            reason = "stopped"
        elif replica.failure is not None:
            reason = replica.failure
        elif replica.ended is not None:
            reason = f"`{self._program}` ended there with {replica.ended['status']}"
        else:
            reason = describe_exit(code)
        yield Say(f"replica {number} is down: {reason}", warning=not replica.stopping)
        yield self._rest(number)

    def _rest(self, number: int) -> Say:
        count = len(self.replicas)
        bring_back = f"`crane restart {number}` brings it back"
        if self.up >= self.majority:
            return Say(f"{self.up} of {count} replicas go on; {bring_back}")
        return Say(
            f"no majority: {self.up} of {count} replicas run and {self.majority} are needed;"
            f" clients wait until one is back; {bring_back}",
            warning=True,
        )

    def _failed_start(self, number: int, code: int) -> End:
        replica = self.replicas[number]
        if replica.ended is not None:
            return self._program_end(number, replica.ended)
        if replica.failure is not None:
            return End(f"replica {number}: {replica.failure}", 1)
        return End(
            f"replica {number} ended while it started ({describe_exit(code)});"
            f" see {self._logs[number]}",
            1,
        )

    def _program_end(self, number: int, report: dict[str, Any]) -> End:
        said = f'; it said: "{report["output"]}"' if report.get("output") else ""
        before = "" if self.ready else " before it served clients"
        message = f"`{self._program}` ended with {report['status']}{before}{said}"
        if report.get("epoch") and report.get("code"):
            message += (
                f" after epoch {report['epoch']} of the log, which `crane verify --log` executes"
                " again"
            )
        return End(f"{message} (`crane logs` or {self._logs[number]} has all)", _code(report))

    def late(self, seconds: float) -> Say:
        """The start takes long: say what is missing."""
        for number, one in self.replicas.items():
            if not one.attached:
                return Say(f"replica {number} has not started its program after {seconds:g} s")
        if self.leader is None:
            return Say(f"the replicas have not elected a leader after {seconds:g} s", warning=True)
        return Say(
            f"`{self._program}` does not listen for clients after {seconds:g} s; its output is in"
            f" {next(iter(self._logs.values()))}",
            warning=True,
        )

    def summary(self) -> list[str]:
        """Where each replica listens, and who leads."""
        lines = []
        for number, one in self.replicas.items():
            role = "leader" if number == self.leader else "follower"
            lines.append(f"replica {number}  {role:8}  {', '.join(one.addresses)}")
        return lines


def _code(report: dict[str, Any]) -> int:
    """The run's exit code for its program's end: the program's own, never success."""
    return shell_code(int(report.get("code", 1))) or 1
