"""What a run left behind, judged from Kafka and Postgres alone, by code that shares nothing with the engine.

What should have come of the log is said by the oracle (`loadtest/oracle/`); what was promised to callers, by the
journals that they kept themselves. Partitions know nothing of each other, so each is judged in a process of its own,
which reads its part of everything; only what crosses partitions (forwarded events, alerts at the receiver) is left for
the end.
"""

import asyncio
import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from msgspec import Struct

from actors.checkpoints import Checkpoints, StoredCheckpoint
from actors.kafka import Brokers, TopicReader
from actors.ports import AccountRow, Head
from config.stack.supervisor import Say
from loadtest.backing import Row, back
from loadtest.chaos.acknowledged import DIGEST_BYTES, NO_IDENTITY, digest_of, identity_of, read_acknowledged
from loadtest.chaos.canonical import (
    Unreadable,
    account_of_oracle,
    account_of_snapshot,
    difference,
    has_slices,
    partition_of_oracle,
    partition_of_snapshot,
    unmade,
    unmade_of_partition,
)
from loadtest.chaos.forwards import Fold, Forward, nowhere
from loadtest.journal import Journal, judge_denials, judge_usage, overspend
from loadtest.oracle.accounts import OracleAccount
from loadtest.oracle.records import CONTROL_PREFIX
from loadtest.report import Differences, compare_ledger, compare_rated

IDENTITY: Final = np.dtype("<u8")
SAMPLE: Final = 20
LINE_FIELDS: Final = (
    *("partition", "offset", "line", "epoch", "account", "source", "id", "price", "quantity", "amount"),
    *("correction", "session", "accrued_us", "due"),
)


class Case(Struct, frozen=True):
    """Where everything lies."""

    bootstrap: str
    usage: str  # topic
    rated: str  # topic
    partitions: int
    dsn: str
    schema: str
    control_key: bytes
    catalogues: dict[int, bytes]  # stored bodies by version
    acknowledged: str  # folder of the journal
    sources: list[str]  # event sources that only the gateways of the journal use
    held_customers: list[str]  # whose whole usage was held


class Finding(Struct):
    """How one partition stands. `sentences` are what is wrong."""

    partition: int
    records: int = 0
    accounts: int = 0
    accounts_identical: int = 0  # SHA-256 of both canonical forms is the same
    answers_backed: int = 0
    acknowledged: int = 0
    checkpoints: int = 0
    lost: int = 0
    double: int = 0
    overspend: int = 0  # pico
    outcomes: Counter[str] = Counter()
    alerts: list[str] = []  # ids that the oracle expects
    rated: bytes = b""  # identities of all that was rated, as IDENTITY
    owed: bytes = b""  # identities of what was acknowledged here and must be rated somewhere
    forwards: list[Forward] = []  # what belongs to other partitions
    digests: bytes = b""  # of all that stands in the log
    sentences: list[str] = []


class Verdict(Struct):
    """How the run stands."""

    lost: int
    double: int
    alerts_missing: int
    alerts_extra: int
    overspend: int
    accounts: int
    accounts_identical: int
    answers_backed: int
    acknowledged: int
    rated: int
    checkpoints: int
    outcomes: dict[str, int]
    wrong: list[str]


class _Stored(Struct):
    """A partition's checkpoint, read."""

    head: Head
    accounts: dict[str, AccountRow]
    ledger: dict[tuple[str, str, str], int]
    alerts: dict[str, tuple[str, int]]
    dead_letters: dict[int, str]


async def _read_stored(case: Case, partition: int) -> _Stored:
    checkpoints = Checkpoints(case.dsn, case.schema)
    await checkpoints.start()
    try:

        async def read(stored: StoredCheckpoint) -> _Stored:
            accounts = {row.account: row async for rows in stored.accounts() for row in rows}
            ledger: Counter[tuple[str, str, str]] = Counter()
            for posted in await stored.postings():
                ledger[posted.account, posted.lot, posted.kind] += posted.amount
            alerts = {row.alert_id: (row.account, row.offset) for row in await stored.alerts()}
            dead = {row.offset: str(row.reason) for row in await stored.dead_letters()}
            return _Stored(stored.head, accounts, dict(ledger), alerts, dead)

        return await checkpoints.read(partition, read)
    finally:
        await checkpoints.stop()


class _Judge:
    """One partition, from its log to its last posting."""

    def __init__(self, case: Case, partition: int, journal: Journal) -> None:
        documents = {version: orjson.loads(body) for version, body in case.catalogues.items()}
        self.found = Finding(partition)
        self._case = case
        self._partition = partition
        self._journal = journal
        self._oracle = Fold(documents, case.control_key, case.usage, case.partitions)
        self._differences = Differences()

    async def judge(self) -> Finding:
        stored = await _read_stored(self._case, self._partition)
        self.found.checkpoints = stored.head.ckpt_seq
        reader = TopicReader(Brokers(self._case.bootstrap))
        await reader.start()
        try:
            await self._log(reader, stored.head)
            await self._lines(reader, stored.head)
        finally:
            await reader.stop()
        self._state(stored)
        self._promises()
        self.found.sentences += self._differences.sentences
        if self._differences.count > len(self._differences.sentences):
            self.found.sentences.append(f"partition {self._partition}: {self._differences.count} differences in all")
        return self.found

    # ---- the log

    async def _log(self, reader: TopicReader, head: Head) -> None:
        """Everything that is in the checkpoint goes through the oracle; what was acknowledged must be there."""
        first, end = await reader.bounds(self._case.usage, self._partition)
        rows: list[Row] = []
        digests: dict[int, bytes] = {}
        async for record in reader.read(self._case.usage, self._partition, first, end):
            digests[record.offset] = digest_of(record.key, record.value)
            if record.offset < head.next_offset:
                rows.append((record.offset, record.timestamp, record.key, record.value))
            elif not (record.value or b"").startswith(CONTROL_PREFIX):
                self._differences.add(
                    f"partition {self._partition}, offset {record.offset}: usage expected in a checkpoint, found behind "
                    "the last one"
                )
                self.found.lost += 1
        backing = back(self._journal, self._partition, rows, self._oracle, self._case.control_key)
        self.found.records = len(rows)
        self.found.answers_backed = backing.checked
        self.found.sentences += backing.sentences
        self.found.outcomes = self._oracle.outcomes[self._partition]
        self.found.alerts = list(self._oracle.alerts)
        rated = [identity_of(event.account, event.source, event.id) for event in self._oracle.rated.values()]
        self.found.rated = np.array(rated, IDENTITY).tobytes()
        self.found.forwards = self._oracle.forwards
        self.found.digests = b"".join(digests.values())
        self._acknowledged(digests)

    def _acknowledged(self, digests: Mapping[int, bytes]) -> None:
        entries = read_acknowledged(Path(self._case.acknowledged), self._partition)
        for offset, digest in zip(entries["offset"].tolist(), entries["digest"].tolist(), strict=True):
            if digests.get(offset) != bytes(digest):
                self.found.lost += 1
                state = "another record" if offset in digests else "no record"
                self._differences.add(
                    f"partition {self._partition}, offset {offset}: acknowledged by Kafka, found {state} there"
                )
        self.found.acknowledged = len(entries)
        self.found.owed = entries["identity"][entries["identity"] != NO_IDENTITY].astype(IDENTITY).tobytes()

    # ---- what was rated

    async def _lines(self, reader: TopicReader, head: Head) -> None:
        """Per offset the set of the highest epoch; lines beyond the checkpoint are provisional, and nothing yet."""
        first, end = await reader.bounds(self._case.rated, self._partition)
        lines = []
        async for block in reader.read(self._case.rated, self._partition, first, end):
            for text in (block.value or b"").splitlines():
                line = orjson.loads(text)
                if line["offset"] < head.next_offset:
                    told = {name: line.get(name) for name in LINE_FIELDS}
                    lines.append(told | {"digest": digest_of(None, text)})  # by which all else in it differs, too
        expected = self._oracle.rated, self._oracle.corrected
        lost, double = compare_rated(*expected, lines, self._differences, self._oracle.accrued)
        self.found.lost += lost
        self.found.double += double

    # ---- the state

    def _state(self, stored: _Stored) -> None:
        expected = self._oracle.accounts
        self._accounts(stored.accounts, expected)
        for sentence in compare_ledger(stored.ledger, expected):
            self._differences.add(sentence)
        self._header(stored)
        outbox = {alert_id: (alert["account"], alert["offset"]) for alert_id, alert in self._oracle.alerts.items()}
        self._same("alert", outbox, stored.alerts)
        self._same("dead letter at offset", self._oracle.dead_letters, stored.dead_letters)

    def _header(self, stored: _Stored) -> None:
        here, want = f"partition {self._partition}", partition_of_oracle(self._oracle.state(self._partition))
        if stored.head.blob is None:
            self._differences.add(f"{here}: expected a checkpoint, found none")
            return
        try:
            have = partition_of_snapshot(stored.head.blob)
            sliced = {name: has_slices(row.blob) for name, row in stored.accounts.items()}
            found = unmade_of_partition(stored.head.blob, sliced)
        except Unreadable as error:
            self._differences.add(f"{here}: {error}")
            return
        if want != have:
            self._differences.add(f"{here}: {difference(want, have)}")
        for sentence in found:
            self._differences.add(f"{here}: {sentence}")

    def _accounts(self, rows: Mapping[str, AccountRow], expected: Mapping[str, OracleAccount]) -> None:
        state = self._oracle.state(self._partition)
        for name in sorted({*rows, *expected}):
            self.found.accounts += 1
            if name not in rows or name not in expected:
                self._differences.add(f"account {name}: expected {name in expected}, found {name in rows}")
                continue
            row, standing = rows[name], expected[name]
            want = account_of_oracle(self._oracle, self._partition, state.accounts[name])
            self._account(name, want, row.blob)
            spend = standing.spend[max(standing.spend)] if standing.spend else 0
            if (row.balance, row.spend, row.currency) != (standing.balance, spend, standing.currency):
                self._differences.add(
                    f"account {name}: expected balance {standing.balance} and spend {spend} {standing.currency}, "
                    f"found {row.balance} and {row.spend} {row.currency}"
                )
        held = {name: 0 for name in self._case.held_customers if name in expected}
        self.found.overspend = overspend(expected, held)

    def _account(self, name: str, want: bytes, blob: bytes) -> None:
        try:
            have, found = account_of_snapshot(blob), unmade(blob)
        except Unreadable as error:
            self._differences.add(f"account {name}: {error}")
            return
        for sentence in found:
            self._differences.add(f"account {name}: {sentence}")
        if hashlib.sha256(want).digest() != hashlib.sha256(have).digest():
            self._differences.add(f"account {name}: {difference(want, have)}")
        elif not found:
            self.found.accounts_identical += 1

    def _same(self, what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> None:
        for key in sorted({*expected, *found}):
            if expected.get(key) != found.get(key):
                self._differences.add(
                    f"partition {self._partition}, {what} {key}: expected {expected.get(key)}, found {found.get(key)}"
                )

    # ---- what callers were told

    def _promises(self) -> None:
        self.found.sentences += judge_usage(self._journal, self._oracle.rated.values(), self._case.sources)


def judge_partition(case: Case, partition: int, journal: Journal) -> Finding:
    """Runs in a process of its own."""
    return asyncio.run(_Judge(case, partition, journal).judge())


async def verify(case: Case, journal: Journal, received_alerts: Collection[str], processes: int, say: Say) -> Verdict:
    """Judge every partition, then what crosses them. The shards must have handed over."""
    findings = []
    # spawn: this process may run an event loop, threads and a Ray driver, none of which survive a fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        loop = asyncio.get_running_loop()
        judged = [
            loop.run_in_executor(pool, judge_partition, case, partition, journal.about(partition))
            for partition in range(case.partitions)
        ]
        for done in asyncio.as_completed(judged):
            finding = await done
            findings.append(finding)
            say(
                f"partition {finding.partition}: {finding.records:,} records, {finding.accounts_identical:,} of "
                f"{finding.accounts:,} accounts identical to the oracle, lost {finding.lost}, double {finding.double}"
            )
    return conclude(findings, journal, received_alerts)


def conclude(findings: Collection[Finding], journal: Journal, received_alerts: Collection[str]) -> Verdict:
    """What the partitions come to together."""
    wrong = [sentence for finding in findings for sentence in finding.sentences]
    wrong += judge_denials(journal)
    outcomes = sum((finding.outcomes for finding in findings), Counter[str]())
    lost = sum(finding.lost for finding in findings)
    double = sum(finding.double for finding in findings)
    rated, times = np.unique(_joined(finding.rated for finding in findings), return_counts=True)
    if repeated := int((times > 1).sum()):
        double += repeated
        wrong.append(f"{repeated} events were rated at more than one place")
    owed = np.unique(_joined(finding.owed for finding in findings))
    if missing := int((~np.isin(owed, rated)).sum()):
        lost += missing
        wrong.append(f"{missing} acknowledged events were rated nowhere")
    forwards = [forward for finding in findings for forward in finding.forwards]
    wrong += nowhere(forwards, {finding.partition: _digests(finding.digests) for finding in findings})
    expected = {alert for finding in findings for alert in finding.alerts}
    missing_alerts, extra_alerts = sorted(expected - {*received_alerts}), sorted({*received_alerts} - expected)
    wrong += [f"alert {alert}: expected at the receiver, found none" for alert in missing_alerts[:SAMPLE]]
    wrong += [f"alert {alert}: expected none, found it at the receiver" for alert in extra_alerts[:SAMPLE]]
    return Verdict(
        lost=lost,
        double=double,
        alerts_missing=len(missing_alerts),
        alerts_extra=len(extra_alerts),
        overspend=sum(finding.overspend for finding in findings),
        accounts=sum(finding.accounts for finding in findings),
        accounts_identical=sum(finding.accounts_identical for finding in findings),
        answers_backed=sum(finding.answers_backed for finding in findings),
        acknowledged=sum(finding.acknowledged for finding in findings),
        rated=len(rated),
        checkpoints=sum(finding.checkpoints for finding in findings),
        outcomes=dict(sorted(outcomes.items())),
        wrong=wrong,
    )


def _digests(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _joined(parts: "Any") -> "np.ndarray[Any, Any]":
    return np.frombuffer(b"".join(parts), IDENTITY)
