"""The demo: the main job on real Kafka, Postgres and Ray, with a shard killed in the middle, checked to the last digit.

set up    Postgres, Kafka, Ray and Serve of this run's own (or the operator's), catalogue, accounts
run       the workload at its own pace, a tenth of its requests over HTTP by gateways that hold before they spend; in
          the middle one shard process gets SIGKILL, later one replica of the API
settle    until nothing is in flight and no hold is open; then the shards hand over in order
check     an independent oracle folds the same log; every amount, every alert id, every answer to a check is compared
margin    a generated GPU fleet has served the same requests: what they earned stands beside what they cost, and all of the
          fleet's bill is somewhere, to the last pico
"""

import asyncio
import base64
import os
import platform
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import uvloop
from msgspec import Struct
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from actors.assembly import cost_store, fleet_appender, kafka_log, postgres_store, topic_reader
from actors.clock import SystemClock
from actors.cluster import Cluster, ShardStatus
from actors.deployment import NotReady, all_ready, deployed, lay_ground, until
from actors.kafka import KafkaLog
from actors.ports import LogUnavailable, Outgoing, StoreRefused, StoreUnavailable
from actors.postgres import PostgresStore
from actors.publication import publish
from config.catalogue import load_file
from config.settings import Settings
from config.stack.embedded import fresh_stack
from config.stack.kafka import KafkaUnavailable
from config.stack.ports import free_ports
from config.stack.postgres import PostgresUnavailable
from config.stack.ray_local import join_ray, record_ray, start_ray
from config.stack.supervisor import RunFolderInUse, Supervisor
from engine.catalog import document_json
from engine.cost.window import Bucket
from engine.events import seal
from engine.money import amount_text
from engine.placement import partition_for
from loadtest.cost_sight import CostSight, Delays
from loadtest.drive import Driver
from loadtest.gateways import wallets
from loadtest.gpu_fleet import GpuFleet
from loadtest.held import HeldTraffic
from loadtest.live import LiveView, Moment, Near
from loadtest.margin_table import Earned, charges, cost_rows, earned, margin_rows, show
from loadtest.receiver import Receiver
from loadtest.report import percentiles
from loadtest.verify import verify
from loadtest.workload import Workload

EVENTS_PER_S: Final = 2_000  # offered; two cores share it with broker, database, Serve, the gateways and this driver
HELD_PART: Final = 10  # every tenth request is asked for over HTTP, and held
HOLD_TTL_S: Final = 5.0  # short, like the report delay, so that the run's end need not wait long for what crashed
REPORT_DELAY_S: Final = 5.0
TAKEOVER_TIMEOUT_S: Final = 60.0
COSTS_SETTLE_S: Final = 10  # a window that has settled is worked out anew at once; else the rarer the older it is
COSTS_TIMEOUT_S: Final = 60.0
EXPIRY_TIMEOUT_S: Final = 60.0  # ttl, report delay and 5 s between them; a tick moves log time
LOOK_EVERY_S: Final = 0.5
FAIL_SHARE: Final = 0.02  # of webhook attempts that the receiver answers with 503, to exercise the retries
CONTROL_BATCH: Final = 500
SETUP_US: Final = 3_000_000  # opening the accounts takes about this long; a lot that expires early is refused
INTERRUPTED: Final = 130  # as a shell has it
CATALOGUE_VERSION: Final = 1
CATALOGUE_FILE: Final = Path(__file__).resolve().parents[1] / "config" / "catalogue.example.yaml"


class DemoOptions(Struct, frozen=True):
    """What `tallygate demo` was asked for."""

    events: int = 200_000
    customers: int = 1_000
    seed: int = 1
    kill: bool = True
    live: bool = True
    report: Path = Path("build/demo.json")
    run_dir: Path = Path("build/run")


class DemoFailed(Exception):
    """The run could not be completed; the message says what was waited for."""


class Figures(Struct):
    """`build/demo.json`."""

    sent: int
    rated: int
    duplicate: int
    dead_lettered: int
    forwarded: int
    lost: int
    double: int
    oracle_equal: bool
    alerts_missing: int
    alerts_extra: int
    events_per_s: float
    append_to_webhook_ms: dict[str, float | None]
    takeover_s: float | None
    check_ms: dict[str, float | None]
    allowed: int
    denied: int
    overspend: int  # pico beyond the wallets of the customers whose whole usage was held
    holds_open_at_end: int
    gpu_bill: str  # of the generated fleet, decimal text
    gpu_cost_of_requests: str
    cost_visible_ms: dict[str, float | None]  # from the append of what was served until its cost stands in the margin
    revenue: str
    rss_mib: float
    seconds: float
    details: dict[str, Any]


def run(settings: Settings, options: DemoOptions) -> int:
    """The whole demo; 0 when every check holds. What it started is stopped, however it ends."""
    console = Console()
    try:
        return _run(settings, options, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been stopped")
        return INTERRUPTED
    except (
        DemoFailed,
        KafkaUnavailable,
        LogUnavailable,
        NotReady,
        PostgresUnavailable,
        RunFolderInUse,
        StoreRefused,
        StoreUnavailable,
    ) as failure:
        console.print(f"FAILED  {failure}", highlight=False, markup=False)
        return 1


def _run(settings: Settings, options: DemoOptions, console: Console) -> int:
    with Supervisor(options.run_dir, say=lambda line: console.print(line, highlight=False)) as supervisor:
        prepared = _prepare(supervisor, settings)
        if prepared.ray_address is None:
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2, prepared.shard.shards), serve=True)
        else:
            join_ray(prepared.ray_address)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own, which would skip our clean-up
        return uvloop.run(_Demo(supervisor, prepared, options, console).run())


def _prepare(supervisor: Supervisor, settings: Settings) -> Settings:
    """The operator's settings, or an embedded stack; topics and schema of this run's own either way."""
    complete = fresh_stack(supervisor, settings)
    run = secrets.token_hex(3)
    kafka = complete.kafka.model_copy(
        update={
            "topic_usage": f"{complete.kafka.topic_usage}-demo-{run}",
            "topic_rated": f"{complete.kafka.topic_rated}-demo-{run}",
            "topic_dead_letters": f"{complete.kafka.topic_dead_letters}-demo-{run}",
            "topic_served": f"{complete.kafka.topic_served}-demo-{run}",
            "topic_gpu_telemetry": f"{complete.kafka.topic_gpu_telemetry}-demo-{run}",
            "topic_costs": f"{complete.kafka.topic_costs}-demo-{run}",
        }
    )
    postgres = complete.postgres.model_copy(update={"schema_name": f"tallygate_demo_{run}"})
    api = complete.api.model_copy(update={"port": free_ports(1)[0]})
    shard = complete.shard.model_copy(update={"hold_ttl_max_s": HOLD_TTL_S, "report_delay_s": REPORT_DELAY_S})
    cost = complete.cost.model_copy(update={"actors": max(1, complete.cost.actors), "settle_s": COSTS_SETTLE_S})
    update = {"kafka": kafka, "postgres": postgres, "api": api, "shard": shard, "cost": cost}
    return complete.model_copy(update=update)


class _Demo:
    def __init__(self, supervisor: Supervisor, settings: Settings, options: DemoOptions, console: Console) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._options = options
        self._console = console
        self._clock = SystemClock()
        self._started_s = self._clock.boot_s()
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._receiver = Receiver(self._secret, fail_share=FAIL_SHARE, seed=options.seed)
        self._sight = CostSight(settings, self._clock)
        self._takeover_s: float | None = None
        self._killed = ""
        self._killed_replica: int | None = None
        self._holds_open = 0
        self._misplaced: list[str] = []  # money of the margin table that is not where it should be
        self._rss_mib = 0.0
        self._cpu_s: dict[str, float] = {}

    async def run(self) -> int:
        await self._receiver.start()
        try:
            self._settings = await self._lay_tables()
            self._sight = CostSight(self._settings, self._clock)
            document = load_file(CATALOGUE_FILE)
            catalogue = document_json(document)
            lock_dir = self._options.run_dir.resolve() / "locks"
            async with self._doors() as (log, store, fleet):
                workload, held = self._workloads(orjson.loads(catalogue), fleet)
                async with deployed(self._settings, lock_dir, self._say) as cluster:
                    if self._settings.ray_address is None:
                        record_ray(self._supervisor)
                    async with held.opened():
                        driver, seconds = await self._main_job(cluster, log, store, workload, held, fleet)
                self._say("checking: the oracle folds the same log")
                until_us = self._clock.wall_us()
                margin = await earned(self._settings, fleet.up_us, until_us, fleet.bill())
                delays = await self._sight.delays()
                figures, differences = await self._check(store, catalogue, driver, held, margin, delays, seconds)
        finally:
            await self._receiver.stop()
        return self._report(figures, differences, margin)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False)

    # --------------------------------------------------------------------------------------------------- setting up

    async def _lay_tables(self) -> Settings:
        """Tables, the engine's own role, topics; the settings that the shards get."""
        settings = await lay_ground(self._settings)
        webhooks = settings.webhooks.model_copy(
            update={
                "url": self._receiver.url,
                "secret": SecretStr(self._secret),
                "allow_loopback": True,
                "backoff_base_s": 0.2,
            }
        )
        return settings.model_copy(update={"webhooks": webhooks})

    def _workloads(self, catalogue: dict[str, Any], fleet: GpuFleet) -> tuple[Workload, HeldTraffic]:
        """What goes straight into the log, and what is held first; customers of either kind use nothing of the other."""
        options, partitions = self._options, self._settings.kafka.partitions
        trace = self._settings.trace or _default_trace()
        duration_s = options.events / EVENTS_PER_S
        events, customers = options.events // HELD_PART, max(1, options.customers // HELD_PART)
        try:
            workload = Workload(
                options.seed,
                options.events - events,
                options.customers,
                trace,
                duration_s,
                catalogue=catalogue,
                partitions=partitions,
            )
            asking = Workload(
                options.seed + 1,
                events,
                customers,
                trace,
                duration_s,
                catalogue=catalogue,
                partitions=partitions,
                prefix="gw",
            )
        except (OSError, ValueError) as error:
            raise DemoFailed(f"the workload cannot be made: {error}") from error
        self._say(f"workload: {workload.origin}")
        return workload, HeldTraffic(self._settings, self._clock, asking, ttl_s=HOLD_TTL_S, ran=fleet.serve)

    @asynccontextmanager
    async def _doors(self) -> AsyncIterator[tuple[KafkaLog, PostgresStore, GpuFleet]]:
        log, store, appender = kafka_log(self._settings), postgres_store(self._settings), fleet_appender(self._settings)
        async with AsyncExitStack() as stack:
            for door in (log, store, appender):
                await door.start()
                stack.push_async_callback(door.stop)
            yield log, store, GpuFleet(self._settings, self._clock, appender)

    def _sealed(self, partition: int, body: bytes) -> bytes:
        return seal(self._settings.control_key_bytes(), self._settings.kafka.topic_usage, partition, body)

    async def _open_accounts(
        self, cluster: Cluster, log: KafkaLog, store: PostgresStore, commands: list[dict[str, Any]]
    ) -> None:
        partitions = self._settings.kafka.partitions
        await publish(
            load_file(CATALOGUE_FILE),
            store=store,
            log=log,
            clock=self._clock,
            topic=self._settings.kafka.topic_usage,
            control_key=self._settings.control_key_bytes(),
        )
        for start in range(0, len(commands), CONTROL_BATCH):
            records = []
            for command in commands[start : start + CONTROL_BATCH]:
                key = command["account"].encode()
                home = partition_for(key, partitions)
                records.append(Outgoing("usage", self._sealed(home, orjson.dumps(command)), key, home))
            await log.append(records)

        async def answered() -> bool:
            counts = _counts(await cluster.statuses())
            refused = sum(count for name, count in counts.items() if name.startswith("refused"))
            return counts["applied"] + refused >= len(commands)

        await until(answered, f"{len(commands):,} commands to be applied")

    # ------------------------------------------------------------------------------------------------- the main job

    async def _main_job(
        self,
        cluster: Cluster,
        log: KafkaLog,
        store: PostgresStore,
        workload: Workload,
        held: HeldTraffic,
        fleet: GpuFleet,
    ) -> tuple[Driver, float]:
        """Run it; the driver, and the seconds from the first record sent to the last one rated."""
        setup = wallets(held.workload) + workload.setup(self._clock.wall_us() + SETUP_US)
        await self._open_accounts(cluster, log, store, setup)
        key, topic = self._settings.control_key_bytes(), self._settings.kafka.topic_usage
        driver = Driver(log, self._clock, topic, key, fleet.note)
        await fleet.start()
        serving = asyncio.create_task(fleet.run())
        with LiveView(self._console, self._options.live) as view:
            started_s = self._clock.boot_s()
            driving = asyncio.gather(driver.run(workload), held.run())
            watching = asyncio.create_task(self._watch(cluster, log, store, driver, view, started_s))
            looking = asyncio.create_task(self._sight.watch())
            try:
                if self._options.kill:
                    await self._clock.sleep(workload.duration_s / 2)
                    await self._kill_one(cluster, view)
                    await self._clock.sleep(started_s + workload.duration_s * 3 / 4 - self._clock.boot_s())
                    self._killed_replica = await held.kill_replica()
                    view.say(f"SIGKILL to a replica of the API (pid {self._killed_replica}); Serve makes another")
                await driving
                await fleet.end()
                await until(lambda: self._settled(cluster, log), "the log to be rated to its end")
                seconds = self._clock.boot_s() - started_s
                await self._expired(held, view)
                await until(lambda: self._told(cluster, store), "every alert to be delivered")
                await self._costs_told(fleet, view)
            finally:
                tasks = (driving, watching, serving, looking)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return driver, seconds

    async def _costs_told(self, fleet: GpuFleet, view: LiveView) -> None:
        """Wait until the cost actors have read all that the fleet told, and have worked out all of its time."""
        view.say("waiting for the cost of every request")
        deadline_s = self._clock.boot_s() + COSTS_TIMEOUT_S
        while not await self._costs_read() or not await self._margin_told(fleet):
            if self._clock.boot_s() > deadline_s:
                view.say("the cost of some is still missing")  # the check at the end says what is wrong
                return
            await self._clock.sleep(LOOK_EVERY_S)

    async def _costs_read(self) -> bool:
        reader, costs = topic_reader(self._settings), cost_store(self._settings)
        async with AsyncExitStack() as stack:
            for door in (reader, costs):
                await door.start()
                stack.push_async_callback(door.stop)
            done = {status.partition: status.next_offset for status in await costs.statuses()}
            for number in range(self._settings.kafka.partitions):
                _, end = await reader.bounds(self._settings.kafka.topic_served, number)
                if done.get(number, 0) < end:
                    return False
        return True

    async def _margin_told(self, fleet: GpuFleet) -> bool:
        now_us = self._clock.wall_us()
        rows = await cost_rows(self._settings, fleet.up_us, now_us)
        if sum(row.requests for row in rows) != fleet.served or sum(row.amount for row in rows) != fleet.bill():
            return False
        direct = sum(row.amount for row in rows if row.bucket == Bucket.DIRECT)
        margins = [sums for _, sums in await margin_rows(self._settings, fleet.up_us, now_us)]
        return direct == sum(sums.known_cost for sums in margins) and not any(sums.without_cost for sums in margins)

    async def _expired(self, held: HeldTraffic, view: LiveView) -> None:
        """Wait until the holds of gateways that crashed are free again; what stays open after that has leaked."""
        view.say("waiting for the holds that nobody settled to expire")
        deadline_s = self._clock.boot_s() + EXPIRY_TIMEOUT_S
        while (count := await held.open_holds()) != 0 and self._clock.boot_s() < deadline_s:
            await self._clock.sleep(LOOK_EVERY_S)
        if count is None:
            raise DemoFailed("not every partition's owner says how many holds are open")
        self._holds_open = count

    async def _all_ready(self, cluster: Cluster) -> bool:
        return await all_ready(cluster, self._settings.kafka.partitions)

    async def _settled(self, cluster: Cluster, log: KafkaLog) -> bool:
        """Every record that is in the log now has been applied and is in a checkpoint."""
        if not await self._all_ready(cluster):
            return False
        ends = await self._log_ends(log)
        views = [view for status in await cluster.statuses() for view in status.partitions]
        return all(view.checkpointed_offset >= ends[view.partition] for view in views)

    async def _told(self, cluster: Cluster, store: PostgresStore) -> bool:
        counts = _counts(await cluster.statuses())
        outbox = await store.outbox_counts()
        made = counts["alert_crossed"] + counts["alert_recovered"]
        return outbox.waiting == 0 and outbox.delivered + outbox.given_up > 0 if made else True

    async def _log_ends(self, log: KafkaLog) -> dict[int, int]:
        return {number: (await log.bounds(number))[1] for number in range(self._settings.kafka.partitions)}

    async def _kill_one(self, cluster: Cluster, view: LiveView) -> None:
        """SIGKILL to a shard that owns partitions; how long until a live one speaks for all of them."""
        victim = max(await cluster.statuses(), key=lambda status: (len(status.partitions), status.shard))
        lost = {partition.partition for partition in victim.partitions}
        killed_s = self._clock.boot_s()
        os.kill(victim.pid, signal.SIGKILL)
        self._killed = victim.shard
        view.say(
            f"SIGKILL to {victim.shard} (pid {victim.pid}), owner of partitions {sorted(lost)}; Ray reports the death, too"
        )

        async def taken_over() -> bool:
            ready = {
                partition.partition: partition.ready_s
                for status in await cluster.statuses()
                if status.incarnation != victim.incarnation
                for partition in status.partitions
                if partition.partition in lost and partition.ready_s is not None and partition.ready_s > killed_s
            }
            if ready.keys() != lost:
                return False
            self._takeover_s = max(ready.values()) - killed_s
            return True

        await until(taken_over, f"a live shard to take over partitions {sorted(lost)}", TAKEOVER_TIMEOUT_S)
        view.say(f"a live shard speaks for all of them {self._takeover_s:.2f} s after the kill")

    async def _watch(
        self, cluster: Cluster, log: KafkaLog, store: PostgresStore, driver: Driver, view: LiveView, started_s: float
    ) -> None:
        rated, looked_s = 0, started_s
        while True:
            statuses = await cluster.statuses()
            ends = await self._log_ends(log)
            views = {partition.partition: partition for status in statuses for partition in status.partitions}
            counts = _counts(statuses)
            now_s = self._clock.boot_s()
            self._rss_mib = max(self._rss_mib, sum(status.rss_mib for status in statuses))
            for status in statuses:
                self._cpu_s[status.incarnation] = status.cpu_s
            view.show(
                Moment(
                    now_s - started_s,
                    "rating",
                    driver.sent,
                    counts["rated"],
                    max(0, counts["rated"] - rated) / max(0.001, now_s - looked_s),
                    sum(max(0, end - views[number].next_offset) for number, end in ends.items() if number in views),
                    len(self._receiver.alerts),
                    await store.depleted(),
                    "   ".join(
                        f"{status.shard}: {len(status.partitions)} partitions, {status.rss_mib:.0f} MiB"
                        for status in statuses
                    ),
                    [
                        Near(balance.account, amount_text(balance.balance), amount_text(balance.spend))
                        for balance in await store.nearest_depletion(8)
                    ],
                )
            )
            rated, looked_s = counts["rated"], now_s
            await self._clock.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------------------------------------------------- checks

    async def _check(
        self,
        store: PostgresStore,
        catalogue: bytes,
        driver: Driver,
        held: HeldTraffic,
        margin: Earned,
        delays: Delays,
        seconds: float,
    ) -> tuple[Figures, list[str]]:
        started_s = self._clock.boot_s()
        verdict = await verify(
            self._settings,
            store,
            {CATALOGUE_VERSION: catalogue},
            self._receiver.alerts,
            processes=os.cpu_count() or 1,
            say=self._say,
            journal=held.journal,
        )
        counts, asked = verdict.counts, held.judge(verdict)
        self._misplaced = margin.wrong(charges(verdict.rated.values()))
        differences = [*verdict.differences, *asked.sentences]
        delays_ms = [
            (alert.arrived_us - alert.body["data"]["log_time_us"]) / 1000 for alert in self._receiver.alerts.values()
        ]
        dead = sum(count for name, count in counts.items() if name.startswith("dead_lettered"))
        figures = Figures(
            sent=driver.sent,
            rated=counts["rated"],
            duplicate=counts["duplicate"],
            dead_lettered=dead,
            forwarded=counts["forwarded"],
            lost=verdict.lost,
            double=verdict.double,
            oracle_equal=not differences,
            alerts_missing=verdict.alerts_missing,
            alerts_extra=verdict.alerts_extra,
            events_per_s=round(counts["rated"] / seconds, 1),
            append_to_webhook_ms=percentiles(delays_ms),
            takeover_s=None if self._takeover_s is None else round(self._takeover_s, 3),
            check_ms=asked.check_ms,
            allowed=asked.allowed,
            denied=asked.denied,
            overspend=asked.overspend,
            holds_open_at_end=self._holds_open,
            gpu_bill=amount_text(margin.bill),
            gpu_cost_of_requests=amount_text(margin.request_cost),
            cost_visible_ms=delays.figures()["margin"],
            revenue=amount_text(margin.revenue),
            rss_mib=round(self._rss_mib, 1),
            seconds=round(seconds, 2),
            details={
                "killed": self._killed,
                "killed_replica": self._killed_replica,
                "denied_by_reason": asked.reasons,
                "held_requests": asked.fates,
                "answers_held_against_the_oracle": asked.answers_backed,
                "http_retries": asked.retries,
                "gateways_behind_s": asked.behind_s,
                "cost_on_its_topic_ms": delays.figures()["topic"],
                "costs_never_seen": delays.unseen,
                "gpu_buckets": {bucket: amount_text(amount) for bucket, amount in sorted(margin.buckets.items())},
                "margin_permille_by_model": {key.model: sums.permille for key, sums in margin.by_model},
                "sent_by_kind": dict(driver.counts),
                "outcomes": dict(sorted(counts.items())),
                "alerts": len(self._receiver.alerts),
                "alert_repeats": self._receiver.repeats,
                "webhook_bad_signatures": self._receiver.rejected,
                "webhook_refused_on_purpose": self._receiver.failed,
                "check_seconds": round(self._clock.boot_s() - started_s, 1),
                "driver_behind_s": round(driver.behind_s, 3),
                "shard_cpu_s": {name: round(value, 1) for name, value in self._cpu_s.items()},
                "total_seconds": round(self._clock.boot_s() - self._started_s, 1),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "origin": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        return figures, differences

    def _report(self, figures: Figures, differences: list[str], margin: Earned) -> int:
        checks = {
            "no event lost": figures.lost == 0,
            "no event rated twice": figures.double == 0,
            "every balance, lot, counter, posting and answer to a check equals the oracle": figures.oracle_equal,
            "no alert missing": figures.alerts_missing == 0,
            "no alert too many": figures.alerts_extra == 0,
            "alerts arrived, and every signature held": bool(self._receiver.alerts and not self._receiver.rejected),
            "requests were allowed and denied, and nobody overspent": bool(
                figures.allowed and figures.denied and figures.overspend == 0
            ),
            "every request's cost is known, and with what was idle it is the fleet's bill": not self._misplaced,
            "no hold is left open": figures.holds_open_at_end == 0,
            "a live shard took over from the killed one": not self._options.kill or figures.takeover_s is not None,
        }
        self._options.report.parent.mkdir(parents=True, exist_ok=True)
        self._options.report.write_bytes(
            orjson.dumps(msgspec.to_builtins(figures), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        table = Table(title="tallygate demo", title_justify="left", show_header=False)
        for name in figures.__struct_fields__:
            if name != "details":
                table.add_row(name, str(getattr(figures, name)))
        self._console.print(table)
        show(self._console, margin)
        for text, holds in checks.items():
            self._console.print(f"{'ok    ' if holds else 'FAILED'}  {text}", highlight=False)
        for sentence in [*differences[:20], *self._misplaced]:
            self._console.print(f"  {sentence}", highlight=False, markup=False)
        self._console.print(f"written to {self._options.report}", highlight=False)
        return 0 if all(checks.values()) else 1


def _counts(statuses: list[ShardStatus]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for status in statuses:
        for partition in status.partitions:
            counts.update(partition.counts)
    return counts


def _default_trace() -> Path | None:
    """The trace beside a checkout, where there is one."""
    path = Path(__file__).resolve().parents[2] / "shared" / "traces" / "azure_llm_2023_conv.csv"
    return path if path.exists() else None
