"""The way into the log without HTTP, on a real broker."""

import asyncio
import secrets
import threading
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

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
