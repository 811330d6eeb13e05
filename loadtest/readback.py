"""What a run left behind, read from Postgres and Kafka after everything has stopped.

Two views of the same money: the accounts as the checkpoints hold them, derived by the engine's own functions, and the
ledger's postings, summed by SQL. The report holds both against the oracle.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from actors.kafka import TopicReader
from actors.ports import Record
from actors.postgres import PostgresStore
from actors.sealing import whole_runs
from engine.account import Account
from engine.catalog import Catalogue
from engine.limits import ROOT
from engine.partition import Partition


async def read_log(reader: TopicReader, topic: str, partitions: int) -> dict[int, list[Record]]:
    """Every record of the topic, by partition, in offset order."""
    return {partition: await reader.read_all(topic, partition) for partition in range(partitions)}


def rated_lines(records: Mapping[int, list[Record]]) -> Iterator[Mapping[str, Any]]:
    """The parsed lines of the topic `rated`."""
    for blocks in records.values():
        for block in blocks:
            for line in (block.value or b"").splitlines():
                yield orjson.loads(line)


async def read_checkpoint(
    store: PostgresStore, partition: int, partitions: int, topic: str, control_key: bytes, library: dict[int, Catalogue]
) -> Partition:
    """The partition as its last checkpoint holds it."""
    image = await store.load(partition, 0)
    fold = Partition(partition, partitions, topic, control_key, library)
    blob, _ = await store.checkpoint(partition)
    runs = await whole_runs(store, partition, image.runs)
    fold.load(blob, image.accounts, image.dedup, image.commands, runs)
    return fold


def engine_account(account: Account) -> dict[str, Any]:
    """An account in the shape of the oracle's, for `report.compare`."""
    derived = account.derive()
    counters: dict[tuple[int, str, tuple[str, ...]], int] = {}
    for start, row in account.table.items():
        period = account.period_of(start)
        for (price, cell), quantity in row.items():
            counters[period, price, cell] = counters.get((period, price, cell), 0) + quantity
    return {
        "counters": counters,
        "amounts": {key: running.amount for key, running in derived.running.items()},
        "lots": {
            name: (
                derived.allocation.granted[name],
                _of_lot(derived.allocation.burnt, name),
                derived.allocation.expired.get(name, 0),
                derived.allocation.remaining[name],
                _of_lot(derived.allocation.refunded, name),
                derived.allocation.voided.get(name, 0),
                derived.allocation.carried.get(name, 0),
            )
            for name in account.lots
        },
        "debt": sum(derived.allocation.debt.values()),
        "balance": derived.allocation.balance,
        "spend": derived.spend,
        "scopes": {scope: each.spend for scope, each in account.scopes.items() if scope != ROOT},
    }


def _of_lot(by_period: Mapping[tuple[str, int], int], lot: str) -> int:
    return sum(pico for (name, _), pico in by_period.items() if name == lot)
