"""A deployment of its own on real servers, without Ray: schema, topics, receiver, workload, and the check of it all."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson
from pydantic import SecretStr

from actors.assembly import brokers, kafka_log, postgres_store
from actors.clock import SystemClock
from actors.kafka import KafkaLog, TopicSettings, create_topics
from actors.migrations import ENGINE_ROLE, migrate
from actors.ports import Outgoing
from actors.postgres import PostgresStore
from config.catalogue import load_file
from config.settings import KafkaSettings, LeaseSettings, PostgresSettings, Settings, ShardSettings, WebhookSettings
from engine.catalog import document_json
from engine.events import CatalogueMarker, seal
from engine.placement import partition_for
from loadtest.drive import Driver
from loadtest.receiver import Receiver
from loadtest.verify import Verdict, verify
from loadtest.workload import Workload

CATALOGUE_FILE: Final = Path(__file__).resolve().parents[1] / "config" / "catalogue.example.yaml"
PARTITIONS: Final = 4
CUSTOMERS: Final = 150
SETUP_US: Final = 5_000_000
# Of a role that all deployments on a server share: each of them sets this one, and shuts none of the others out.
ENGINE_PASSWORD: Final = "opens-only-test-databases"  # noqa: S105 - as it says


def engine_dsn(dsn: str) -> str:
    """The same database for the engine's role."""
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{ENGINE_ROLE}:{ENGINE_PASSWORD}@{parts.hostname}:{parts.port}").geturl()


class Deployment:
    """Settings for shards and controller, and the driver's own doors beside them."""

    def __init__(self, settings: Settings, log: KafkaLog, store: PostgresStore, receiver: Receiver) -> None:
        self.settings = settings
        self.log = log
        self.store = store
        self.receiver = receiver
        self._clock = SystemClock()
        self.catalogue = document_json(load_file(CATALOGUE_FILE))

    def workload(self, events: int, duration_s: float, seed: int = 1) -> Workload:
        catalogue = orjson.loads(self.catalogue)
        return Workload(seed, events, CUSTOMERS, None, duration_s, catalogue=catalogue, partitions=PARTITIONS)

    async def open_accounts(self, workload: Workload) -> None:
        """Catalogue and accounts, in the log; whoever rates reads them first."""
        await self.set_up(workload.setup(self._clock.wall_us() + SETUP_US))

    async def set_up(self, commands: list[dict[str, Any]]) -> None:
        """Catalogue and commands, in the log."""
        await self.store.publish_catalogue(1, self.catalogue)
        marker = msgspec.json.encode(CatalogueMarker(1, 0))
        records = [self._sealed(number, None, marker) for number in range(PARTITIONS)]
        for command in commands:
            key = command["account"].encode()
            records.append(self._sealed(partition_for(key, PARTITIONS), key, orjson.dumps(command)))
        await self.log.append(records)

    def _sealed(self, partition: int, key: bytes | None, body: bytes) -> Outgoing:
        value = seal(self.settings.control_key_bytes(), self.settings.kafka.topic_usage, partition, body)
        return Outgoing("usage", value, key, partition)

    def driver(self) -> Driver:
        return Driver(self.log, self._clock, self.settings.kafka.topic_usage, self.settings.control_key_bytes())

    async def owners(self) -> dict[int, str | None]:
        """Who has claimed each partition, as the database knows it."""
        return {status.partition: status.owner for status in await self.store.partitions()}

    async def rated_to_the_end(self) -> bool:
        """Everything in the log is in a checkpoint, and every alert is told."""
        done = {status.partition: status.next_offset for status in await self.store.partitions()}
        for number in range(PARTITIONS):
            if done.get(number, 0) < (await self.log.bounds(number))[1]:
                return False
        return (await self.store.outbox_counts()).waiting == 0

    async def verdict(self) -> Verdict:
        """Every amount, event and alert held against the oracle. After everything has stopped."""
        return await verify(
            self.settings, self.store, {1: self.catalogue}, self.receiver.alerts, processes=2, say=lambda _: None
        )

    async def check(self) -> None:
        """Nothing lost, nothing double, every amount and alert as the oracle has it; else AssertionError."""
        verdict = await self.verdict()
        assert verdict.differences == [], "\n".join(verdict.differences[:20])
        assert (verdict.lost, verdict.double, verdict.alerts_missing, verdict.alerts_extra) == (0, 0, 0, 0)
        assert verdict.counts["rated"], "a run in which nothing happened proves nothing"
        assert self.receiver.alerts, "likewise"
        assert self.receiver.rejected == 0, "every signature holds"


def settings_of(dsn: str, bootstrap: str, run: str, webhook_url: str, webhook_secret: str) -> Settings:
    return Settings(
        control_key=SecretStr(secrets.token_hex(32)),
        postgres=PostgresSettings(dsn=SecretStr(dsn), schema_name=f"run_{run}"),
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap,
            topic_usage=f"usage-{run}",
            topic_rated=f"rated-{run}",
            topic_dead_letters=f"dead-letters-{run}",
            partitions=PARTITIONS,
        ),
        shard=ShardSettings(shards=2),
        lease=LeaseSettings(),
        webhooks=WebhookSettings(
            url=webhook_url, secret=SecretStr(webhook_secret), allow_loopback=True, backoff_base_s=0.2
        ),
    )


@asynccontextmanager
async def deployment(database: str, bootstrap: str) -> AsyncIterator[Deployment]:
    """Everything but the shards and the controller."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    receiver = Receiver(secret, fail_share=0.02, seed=1)
    await receiver.start()
    try:
        settings = settings_of(engine_dsn(database), bootstrap, secrets.token_hex(4), receiver.url, secret)
        await migrate(database, settings.postgres.schema_name, ENGINE_PASSWORD)
        kafka = settings.kafka
        await create_topics(
            brokers(settings),
            TopicSettings(kafka.topic_usage, kafka.topic_rated, kafka.topic_dead_letters, PARTITIONS, 1, 1),
        )
        log, store = kafka_log(settings), postgres_store(settings)
        await log.start()
        try:
            await store.start()
            try:
                yield Deployment(settings, log, store, receiver)
            finally:
                await store.stop()
        finally:
            await log.stop()
    finally:
        await receiver.stop()
