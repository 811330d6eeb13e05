"""What hours cost and would have cost, from topics as they stand: a cost actor's own records and lines beside them."""

from collections.abc import AsyncGenerator

import msgspec
import pytest

from actors.ports import Record
from actors.whatif import Found, TooMuch, WhatIf, whole_hours
from config.settings import KafkaSettings
from engine.cost.attribution import TOPIC, Attribution
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import request_line, window_line
from engine.cost.margin import MarginFold
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.cost.token_costs import TokenClass
from engine.cost.whatif import Change, Scenario
from engine.cost.window import Bucket
from engine.events import Malformed, seal
from tests.actors.test_margin import rated
from tests.engine.cost.histories import HORIZONS, KEY, S, rates_document

H = 490_000 * HOUR_US  # the hour of the lines of tests/actors/test_margin.py
UP = ReplicaUp("r", "llama", (GpuPart("GPU-1", "h100"),), H - 90 * HOUR_US, H - 89 * HOUR_US)
NOW_US = H + HOUR_US + HORIZONS.settle_us + HORIZONS.window_us
NAMES = KafkaSettings()


class Kept(msgspec.Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Topics:
    """One partition each."""

    def __init__(self) -> None:
        self.records: dict[str, list[Kept]] = {
            name: [] for name in (NAMES.topic_served, NAMES.topic_gpu_telemetry, NAMES.topic_rated, NAMES.topic_costs)
        }

    def append(self, topic: str, at_us: int, key: bytes | None, value: bytes) -> None:
        kept = self.records[topic]
        kept.append(Kept(len(kept), at_us // 1_000, key, value))

    async def partitions(self, topic: str) -> int:
        return 1

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.records[topic])

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        kept = self.records[topic]
        return next((record.offset for record in kept if record.timestamp >= append_ms), len(kept))

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        for record in self.records[topic][offset:end]:
            yield record


class Deployment:
    """Long before the hour rates were published and a replica came up: only the checkpoint knows. In the hour it serves two
    requests, of which one is charged $4."""

    def __init__(self) -> None:
        self.topics = Topics()
        self.fold = Attribution(0, KEY, HORIZONS)
        self.fold.apply(seal(KEY, TOPIC, 0, msgspec.json.encode(rates_document())), b"rates", UP.up_us)
        key, value = encode_served(UP)
        self.fold.apply(value, key, UP.up_us)
        for name, begin_us, account in (("a", H + 9 * S, "acme"), ("b", H + 11 * S, "zen")):
            made = Served(name, "r", "llama", begin_us, begin_us + S, begin_us + 20 * S, 900, 100, 50, account=account)
            self.serve(made)
        sample = Sample(SourceKind.GPU, "GPU-1", H + 100 * S, {Metric.BUSY: 970})
        key, value = encode_sample(sample)
        self.fold.apply_sample(value, key, sample.time_us)
        self.topics.append(NAMES.topic_gpu_telemetry, sample.time_us, key, value)
        self.topics.append(NAMES.topic_served, H + 200 * S, b"r", b"{")  # the cost actor has set it aside
        self.topics.append(NAMES.topic_rated, H + 5 * S, b"acme", rated(1, "a", "4"))

    def serve(self, served: Served) -> None:
        key, value = encode_served(served)
        self.fold.apply(value, key, served.last_us)
        self.topics.append(NAMES.topic_served, served.last_us, key, value)

    def tell(self) -> None:
        """As the cost actor does, once all has settled."""
        published = self.fold.publish(NOW_US)
        lines = [window_line(window, "USD", 1, 1) for window in published.windows]
        lines += [request_line(cost, "USD", 1, 1) for cost in published.requests]
        self.topics.append(NAMES.topic_costs, NOW_US, b"r", b"\n".join(lines))

    async def blobs(self) -> dict[int, bytes]:
        return {0: self.fold.blob()}

    async def ask(self, change: Change, records_max: int | None = None) -> Found:
        whatif = WhatIf(self.topics, self, NAMES, KEY, HORIZONS)
        return await whatif.ask(Scenario(change), H, H + HOUR_US, NOW_US, records_max=records_max)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


async def test_it_comes_to_what_was_told(deployment: Deployment) -> None:
    deployment.tell()
    found = await deployment.ask(Change())
    assert (found.differs, found.currency, found.records) == ({}, "USD", 3)
    assert found.projection == found.actual
    assert found.actual.buckets[Bucket.UNATTRIBUTED] > 0
    assert sum(found.actual.buckets.values()) == 2_797_407_930_000  # $2.49, and 123,457 millionths of it
    (model,) = found.actual.models
    assert (model.requests, model.counts[TokenClass.UNCACHED_INPUT], model.unsplit) == (2, 1_600, 0)
    assert {line.account: line.revenue for line in found.actual.lines} == {"acme": 4 * 10**12, "zen": 0}


async def test_other_rates_cost_otherwise_and_change_nothing_that_was(deployment: Deployment) -> None:
    deployment.tell()
    found = await deployment.ask(Change(gpu_rates={"h100": "6"}, price_factors={"llama": "1.5"}))
    assert found.differs == {}
    assert sum(found.projection.buckets.values()) == 6 * 10**12
    assert [line.revenue for line in found.projection.lines] == [6 * 10**12, 0]
    assert [line.revenue for line in found.actual.lines] == [4 * 10**12, 0]


async def test_a_projection_may_earn_what_others_prices_say(deployment: Deployment) -> None:
    """Charges under another catalogue take the place of those that were: joined with the same costs, request by request."""
    deployment.tell()
    charged = MarginFold(None, H, H + HOUR_US)
    for line in (rated(1, "a", "3"), rated(2, "b", "2", account="zen"), rated(3, "nobody-served", "1")):
        charged.apply_rated(0, line, 0)
    whatif = WhatIf(deployment.topics, deployment, NAMES, KEY, HORIZONS)
    change = Scenario(Change(price_factors={"llama": "2"}))
    found = await whatif.ask(change, H, H + HOUR_US, NOW_US, charged=charged)
    assert [(line.account, line.revenue) for line in found.actual.lines] == [("acme", 4 * 10**12), ("zen", 0)]
    assert [(line.model, line.account, line.revenue, line.margin is None) for line in found.projection.lines] == [
        ("llama", "acme", 6 * 10**12, False),
        ("llama", "zen", 4 * 10**12, False),
        ("m", "acme", 10**12, True),
    ]


async def test_what_was_told_otherwise_is_said(deployment: Deployment) -> None:
    deployment.tell()
    blob = deployment.fold.blob()
    deployment.topics.records[NAMES.topic_served].clear()  # retention has passed it

    async def blobs() -> dict[int, bytes]:
        return {0: blob}

    deployment.blobs = blobs  # type: ignore[method-assign]
    found = await deployment.ask(Change())
    assert found.differs[Bucket.DIRECT] < 0
    assert sum(found.differs.values()) == 0


async def test_revenue_in_another_currency_stands_in_no_figure(deployment: Deployment) -> None:
    deployment.topics.append(NAMES.topic_rated, H + 6 * S, b"acme", rated(9, "b", "8", currency="EUR"))
    found = await deployment.ask(Change())
    assert found.other_currencies == ["EUR"]
    assert sum(line.revenue for line in found.actual.lines) == 4 * 10**12


async def test_what_comes_behind_the_close_of_its_hour_changes_nothing(deployment: Deployment) -> None:
    """An execution ends in an open hour and ran in a closed one, and its record is the one by which that one closes."""
    deployment.tell()
    before = await deployment.ask(Change())
    late_us = H + HOUR_US + HORIZONS.close_us
    long = Served("long", "r", "llama", H + 100 * S, H + 101 * S, late_us, 900, 0, 50, account="acme")
    deployment.topics.append(NAMES.topic_served, late_us, *encode_served(long))
    after = await deployment.ask(Change())
    assert (after.records, after.differs) == (before.records + 1, {})
    assert after.actual.buckets == before.actual.buckets


async def test_too_many_records_and_unknown_kinds_are_refused(deployment: Deployment) -> None:
    with pytest.raises(TooMuch, match="more than 2 records"):
        await deployment.ask(Change(), records_max=2)
    with pytest.raises(Malformed, match="h200"):
        await deployment.ask(Change(gpu_rates={"h200": "1"}))


async def test_before_anything_is_known_there_are_no_costs(deployment: Deployment) -> None:
    async def blobs() -> dict[int, bytes]:
        return {}

    deployment.blobs = blobs  # type: ignore[method-assign]
    found = await deployment.ask(Change())
    assert found.currency == ""
    assert found.actual.models[0].margin is None
    with pytest.raises(Malformed, match="no rates are published"):
        await deployment.ask(Change(gpu_rates={"h100": "1"}))


def test_hours_are_whole() -> None:
    assert whole_hours(1, 2 * HOUR_US) == (HOUR_US, 2 * HOUR_US)
    assert whole_hours(HOUR_US, HOUR_US + 1) == (HOUR_US, 2 * HOUR_US)
