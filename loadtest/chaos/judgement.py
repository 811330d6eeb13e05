"""How a run stands, asked in one way whatever was done to it: the verifier's word on what it left behind, the engine's own
(`witness.py`) beside it, and whether there was anything to be judged at all.

A run in which nothing was acknowledged, rated, told or struck leaves nothing that could be wrong, and proves nothing.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from actors.assembly import database_dsn
from config.settings import Settings
from config.stack.supervisor import Say
from loadtest.chaos.acknowledged import Acknowledged
from loadtest.chaos.audit import History
from loadtest.chaos.report import Report
from loadtest.chaos.verifier import Case, Verdict, verify
from loadtest.chaos.witness import drifts
from loadtest.journal import Journal
from loadtest.receiver import Receiver


class Judged(Struct):
    """`wrong` holds sentences, none when the run has proved what it set out to prove."""

    verdict: Verdict
    alerts: int  # at the receiver
    wrong: list[str]
    history: History = msgspec.field(default_factory=History)  # of a run whose partitions Postgres itself has watched

    @property
    def equal(self) -> bool:
        """Whether the oracle has the same of everything, down to the bytes of each account."""
        verdict = self.verdict
        return not verdict.wrong and verdict.accounts == verdict.accounts_identical > 0

    @property
    def figures(self) -> dict[str, Any]:
        """For the report."""
        of_verdict = {name: getattr(self.verdict, name) for name in self.verdict.__struct_fields__ if name != "wrong"}
        return of_verdict | {"alerts": self.alerts}

    def count(self, report: Report, events: int) -> None:
        """Into what all phases share; `events` are those that Kafka has acknowledged."""
        report.events += events
        report.lost += self.verdict.lost
        report.double += self.verdict.double
        report.overspend += self.verdict.overspend
        report.oracle_equal = self.equal and report.oracle_equal is not False


async def judge_run(
    settings: Settings,
    catalogues: Mapping[int, bytes],
    acknowledged: Acknowledged,
    receiver: Receiver,
    struck: int,
    say: Say,
    *,
    journal: Journal | None = None,
    sources: Collection[str] = (),
    held_customers: Collection[str] = (),
) -> Judged:
    """The shards must have handed over, and nothing is sent any more. `catalogues` are stored bodies by version, `struck`
    counts the faults; the rest is of gateways that asked before they spent: their `journal`, the event sources that only they
    use, and the customers whose whole usage was held."""
    acknowledged.close()
    assert settings.kafka.bootstrap_servers is not None
    case = Case(
        bootstrap=settings.kafka.bootstrap_servers,
        usage=settings.kafka.topic_usage,
        rated=settings.kafka.topic_rated,
        partitions=settings.kafka.partitions,
        dsn=database_dsn(settings),
        schema=settings.postgres.schema_name,
        control_key=settings.control_key_bytes(),
        catalogues=dict(catalogues),
        acknowledged=str(acknowledged.folder),
        sources=list(sources),
        held_customers=list(held_customers),
    )
    verdict = await verify(case, journal or Journal(), receiver.alerts, os.cpu_count() or 1, say)
    wrong = [*verdict.wrong, *unproven(verdict, len(receiver.alerts), struck)]
    wrong += await drifts(settings, say)
    if receiver.rejected:
        wrong.append(f"{receiver.rejected} alerts came with a signature that does not hold")
    return Judged(verdict, len(receiver.alerts), wrong)


def unproven(verdict: Verdict, alerts: int, struck: int) -> list[str]:
    """Of what nothing has happened, so that nothing is proven of it; `alerts` are those at the receiver."""
    happened = {
        "no record was acknowledged": verdict.acknowledged,
        "no event was rated": verdict.rated,
        "no account was compared": verdict.accounts,
        "no checkpoint was made": verdict.checkpoints,
        "no alert was told": alerts,
        "nothing was struck": struck,
    }
    return [f"{what}: such a run proves nothing of it" for what, count in happened.items() if not count]
