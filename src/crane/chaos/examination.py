"""Registers under faults from a seed, with every answer checked in two ways.

The log is the witness of every byte that clients received, and histories of each
register are searched for an order that explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from crane import wish
from crane.chaos import campaign, plan, witness
from crane.chaos.campaign import Report, Tell
from crane.chaos.faults import Fault
from crane.chaos.histories import check, pieces
from crane.chaos.hosts import Hosts, new_base
from crane.chaos.loads import Asker, Judgement
from crane.chaos.registers import Dialect, Registers
from crane.chaos.watched import Watched
from crane.checkpoint.schedule import Policy


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What came of it."""

    report: Report
    answered: int
    compared: int
    """Answers compared with the log, executed once more."""
    searched: int
    """Operations in the histories that were searched, those without an answer included."""
    histories: int
    problems: list[str] = field(default_factory=list)


class _Asker(Asker):
    name = "registers"

    def __init__(self, load: Registers) -> None:
        self.load = load
        self.answers = load.answers

    def start(self) -> None:
        """See :meth:`Asker.start`."""
        self.load.start()

    def stop(self) -> None:
        """See :meth:`Asker.stop`."""
        self.load.stop()

    def judge(self, cluster: Watched) -> Judgement:
        """See :meth:`Asker.judge`."""
        del cluster
        return Judgement(acknowledged=len(self.answers), problems=self.load.faults)


def examine(
    command: list[str],
    dialect: Dialect,
    checker: Path,
    *,
    faults: Sequence[Fault],
    seed: int,
    seconds: float,
    tell: Tell = lambda _: None,
) -> Examination:
    """Make faults for ``seconds`` seconds while clients use registers, and check everything.

    ``checker`` is the program of ``crates/linearizable``. Needs root.

    Raises:
        CraneError: when the program cannot be run or its log not be executed.
    """
    wanted, _ = wish.wanted(command, name="examination")
    # The whole log is the witness.
    wanted = structs.replace(wanted, checkpoints=Policy(interval=0, log_mib=0))
    base = new_base()
    with Hosts(wanted, base=base, own_disks=True, own_clocks=True) as hosts:
        load = Registers(dialect, hosts.addresses(), seed=seed)
        steps = plan.draw(seed, faults)
        report = campaign.run(hosts, _Asker(load), steps, seconds=seconds, tell=tell)
        hosts.end()
        log = witness.executed(hosts.state.path, base / "witness")
    verdict = witness.compare(load.conversations, log)
    cut = pieces(load.operations)
    wrong = check(checker, cut)
    return Examination(
        report=report,
        answered=len(load.answers),
        compared=verdict.exchanges,
        searched=sum(len(one.operations) for one in cut),
        histories=len(cut),
        problems=[
            *report.problems,
            *report.judgement.problems,
            *verdict.problems,
            *(
                f"register {one.register} is not linearizable:\n{one.text(loose=True)}"
                for one in wrong
            ),
        ],
    )
