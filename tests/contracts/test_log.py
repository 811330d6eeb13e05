"""What the port `Log` promises, held against Kafka and the simulator's broker."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from actors.kafka import Brokers, KafkaLog, TopicReader, TopicSettings, create_topics
from actors.ports import Log, LogDamaged, Outgoing, Record
from engine.placement import partition_for
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_log import SimBroker, SimLog

PARTITIONS = 4
# Long enough for a broker on a busy machine; a fetch that finds something returns at once.
PATIENCE_S = 20.0


class LogBench(Protocol):
    log: Log  # started

    async def transaction(self, partition: int, value: bytes) -> None:
        """A foreign producer writes one record and a control batch behind it."""

    async def expire(self, partition: int, first: int) -> None:
        """Retention takes the records before `first`."""

    async def held(self, role: str, partition: int) -> list[Record]:
        """What a partition of a topic holds."""


class PassingClock(HandClock):
    """Time passes as soon as somebody waits for it."""

    async def sleep(self, seconds: float) -> None:
        self._now_s += seconds
        await asyncio.sleep(0)


class SimLogBench:
    def __init__(self) -> None:
        clock = PassingClock()
        self._broker = SimBroker(clock, PARTITIONS)
        self.log: Log = SimLog(self._broker, clock)

    async def transaction(self, partition: int, value: bytes) -> None:
        self._broker.append("usage", None, value, partition)
        self._broker.skip_offsets(partition, 1)

    async def expire(self, partition: int, first: int) -> None:
        self._broker.expire(partition, first)

    async def held(self, role: str, partition: int) -> list[Record]:
        return list(self._broker.topic(role, partition).records)


class RealLogBench:
    def __init__(self, bootstrap: str, settings: TopicSettings) -> None:
        self._bootstrap = bootstrap
        self._names = {"usage": settings.usage, "rated": settings.rated, "dead-letters": settings.dead_letters}
        self.log: Log = KafkaLog(Brokers(bootstrap), self._names)

    async def transaction(self, partition: int, value: bytes) -> None:
        name = f"test-{secrets.token_hex(4)}"
        _, end = await self.log.bounds(partition)
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, transactional_id=name)
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait(self._names["usage"], value, partition=partition)
        finally:
            await producer.stop()
        # The broker confirms the end of a transaction before it has written the control batch.
        async with asyncio.timeout(PATIENCE_S):
            while (await self.log.bounds(partition))[1] < end + 2:
                await asyncio.sleep(0.02)

    async def expire(self, partition: int, first: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            where = TopicPartition(self._names["usage"], partition)
            await admin.delete_records({where: RecordsToDelete(before_offset=first)})
        finally:
            await admin.close()

    async def held(self, role: str, partition: int) -> list[Record]:
        reader = TopicReader(Brokers(self._bootstrap))
        await reader.start()
        try:
            return await reader.read_all(self._names[role], partition)
        finally:
            await reader.stop()


@asynccontextmanager
async def started(bench: LogBench) -> AsyncIterator[LogBench]:
    await bench.log.start()
    try:
        yield bench
    finally:
        await bench.log.stop()


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.servers)])
def bootstrap(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "simulated" else str(request.getfixturevalue("kafka"))


@pytest.fixture
async def bench(bootstrap: str | None) -> AsyncIterator[LogBench]:
    unstarted: LogBench = SimLogBench()
    if bootstrap is not None:
        run = secrets.token_hex(4)
        settings = TopicSettings(f"usage-{run}", f"rated-{run}", f"dead-{run}", PARTITIONS, 1, 1)
        await create_topics(Brokers(bootstrap), settings)
        unstarted = RealLogBench(bootstrap, settings)
    async with started(unstarted) as opened:
        yield opened


def usage(partition: int, *values: bytes) -> list[Outgoing]:
    return [Outgoing("usage", value, b"key", partition) for value in values]


async def fetch_until(log: Log, count: int, records_max: int = 100) -> dict[int, list[Record]]:
    """Fetch until so many records have come."""
    found: dict[int, list[Record]] = {}
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(len, found.values())) < count:
            for partition, records in (await log.fetch(records_max, 0.1)).items():
                found.setdefault(partition, []).extend(records)
    return found


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def test_the_number_of_partitions_is_known(bench: LogBench) -> None:
    assert bench.log.partitions == PARTITIONS


async def test_append_returns_the_offsets_in_the_order_given(bench: LogBench) -> None:
    assert await bench.log.append(usage(0, b"a", b"b") + usage(1, b"c") + usage(0, b"d")) == [0, 1, 0, 2]
    assert await bench.log.append([]) == []
    assert values(await bench.held("usage", 0)) == [b"a", b"b", b"d"]


async def test_append_places_a_key_where_the_engine_does(bench: LogBench) -> None:
    keys = [f"account-{number}".encode() for number in range(12)]
    await bench.log.append([Outgoing("usage", key, key) for key in keys])
    for partition in range(PARTITIONS):
        here = [key for key in keys if partition_for(key, PARTITIONS) == partition]
        assert values(await bench.held("usage", partition)) == here


async def test_append_reaches_every_topic(bench: LogBench) -> None:
    large = b"line\n" * 300_000
    await bench.log.append([Outgoing("rated", large, None, 1), Outgoing("dead-letters", b"letter", b"key", 2)])
    assert values(await bench.held("rated", 1)) == [large]
    assert values(await bench.held("dead-letters", 2)) == [b"letter"]


async def test_fetch_returns_records_in_offset_order_with_append_times(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"a", b"b", b"c") + usage(1, b"d"))
    bench.log.assign({0: 0, 1: 0})
    found = await fetch_until(bench.log, 4)
    assert values(found[0]) == [b"a", b"b", b"c"]
    assert [(record.offset, record.key) for record in found[0]] == [(0, b"key"), (1, b"key"), (2, b"key")]
    assert values(found[1]) == [b"d"]
    times = [record.timestamp for record in found[0]]
    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000


async def test_fetch_takes_no_more_than_asked(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"a", b"b", b"c"))
    bench.log.assign({0: 0})
    first = await fetch_until(bench.log, 1, records_max=2)
    assert len(first[0]) <= 2
    assert bench.log.position(0) == first[0][-1].offset + 1
    rest = await fetch_until(bench.log, 3 - len(first[0]))
    assert values(first[0] + rest[0]) == [b"a", b"b", b"c"]


async def test_fetch_is_empty_when_nothing_comes(bench: LogBench) -> None:
    assert await bench.log.fetch(10, 0.05) == {}
    bench.log.assign({0: 0})
    assert await bench.log.fetch(10, 0.05) == {}
    assert bench.log.position(0) == 0


async def test_only_assigned_partitions_are_fetched_each_from_its_offset(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"a", b"b") + usage(1, b"c") + usage(2, b"d"))
    bench.log.assign({0: 1, 2: 0})
    found = await fetch_until(bench.log, 2)
    assert {partition: values(records) for partition, records in found.items()} == {0: [b"b"], 2: [b"d"]}
    bench.log.assign({2: bench.log.position(2), 1: 0})
    await bench.log.append(usage(0, b"e") + usage(2, b"f"))
    found = await fetch_until(bench.log, 2)
    assert {partition: values(records) for partition, records in found.items()} == {1: [b"c"], 2: [b"f"]}


async def test_assigning_again_reads_again(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"a"))
    for _ in range(2):
        bench.log.assign({0: 0})
        assert values((await fetch_until(bench.log, 1))[0]) == [b"a"]


async def test_the_position_passes_control_batches(bench: LogBench) -> None:
    bench.log.assign({0: 0})
    await bench.transaction(0, b"a")
    await bench.log.append(usage(0, b"b"))
    found = await fetch_until(bench.log, 2)
    assert [(record.offset, record.value) for record in found[0]] == [(0, b"a"), (2, b"b")]
    await bench.transaction(0, b"c")
    async with asyncio.timeout(PATIENCE_S):
        while bench.log.position(0) < 5:
            await bench.log.fetch(10, 0.1)
    assert await bench.log.bounds(0) == (0, 5)


async def test_the_end_is_known_without_asking(bench: LogBench) -> None:
    log = bench.log
    assert log.end(1) is None
    log.assign({1: 0})
    await log.append(usage(1, b"a", b"b", b"c"))
    await fetch_until(log, 3, records_max=1)
    assert (log.position(1), log.end(1), log.end(2)) == (3, 3, None)
    await log.append(usage(1, b"d"))
    await fetch_until(log, 1)
    assert log.end(1) == 4


async def test_bounds_follow_the_log(bench: LogBench) -> None:
    assert await bench.log.bounds(0) == (0, 0)
    await bench.log.append(usage(0, b"a", b"b", b"c"))
    assert await bench.log.bounds(0) == (0, 3)
    await bench.expire(0, 2)
    assert await bench.log.bounds(0) == (2, 3)


async def test_read_one_finds_a_record_and_moves_no_position(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"a", b"b"))
    bench.log.assign({0: 0})
    found = await bench.log.read_one(0, 1)
    assert found is not None
    assert (found.offset, found.key, found.value) == (1, b"key", b"b")
    assert bench.log.position(0) == 0
    assert values((await fetch_until(bench.log, 2))[0]) == [b"a", b"b"]


async def test_read_one_finds_nothing_where_nothing_is(bench: LogBench) -> None:
    await bench.log.append(usage(0, b"gone"))
    await bench.transaction(0, b"a")
    await bench.log.append(usage(0, b"b"))
    await bench.expire(0, 1)
    found = [await bench.log.read_one(0, offset) for offset in range(6)]
    assert [record and record.value for record in found] == [None, b"a", None, b"b", None, None]


@pytest.mark.parametrize("position", [0, 9])
async def test_a_position_outside_the_log_is_damage(bench: LogBench, position: int) -> None:
    await bench.log.append(usage(0, b"a", b"b", b"c") + usage(1, b"d"))
    await bench.expire(0, 2)
    bench.log.assign({0: position})
    for _ in range(2):
        with pytest.raises(LogDamaged) as caught:
            await fetch_until(bench.log, 1)
        assert caught.value.partition == 0
    assert bench.log.position(0) == position
    bench.log.assign({1: 0})
    assert values((await fetch_until(bench.log, 1))[1]) == [b"d"]
