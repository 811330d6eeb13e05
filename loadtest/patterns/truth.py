"""What a topic's events really came to, as the oracle folds them; and what each store made of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.assembly import brokers
from actors.kafka import TopicReader
from config.settings import Settings
from loadtest.oracle.fold import Oracle
from loadtest.probes import Customer
from loadtest.readback import read_log

VERSION: Final = 1


async def spent(settings: Settings, catalogue: Mapping[str, Any], customers: Sequence[Customer]) -> dict[str, int]:
    """Pico by account: what it was granted less what the oracle has left of it."""
    kafka = settings.kafka
    reader = TopicReader(brokers(settings))
    await reader.start()
    try:
        log = await read_log(reader, kafka.topic_usage, kafka.partitions)
    finally:
        await reader.stop()
    oracle = Oracle({VERSION: catalogue}, settings.control_key_bytes(), kafka.topic_usage, kafka.partitions)
    for partition, records in log.items():
        for record in records:
            oracle.feed(partition, record.offset, record.timestamp, record.key, record.value)
    found = {}
    for customer in customers:
        balance = oracle.balance(customer.account)
        assert balance is not None, f"{customer.account} was never opened"
        found[customer.account] = customer.granted - balance
    return found
