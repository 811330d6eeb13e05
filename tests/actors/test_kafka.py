"""Topics are made once and never bent; and what the Kafka client does when its cluster is away or refuses."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher as fetcher_module
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from actors.kafka import (
    RECORD_BYTES_MAX,
    Brokers,
    ExtensionMissing,
    KafkaAppender,
    KafkaLog,
    ReadingBroke,
    TopicReader,
    TopicsDiffer,
    TopicSettings,
    create_topics,
    require_extension,
)
from actors.ports import LogDamaged, LogUnavailable, Outgoing
from engine.placement import partition_for

NOBODY = "127.0.0.1:1"


def settings_for(partitions: int = 3) -> TopicSettings:
    run = secrets.token_hex(4)
    return TopicSettings(f"usage-{run}", f"rated-{run}", f"dead-{run}", partitions, 1, 1)


def names(settings: TopicSettings) -> dict[str, str]:
    return {"usage": settings.usage, "rated": settings.rated, "dead-letters": settings.dead_letters}


async def test_topics_are_made_once(kafka: str) -> None:
    settings = settings_for()
    assert await create_topics(Brokers(kafka), settings) == [settings.usage, settings.rated, settings.dead_letters]
    assert await create_topics(Brokers(kafka), settings) == []
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    assert [await reader.partitions(topic) for topic in names(settings).values()] == [3, 3, 3]
    await reader.stop()


async def test_another_number_of_partitions_is_refused(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    more = msgspec.structs.replace(settings, partitions=6)
    with pytest.raises(TopicsDiffer, match=r"has 3 partitions.*set 3"):
        await create_topics(Brokers(kafka), more)


async def test_producer_timestamps_are_refused(kafka: str) -> None:
    settings = settings_for()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(settings.usage, 3, 1, topic_configs={"message.timestamp.type": "CreateTime"})])
    await admin.close()
    with pytest.raises(TopicsDiffer, match="CreateTime"):
        await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    with pytest.raises(LogDamaged, match="CreateTime"):
        await log.start()


async def test_a_broker_without_enough_replicas_says_so(kafka: str) -> None:
    settings = msgspec.structs.replace(settings_for(), replication_factor=3)
    with pytest.raises(LogUnavailable, match=settings.usage):
        await create_topics(Brokers(kafka), settings)


@pytest.mark.parametrize("partitions", [0, 1025])
async def test_the_number_of_partitions_has_limits(partitions: int) -> None:
    with pytest.raises(ValueError, match="partitions"):
        await create_topics(Brokers(NOBODY), settings_for(partitions))


async def test_missing_topics_are_named(kafka: str) -> None:
    settings = settings_for()
    with pytest.raises(LogUnavailable, match=settings.usage):
        await KafkaLog(Brokers(kafka), names(settings)).start()


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    log = KafkaLog(Brokers(NOBODY), names(settings_for()), timeout_s=1.0)
    with pytest.raises(LogUnavailable):
        await log.start()
    with pytest.raises(LogUnavailable):
        await create_topics(Brokers(NOBODY), settings_for(), timeout_s=1.0)
    with pytest.raises(LogUnavailable):
        await log.append([Outgoing("usage", b"a", b"key")])
    with pytest.raises(LogUnavailable):
        await log.bounds(0)
    await log.stop()


def test_every_role_needs_a_topic() -> None:
    with pytest.raises(ValueError, match="rated, dead-letters"):
        KafkaLog(Brokers(NOBODY), {"usage": "usage"})


async def test_a_record_too_large_is_refused_before_it_is_sent(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    await log.start()
    try:
        with pytest.raises(ValueError, match="usage"):
            await log.append([Outgoing("usage", b"a"), Outgoing("usage", b"x" * RECORD_BYTES_MAX)])
        assert await log.append([Outgoing("usage", b"a", partition=0)]) == [0]
    finally:
        await log.stop()


async def test_after_a_refusal_the_next_append_goes_through(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    await log.start()
    try:
        # Incompressible and over what the broker takes for `usage`, so the broker refuses what the client let pass.
        oversized = Outgoing("usage", secrets.token_bytes(2 * 1024 * 1024), partition=0)
        assert await log.append([Outgoing("usage", b"a", partition=0)]) == [0]
        with pytest.raises(LogUnavailable, match="MessageSizeTooLarge"):
            await log.append([oversized])
        assert await log.append([Outgoing("usage", b"b", partition=0)]) == [1]
    finally:
        await log.stop()


async def test_a_producer_that_was_replaced_ends_whatever_it_still_holds(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what has no leader: it would go on for ever, one more every ten seconds."""
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    await log.start()

    async def never() -> None:
        await asyncio.Event().wait()

    try:
        replaced = log._appender._producer
        assert replaced is not None
        monkeypatch.setattr(replaced._message_accumulator, "flush", never)
        with pytest.raises(LogUnavailable, match="MessageSizeTooLarge"):
            await log.append([Outgoing("usage", secrets.token_bytes(2 * 1024 * 1024), partition=0)])
        assert replaced._sender.sender_task.done()
        assert await log.append([Outgoing("usage", b"a", partition=0)]) == [0]
    finally:
        await log.stop()


async def test_a_process_that_only_writes_places_keys_where_the_engine_does(kafka: str) -> None:
    settings = settings_for(4)
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    with pytest.raises(LogUnavailable, match="not started"):
        await appender.append([Outgoing("usage", b"a", b"acme")])
    await appender.start()
    assert appender.partitions == 4
    assert await appender.append([Outgoing("usage", b"a", b"acme"), Outgoing("usage", b"b", b"acme")]) == [0, 1]
    await appender.stop()
    with pytest.raises(LogUnavailable, match="stopped"):
        await appender.append([Outgoing("usage", b"c", b"acme")])
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    held = await reader.read_all(settings.usage, partition_for(b"acme", 4))
    await reader.stop()
    assert [record.value for record in held] == [b"a", b"b"]


async def test_a_place_is_found_by_its_time(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    await appender.start()
    for value in (b"a", b"b"):
        await appender.append([Outgoing("rated", value, partition=1)])
        await asyncio.sleep(0.01)
    await appender.stop()
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    first, second = await reader.read_all(settings.rated, 1)
    assert first.timestamp < second.timestamp
    times = [0, first.timestamp, first.timestamp + 1, second.timestamp, second.timestamp + 1]
    assert [await reader.offset_from(settings.rated, 1, time_ms) for time_ms in times] == [0, 0, 1, 1, 2]
    await reader.stop()


async def test_a_reader_that_breaks_off_can_read_on_and_asks_for_nothing_meanwhile(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    await appender.start()
    await appender.append([Outgoing("rated", value, partition=1) for value in (b"a", b"b", b"c")])
    await appender.stop()
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    async with aclosing(reader.read(settings.rated, 1, 0, 3)) as records:
        assert (await anext(records)).value == b"a"
    assert reader._consumer is not None
    assert reader._consumer.paused() == {TopicPartition(settings.rated, 1)}
    async with asyncio.timeout(10):
        record = await reader.read_one(settings.rated, 1, 2)
    assert record is not None and record.value == b"c"
    await reader.stop()


async def test_several_partitions_are_read_together_each_from_its_place_to_its_end(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    await appender.start()
    for number in range(settings.partitions):
        values = [b"%d-%d" % (number, each) for each in range(5)]
        await appender.append([Outgoing("rated", value, partition=number) for value in values])
    await appender.stop()
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    places = {number: (number, 4) for number in range(settings.partitions)} | {0: (3, 3)}
    found: dict[int, list[bytes | None]] = {}
    async with asyncio.timeout(10), aclosing(reader.read_together(settings.rated, places)) as records:
        async for number, record in records:
            found.setdefault(number, []).append(record.value)
    assert found == {number: [b"%d-%d" % (number, each) for each in range(number, 4)] for number in found}
    assert sorted(found) == [number for number in range(1, settings.partitions) if number < 4]
    assert [record async for record in reader.read(settings.rated, 0, 2, 2)] == []
    await reader.stop()


class Passing:
    """As aiokafka's consumer: what it takes it moves on past, and when then a batch of another partition cannot be read, it
    hands out nothing."""

    def __init__(self, held: Mapping[int, list[bytes]]) -> None:
        self.held = held
        self.unreadable: dict[int, int] = {}  # partition -> how often
        self._fetcher = SimpleNamespace(error_future=asyncio.get_running_loop().create_future(), _records={})
        self._client = SimpleNamespace(_sync_task=None)
        self._positions: dict[TopicPartition, int] = {}

    def assign(self, places: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places, 0)

    def seek(self, where: TopicPartition, offset: int) -> None:
        self._positions[where] = offset

    async def position(self, where: TopicPartition) -> int:
        return self._positions[where]

    async def getmany(self, *places: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        taken = {}
        for where in places or list(self._positions):
            if self.unreadable.get(where.partition, 0):
                self.unreadable[where.partition] -= 1
                raise CorruptRecordException(f"Invalid CRC - {where}")
            taken[where] = self.held[where.partition][self._positions[where] :]
            self._positions[where] = len(self.held[where.partition])
        return {where: values for where, values in taken.items() if values}


def passing_log(held: Mapping[int, list[bytes]]) -> tuple[KafkaLog, Passing]:
    log = KafkaLog(Brokers(NOBODY), names(settings_for()))
    consumer = Passing(held)
    log._consumer = consumer
    log.assign(dict.fromkeys(held, 0))
    return log, consumer


async def fetched(log: KafkaLog, fetches: int) -> tuple[dict[int, list[Any]], list[LogDamaged]]:
    """What so many fetches hand out, and which damage they tell of."""
    found: dict[int, list[Any]] = {}
    damaged = []
    for _ in range(fetches):
        try:
            for partition, records in (await log.fetch(10, 0.0)).items():
                found.setdefault(partition, []).extend(records)
        except LogDamaged as error:
            damaged.append(error)
        except LogUnavailable:
            continue
    return found, damaged


async def test_a_batch_that_cannot_be_read_loses_nothing_of_other_partitions() -> None:
    """Once, as on a bad wire: it is read again, and nothing is damaged."""
    log, consumer = passing_log({0: [b"a", b"b"], 1: [b"c"], 2: [b"d"]})
    consumer.unreadable = {1: 1}
    assert await fetched(log, 10) == ({0: [b"a", b"b"], 1: [b"c"], 2: [b"d"]}, [])
    assert [log.position(number) for number in range(3)] == [2, 1, 1]


async def test_a_batch_that_can_never_be_read_damages_its_partition_and_the_others_go_on() -> None:
    log, consumer = passing_log({0: [b"a"], 1: [b"b"], 2: [b"c"]})
    consumer.unreadable = {1: 1_000}
    found, damaged = await fetched(log, 4)
    assert found == {0: [b"a"], 2: [b"c"]}
    assert [error.partition for error in damaged] == [1]
    assert "what lies behind offset 0 cannot be read" in str(damaged[0])
    log.assign({0: 1, 2: 1})
    consumer.held = {0: [b"a", b"d"], 2: [b"c"]}
    assert await fetched(log, 1) == ({0: [b"d"]}, [])


async def _fetch_for_ever(log: KafkaLog) -> None:
    while True:
        await log.fetch(10, 0.05)


async def test_a_client_that_reads_no_more_is_seen_to(kafka: str) -> None:
    """As of a connection that is reset in the very moment in which it is written to: uvloop calls that a fault of ours."""
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    await log.start()
    try:
        await log.append([Outgoing("usage", b"a", partition=0)])
        log.assign({0: 0})
        assert log._consumer is not None

        async def broken(*_: object) -> None:
            raise RuntimeError("the handler is closed")

        log._consumer._fetcher._client.send = broken
        with pytest.raises(ReadingBroke):
            await asyncio.wait_for(_fetch_for_ever(log), 10)
    finally:
        assert log._consumer is not None
        await log._consumer._client.close()  # which its own end leaves open behind such a fault
        await log.stop()


async def prefetched(log: KafkaLog, last: TopicPartition) -> None:
    """Until the client holds something of two partitions; of them it hands out `last` last."""
    assert log._consumer is not None
    held = log._consumer._fetcher._records
    async with asyncio.timeout(10):
        while len(held) < 2:
            await asyncio.sleep(0.01)
    held.move_to_end(last)


async def _ends_by_a_fault(client: Any) -> None:
    """What learns who leads, as above."""

    async def broken(*_: object) -> bool:
        raise RuntimeError("the handler is closed")

    client._metadata_update = broken
    client.force_metadata_update()
    await asyncio.wait([client._sync_task])


async def test_a_client_that_learns_no_more_who_leads_is_seen_to(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    await log.start()
    try:
        log.assign({0: 0})
        assert log._consumer is not None
        await _ends_by_a_fault(log._consumer._client)
        with pytest.raises(ReadingBroke):
            await asyncio.wait_for(_fetch_for_ever(log), 10)
    finally:
        await log.stop()


async def test_a_producer_that_learns_no_more_who_leads_is_followed_by_another(kafka: str) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings), timeout_s=5.0)
    await appender.start()
    first = appender._producer
    assert first is not None
    await _ends_by_a_fault(first.client)
    assert await appender.append([Outgoing("usage", b"a", partition=0)]) == [0]
    assert appender._producer is not first
    assert first._sender.sender_task.done(), "and it is at an end"
    assert not any(connection.connected() for connection in first.client._conns.values())
    await appender.stop()


@pytest.mark.parametrize("what", ["reads", "learns who leads"])
async def test_a_reader_whose_client_has_ended_by_a_fault_says_so_and_reads_on_with_another(
    kafka: str, what: str
) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    await appender.start()
    await appender.append([Outgoing("usage", b"a", partition=0)])
    await appender.stop()
    reader = TopicReader(Brokers(kafka), timeout_s=30.0)
    await reader.start()
    consumer = reader._consumer
    assert consumer is not None
    if what == "reads":

        async def broken(*_: object) -> None:
            raise RuntimeError("the handler is closed")

        consumer._client.send = broken
        with pytest.raises(LogUnavailable, match="reads no more"):
            async with asyncio.timeout(10):
                [record async for record in reader.read(settings.usage, 0, 0, 1)]
    else:
        await _ends_by_a_fault(consumer._client)
    assert [record.value for record in await asyncio.wait_for(reader.read_all(settings.usage, 0), 10)] == [b"a"]
    assert reader._consumer is not consumer
    await reader.stop()


class CutOff(MemoryRecords):  # type: ignore[misc]  # of a library without types
    """A batch whose length is wrong: nothing can be cut out of it, and it is not empty. The client moves on by one record."""

    times: ClassVar[int] = 0

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._is_cut = b"to be cut off" in data and CutOff.times > 0
        CutOff.times -= self._is_cut

    def has_next(self) -> bool:
        return not self._is_cut and bool(super().has_next())


@pytest.mark.parametrize("times", [1, 1_000_000], ids=["once", "for good"])
async def test_a_batch_that_is_cut_off_is_not_passed_over(
    kafka: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    monkeypatch.setattr(fetcher_module, "MemoryRecords", CutOff)
    monkeypatch.setattr(CutOff, "times", times)
    await log.start()
    try:
        await log.append([Outgoing("usage", b"a", partition=0), Outgoing("usage", b"to be cut off", partition=1)])
        await log.append([Outgoing("usage", b"b", partition=1)])
        log.assign({0: 0, 1: 0})
        await prefetched(log, last=TopicPartition(settings.usage, 1))
        assert log._consumer is not None
        assert (
            log._consumer._subscription.subscription.assignment.state_value(TopicPartition(settings.usage, 1)).position
            == 1
        ), "that is what the client does"
        found: dict[int, list[bytes | None]] = {0: [], 1: []}
        damaged: LogDamaged | None = None
        async with asyncio.timeout(20):
            while damaged is None and found != {0: [b"a"], 1: [b"to be cut off", b"b"]}:
                try:
                    for partition, records in (await log.fetch(10, 0.1)).items():
                        found[partition] += [record.value for record in records]
                except LogDamaged as error:
                    damaged = error
                except LogUnavailable:
                    continue
                assert log.position(1) == len(found[1])
        if times > 1:
            assert damaged is not None and "behind offset 0 cannot be read" in str(damaged)
            assert found[1] == []
        else:
            assert damaged is None
    finally:
        await log.stop()


async def test_a_reader_does_not_take_what_was_cut_off_for_read(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    appender = KafkaAppender(Brokers(kafka), names(settings))
    await appender.start()
    await appender.append([Outgoing("usage", b"to be cut off", partition=0)])
    await appender.stop()
    monkeypatch.setattr(fetcher_module, "MemoryRecords", CutOff)
    monkeypatch.setattr(CutOff, "times", 1)
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    with pytest.raises(LogUnavailable, match="RecordTooLarge"):
        await reader.read_all(settings.usage, 0)
    assert [record.value for record in await reader.read_all(settings.usage, 0)] == [b"to be cut off"]
    await reader.stop()


async def test_what_the_client_had_taken_beside_a_batch_that_cannot_be_read_is_taken_again(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for()
    await create_topics(Brokers(kafka), settings)
    log = KafkaLog(Brokers(kafka), names(settings))
    unpack = PartitionRecords._unpack_records

    def spoilt(self: Any) -> Iterator[Any]:
        if self._tp.partition == 1:
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        yield from unpack(self)

    monkeypatch.setattr(PartitionRecords, "_unpack_records", spoilt)
    await log.start()
    try:
        await log.append([Outgoing("usage", b"a", partition=0), Outgoing("usage", b"b", partition=1)])
        log.assign({0: 0, 1: 0})
        await prefetched(log, last=TopicPartition(settings.usage, 1))
        found: list[bytes | None] = []
        damaged: LogDamaged | None = None
        async with asyncio.timeout(20):
            while not found or damaged is None:
                try:
                    found += [record.value for record in (await log.fetch(10, 0.1)).get(0, ())]
                except LogDamaged as error:
                    damaged = error
                except LogUnavailable:
                    continue
        assert found == [b"a"]
        assert damaged is not None and damaged.partition == 1
    finally:
        await log.stop()


async def test_pure_python_decoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extension()
    monkeypatch.setattr(default_records, "DefaultRecordBatch", default_records._DefaultRecordBatchPy)
    with pytest.raises(ExtensionMissing, match="C extension"):
        require_extension()
