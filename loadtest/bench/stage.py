"""One deployment for one measurement: real Kafka, Postgres and Ray, tables and topics of its own, and the check of it all.

Whoever measures on it ends by asking `exact`: a figure of a run that lost or doubled a cent is no figure.
"""

import base64
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec import Struct
from pydantic import SecretStr

from actors.assembly import kafka_log, postgres_store
from actors.clock import SystemClock
from actors.cluster import Cluster, ShardStatus
from actors.deployment import all_ready, lay_ground, until
from actors.kafka import KafkaLog
from actors.ports import Outgoing
from actors.postgres import PostgresStore
from actors.publication import publish
from config.catalogue import load_file
from config.settings import Settings
from config.stack.ray_local import record_ray
from config.stack.supervisor import Supervisor
from engine.catalog import document_json
from engine.events import seal
from engine.placement import partition_for
from loadtest.bench.latency import Latencies
from loadtest.bench.watch import Watch
from loadtest.receiver import Receiver
from loadtest.verify import verify

CATALOGUE_FILE: Final = Path(__file__).resolve().parents[2] / "config" / "catalogue.example.yaml"
BATCH: Final = 2_000
SETTLED_TIMEOUT_S: Final = 300.0

Say = Callable[[str], None]


class NotExact(Exception):
    """The run's money is not what the oracle says; the message names the first differences."""


class Exact(Struct, frozen=True):
    """That every amount was right, and of how many."""

    records: int
    rated: int
    duplicates: int
    dead_lettered: int
    alerts: int
    accounts: int


class Stage:
    """The parts of a deployment whose shards are started and stopped by whoever measures."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: Settings,
        log: KafkaLog,
        store: PostgresStore,
        receiver: Receiver,
        say: Say,
        catalogue: bytes,
    ) -> None:
        self.settings = settings
        self.log = log
        self.store = store
        self.receiver = receiver
        self.clock = SystemClock()
        self.catalogue: dict[str, Any] = orjson.loads(catalogue)
        self.say = say
        self._supervisor = supervisor
        self._body = catalogue
        self._shard_pids: list[int] = []
        self._load_pids: list[int] = []

    # ---- what is put into the log

    async def send(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """Commands, sealed, to the partitions of their accounts."""
        records = [self._sealed(command) for command in commands]
        for start in range(0, len(records), BATCH):
            await self.log.append(records[start : start + BATCH])

    def _sealed(self, command: Mapping[str, Any]) -> Outgoing:
        key = str(command["account"]).encode()
        home = partition_for(key, self.settings.kafka.partitions)
        topic = self.settings.kafka.topic_usage
        return Outgoing("usage", seal(self.settings.control_key_bytes(), topic, home, orjson.dumps(command)), key, home)

    async def ends(self) -> dict[int, int]:
        """The next offset of each partition."""
        return {number: (await self.log.bounds(number))[1] for number in range(self.settings.kafka.partitions)}

    # ---- who rates

    @asynccontextmanager
    async def rating(self, namespace: str = "bench") -> AsyncIterator[Cluster]:
        """Shards and controller, as Ray actors, for as long as the block runs. They hand over at its end."""
        cluster = Cluster(self.settings, self._supervisor.run_dir / "locks", namespace)
        await cluster.start()
        try:
            record_ray(self._supervisor)
            self._shard_pids = [status.pid for status in await cluster.statuses()]
            yield cluster
        finally:
            record_ray(self._supervisor)
            await cluster.stop()

    async def ready(self, cluster: Cluster) -> None:
        """Return once somebody speaks for every partition."""
        await until(lambda: all_ready(cluster, self.settings.kafka.partitions), "every partition to be ready")

    async def settled(self, cluster: Cluster) -> None:
        """Return once all that is in the log now is in a checkpoint, and every alert has been delivered."""
        ends = await self.ends()

        async def done() -> bool:
            views = {view.partition: view for status in await cluster.statuses() for view in status.partitions}
            if any(number not in views or views[number].checkpointed_offset < end for number, end in ends.items()):
                return False
            return (await self.store.outbox_counts()).waiting == 0

        await until(done, "the log to be rated to its end and told", SETTLED_TIMEOUT_S)

    # ---- what it takes, and whether it is right

    def watch(self) -> Watch:
        """By role: shards, broker, database, the rest of Ray, the load, and the bench itself."""
        return Watch(self.clock, self._roles)

    def load_is(self, pids: Sequence[int]) -> None:
        """The processes that make the load, for the watch."""
        self._load_pids = list(pids)

    def _roles(self) -> dict[str, list[int]]:
        named: dict[str, list[int]] = {}
        for child in self._supervisor.children:
            named.setdefault(child.name, []).append(child.pid)
        # In this order: a shard is a child of Ray's, and the load one of the bench.
        return {
            "shard": self._shard_pids,
            "broker": named.get("kafka", []),
            "postgres": named.get("postgres", []),
            "ray": named.get("ray", []),
            "load": self._load_pids,
            "bench": [os.getpid()],
        }

    def webhook_delays(self, arrived_from_us: int = 0, arrived_to_us: int = 2**63) -> Latencies:
        """From the broker's append time of the event that crossed to the alert's arrival, of those that came between."""
        delays = Latencies()
        for alert in self.receiver.alerts.values():
            if arrived_from_us <= alert.arrived_us < arrived_to_us:
                delays.record((alert.arrived_us - alert.body["data"]["log_time_us"]) / 1_000_000)
        return delays

    async def exact(self) -> Exact:
        """Hold everything against the oracle, after the shards have handed over. Raises NotExact."""
        verdict = await verify(
            self.settings,
            self.store,
            {1: self._body},
            self.receiver.alerts,
            processes=os.cpu_count() or 1,
            say=lambda _: None,
        )
        if verdict.differences or verdict.lost or verdict.double or verdict.alerts_missing or verdict.alerts_extra:
            first = "\n".join(verdict.differences[:10])
            raise NotExact(
                f"{len(verdict.differences)} differences, {verdict.lost} lost, {verdict.double} double\n{first}"
            )
        counts = verdict.counts
        return Exact(
            records=sum((await self.ends()).values()),
            rated=counts["rated"],
            duplicates=counts["duplicate"],
            dead_lettered=sum(count for name, count in counts.items() if name.startswith("dead_lettered")),
            alerts=len(self.receiver.alerts),
            accounts=len(verdict.accounts),
        )


def counts_of(statuses: Sequence[ShardStatus]) -> Counter[str]:
    """The fold's outcomes so far, over all partitions."""
    counts: Counter[str] = Counter()
    for status in statuses:
        for view in status.partitions:
            counts.update(view.counts)
    return counts


def places_of(statuses: Sequence[ShardStatus]) -> dict[int, int]:
    """The next offset that the fold wants, by partition."""
    return {view.partition: view.next_offset for status in statuses for view in status.partitions}


@asynccontextmanager
async def staged(
    supervisor: Supervisor, given: Settings, name: str, say: Say, *, shards: int = 1, document: Any = None
) -> AsyncIterator[Stage]:
    """A stage with topics and tables named after `name`, its catalogue published; no shard runs yet.

    `document` is the catalogue, by default the example's. Ray must have been started."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    receiver = Receiver(secret)
    await receiver.start()
    try:
        settings = given.model_copy(
            update={
                "kafka": given.kafka.model_copy(
                    update={
                        "topic_usage": f"usage-{name}",
                        "topic_rated": f"rated-{name}",
                        "topic_dead_letters": f"dead-letters-{name}",
                    }
                ),
                "postgres": given.postgres.model_copy(update={"schema_name": f"bench_{name.replace('-', '_')}"}),
                "shard": given.shard.model_copy(update={"shards": shards}),
                "webhooks": given.webhooks.model_copy(
                    update={"url": receiver.url, "secret": SecretStr(secret), "allow_loopback": True}
                ),
            }
        )
        settings = await lay_ground(settings)
        log, store = kafka_log(settings), postgres_store(settings)
        await log.start()
        try:
            await store.start()
            try:
                published = load_file(CATALOGUE_FILE) if document is None else document
                await publish(
                    published,
                    store=store,
                    log=log,
                    clock=SystemClock(),
                    topic=settings.kafka.topic_usage,
                    control_key=settings.control_key_bytes(),
                )
                yield Stage(supervisor, settings, log, store, receiver, say, document_json(published))
            finally:
                await store.stop()
        finally:
            await log.stop()
    finally:
        await receiver.stop()
