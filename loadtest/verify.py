"""The verdict on a run: the oracle folds the same log, and everything that was left behind is held against it.

The oracle is slow on purpose, and partitions know nothing of each other, so each is folded in a process of its own.
"""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import orjson
from msgspec import Struct

from actors.assembly import brokers
from actors.kafka import TopicReader
from actors.ports import Record
from actors.postgres import PostgresStore
from config.settings import Settings
from engine.catalog import load_catalogue
from engine.events import CONTROL_MAGIC
from loadtest.backing import Backing, Row, back
from loadtest.chaos.acknowledged import digest_of
from loadtest.chaos.forwards import Fold, Forward, nowhere
from loadtest.journal import Journal
from loadtest.oracle.accounts import Alert, OracleAccount, Rated
from loadtest.readback import engine_account, rated_lines, read_checkpoint, read_log
from loadtest.report import compare, compare_ledger

NOT_COMPARED = ("alert_crossed", "alert_recovered")  # the oracle lists alerts one by one instead of counting them


class Expected(Struct):
    """What the oracle makes of one partition."""

    accounts: dict[str, OracleAccount]
    rated: dict[tuple[int, int], Rated]
    corrected: dict[tuple[int, int], Rated]
    accrued: dict[tuple[int, int, str], Rated]
    alerts: dict[str, Alert]
    outcomes: Counter[str]
    forwards: list[Forward]
    backing: Backing


class Verdict(Struct):
    """How a run stands; `differences` are sentences, none when everything is equal."""

    counts: Counter[str]  # the engine's outcomes, by name
    lost: int
    double: int
    alerts_missing: int
    alerts_extra: int
    differences: list[str]
    accounts: dict[str, OracleAccount]
    rated: dict[tuple[int, int], Rated]
    answers_backed: int  # of the journal's answers, those that were held against the oracle at their offset


def expect(
    documents: Mapping[int, Any],
    control_key: bytes,
    topic: str,
    partitions: int,
    partition: int,
    records: list[Row],
    journal: Journal,
) -> Expected:
    """The oracle's fold of one partition, and what it says of the answers in the journal."""
    oracle = Fold(documents, control_key, topic, partitions)
    backing = back(journal, partition, records, oracle, control_key)
    return Expected(
        oracle.accounts,
        oracle.rated,
        oracle.corrected,
        oracle.accrued,
        oracle.alerts,
        oracle.outcomes[partition],
        oracle.forwards,
        backing,
    )


async def verify(
    settings: Settings,
    store: PostgresStore,
    catalogues: Mapping[int, bytes],
    received_alerts: Collection[str],
    *,
    processes: int,
    say: Callable[[str], None],
    journal: Journal | None = None,
) -> Verdict:
    """Read everything back and compare. The shards must have handed over; `catalogues` are stored bodies by version.

    `journal` is what callers of checks were told, if there were any: every answer is held against the log, too."""
    journal = journal or Journal()
    kafka = settings.kafka
    reader = TopicReader(brokers(settings))
    await reader.start()
    try:
        log = await read_log(reader, kafka.topic_usage, kafka.partitions)
        blocks = await read_log(reader, kafka.topic_rated, kafka.partitions)
    finally:
        await reader.stop()
    # What was forwarded into a partition just before its last checkpoint may lie behind that: told of below, but not lost.
    whole = {number: list(records) for number, records in log.items()}
    behind = [
        sentence
        for number in range(kafka.partitions)
        for sentence in take_behind(number, log[number], (await store.checkpoint(number))[1])
    ]
    control_key = settings.control_key_bytes()
    documents = {version: orjson.loads(body) for version, body in catalogues.items()}
    accounts: dict[str, OracleAccount] = {}
    rated: dict[tuple[int, int], Rated] = {}
    corrected: dict[tuple[int, int], Rated] = {}
    accrued: dict[tuple[int, int, str], Rated] = {}
    alerts: dict[str, Alert] = {}
    outcomes: Counter[str] = Counter()
    forwards: list[Forward] = []
    unbacked: list[str] = []
    answers_backed = 0
    # spawn: this process may run an event loop, threads and a Ray driver, none of which survive a fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        folds = [
            loop.run_in_executor(
                pool,
                expect,
                documents,
                control_key,
                kafka.topic_usage,
                kafka.partitions,
                partition,
                [(record.offset, record.timestamp, record.key, record.value) for record in records],
                journal.about(partition),
            )
            for partition, records in log.items()
        ]
        for done, fold in enumerate(asyncio.as_completed(folds), start=1):
            expected = await fold
            accounts |= expected.accounts
            rated |= expected.rated
            corrected |= expected.corrected
            accrued |= expected.accrued
            alerts |= expected.alerts
            outcomes += expected.outcomes
            forwards += expected.forwards
            unbacked += expected.backing.sentences
            answers_backed += expected.backing.checked
            say(f"the oracle has folded {done} of {kafka.partitions} partitions")

    library = {version: load_catalogue(version, body) for version, body in catalogues.items()}
    engine_accounts: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for number in range(kafka.partitions):
        checkpoint = await read_checkpoint(store, number, kafka.partitions, kafka.topic_usage, control_key, library)
        counts.update(checkpoint.counts)
        for account_id in checkpoint.account_ids():
            account = checkpoint.account(account_id)
            assert account is not None
            engine_accounts[account_id] = engine_account(account)
    comparison = compare(
        accounts,
        rated,
        alerts,
        corrected=corrected,
        engine_accounts=engine_accounts,
        rated_lines=rated_lines(blocks),
        received_alerts=received_alerts,
        accrued=accrued,
    )
    digests = {number: (digest_of(record.key, record.value) for record in records) for number, records in whole.items()}
    lost = nowhere(forwards, digests)
    return Verdict(
        counts,
        comparison.lost + len(lost),
        comparison.double,
        len(comparison.alerts_missing),
        len(comparison.alerts_extra),
        behind
        + lost
        + comparison.differences
        + compare_ledger(await store.ledger(), accounts)
        + compare_outcomes(counts, outcomes)
        + unbacked,
        accounts,
        rated,
        answers_backed,
    )


def take_behind(partition: int, records: list[Record], next_offset: int) -> list[str]:
    """Drop what lies behind the last checkpoint, which is the state that is judged; usage found there is a sentence.

    A shard that is draining may still have appended a `tick` or its epoch; whoever owns the partition next folds them."""
    kept = [record for record in records if record.offset < next_offset]
    sentences = [
        f"partition {partition}, offset {record.offset}: usage expected in a checkpoint, found behind the last one"
        for record in records[len(kept) :]
        if not (record.value or b"").startswith(CONTROL_MAGIC)
    ]
    records[:] = kept
    return sentences


def compare_outcomes(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """How many records had which outcome, as sentences where engine and oracle differ."""
    return [
        f"outcome {name}: expected {expected.get(name, 0)}, found {counts.get(name, 0)}"
        for name in sorted({*counts, *expected} - {*NOT_COMPARED})
        if counts.get(name, 0) != expected.get(name, 0)
    ]
