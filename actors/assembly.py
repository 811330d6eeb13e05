"""From settings to running parts: the one place where the real doors are chosen and wired.

Tests and the simulator wire `Shard` and `Controller` with other doors; nothing else differs.
"""

import asyncio
import gc
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from actors.addresses import address_in
from actors.audit import Audit
from actors.billed_usage import BilledUsages
from actors.checkpoints import Checkpoints
from actors.clock import SystemClock
from actors.controller import Controller
from actors.cost import CostActor
from actors.cost_store import CostStore
from actors.door import Door
from actors.door_client import Doors
from actors.door_wire import door_token
from actors.endpoints import PostgresEndpoints
from actors.floor_watch import FloorWatch
from actors.gateways import PostgresGateways
from actors.incarnation import Incarnation, LockDeaths, give_back_large_blocks, process_load
from actors.kafka import Brokers, KafkaAppender, KafkaLog, TopicAppender, TopicReader, TopicSettings
from actors.keys import REFRESH_EVERY_S, Keys, KeyScope
from actors.lease import Heartbeat, HeartbeatThread, Lease
from actors.local_runs import LocalFolder
from actors.margin_actor import MarginActor
from actors.margin_floors import PostgresFloors
from actors.margin_rates import PostgresRates
from actors.margin_store import MarginStore
from actors.membership import PostgresDirectory, PostgresMembership, PostgresRoster
from actors.outbox import Outbox, OutboxSettings
from actors.ports import Clock, Membership
from actors.postgres import PostgresStore
from actors.receivers import EndpointReceivers, settings_listener
from actors.reported_costs import ReportedCosts
from actors.shadow import ShadowActor
from actors.shadow_store import Shadows
from actors.shard import Shard
from actors.training_runs import PostgresTraining
from actors.turns import OneBehindTheOther
from actors.webhooks import WebhookCaller
from actors.whatif import WhatIf
from config.settings import KafkaSettings, Settings
from engine.cost.attribution import Horizons

# Nothing is answered during a pass. One over fifty thousand young objects took up to 37 ms of a busy shard: many short
# ones take less in all. A full pass looks at every live account: few of them.
GC_THRESHOLDS = (2_000, 500, 100)


def settle_garbage_collection() -> None:
    """For a process that has loaded what it runs: what is there by now lives as long as it, and no pass need look at it."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


OUTBOX_GRACE_S: Final = 2.0  # for calls under way when a cost process ends; what they told is told again, under its id


_BESIDE_UP: Final = "(beside `tallygate up`: `. build/up/env`)"


class NotConfigured(ValueError):
    """A setting without which nothing can run is missing."""


def database_dsn(settings: Settings) -> str:
    """Of the engine's database. Raises NotConfigured."""
    if settings.postgres.dsn is None:
        raise NotConfigured(f"postgres.dsn is not set; set DATABASE_URL {_BESIDE_UP}")
    return settings.postgres.dsn.get_secret_value()


def brokers(settings: Settings) -> Brokers:
    """Those to ask first, and how they let us in. Raises NotConfigured."""
    kafka = settings.kafka
    if kafka.bootstrap_servers is None:
        raise NotConfigured(f"kafka.bootstrap_servers is not set; set KAFKA_BOOTSTRAP_SERVERS {_BESIDE_UP}")
    sasl = None
    if kafka.sasl_mechanism is not None and kafka.sasl_username is not None and kafka.sasl_password is not None:
        sasl = (kafka.sasl_mechanism, kafka.sasl_username, kafka.sasl_password.get_secret_value())
    return Brokers(kafka.bootstrap_servers, _tls(kafka) if kafka.tls else None, sasl)


def _tls(kafka: KafkaSettings) -> ssl.SSLContext:
    """Versions below 1.2 are refused, and names are compared: that is Python's default. Raises NotConfigured."""
    try:
        context = ssl.create_default_context(cafile=kafka.tls_ca_file)
    except OSError as error:
        raise NotConfigured(f"kafka.tls_ca_file: {kafka.tls_ca_file}: {error.strerror or error}") from error
    if kafka.tls_cert_file is not None:
        try:
            context.load_cert_chain(kafka.tls_cert_file, kafka.tls_key_file, password=_no_password)
        except OSError as error:
            raise NotConfigured(
                f"kafka.tls_cert_file: {kafka.tls_cert_file}, with the key in {kafka.tls_key_file or 'it'}: "
                f"{error.strerror or error}"
            ) from error
    return context


def _no_password() -> str:
    """Without this, a process would wait for somebody to type one."""
    raise NotConfigured("kafka.tls_key_file: the key has a password: store it without one")


def kafka_log(settings: Settings) -> KafkaLog:
    """The log, not yet started."""
    return KafkaLog(brokers(settings), topic_names(settings), fetch_wait_ms=settings.kafka.fetch_max_wait_ms)


def kafka_appender(settings: Settings) -> KafkaAppender:
    """The way into the log for a process that reads none of it, not yet started."""
    return KafkaAppender(brokers(settings), topic_names(settings))


def doors(settings: Settings) -> Doors:
    """The doors of all shards, not yet started. Nothing is asked before Postgres has answered once."""
    directory = PostgresDirectory(database_dsn(settings), settings.postgres.schema_name)
    return Doors(directory, door_token(settings.control_key_bytes()), settings.kafka.partitions)


def topic_names(settings: Settings) -> dict[str, str]:
    """Physical topic names by role."""
    kafka = settings.kafka
    return {"usage": kafka.topic_usage, "rated": kafka.topic_rated, "dead-letters": kafka.topic_dead_letters}


def topic_settings(settings: Settings) -> TopicSettings:
    """How this deployment's topics are made."""
    kafka = settings.kafka
    retention_ms = kafka.retention_days * 86_400_000
    return TopicSettings(
        usage=kafka.topic_usage,
        rated=kafka.topic_rated,
        dead_letters=kafka.topic_dead_letters,
        partitions=kafka.partitions,
        replication_factor=kafka.replication_factor,
        min_insync_replicas=kafka.min_insync_replicas,
        usage_retention_ms=retention_ms,
        rated_retention_ms=retention_ms,
        measured=(kafka.topic_served, kafka.topic_gpu_telemetry, kafka.topic_costs),
    )


def telemetry_appender(settings: Settings) -> TopicAppender:
    """The way to the topic of what machines say, not yet started."""
    return TopicAppender(brokers(settings), {"gpu-telemetry": settings.kafka.topic_gpu_telemetry})


def served_appender(settings: Settings) -> TopicAppender:
    """The way to the topic of what was served, not yet started."""
    return TopicAppender(brokers(settings), {"served": settings.kafka.topic_served})


def fleet_appender(settings: Settings) -> TopicAppender:
    """The way to both topics that a GPU fleet speaks on, not yet started."""
    kafka = settings.kafka
    topics = {"served": kafka.topic_served, "gpu-telemetry": kafka.topic_gpu_telemetry}
    return TopicAppender(brokers(settings), topics)


def cost_store(settings: Settings) -> CostStore:
    """The checkpoints of cost attribution, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return CostStore(database_dsn(settings), settings.postgres.schema_name, settings.lease.lease_s, timeout_s)


def cost_horizons(settings: Settings) -> Horizons:
    """How long windows of cost are, and how long they wait."""
    cost = settings.cost
    return Horizons(cost.window_s * 1_000_000, cost.settle_s * 1_000_000, cost.close_s * 1_000_000)


class WhatIfProcess:
    """What a stretch cost and earned, and would under a change; and its doors."""

    def __init__(self, settings: Settings) -> None:
        self._reader = topic_reader(settings)
        self.costs = cost_store(settings)
        key, horizons = settings.control_key_bytes(), cost_horizons(settings)
        self.whatif = WhatIf(self._reader, self.costs, settings.kafka, key, horizons)

    async def start(self) -> None:
        """Open both doors. Raises LogUnavailable, StoreUnavailable."""
        await self._reader.start()
        await self.costs.start()

    async def stop(self) -> None:
        await self.costs.stop()
        await self._reader.stop()


def margin_store(settings: Settings) -> MarginStore:
    """The margin of requests, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return MarginStore(database_dsn(settings), settings.postgres.schema_name, settings.lease.lease_s, timeout_s)


def margin_floors(settings: Settings) -> PostgresFloors:
    """The floors of the margin, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return PostgresFloors(database_dsn(settings), settings.postgres.schema_name, settings.lease.lease_s, timeout_s)


def margin_rates(settings: Settings) -> PostgresRates:
    """The rates between currencies, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return PostgresRates(database_dsn(settings), settings.postgres.schema_name, settings.lease.lease_s, timeout_s)


def training_runs(settings: Settings, costs: CostStore) -> PostgresTraining:
    """The training runs, not yet started; `costs` knows the rates."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    schema, lease_s = settings.postgres.schema_name, settings.lease.lease_s
    return PostgresTraining(database_dsn(settings), schema, lease_s, timeout_s, costs)


def reported_costs(settings: Settings) -> ReportedCosts:
    """Reported costs beside computed ones, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return ReportedCosts(database_dsn(settings), settings.postgres.schema_name, settings.lease.lease_s, timeout_s)


def billed_usages(settings: Settings, costs: CostStore) -> BilledUsages:
    """What a provider has billed, not yet started; `costs` knows what we said."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    schema, lease_s = settings.postgres.schema_name, settings.lease.lease_s
    return BilledUsages(database_dsn(settings), schema, lease_s, timeout_s, costs)


def gateways(settings: Settings) -> PostgresGateways:
    """The gateways of others, not yet started."""
    timeout_s = settings.postgres.statement_timeout_ms / 1000
    return PostgresGateways(
        database_dsn(settings),
        settings.postgres.schema_name,
        settings.lease.lease_s,
        timeout_s,
        settings.control_key_bytes(),
        loopback=settings.webhooks.allow_loopback,
    )


def alert_receivers(settings: Settings, clock: Clock, permitted: Callable[[], bool]) -> EndpointReceivers:
    """Who is told of alerts, not yet started. Nobody is while `permitted()` is false."""
    webhooks = settings.webhooks
    listener = None
    if webhooks.url is not None and webhooks.secret is not None:
        listener = settings_listener(webhooks.url, webhooks.secret.get_secret_value())
    return EndpointReceivers(
        clock,
        webhook_caller(settings, clock),
        webhook_endpoints(settings),
        settings=listener,
        settings_calls_max=webhooks.concurrency,
        permitted=permitted,
    )


def outbox_settings(settings: Settings) -> OutboxSettings:
    """How often, and after which pauses, an alert is told again."""
    webhooks = settings.webhooks
    return OutboxSettings(
        attempts_max=webhooks.attempts_max,
        concurrent_max=webhooks.pending_max,  # the receivers bound what each endpoint is asked at once
        pending_max=webhooks.pending_max,
        back_off_s=webhooks.backoff_base_s,
        back_off_factor=2.0,
        back_off_max_s=webhooks.backoff_max_s,
    )


def postgres_store(settings: Settings) -> PostgresStore:
    """The store, not yet started."""
    return PostgresStore(
        database_dsn(settings),
        settings.postgres.schema_name,
        settings.lease.lease_s,
        settings.postgres.statement_timeout_ms / 1000,
    )


def stored_checkpoints(settings: Settings) -> Checkpoints:
    """The checkpoints for whoever only reads, not yet started."""
    return Checkpoints(database_dsn(settings), settings.postgres.schema_name)


def shadows(settings: Settings) -> Shadows:
    """The shadows of catalogue drafts, not yet started."""
    return Shadows(database_dsn(settings), settings.postgres.schema_name)


def topic_reader(settings: Settings) -> TopicReader:
    """The topics for whoever only reads, not yet started."""
    return TopicReader(brokers(settings))


def member_roster(settings: Settings) -> PostgresRoster:
    """The door to the members, as a controller or an operator uses it. Raises NotConfigured."""
    return PostgresRoster(database_dsn(settings), settings.postgres.schema_name)


def audit_trail(settings: Settings) -> Audit:
    """Who did what, not yet started. Raises NotConfigured."""
    return Audit(database_dsn(settings), settings.postgres.schema_name)


def key_ring(settings: Settings, clock: Clock) -> Keys:
    """The API keys in Postgres, not yet started. Raises NotConfigured."""
    schema, environment = settings.postgres.schema_name, settings.api.key_environment
    return Keys(database_dsn(settings), schema, clock, environment=environment)


async def issue_key(settings: Settings, clock: Clock, name: str, scopes: Sequence[KeyScope], created_by: str) -> str:
    """The text of a new API key, once every replica has seen it."""
    keys = key_ring(settings, clock)
    await keys.start()
    try:
        _, text = await keys.create(name, scopes, created_by=created_by)
    finally:
        await keys.stop()
    await clock.sleep(2 * REFRESH_EVERY_S)
    return text


def webhook_caller(settings: Settings, clock: Clock) -> WebhookCaller:
    """What makes the calls to webhook endpoints."""
    return WebhookCaller(clock, allow_loopback=settings.webhooks.allow_loopback, timeout_s=settings.webhooks.timeout_s)


def webhook_endpoints(settings: Settings) -> PostgresEndpoints:
    """The endpoints of the deployment, not yet started."""
    return PostgresEndpoints(
        database_dsn(settings),
        settings.postgres.schema_name,
        settings.control_key_bytes(),
        allow_loopback=settings.webhooks.allow_loopback,
    )


class _Door(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Runs(Protocol):
    async def run(self) -> None: ...

    def stop(self) -> None: ...


class ShardProcess:
    """Everything one shard process runs: its life, its lease, its doors, its loop."""

    def __init__(self, shard: str, settings: Settings, lock_dir: Path, store: PostgresStore | None = None) -> None:
        """`store` stands in for the settings' own, for benches."""
        give_back_large_blocks()
        self._settings = settings
        self._clock = SystemClock()
        self.incarnation = Incarnation(shard, lock_dir)
        self._lease = Lease(self._clock)
        self._log = kafka_log(settings)
        self._store = store or postgres_store(settings)
        self._receivers = self._make_receivers()
        self._heartbeat = HeartbeatThread(self._lease, self._make_heartbeat)
        self._running: asyncio.Task[None] | None = None
        self.shard = Shard(
            self.incarnation.name,
            clock=self._clock,
            log=self._log,
            store=self._store,
            lease=self._lease,
            deaths=LockDeaths(),
            outbox=self._make_outbox,
            control_key=settings.control_key_bytes(),
            kafka=settings.kafka,
            settings=settings.shard,
            leases=settings.lease,
            local=LocalFolder(settings.shard.dedup_folder, int(settings.shard.dedup_disk_gb * 1e9)),
            name=shard,
            load=process_load,
        )
        self._door_host = address_in(settings.shard.door_network)
        self._door = Door(self.shard, self.incarnation.name, door_token(settings.control_key_bytes()))

    def _make_receivers(self) -> EndpointReceivers:
        return alert_receivers(self._settings, self._clock, self._lease.valid)

    def _make_outbox(self, shard: Shard) -> Outbox:
        settings = outbox_settings(self._settings)
        return Outbox(self._clock, self._receivers, self._store, settings, permitted=shard.may_speak)

    def _make_membership(self) -> PostgresMembership:
        postgres = self._settings.postgres
        return PostgresMembership(database_dsn(self._settings), postgres.schema_name, self._settings.lease.lease_s)

    def _make_heartbeat(self) -> tuple[Heartbeat, Membership]:
        membership = self._make_membership()
        return (
            Heartbeat(membership, self._clock, self._lease, self.incarnation.name, self._settings.lease),
            membership,
        )

    async def start(self) -> None:
        """Join, and begin to rate in the background."""
        settle_garbage_collection()
        self.incarnation.begin()
        await self._log.start()
        await self._store.start()
        await self._receivers.start()
        door_port = await self._door.start(self._door_host)
        membership = self._make_membership()
        await membership.start()
        try:
            await membership.register(
                self.incarnation.name,
                self.incarnation.shard,
                self.incarnation.host,
                self.incarnation.lock_path,
                self.incarnation.pid,
                self._door_host,
                door_port,
            )
        finally:
            await membership.stop()
        self._lease.beat()
        self._heartbeat.start()
        self._running = asyncio.create_task(self.shard.run())

    async def wait(self) -> None:
        """Until the shard stops, is declared dead, or breaks."""
        assert self._running is not None
        await asyncio.shield(self._running)  # whoever waits may stop waiting; the loop ends by `stop`

    async def stop(self) -> None:
        """Hand everything over, leave, and close every door."""
        await self.shard.stop()
        await self._door.stop()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        await self._heartbeat.stop()
        membership = self._make_membership()
        await membership.start()
        try:
            await membership.leave(self.incarnation.name)
        finally:
            await membership.stop()
        await self._receivers.stop()
        await self._store.stop()
        await self._log.stop()
        self.incarnation.end()


class TurnsProcess:
    """What goes on by turns in a process of its own (actors/turns.py), what looks beside it, and the doors of both."""

    _doors: Sequence[_Door] = ()
    _runs: Sequence[_Runs] = ()

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin in the background."""
        settle_garbage_collection()
        for door in self._doors:
            await door.start()
        self._running = [asyncio.create_task(each.run()) for each in self._runs]

    async def wait(self) -> None:
        """Until one stops, somebody else owns its partitions, or it breaks."""
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """End the turns under way, and close every door."""
        for each in self._runs:
            each.stop()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._ended()
        for door in reversed(self._doors):
            await door.stop()

    async def _ended(self) -> None:
        """No turn is under way any more; the doors are still open."""

    def views(self) -> tuple[list[Any], ...]:
        """What an operator sees of its partitions, by actor."""
        raise NotImplementedError


class CostProcess(TurnsProcess):
    """A cost actor, a margin actor behind it, and the watch over margin floors. Of `of` processes the one with this number has
    every partition whose number leaves it."""

    def __init__(self, number: int, of: int, owner: str, settings: Settings) -> None:
        super().__init__()
        cost, kafka = settings.cost, settings.kafka
        reader = topic_reader(settings)
        appender = TopicAppender(brokers(settings), {"costs": kafka.topic_costs})
        store, margins, floors = cost_store(settings), margin_store(settings), margin_floors(settings)
        training, alerts = training_runs(settings, store), postgres_store(settings)
        ours, clock = [partition for partition in range(kafka.partitions) if partition % of == number], SystemClock()
        self.actor = CostActor(
            owner,
            ours,
            clock=clock,
            reader=reader,
            appender=appender,
            store=store,
            control_key=settings.control_key_bytes(),
            kafka=kafka,
            horizons=cost_horizons(settings),
            changes_kept_us=cost.change_rows_days * 86_400_000_000,
            interval_s=cost.interval_s,
        )
        self.margin = MarginActor(
            owner,
            ours,
            clock=clock,
            reader=reader,
            store=margins,
            kafka=kafka,
            close_us=cost.close_s * 1_000_000,
            runs_kept_us=cost.run_rows_days * 86_400_000_000,
            interval_s=cost.interval_s,
        )
        receivers = alert_receivers(settings, clock, lambda: not self.margin.fenced)
        self._outbox = Outbox(
            clock, receivers, alerts, outbox_settings(settings), permitted=lambda: not self.margin.fenced
        )
        watch = FloorWatch(
            clock=clock,
            floors=floors,
            budgets=training,
            alerts=alerts,
            outbox=self._outbox,
            epoch=lambda: self.margin.epoch_of(0),
            partitions=kafka.partitions,
            settle_us=cost.settle_s * 1_000_000,
            close_us=cost.close_s * 1_000_000,
        )
        self._doors = (reader, appender, store, margins, floors, training, alerts, receivers)
        # Behind each other: what has been attributed is in the margin a moment later.
        self._runs = (OneBehindTheOther(clock, cost.interval_s, (self.actor, self.margin)), watch)

    async def _ended(self) -> None:
        await self._outbox.stop(OUTBOX_GRACE_S)

    def views(self) -> tuple[list[Any], ...]:
        return self.actor.views(), self.margin.views()


class ShadowProcess(TurnsProcess):
    """A shadow actor. Of `of` processes the one with this number has every partition whose number leaves it."""

    def __init__(self, number: int, of: int, owner: str, settings: Settings) -> None:
        super().__init__()
        kafka = settings.kafka
        reader, checkpoints, store = topic_reader(settings), stored_checkpoints(settings), shadows(settings)
        self._folder = TemporaryDirectory(prefix="tallygate-shadow-")
        self.actor = ShadowActor(
            owner,
            [partition for partition in range(kafka.partitions) if partition % of == number],
            clock=SystemClock(),
            reader=reader,
            checkpoints=checkpoints,
            store=store,
            kafka=kafka,
            control_key=settings.control_key_bytes(),
            interval_s=settings.shadow.interval_s,
            folder=Path(self._folder.name),
        )
        self._doors = (reader, checkpoints, store)
        self._runs = (self.actor,)

    async def _ended(self) -> None:
        self._folder.cleanup()

    def views(self) -> tuple[list[Any], ...]:
        return (self.actor.views(),)


class ControllerProcess:
    """The controller and its doors."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._roster = member_roster(settings)
        self._controller = Controller(
            name,
            partitions=settings.kafka.partitions,
            members_min=settings.shard.shards,
            roster=self._roster,
            deaths=LockDeaths(),
            clock=SystemClock(),
            settings=settings.lease,
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._roster.start()
        self._running = asyncio.create_task(self._controller.run())

    async def wait(self) -> None:
        """Until the controller stops, or breaks."""
        assert self._running is not None
        await asyncio.shield(self._running)

    async def stop(self) -> None:
        self._controller.stop()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        await self._roster.stop()
