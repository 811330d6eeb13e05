"""The verdict: each partition by the oracle on its own, and outcomes held against each other."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import AsyncMock

import msgspec
import orjson
import pytest
from pydantic import SecretStr

from actors.ports import Record
from config.settings import KafkaSettings, Settings
from engine.catalog import load_catalogue
from engine.events import CatalogueMarker, OpenAccount, Tick, seal
from engine.partition import Partition
from engine.placement import partition_for
from loadtest.journal import Journal
from loadtest.verify import Expected, Verdict, compare_outcomes, expect, take_behind, verify
from loadtest.workload import cloud_time
from tests.simulation.sim_log import SimRecord

KEY = b"a control key of thirty-two bytes"
START_US = 1_750_000_000_000_000
CALL = {"meter": "calls", "model": "per_unit", "where": {}, "amount": "1", "per": "1", "tiers": []}
DOCUMENT = {
    "meters": {"calls": {"event_type": "call", "aggregation": "count", "field": None, "group_by": []}},
    "plans": {"basic": {"currency": "USD", "prices": {"call": CALL}}},
}


def _records() -> list[tuple[int, int, bytes | None, bytes | None]]:
    def sealed(body: msgspec.Struct) -> bytes:
        return seal(KEY, "usage", partition_for(b"acme", 8), msgspec.json.encode(body))

    def usage(number: int) -> bytes:
        event = {"specversion": "1.0", "id": f"e{number}", "source": "test", "type": "call", "data": {}}
        return orjson.dumps(event | {"time": cloud_time(START_US)})

    values: list[tuple[bytes | None, bytes]] = [
        (None, sealed(CatalogueMarker(1, 0))),
        (b"acme", sealed(OpenAccount("acme", "open", "basic"))),
        (b"acme", usage(1)),
        (b"acme", usage(1)),
        (b"acme", usage(2)),
        (b"acme", b"no json"),
    ]
    return [(offset, START_US // 1000 + offset, key, value) for offset, (key, value) in enumerate(values)]


def _expected() -> Expected:
    return expect({1: DOCUMENT}, KEY, "usage", 8, partition_for(b"acme", 8), _records(), Journal())


def test_one_partition_is_expected_on_its_own_and_travels_between_processes() -> None:
    expected = pickle.loads(pickle.dumps(_expected()))  # noqa: S301 - our own bytes, as the process pool sends them
    assert expected.outcomes == {
        "catalogue": 1, "applied": 1, "rated": 2, "duplicate": 1, "dead_lettered.malformed": 1,
    }  # fmt: skip
    assert {offset for _, offset in expected.rated} == {2, 4}
    assert expected.accounts["acme"].debt == 2 * 10**12


async def test_a_forwarded_event_that_is_nowhere_else_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own partition knows nothing of it, and the one that forwarded it has done its part."""
    settings = Settings(control_key=SecretStr(KEY.hex())).model_copy(update={"kafka": KafkaSettings(partitions=2)})
    key, topic = settings.control_key_bytes(), settings.kafka.topic_usage
    home = partition_for(b"acme", 2)
    event = {"specversion": "1.0", "id": "e1", "source": "test", "type": "call", "subject": "acme", "data": {}}
    value = orjson.dumps(event | {"time": cloud_time(START_US)})

    async def verdict(misplaced: bytes | None, arrives: bool) -> Verdict:
        """Of an event that lies in the other partition under that record key."""
        bodies: dict[int, list[tuple[bytes | None, bytes]]] = {
            number: [(None, seal(key, topic, number, msgspec.json.encode(CatalogueMarker(1, 0))))] for number in (0, 1)
        }
        bodies[home].append((b"acme", seal(key, topic, home, msgspec.json.encode(OpenAccount("acme", "o", "basic")))))
        bodies[1 - home].append((misplaced, value))
        if arrives:
            bodies[home].append((b"acme", value))
        log: dict[int, list[Record]] = {
            number: [SimRecord(offset, START_US // 1000, *body) for offset, body in enumerate(of)]
            for number, of in bodies.items()
        }
        folds = {}
        for number, records in log.items():
            fold = folds[number] = Partition(number, 2, topic, key, {1: load_catalogue(1, orjson.dumps(DOCUMENT))})
            for record in records:
                fold.apply(record.offset, record.timestamp, record.key, record.value)
        lines = [text for _, text in folds[home].outputs.lines]

        async def read_log(_reader: object, name: str, _partitions: int) -> dict[int, list[Record]]:
            if name == topic:
                return {number: list(records) for number, records in log.items()}
            return {home: [SimRecord(0, 0, None, b"\n".join(lines))], 1 - home: []}

        async def read_checkpoint(_store: object, number: int, *_: object) -> Partition:
            return folds[number]

        monkeypatch.setattr("loadtest.verify.ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
        monkeypatch.setattr("loadtest.verify.TopicReader", lambda _: AsyncMock())
        monkeypatch.setattr("loadtest.verify.brokers", lambda _: None)
        monkeypatch.setattr("loadtest.verify.read_log", read_log)
        monkeypatch.setattr("loadtest.verify.read_checkpoint", read_checkpoint)
        store = AsyncMock()
        store.checkpoint.side_effect = lambda number: (b"", len(log[number]))
        store.ledger.return_value = {("acme", "", "debt"): 10**12} if arrives else {}
        body = orjson.dumps(DOCUMENT)
        return await verify(settings, store, {1: body}, [], processes=1, say=lambda _: None)

    for misplaced in (b"acme", None):
        arrived = await verdict(misplaced, True)
        assert (arrived.differences, arrived.lost, arrived.counts["forwarded"]) == ([], 0, 1)
        never = await verdict(misplaced, False)
        assert never.lost == 1
        assert never.differences == [
            f"partition {1 - home}, offset 1: expected to be forwarded, found nowhere in partition {home}"
        ]


def test_the_engine_names_and_counts_outcomes_as_the_oracle_does() -> None:
    number = partition_for(b"acme", 8)
    fold = Partition(number, 8, "usage", KEY, {1: load_catalogue(1, orjson.dumps(DOCUMENT))})
    for record in _records():
        fold.apply(*record)
    assert compare_outcomes(fold.counts, _expected().outcomes) == []


def test_what_lies_behind_the_last_checkpoint_is_not_judged_and_usage_there_is_a_sentence() -> None:
    tick = seal(KEY, "usage", 0, msgspec.json.encode(Tick(1)))
    records: list[Record] = [
        SimRecord(0, 1, b"acme", b"{}"),
        SimRecord(1, 2, None, tick),
        SimRecord(2, 3, b"acme", b"{}"),
        SimRecord(3, 4, None, tick),
        SimRecord(4, 5, b"acme", None),
    ]
    assert take_behind(7, records, 2) == [
        f"partition 7, offset {offset}: usage expected in a checkpoint, found behind the last one" for offset in (2, 4)
    ]
    assert [record.offset for record in records] == [0, 1]
    assert take_behind(7, records, 2) == []


def test_an_outcome_too_many_or_too_few_is_a_sentence_and_alerts_are_left_to_their_ids() -> None:
    found = {"rated": 3, "alert_crossed": 7}
    assert compare_outcomes(found, {"rated": 2, "duplicate": 1}) == [
        "outcome duplicate: expected 1, found 0",
        "outcome rated: expected 2, found 3",
    ]
