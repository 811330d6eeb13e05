"""The way into the log without HTTP, on a real broker."""

import asyncio
import secrets
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import OutOfOrderSequenceNumber

from config.stack.ports import free_ports
from engine.events import parse_usage
from engine.placement import partition_for
from tallygate_sdk import Reporter, Spool, Unavailable
from tallygate_sdk.kafka import KafkaSink
from tests.sdk.test_reporter import usage

PARTITIONS = 4


async def make_topic(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


async def read(servers: str, topic: str, count: int) -> list[tuple[int, bytes, bytes]]:
    """(partition, key, value) of `count` records."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            records = [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()
    return [(record.partition, record.key, record.value) for record in records]


def test_usage_lands_with_the_owner_of_its_account_in_order(kafka: str, tmp_path: Path) -> None:
    topic = f"usage-{secrets.token_hex(4)}"
    asyncio.run(make_topic(kafka, topic))
    with Reporter(KafkaSink(kafka, topic), Spool(tmp_path), linger_s=0.0, batch_events=20) as reporter:
        for number in range(100):
            reporter.report(usage(number, account=f"account-{number % 7}"))
        assert reporter.flush(60) and (reporter.sent, reporter.refused) == (100, 0)
    records = asyncio.run(read(kafka, topic, 100))
    assert all(partition == partition_for(key, PARTITIONS) for partition, key, _ in records)
    ids: dict[bytes, list[int]] = {}
    for _, key, value in records:
        event = parse_usage(value)
        assert (event.subject or "").encode() == key
        ids.setdefault(key, []).append(int(event.id))
    assert len(ids) == 7 and all(each == sorted(each) and len(each) >= 14 for each in ids.values())


def test_a_broker_that_is_away_is_tried_again() -> None:
    sink = KafkaSink(f"127.0.0.1:{free_ports(1)[0]}", request_timeout_ms=1_000)
    said: list[str] = []

    def send() -> None:
        for _ in range(2):
            try:
                sink.send([usage(1).cloud_event()])
            except Unavailable as error:
                said.append(str(error))
        sink.close()

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(60)
    assert len(said) == 2 and all(each.startswith("the topic usage took no usage in time") for each in said)


class Producer:
    """One that meets an error which aiokafka calls fatal: whatever it is given later, it says the same."""

    made: ClassVar[list["Producer"]] = []

    def __init__(self, **options: Any) -> None:
        self.breaks = not self.made
        self.sent: list[bytes] = []
        self.stopped = False
        self.made.append(self)

    async def start(self) -> None: ...

    async def send(self, topic: str, value: bytes, key: bytes) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.breaks:
            done.set_exception(OutOfOrderSequenceNumber())
        else:
            self.sent.append(value)
            done.set_result(None)
        return done

    async def stop(self) -> None:
        self.stopped = True


def test_a_producer_that_is_broken_for_good_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Producer, "made", [])
    monkeypatch.setattr("tallygate_sdk.kafka.AIOKafkaProducer", Producer)
    with Reporter(KafkaSink("nowhere:9092"), Spool(tmp_path), linger_s=0.0, pause_max_s=0.05) as reporter:
        for number in range(3):
            reporter.report(usage(number))
        assert reporter.flush(10)
    broken, second = Producer.made
    assert broken.stopped and second.stopped
    assert second.sent == [usage(number).cloud_event() for number in range(3)]


def test_an_event_that_is_no_json_keeps_no_other_from_being_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As an older release could write it."""
    monkeypatch.setattr(Producer, "made", [Producer()])
    monkeypatch.setattr("tallygate_sdk.kafka.AIOKafkaProducer", Producer)
    good = [usage(number).cloud_event() for number in range(4)]
    spool = Spool(tmp_path)
    for event in (good[0], good[1].replace(b'{"q":1}', b'{"q":NaN}'), good[2], good[3].replace(b"subject", b"nobody")):
        spool.append(event)
    with Reporter(KafkaSink("nowhere:9092"), spool, linger_s=0.0, pause_max_s=0.05) as reporter:
        assert reporter.flush(10)
        assert (reporter.sent, reporter.refused, spool.unsent) == (2, 2, 0)
    assert Producer.made[-1].sent == [good[0], good[2]]
    assert [b'"id":"1"' in line for line in (tmp_path / "refused.ndjson").read_bytes().splitlines()] == [True, False]
