"""Usage straight into the log, for whoever may produce to it: the extra `tallygate-sdk[kafka]`."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tallygate_sdk.answers import RefusedEvent
from tallygate_sdk.errors import Unavailable

ATTEMPT_S: Final = 10.0
STOP_S: Final = 0.5  # a producer waits for what it has not sent, and a broker may be away


class _Subject(msgspec.Struct):
    subject: str


_subject: Final = msgspec.json.Decoder(_Subject)


class KafkaSink:
    """Batches to a topic, keyed by account: the partitioner is Kafka's own (murmur2), so each event reaches the owner of
    its account. Durable means acknowledged by all in-sync replicas. It must be used by one thread, the reporter's."""

    def __init__(self, bootstrap_servers: str, topic: str = "usage", **options: Any) -> None:
        """`options` go to the producer: security, compression."""
        self._topic = topic
        self._options = {"bootstrap_servers": bootstrap_servers, "acks": "all", "enable_idempotence": True} | options
        self._runner: asyncio.Runner | None = None
        self._producer: AIOKafkaProducer | None = None

    def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
        """Refused is only what has no account that could be read, as a spool may have it that is older than this release:
        no partition is its own. Whatever else cannot be rated becomes a dead letter of the service."""
        keyed: list[tuple[bytes, bytes]] = []
        refused: list[RefusedEvent] = []
        for index, event in enumerate(events):
            try:
                keyed.append((_subject.decode(event).subject.encode(), event))
            except (msgspec.MsgspecError, UnicodeError) as error:
                refused.append(RefusedEvent(index, None, "malformed", "", f"no account can be read in it: {error}"))
        if keyed:
            self._send_all(keyed)
        return refused

    def _send_all(self, keyed: Sequence[tuple[bytes, bytes]]) -> None:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            self._runner.run(self._send(keyed))
        except (KafkaError, OSError, TimeoutError) as error:
            # An idempotent producer that has met a gap in what it sent takes nothing any more: the next attempt has a new one.
            self.close()
            raise Unavailable(f"the topic {self._topic} took no usage in time: {type(error).__name__}") from error

    async def _send(self, keyed: Sequence[tuple[bytes, bytes]]) -> None:
        async with asyncio.timeout(ATTEMPT_S):
            if self._producer is None:
                producer = AIOKafkaProducer(**self._options)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            sent = [await self._producer.send(self._topic, event, key=account) for account, event in keyed]
            await asyncio.gather(*sent)

    async def _stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), STOP_S)

    def close(self) -> None:
        if self._runner is None:
            return
        self._runner.run(self._stop())
        self._runner.close()  # with all that a producer that could not be stopped has left running
        self._runner = None
