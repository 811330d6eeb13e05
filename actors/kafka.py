"""The topics in Kafka: the real `Log`, and the creation of its topics.

`usage` is read uncommitted: a producer that hangs in a transaction must not stall rating. An event that is written
again after an aborted transaction carries the same id and is a duplicate.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.fetcher import FetchError
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.record import default_records
from aiokafka.structs import TopicPartition
from msgspec import Struct

from actors.ports import LogDamaged, LogUnavailable, Outgoing, Record
from engine.placement import partition_for

ROLES = ("usage", "rated", "dead-letters")
# Blocks of rated lines and dead letters wrap other records, so they may be larger than what came in.
RECORD_BYTES_MAX = 4 * 1024 * 1024
_APPEND_TIME = "LogAppendTime"
_UNREADABLE = (CorruptRecordException, RecordTooLargeError)  # a checksum that does not hold; a batch that is cut off


class TopicsDiffer(Exception):
    """A topic exists with another number of partitions or another kind of timestamps; the message says what to do."""


class ExtensionMissing(Exception):
    """The Kafka client runs in pure Python, many times slower, for want of its C extension."""


class ReadingBroke(Exception):
    """What reads in the Kafka client has ended by a fault of its own. Nothing would ever arrive again, without a word: only a
    new client reads on."""


def require_extension() -> None:
    """Raise `ExtensionMissing` unless batches are decoded by the C extension of aiokafka."""
    if not default_records.DefaultRecordBatch.__module__.startswith("aiokafka.record._crecords"):
        raise ExtensionMissing(
            "aiokafka decodes in pure Python: unset AIOKAFKA_NO_EXTENSIONS, or install a wheel with its C extension"
        )


@contextmanager
def _translation(doing: str, hint: str = "") -> Iterator[None]:
    """Errors of aiokafka leave this block as errors of the port."""
    try:
        yield
    except OffsetOutOfRangeError as error:
        ((where, offset),) = error.args[0].items()
        raise LogDamaged(
            f"{where.topic} partition {where.partition}: offset {offset} is outside the log", where.partition
        ) from error
    except (KafkaError, ConsumerStoppedError, OSError, RuntimeError) as error:  # the last: written to as it ends
        raise LogUnavailable(f"Kafka, {doing}: {type(error).__name__}: {error}{hint and f' ({hint})'}") from error


@dataclass(frozen=True, slots=True)
class Brokers:
    """Those of a cluster to ask first, and how they let us in.

    `tls` vouches for them, and shows them our certificate if it has one; None: nothing is encrypted. `sasl` is a mechanism
    (PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512), a name and a password."""

    servers: str  # host:port,host:port
    tls: ssl.SSLContext | None = None
    sasl: tuple[str, str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.servers

    @property
    def tried(self) -> str:
        """How they are asked, for whoever is told that they did not let us in."""
        how = "without TLS" if self.tls is None else "over TLS"
        who = "" if self.sasl is None else f" as {self.sasl[1]} by {self.sasl[0]}"
        return f"tried {how}{who}: kafka.tls, its files and kafka.sasl_mechanism must fit what the brokers want"

    def options(self) -> dict[str, Any]:
        """What every client of aiokafka is given."""
        kind = "SSL" if self.tls is not None else "PLAINTEXT"
        found: dict[str, Any] = {"bootstrap_servers": self.servers, "ssl_context": self.tls, "security_protocol": kind}
        if self.sasl is not None:
            mechanism, name, password = self.sasl
            found |= {"security_protocol": f"SASL_{kind}", "sasl_mechanism": mechanism}
            found |= {"sasl_plain_username": name, "sasl_plain_password": password}
        return found


class KafkaLog:
    """The `Log` port on aiokafka. `topics` maps the roles "usage", "rated" and "dead-letters" to topic names."""

    partitions: int

    def __init__(
        self,
        brokers: Brokers,
        topics: Mapping[str, str],
        timeout_s: float = 10.0,
        fetch_wait_ms: int = 30,
        linger_ms: int = 5,
    ) -> None:
        self._appender = KafkaAppender(brokers, topics, timeout_s, linger_ms)
        self._brokers = brokers
        self._topics = dict(topics)
        self._timeout_s = timeout_s
        self._fetch_wait_ms = fetch_wait_ms
        self.partitions = 0
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._reader: TopicReader | None = None
        self._positions: dict[int, int] = {}  # behind what was handed out
        self._alone: list[int] = []  # partitions that are asked for each by itself: one of them cannot be read

    async def start(self) -> None:
        require_extension()
        try:
            await self._appender.start()
            self.partitions = self._appender.partitions
            # Room for a usage record of the largest size that a broker accepts by default.
            self._consumer = _consumer(self._brokers, self._timeout_s, self._fetch_wait_ms, 1024 * 1024)
            with _translation("connecting", self._brokers.tried):
                await self._consumer.start()
            self._reader = TopicReader(self._brokers, self._timeout_s)
            await self._reader.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        reader, self._reader = self._reader, None
        await self._appender.stop()
        if reader is not None:
            await reader.stop()
        if consumer is not None:
            await _stop_consumer(consumer, self._timeout_s)

    # --------------------------------------------------------------------------------------------------------- reading

    async def bounds(self, partition: int) -> tuple[int, int]:
        return await self._live_reader().bounds(self._topics["usage"], partition)

    async def read_one(self, partition: int, offset: int) -> Record | None:
        return await self._live_reader().read_one(self._topics["usage"], partition, offset)

    def assign(self, positions: dict[int, int]) -> None:
        consumer = self._live_consumer()
        consumer.assign([self._usage(partition) for partition in positions])
        # assign() forgets every position, those of partitions that stay included.
        for partition, offset in positions.items():
            consumer.seek(self._usage(partition), offset)
        self._positions = dict(positions)
        self._alone = []

    async def fetch(self, records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
        consumer = self._live_consumer()
        if not self._positions:
            await asyncio.sleep(timeout_s)
            return {}
        ended = _ended(consumer._fetcher.error_future, consumer._client)
        if ended is not None:
            error = None if ended.cancelled() else ended.exception()
            raise ReadingBroke("the Kafka client reads no more: start the process anew") from error
        alone = self._alone.pop() if self._alone else None
        asked = [] if alone is None else [self._usage(alone)]
        try:
            with _translation("fetching"):
                found = await consumer.getmany(*asked, timeout_ms=int(timeout_s * 1000), max_records=records_max)
        except LogDamaged as error:
            if error.partition not in self._positions:
                return {}  # of a partition that was given up while its answer was under way
            raise
        except LogUnavailable as error:
            self._take_again(consumer)
            if alone is None:
                self._alone = list(self._positions)
            elif isinstance(error.__cause__, _UNREADABLE):
                raise LogDamaged(
                    f"{self._topics['usage']} partition {alone}: what lies behind offset {self._positions[alone]} cannot be "
                    f"read: {error}; restore it from another replica",
                    alone,
                ) from error
            raise
        for partition in self._positions:
            where = self._usage(partition)
            if not _is_refused(consumer, where):
                # Asked and not computed from the records: a control batch moves the position and leaves no record.
                self._positions[partition] = await consumer.position(where)
            elif where in found:
                self._positions[partition] = found[where][-1].offset + 1
        return {where.partition: records for where, records in found.items() if where.partition in self._positions}

    def _take_again(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Go back to what was handed out. When a batch of one partition cannot be read, the client has moved on past what it
        had just taken of others, and gives it to nobody: it would be passed over."""
        for partition, offset in self._positions.items():
            consumer.seek(self._usage(partition), offset)

    def position(self, partition: int) -> int:
        return self._positions[partition]

    def end(self, partition: int) -> int | None:
        if self._consumer is None or partition not in self._positions:
            return None
        end: int | None = self._consumer.highwater(self._usage(partition))
        return end

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        return await self._appender.append(records)

    def _usage(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topics["usage"], partition)

    def _live_consumer(self) -> aiokafka.AIOKafkaConsumer:
        if self._consumer is None:
            raise LogUnavailable("Kafka: not started, or stopped")
        return self._consumer

    def _live_reader(self) -> "TopicReader":
        if self._reader is None:
            raise LogUnavailable("Kafka: not started, or stopped")
        return self._reader


class TopicAppender:
    """One idempotent producer, opened anew after a refusal. `topics` maps roles to topic names."""

    def __init__(
        self, brokers: Brokers, topics: Mapping[str, str], timeout_s: float = 10.0, linger_ms: int = 5
    ) -> None:
        self._brokers = brokers
        self._topics = dict(topics)
        self._timeout_s = timeout_s
        self._linger_ms = linger_ms
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._producer_lock: asyncio.Lock | None = None

    async def start(self) -> None:
        """Connect. Raises `LogUnavailable`, also where a topic is missing."""
        self._producer_lock = asyncio.Lock()
        await self._check_topics()
        await self._live_producer()

    async def stop(self) -> None:
        """Flush what was sent, and disconnect."""
        self._producer_lock = None
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stopped(producer.stop(), self._timeout_s)

    async def _check_topics(self) -> None:
        async with _Admin(self._brokers, self._timeout_s) as admin:
            await self._counts(admin)

    async def _counts(self, admin: "_Admin") -> dict[str, int]:
        """Partitions by topic. Raises `LogUnavailable` where one is missing."""
        counts = await admin.partition_counts(list(self._topics.values()))
        absent = [topic for topic, count in counts.items() if count is None]
        if absent:
            raise LogUnavailable(f"Kafka: no topic {', '.join(absent)}: create the topics first")
        return {topic: count for topic, count in counts.items() if count is not None}

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        for record in records:
            if len(record.value or b"") + len(record.key or b"") > RECORD_BYTES_MAX - 1024:
                raise ValueError(
                    f"record for {record.topic}: {len(record.value or b'')} bytes, more than Kafka would take"
                )
        producer = await self._live_producer()
        try:
            with _translation("appending"):
                return await self._offsets(producer, records)
        except LogUnavailable as error:
            await self._distrust(producer, error.__cause__)
            raise

    async def _offsets(self, producer: aiokafka.AIOKafkaProducer, records: Sequence[Outgoing]) -> list[int]:
        sent: list[asyncio.Future[Any]] = []
        try:
            # An idempotent producer retries for ever; the caller needs an answer.
            async with asyncio.timeout(self._timeout_s):
                for record in records:
                    future = await self._send(producer, record)
                    future.add_done_callback(_look_at)
                    sent.append(future)
                if sent:
                    # Not gather(): a timeout there would cancel what the producer still delivers.
                    await asyncio.wait(sent)
        except TimeoutError:
            raise KafkaTimeoutError(f"no answer within {self._timeout_s} s") from None
        return [future.result().offset for future in sent]

    async def _send(self, producer: aiokafka.AIOKafkaProducer, record: Outgoing) -> "asyncio.Future[Any]":
        topic, partition = self._topics[record.topic], self._partition(record)
        future: asyncio.Future[Any] = await producer.send(topic, record.value, key=record.key, partition=partition)
        return future

    def _partition(self, record: Outgoing) -> int | None:
        """Where the record goes; None leaves it to the client."""
        return record.partition

    async def _live_producer(self) -> aiokafka.AIOKafkaProducer:
        if self._producer_lock is None:
            raise LogUnavailable("Kafka: not started, or stopped")
        async with self._producer_lock:
            if self._producer is not None and _ended(None, self._producer.client) is not None:
                ended, self._producer = self._producer, None  # it would wait for ever to learn who leads
                await _give_up(ended)
            if self._producer is None:
                producer: aiokafka.AIOKafkaProducer = aiokafka.AIOKafkaProducer(
                    **self._brokers.options(),
                    acks="all",
                    enable_idempotence=True,
                    compression_type="zstd",
                    linger_ms=self._linger_ms,
                    max_request_size=RECORD_BYTES_MAX,
                    request_timeout_ms=int(self._timeout_s * 1000),
                )
                try:
                    with _translation("connecting", self._brokers.tried):
                        async with asyncio.timeout(self._timeout_s):
                            await producer.start()
                except BaseException:
                    await _stopped(producer.stop(), self._timeout_s)
                    raise
                self._producer = producer
                return producer
            return self._producer

    async def _distrust(self, producer: aiokafka.AIOKafkaProducer, error: BaseException | None) -> None:
        """A refusal may leave a gap for ever in the sequence numbers of this producer: the next append gets a new one.

        A timeout is no refusal: the producer goes on trying, and keeps the order of what comes behind."""
        replaced = self._producer is not producer
        if replaced or isinstance(error, TimeoutError | KafkaTimeoutError):
            return
        self._producer = None
        await _give_up(producer)


class KafkaAppender(TopicAppender):
    """The `Appender` port. `topics` as for `KafkaLog`."""

    def __init__(
        self, brokers: Brokers, topics: Mapping[str, str], timeout_s: float = 10.0, linger_ms: int = 5
    ) -> None:
        missing = [role for role in ROLES if role not in topics]
        if missing:
            raise ValueError(f"topics: no name for {', '.join(missing)}")
        super().__init__(brokers, topics, timeout_s, linger_ms)
        self.partitions = 0

    async def start(self) -> None:
        """Connect. Raises `LogUnavailable`, and `LogDamaged` when the topic's timestamps are not LogAppendTime."""
        await super().start()

    async def _check_topics(self) -> None:
        usage = self._topics["usage"]
        async with _Admin(self._brokers, self._timeout_s) as admin:
            counts = await self._counts(admin)
            kind = (await admin.timestamp_types([usage]))[usage]
        if kind != _APPEND_TIME:
            raise LogDamaged(
                f"topic {usage}: message.timestamp.type is {kind}, and must be {_APPEND_TIME}, because log time is "
                "made of append times: create the topics with tallygate"
            )
        self.partitions = counts[usage]

    def _partition(self, record: Outgoing) -> int | None:
        if record.partition is None and record.key is not None and record.topic == "usage":
            return partition_for(record.key, self.partitions)
        return record.partition


class TopicReader:
    """Reads any topic at any place, beside the consumer that shards rate from: at takeover, and to check results."""

    def __init__(self, brokers: Brokers, timeout_s: float = 10.0) -> None:
        self._brokers = brokers
        self._timeout_s = timeout_s
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._lock: asyncio.Lock | None = None
        self._renewing = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises `LogUnavailable`."""
        self._consumer = await self._opened()
        self._lock = asyncio.Lock()

    async def stop(self) -> None:
        async with self._renewing:
            self._lock = None
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                await _stop_consumer(consumer, self._timeout_s)

    async def _opened(self) -> aiokafka.AIOKafkaConsumer:
        consumer = _consumer(self._brokers, self._timeout_s, 20, RECORD_BYTES_MAX)
        try:
            with _translation("connecting", self._brokers.tried):
                await consumer.start()
        except BaseException:
            await _close(consumer._client, self._timeout_s)
            raise
        return consumer

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset still held, next offset to be written). Raises `LogUnavailable`."""
        return (await self.bounds_of(topic, [partition]))[partition]

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """`bounds` of each of them, in that order, for the price of one. Raises `LogUnavailable`."""
        consumer, _ = await self._live()
        places = [TopicPartition(topic, partition) for partition in partitions]
        with _translation("asking for offsets"):
            async with asyncio.timeout(self._timeout_s):
                first = await consumer.beginning_offsets(places)
                end = await consumer.end_offsets(places)
        return {place.partition: (first[place], end[place]) for place in places}

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at `offset`; None when there is none (never written, gone, or a gap)."""
        first, end = await self.bounds(topic, partition)
        if not first <= offset < end:
            return None
        try:
            async with aclosing(self.read(topic, partition, offset, offset + 1)) as records:
                async for record in records:
                    return record
        except LogDamaged:
            return None  # retention passed it since we asked
        return None

    async def read_all(self, topic: str, partition: int) -> list[Record]:
        """Every record from the first one held to the end as it is now."""
        first, end = await self.bounds(topic, partition)
        return [record async for record in self.read(topic, partition, first, end)]

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        """Of the first record appended at that time or later; the end of the topic when there is none."""
        consumer, _ = await self._live()
        where = TopicPartition(topic, partition)
        with _translation("asking for offsets"):
            async with asyncio.timeout(self._timeout_s):
                found = (await consumer.offsets_for_times({where: append_ms}))[where]
        return (await self.bounds(topic, partition))[1] if found is None else found.offset

    async def partitions(self, topic: str) -> int:
        """The number of partitions of a topic. Raises `LogUnavailable` when there is no such topic."""
        async with _Admin(self._brokers, self._timeout_s) as admin:
            count = (await admin.partition_counts([topic]))[topic]
        if count is None:
            raise LogUnavailable(f"Kafka: no topic {topic}")
        return count

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        """The records of [offset, end), which must have been written. Read to its end, or close it, before anything else
        is read."""
        async with aclosing(self.read_together(topic, {partition: (offset, end)})) as records:
            async for _, record in records:
                yield record

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        """`read` of several partitions, each from an offset to an end, with the partition of each record: they come mixed,
        those of one partition in order. Where little has come of each, it takes as long as of one."""
        consumer, lock = await self._live()
        ends = {TopicPartition(topic, number): end for number, (offset, end) in places.items() if offset < end}
        if not ends:
            return
        loop = asyncio.get_running_loop()
        async with lock:
            consumer.assign(list(ends))
            for where in ends:
                consumer.seek(where, places[where.partition][0])
            try:
                deadline_s = loop.time() + self._timeout_s
                while ends:
                    with _translation("reading"):
                        found = await consumer.getmany(timeout_ms=100)
                    for where, batch in found.items():
                        for record in batch:
                            if record.offset < ends[where]:
                                yield where.partition, record
                    if _ended(consumer._fetcher.error_future, consumer._client) is not None:
                        raise LogUnavailable(
                            f"Kafka, reading {topic}: the client reads no more; the next read has a new one"
                        )
                    for where in [where for where in ends if await _has_passed(consumer, where, ends[where])]:
                        consumer.pause(where)  # or it would go on asking for what nobody waits for
                        del ends[where]
                    if found:
                        deadline_s = loop.time() + self._timeout_s
                    elif loop.time() > deadline_s:
                        missing = ", ".join(str(where.partition) for where in ends)
                        raise LogUnavailable(f"Kafka: nothing arrived from {topic} partition {missing}")
            finally:
                consumer.pause(*ends)

    async def _live(self) -> tuple[aiokafka.AIOKafkaConsumer, asyncio.Lock]:
        """A client that reads, a new one where the last has ended by a fault of its own; and who reads with it."""
        async with self._renewing:
            if self._lock is None:
                raise LogUnavailable("Kafka: not started, or stopped")
            if self._consumer is not None and _ended(self._consumer._fetcher.error_future, self._consumer._client):
                ended, self._consumer = self._consumer, None
                await _stop_consumer(ended, self._timeout_s)
            if self._consumer is None:
                self._consumer = await self._opened()
            return self._consumer, self._lock


class TopicSettings(Struct, frozen=True):
    """How the topics are made. Only `usage` has a fixed number of partitions for life."""

    usage: str
    rated: str
    dead_letters: str
    partitions: int
    replication_factor: int = 3
    min_insync_replicas: int = 2
    usage_retention_ms: int = 45 * 24 * 3_600_000  # the longest outage plus the age of a checkpoint, with much to spare
    rated_retention_ms: int = 45 * 24 * 3_600_000
    measured: tuple[str, ...] = ()  # of what machines say; as long as it may change what a billing period has cost


async def create_topics(brokers: Brokers, settings: TopicSettings, timeout_s: float = 30.0) -> list[str]:
    """Create the topics that are missing; returns their names. Raises `TopicsDiffer`, `LogUnavailable`.

    An existing topic is never changed: with more partitions, accounts would move away from their state."""
    if not 1 <= settings.partitions <= 1024:
        raise ValueError(f"partitions: {settings.partitions} is not within 1 to 1024")
    shared = {
        "min.insync.replicas": str(settings.min_insync_replicas),
        "unclean.leader.election.enable": "false",
        "cleanup.policy": "delete",
        "message.timestamp.type": _APPEND_TIME,
    }
    large = {"max.message.bytes": str(RECORD_BYTES_MAX)}
    rated_retention = {"retention.ms": str(settings.rated_retention_ms)}
    wanted = {
        settings.usage: shared | {"retention.ms": str(settings.usage_retention_ms)},
        settings.rated: shared | large | rated_retention,
        settings.dead_letters: shared | large | rated_retention,
        **dict.fromkeys(settings.measured, shared | rated_retention),
    }
    async with _Admin(brokers, timeout_s) as admin:
        counts = await admin.partition_counts(list(wanted))
        missing = [topic for topic, count in counts.items() if count is None]
        created = [
            topic
            for topic in missing
            if await admin.create(topic, settings.partitions, settings.replication_factor, wanted[topic])
        ]
        await _check_topics(admin, settings, list(wanted))
    return created


async def _check_topics(admin: "_Admin", settings: TopicSettings, topics: list[str]) -> None:
    # Brokers learn of a new topic a moment after its creation was confirmed.
    for _ in range(100):
        counts = await admin.partition_counts(topics)
        if None not in counts.values():
            break
        await asyncio.sleep(0.1)
    count = counts[settings.usage]
    if count != settings.partitions:
        raise TopicsDiffer(
            f"topic {settings.usage} has {count} partitions, the settings say {settings.partitions}: set {count}, "
            "or choose a new topic name; the number never changes in the life of a topic"
        )
    kind = (await admin.timestamp_types([settings.usage]))[settings.usage]
    if kind != _APPEND_TIME:
        raise TopicsDiffer(f"topic {settings.usage} has message.timestamp.type {kind}: it must be {_APPEND_TIME}")


class _Admin:
    """The few questions put to the cluster, with answers as plain values."""

    def __init__(self, brokers: Brokers, timeout_s: float) -> None:
        self._brokers = brokers
        self._timeout_s = timeout_s

    async def __aenter__(self) -> "_Admin":
        self._client = AIOKafkaAdminClient(**self._brokers.options(), request_timeout_ms=int(self._timeout_s * 1000))
        with _translation("connecting", self._brokers.tried):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._client.start()
            except BaseException:
                await _stopped(self._client.close(), self._timeout_s)
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await _stopped(self._client.close(), self._timeout_s)

    async def partition_counts(self, topics: list[str]) -> dict[str, int | None]:
        """Partitions by topic; None for one that does not exist."""
        with _translation("asking for topics"):
            answer = await self._client.describe_topics(topics)
        counts: dict[str, int | None] = dict.fromkeys(topics)
        for topic in answer:
            error = for_code(topic["error_code"])
            if topic["error_code"] == 0:
                counts[topic["topic"]] = len(topic["partitions"])
            elif error is not UnknownTopicOrPartitionError and not error.retriable:
                raise LogUnavailable(f"Kafka, asking for topic {topic['topic']}: {error.__name__}")
        return counts

    async def timestamp_types(self, topics: list[str]) -> dict[str, str]:
        """message.timestamp.type by topic."""
        name = "message.timestamp.type"
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic, {name: None}) for topic in topics]
        with _translation("asking for settings"):
            answers = await self._client.describe_configs(resources)
        kinds = {}
        for answer in answers:
            for error_code, message, _, topic, entries in (resource[:5] for resource in answer.resources):
                if error_code != 0:
                    reason = message or for_code(error_code).__name__
                    raise LogUnavailable(f"Kafka, settings of topic {topic}: {reason}")
                kinds[topic] = next(entry[1] for entry in entries if entry[0] == name)
        return kinds

    async def create(self, topic: str, partitions: int, replication: int, configs: dict[str, str]) -> bool:
        """True when created now, False when somebody else did it meanwhile."""
        new = NewTopic(topic, partitions, replication, topic_configs=configs)
        with _translation("creating topics"):
            answer = await self._client.create_topics([new], timeout_ms=int(self._timeout_s * 1000))
        for _, error_code, message in (entry[:3] for entry in answer.topic_errors):
            if error_code == TopicAlreadyExistsError.errno:
                return False
            if error_code != 0:
                raise LogUnavailable(f"Kafka, creating topic {topic}: {message or for_code(error_code).__name__}")
        return True


def _consumer(
    brokers: Brokers, timeout_s: float, fetch_wait_ms: int, partition_bytes_max: int
) -> aiokafka.AIOKafkaConsumer:
    return aiokafka.AIOKafkaConsumer(
        **brokers.options(),
        group_id=None,
        enable_auto_commit=False,
        # Never skip what was lost on its own: that would be revenue gone without a word.
        auto_offset_reset="none",
        # A partition that is drained late waits for the request under way; the default of 500 ms would delay alerts.
        fetch_max_wait_ms=fetch_wait_ms,
        max_partition_fetch_bytes=partition_bytes_max,
        check_crcs=True,
        request_timeout_ms=int(timeout_s * 1000),
        isolation_level="read_uncommitted",
    )


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Take note of a late answer, or asyncio would complain that nobody did."""
    if not future.cancelled():
        future.exception()


def _ended(reading: "asyncio.Task[None] | None", client: Any) -> "asyncio.Task[None] | None":
    """What a client of aiokafka does in the background and has ended by a fault: nobody else looks at it. Without the one that
    reads nothing arrives any more, and without the one that learns who leads the others wait for it for ever."""
    return next((task for task in (reading, client._sync_task) if task is not None and task.done()), None)


def _is_refused(consumer: aiokafka.AIOKafkaConsumer, where: TopicPartition) -> bool:
    """Whether the next batch of that partition could not be read, and nobody has been told so yet. The client may have moved
    on past it already: by its position a record would be passed over without a word."""
    return isinstance(consumer._fetcher._records.get(where), FetchError)


async def _has_passed(consumer: aiokafka.AIOKafkaConsumer, where: TopicPartition, end: int) -> bool:
    return not _is_refused(consumer, where) and await consumer.position(where) >= end


async def _stop_consumer(consumer: aiokafka.AIOKafkaConsumer, timeout_s: float) -> None:
    if not await _stopped(consumer.stop(), timeout_s):
        await _close(consumer._client, timeout_s)


async def _give_up(producer: aiokafka.AIOKafkaProducer) -> None:
    if not await _stopped(producer.stop(), 1.0):
        # What it still holds has no leader, or no answer. Left to itself it would go on trying for ever beside its
        # successor, with its connections, and in the end write old records behind newer ones.
        await _stopped(producer._sender.close(), 1.0)
        await _close(producer.client, 1.0)


async def _close(client: Any, timeout_s: float) -> None:
    """Its connections, also where what it did in the background has ended by a fault: it would stop at that."""
    if _ended(None, client) is not None:
        client._sync_task = None
    await _stopped(client.close(), timeout_s)


async def _stopped(stopping: Awaitable[None], timeout_s: float) -> bool:
    """Wait for an orderly end, but not for ever: a broker that is away must not hold up a shutdown. Whether it came."""
    with suppress(KafkaError, OSError, RuntimeError):
        await asyncio.wait_for(stopping, timeout_s)
        return True
    return False


async def tail(brokers: Brokers, topic: str) -> AsyncIterator[bytes]:
    """The lines of a topic's records from now on, without end. Raises `LogUnavailable`."""
    consumer = aiokafka.AIOKafkaConsumer(topic, **brokers.options(), auto_offset_reset="latest")
    try:
        await consumer.start()
    except KafkaError as error:
        raise LogUnavailable(f"Kafka at {brokers}: {type(error).__name__} ({brokers.tried})") from error
    try:
        async for record in consumer:
            for line in (record.value or b"").splitlines():
                yield line
    finally:
        await consumer.stop()
