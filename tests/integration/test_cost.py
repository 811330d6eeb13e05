"""Cost attribution on a real Kafka and a real Postgres: an owner that dies, one that takes over, and every pico of the bill."""

import asyncio
import os
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
from msgspec.structs import replace
from pydantic import SecretStr

from actors.assembly import CostProcess, cost_store, margin_store, topic_reader, topic_settings
from actors.clock import SystemClock
from actors.cluster import Cluster
from actors.cost_store import CostStore
from actors.deployment import until
from actors.kafka import Brokers, TopicAppender, create_topics
from actors.migrations import migrate
from actors.ports import Outgoing
from actors.records import Records
from config.settings import CostSettings, KafkaSettings, PostgresSettings, Settings, ShadowSettings
from config.stack.ray_local import RayLocal, record_ray
from config.stack.supervisor import Supervisor
from engine.catalog import (
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
    StreamDefinition,
)
from engine.cost.attribution import TOPIC
from engine.cost.gpu_rates import HOUR_US, parse_rates
from engine.cost.lines import RequestLine, WindowLine, parse_line
from engine.cost.margin import By, Margin
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.cost.window import Bucket
from engine.events import seal
from engine.meters.definitions import ConditionDefinition
from engine.money import parse_amount
from engine.placement import partition_for
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.engine.bench import Bench

PARTITIONS = 2
REPLICAS = ("llama-0", "llama-1", "llama-2")
HOME = partition_for(b"acme", PARTITIONS)
GPU = GpuPart("GPU-1", "h100")
RATES = msgspec.json.encode(
    {
        "version": 1,
        "currency": "USD",
        "rates": [{"kind": "h100", "from_us": 0, "per_hour": "2.49", "overhead_ppm": 50_000}],
        "profiles": {
            "llama": {"prefill_token_ps": 20_000_000, "decode_token_ps": 50_000_000, "context_read_ps": 43_000}
        },
    }
)


def settings_of(dsn: str, bootstrap: str) -> Settings:
    run = secrets.token_hex(4)
    names = {
        f"topic_{name}": f"{name}-{run}"
        for name in ("usage", "rated", "dead_letters", "served", "gpu_telemetry", "costs")
    }
    return Settings(
        control_key=SecretStr(secrets.token_hex(32)),
        postgres=PostgresSettings(dsn=SecretStr(dsn), schema_name=f"run_{run}"),
        kafka=KafkaSettings(bootstrap_servers=bootstrap, partitions=PARTITIONS, **names),
        cost=CostSettings(actors=1, interval_s=0.2),
        shadow=ShadowSettings(actors=1),
    )


def records_of(settings: Settings, begin_us: int, end_us: int) -> list[Outgoing]:
    """Three replicas since `begin_us`, requests on them until `end_us`, and samples of a GPU."""
    random = Random(5)
    found = [
        Outgoing("served", seal(settings.control_key_bytes(), TOPIC, number, RATES), b"rates", number)
        for number in range(PARTITIONS)
    ]
    records: list[Served | ReplicaUp] = [ReplicaUp(name, "llama", (GPU,), begin_us, begin_us) for name in REPLICAS]
    for number in range(300):
        scheduled = random.randrange(begin_us, end_us - 2_000_000)
        first, last = sorted(random.randrange(scheduled, end_us) for _ in range(2))
        account = random.choice(["acme", "zen", None])
        replica = random.choice(REPLICAS)
        records.append(Served(f"r-{number}", replica, "llama", scheduled, first, last, 500, 20, 80, account=account))
    for record in records:
        key, value = encode_served(record)
        found.append(Outgoing("served", value, key, partition_for(key, PARTITIONS)))
    for instant in range(begin_us, end_us, 15_000_000):
        key, value = encode_sample(Sample(SourceKind.GPU, "GPU-1", instant, {Metric.GRAPHICS_ACTIVE: 900}))
        found.append(Outgoing("gpu-telemetry", value, key))
    return found


def charges_of(records: Sequence[Outgoing]) -> list[Outgoing]:
    """A rated line for every request that somebody has asked for, told twice, and then by the owner of the next epoch."""
    found = []
    for number, record in enumerate(records):
        served = msgspec.json.decode(record.value or b"") if record.topic == "served" and record.key != b"rates" else {}
        account = served.get("account")
        if account is None:
            continue
        partition = partition_for(account.encode(), PARTITIONS)
        line = {"partition": partition, "offset": number, "line": 0, "account": account, "id": served["request"]}
        line |= {"time_us": served["last_us"], "currency": "USD", "cell": {"model": "llama"}, "plan": "growth"}
        for epoch, amount in ((1, "5"), (1, "5"), (2, "0.25")):
            value = msgspec.json.encode(line | {"epoch": epoch, "amount": amount})
            found.append(Outgoing("rated", value, account.encode(), partition))
    return found


async def lines_of(settings: Settings) -> list[RequestLine | WindowLine]:
    reader = topic_reader(settings)
    await reader.start()
    topic = settings.kafka.topic_costs
    try:
        blocks = [record for number in range(PARTITIONS) for record in await reader.read_all(topic, number)]
    finally:
        await reader.stop()
    return [parse_line(line) for block in blocks for line in (block.value or b"").splitlines()]


async def everything_read(store: CostStore, ends: Sequence[int]) -> bool:
    done = {status.partition: status.next_offset for status in await store.statuses()}
    return all(done.get(number, 0) >= end for number, end in enumerate(ends))


async def test_an_owner_dies_and_every_pico_is_still_somewhere_once(database: str, kafka: str) -> None:
    settings = settings_of(engine_dsn(database), kafka)
    await migrate(database, settings.postgres.schema_name, ENGINE_PASSWORD)
    await create_topics(Brokers(kafka), topic_settings(settings))
    names = settings.kafka
    topics = {"served": names.topic_served, "gpu-telemetry": names.topic_gpu_telemetry, "rated": names.topic_rated}
    appender = TopicAppender(Brokers(kafka), topics)
    store, margins = cost_store(settings), margin_store(settings)
    await appender.start()
    await store.start()
    await margins.start()
    now_us = SystemClock().wall_us()
    begin_us = now_us - 1_800_000_000
    records = records_of(settings, begin_us, now_us - 1_500_000_000)
    charges = charges_of(records)
    first, second = (CostProcess(0, 1, owner, settings) for owner in ("cost-0.1", "cost-0.2"))
    try:
        await appender.append([*records[:200], *charges[: len(charges) // 2]])
        await first.start()

        async def told() -> bool:
            return any(status.ckpt_seq for status in await store.statuses())

        await until(told, "a first checkpoint")
        await appender.append([*records[200:], *charges[len(charges) // 2 :]])
        await asyncio.sleep(0.1)
        await second.start()  # the first one lives on, and is refused
        await until(lambda: _done(first), "the first owner to find itself replaced")
        ends = [await _end(settings, number) for number in range(PARTITIONS)]
        await until(lambda: everything_read(store, ends), "everything to be read")
        await asyncio.sleep(1.0)

        async def joined() -> bool:
            found = [sums for _, sums in await margins.sums(0, now_us + HOUR_US, [])]
            return len(found) == 1 and (found[0].requests, found[0].without_cost) == (300, 0)

        await until(joined, "charges and costs to meet")
    finally:
        for process in (first, second):
            await process.stop()
        await appender.stop()
    assert first.actor.fenced
    assert not second.actor.fenced
    # All that is told of a window sums to what its GPU cost in it, by the rates alone.
    lines = await lines_of(settings)
    newest: dict[tuple[str, int], WindowLine] = {}
    shares: dict[tuple[str, str, int], RequestLine] = {}
    for line in sorted(lines, key=lambda line: (line.epoch, line.seq)):
        if isinstance(line, WindowLine):
            newest[line.replica, line.window_us] = line
        else:
            shares[line.replica, line.request, line.hour_us] = line
    rates = parse_rates(RATES)
    settled = [line for line in newest.values() if line.settled]
    assert len(settled) > 3 * 60
    for line in settled:
        start = max(line.window_us, begin_us)
        cost = rates.cost([GPU], start, line.window_us + 10_000_000)
        assert cost is not None and line.cost is not None
        assert parse_amount(line.cost) == sum(cost) == sum(map(parse_amount, line.buckets.values()))
    assert len({request for _, request, _ in shares}) == 300
    direct = sum(parse_amount(line.buckets[Bucket.DIRECT]) for line in newest.values())
    assert sum(parse_amount(line.amount or "0") for line in shares.values()) == direct > 0
    # The rows say the same, and their differences sum to them.
    rows = [row for number in range(PARTITIONS) for row in await store.rows(number, 0)]
    assert sum(sums.amount for key, sums in rows if key.bucket is Bucket.DIRECT) == direct
    assert sum(sums.requests for _, sums in rows) == 300
    for number in range(PARTITIONS):
        changes = await store.change_sums(number)
        assert changes == {key: sums.amount for key, sums in await store.rows(number, 0)}
    assert any(key.bucket is Bucket.UNATTRIBUTED and sums.amount for key, sums in rows), "the samples were read"
    by_account = {found.account: found.amount for found in await store.sums(0, now_us + HOUR_US, by=["account"])}
    assert set(by_account) == {"", "acme", "zen"}
    # What requests were charged beside what they cost: all of both topics, once.
    sums = {key.account: found for key, found in await margins.sums(0, now_us + HOUR_US, [By.ACCOUNT])}
    assert sum(found.known_cost for found in sums.values()) == direct
    assert {account: found.known_cost for account, found in sums.items()} == {
        account: sum(
            each.amount for key, each in rows if key.account == (account or None) and key.bucket is Bucket.DIRECT
        )
        for account in ("", "acme", "zen")
    }
    assert sum(found.revenue for found in sums.values()) == len(charges) // 3 * 10**12 // 4
    assert (sums[""].revenue, sums[""].without_revenue) == (0, sums[""].requests)
    assert all(isinstance(found, Margin) and not found.without_cost for found in sums.values())
    assert {key.plan for key, _ in await margins.sums(0, now_us + HOUR_US, [By.PLAN])} == {"", "growth"}
    await margins.stop()
    await store.stop()


OUTCOMES = CatalogueDocument(
    {"resolved": MeterDefinition("outcome", "count", when={"state": ConditionDefinition(one_of=("resolved",))})},
    {"agents": PlanDefinition("USD", {"resolved": PriceDefinition("resolved", "per_unit", {}, "0.99")})},
    streams={"outcome": StreamDefinition(604_800)},
)


async def test_an_outcome_is_reversed_and_the_cost_of_its_run_is_left(database: str, kafka: str) -> None:
    """Two conversations of an agent, served by a GPU and charged by their outcome; one of them is reopened."""
    settings = settings_of(engine_dsn(database), kafka)
    await migrate(database, settings.postgres.schema_name, ENGINE_PASSWORD)
    await create_topics(Brokers(kafka), topic_settings(settings))
    names = settings.kafka
    appender = TopicAppender(Brokers(kafka), {"served": names.topic_served, "rated": names.topic_rated})
    await appender.start()
    margins = margin_store(settings)
    await margins.start()
    records = Records(engine_dsn(database), settings.postgres.schema_name, PARTITIONS)
    await records.start()
    now_us = SystemClock().wall_us()
    begin_us = now_us - 1_800_000_000
    bench = Bench(OUTCOMES)
    bench.now = now_us - 60_000_000
    bench.open(plan="agents")
    process = CostProcess(0, 1, "cost-0.1", settings)

    def outcome(talk: str, seq: int, state: str) -> list[Outgoing]:
        data = {"state": state, "tags": {"run": talk}}
        assert bench.use(id=f"of-{talk}", type="outcome", at=bench.now, seq=seq, data=data) in ("rated", "amended")
        lines = [Outgoing("rated", line, b"acme", HOME) for _, line in bench.partition.outputs.lines]
        bench.partition.outputs.lines.clear()
        return lines

    async def told_of(talk: str, revenue: int, requests: int) -> bool:
        rows = await records.margin_of_run("acme", talk)
        return bool(rows) and (rows[0][1].revenue, rows[0][1].requests) == (revenue, requests)

    try:
        rates = [
            Outgoing("served", seal(settings.control_key_bytes(), TOPIC, number, RATES), b"rates", number)
            for number in range(PARTITIONS)
        ]
        served: list[Served | ReplicaUp] = [ReplicaUp(name, "llama", (GPU,), begin_us, begin_us) for name in REPLICAS]
        for number in range(40):
            at_us = begin_us + number * 5_000_000
            talk = None if number % 4 == 3 else f"talk-{number % 2}"
            served.append(
                Served(f"r-{number}", REPLICAS[number % 3], "llama", at_us, at_us + 1_000_000, at_us + 4_000_000, 500)
            )
            served[-1] = replace(served[-1], output=80, account="acme", feature="agent", run=talk)
        found = [(*encode_served(record), record.replica) for record in served]
        requests = [Outgoing("served", value, key, partition_for(key, PARTITIONS)) for key, value, _ in found]
        await appender.append([*rates, *requests, *outcome("talk-0", 1, "resolved"), *outcome("talk-1", 1, "resolved")])
        await process.start()
        await until(lambda: told_of("talk-0", 990_000_000_000, 21), "revenue and cost of one run to meet")
        await until(lambda: told_of("talk-1", 990_000_000_000, 11), "revenue and cost of the other run to meet")
        (of_run,) = await records.margin_of_run("acme", "talk-1")
        assert of_run[1].margin == 990_000_000_000 - of_run[1].known_cost
        assert (of_run[1].without_cost, of_run[1].without_revenue) == (0, 0)
        await appender.append(outcome("talk-1", 2, "reopened"))
        await until(lambda: told_of("talk-1", 0, 11), "what was charged to be given back")
        (reversed_run,) = await records.margin_of_run("acme", "talk-1")
        cost = of_run[1].known_cost
        assert (reversed_run[1].revenue, reversed_run[1].known_cost, reversed_run[1].margin) == (0, cost, -cost)
        # Of the same requests the rows of the margin have each charge and each cost once, whatever run they are of.
        lines = await lines_of(settings)
        costs: dict[tuple[str, int], RequestLine] = {}
        for line in sorted(lines, key=lambda line: (line.epoch, line.seq)):
            if isinstance(line, RequestLine):
                costs[line.request, line.hour_us] = line
        by_run: dict[str, int] = {}
        for line in costs.values():
            by_run[line.run or ""] = by_run.get(line.run or "", 0) + parse_amount(line.amount or "0")
        ((_, whole),) = await margins.sums(0, now_us + HOUR_US, [])
        assert (whole.revenue, whole.known_cost) == (990_000_000_000, sum(by_run.values()))
        assert (whole.requests, whole.without_cost, whole.without_revenue) == (42, 0, 10)
        runs = {key.run: sums.known_cost for key, sums in await margins.sums(0, now_us + HOUR_US, [By.RUN])}
        assert runs == {talk: pico for talk, pico in by_run.items() if talk} and cost == by_run["talk-1"] > 0
    finally:
        await process.stop()
        await records.stop()
        await margins.stop()
        await appender.stop()


async def test_a_cost_actor_of_the_cluster_comes_back_by_itself(
    database: str, kafka: str, ray_local: RayLocal, supervisor: Supervisor, tmp_path: Path
) -> None:
    settings = settings_of(engine_dsn(database), kafka)
    await migrate(database, settings.postgres.schema_name, ENGINE_PASSWORD)
    await create_topics(Brokers(kafka), topic_settings(settings))
    names = settings.kafka
    appender = TopicAppender(Brokers(kafka), {"served": names.topic_served, "gpu-telemetry": names.topic_gpu_telemetry})
    store = cost_store(settings)
    await appender.start()
    await store.start()
    now_us = SystemClock().wall_us()
    records = records_of(settings, now_us - 1_800_000_000, now_us - 1_500_000_000)
    cluster = Cluster(settings, tmp_path, f"cost-{secrets.token_hex(3)}")
    try:
        await cluster.start()
        record_ray(supervisor)
        await appender.append(records[:200])
        await until(lambda: _read_to_the_end(settings, store), "the first records to be attributed")
        (before,) = await cluster.cost_statuses()
        (shadow,) = await cluster.shadow_statuses()
        assert (shadow.name, shadow.partitions) == ("shadow-0", []), "nothing is to be followed"
        os.kill(before.pid, signal.SIGKILL)
        await appender.append(records[200:])
        await until(lambda: _read_to_the_end(settings, store), "the actor to come back and to read the rest")
        (after,) = await cluster.cost_statuses()
        assert after.pid != before.pid
        assert [view.epoch for view in after.partitions] == [view.epoch + 1 for view in before.partitions]
        rows = [row for number in range(PARTITIONS) for row in await store.rows(number, 0)]
        assert sum(sums.requests for _, sums in rows) == 300
    finally:
        await cluster.stop()
        await appender.stop()
        await store.stop()


async def _read_to_the_end(settings: Settings, store: CostStore) -> bool:
    return await everything_read(store, [await _end(settings, number) for number in range(PARTITIONS)])


async def _done(process: CostProcess) -> bool:
    return process.actor.fenced


async def _end(settings: Settings, number: int) -> int:
    reader = topic_reader(settings)
    await reader.start()
    try:
        return (await reader.bounds(settings.kafka.topic_served, number))[1]
    finally:
        await reader.stop()
