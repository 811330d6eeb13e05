"""What a stretch of hours cost and earned by model and customer, and what it would have under a change: from the topics
`served`, `gpu-telemetry`, `rated` and `costs`, and the newest checkpoints of cost attribution. Only reads."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from msgspec import Struct

from actors.margin import Answer as Margins
from actors.margin import find_margins, with_costs
from actors.ports import Record
from config.settings import KafkaSettings
from engine.cost.attribution import AHEAD_US, Horizons, SetAside
from engine.cost.economics import Costs, Economics, Idle, Takings, economics
from engine.cost.gpu_rates import HOUR_US, GpuRates
from engine.cost.margin import By, MarginFold
from engine.cost.refold import Refold
from engine.cost.whatif import Scenario
from engine.cost.window import Bucket
from engine.periods import month_around

READ_MAX: Final = 5_000  # records that are folded at once
Say = Callable[[str], None]


class Reader(Protocol):
    """What is asked of Kafka: `TopicReader`."""

    async def partitions(self, topic: str) -> int: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class CostBlobs(Protocol):
    """What is asked of Postgres: `CostStore`."""

    async def blobs(self) -> dict[int, bytes]: ...


class TooMuch(Exception):
    """The stretch has more records than are read at once."""


class Found(Struct, frozen=True):
    """`actual`: what the records come to, with no request's idle share but in proportion. `projection`: under the change."""

    from_us: int
    until_us: int
    month_us: int  # the length of the calendar month that the stretch ends in
    currency: str  # "": no rates are known, and so no cost
    actual: Economics
    projection: Economics
    differs: dict[Bucket, int]  # actual less what the topic `costs` was told, where that is not 0
    other_currencies: list[str]  # of what was charged; it stands in no figure
    records: int


class WhatIf:
    """Asks one question at a time."""

    def __init__(
        self, reader: Reader, store: CostBlobs, kafka: KafkaSettings, control_key: bytes, horizons: Horizons
    ) -> None:
        self._reader = reader
        self._store = store
        self._kafka = kafka
        self._control_key = control_key
        self._horizons = horizons
        self._asking = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._asking.locked()

    async def ask(
        self,
        scenario: Scenario,
        from_us: int,
        until_us: int,
        now_us: int,
        *,
        charged: MarginFold | None = None,
        records_max: int | None = None,
        say: Say = lambda text: None,
    ) -> Found:
        """Of the hours that begin in [from_us, until_us); both begin one. `charged`: what requests of that time are charged in
        the projection, before price factors, in place of what they were; without costs. Raises Malformed for a kind of GPU
        that nobody has a rate of, TooMuch, LogUnavailable, LogDamaged, StoreUnavailable, StoreRefused."""
        async with self._asking:
            return await self._ask(scenario, from_us, until_us, now_us, charged, records_max, say)

    async def _ask(
        self,
        scenario: Scenario,
        from_us: int,
        until_us: int,
        now_us: int,
        charged: MarginFold | None,
        records_max: int | None,
        say: Say,
    ) -> Found:
        blobs = await self._store.blobs()
        partitions = range(await self._reader.partitions(self._kafka.topic_served))
        bare = [self._refold(partition, from_us, until_us, blobs, None) for partition in partitions]
        published = max((fold.rates for fold in bare if fold.rates), key=lambda rates: rates.version, default=None)
        rates = scenario.rates(None if published is None else published.document)
        actual, changed = Costs(), Costs()
        currency, records = "", 0
        for partition, fold in zip(partitions, bare, strict=True):
            folds = [fold]
            if rates is not None:
                folds.append(self._refold(partition, from_us, until_us, blobs, rates))
            count = None if records_max is None else records_max - records
            records += await self._fold_all(partition, folds, now_us, count)
            actual.add(fold.rows(), fold.token_costs())
            changed.add(folds[-1].rows(), folds[-1].token_costs())
            if fold.rates is not None:
                currency = fold.rates.currency
            say(f"partition {partition}: folded")
        kafka = self._kafka
        by = [By.ACCOUNT, By.MODEL]
        told = await find_margins(self._reader, kafka.topic_rated, kafka.topic_costs, from_us, until_us, by)
        projected = told
        if charged is not None:
            projected = await with_costs(charged, self._reader, kafka.topic_costs, from_us, until_us, by)
        month = month_around("UTC", 1, until_us - 1)
        found = economics(actual, _takings(told, currency), Idle())
        return Found(
            *(from_us, until_us, month[1] - month[0], currency),
            *(found, scenario.project(changed, _takings(projected, currency)), _differences(found, told, currency)),
            sorted({key.currency for key, sums in told.rows if sums.revenue} - {currency}),
            records,
        )

    def _refold(
        self, partition: int, from_us: int, until_us: int, blobs: dict[int, bytes], rates: GpuRates | None
    ) -> Refold:
        blob = blobs.get(partition)
        return Refold(partition, self._control_key, self._horizons, from_us, until_us, blob=blob, rates=rates)

    async def _fold_all(self, partition: int, folds: Sequence[Refold], now_us: int, count: int | None) -> int:
        """The records of a partition of `served`, and the samples that they want; how many records."""
        topic, fold, done = self._kafka.topic_served, folds[0], 0
        position = await self._reader.offset_from(topic, partition, fold.read_from_us // 1_000)
        end = await self._reader.offset_from(topic, partition, fold.read_until_us // 1_000)
        while True:
            some = [record async for record in _some(self._reader, topic, partition, position, end)]
            applied = await asyncio.to_thread(_apply, folds, some)
            done += applied
            if count is not None and done > count:
                raise TooMuch(f"partition {partition} of {topic} has more than {count} records of these hours")
            behind = some[-1].offset + 1 if some else end
            position = some[applied].offset if applied < len(some) else behind
            wanted_us = min(
                (each for each in [one.take_samples_from_us() for one in folds] if each is not None), default=None
            )
            if wanted_us is not None:
                await self._fold_samples(folds, wanted_us)
            if position >= end:
                await asyncio.to_thread(_finish, folds, now_us)
                return done
            await asyncio.to_thread(_settle, folds)

    async def _fold_samples(self, folds: Sequence[Refold], wanted_us: int) -> None:
        topic = self._kafka.topic_gpu_telemetry
        for partition in range(await self._reader.partitions(topic)):
            append_ms = max(0, wanted_us - AHEAD_US) // 1_000
            position = await self._reader.offset_from(topic, partition, append_ms)
            end = await self._reader.offset_from(topic, partition, folds[0].read_until_us // 1_000)
            while position < end:
                some = [record async for record in _some(self._reader, topic, partition, position, end)]
                await asyncio.to_thread(_apply_samples, folds, some)
                position = some[-1].offset + 1 if some else end


def _apply(folds: Sequence[Refold], records: Sequence[Record]) -> int:
    """How many of them: up to one by which hours close, or it would still change them."""
    for index, record in enumerate(records):
        if any(fold.reach(record.timestamp * 1_000) for fold in folds):
            return index
        for fold in folds:
            with suppress(SetAside):  # the cost actor has told of it
                fold.apply(record.value, record.key, record.timestamp * 1_000)
    return len(records)


def _apply_samples(folds: Sequence[Refold], records: Iterable[Record]) -> None:
    for record in records:
        for fold in folds:
            with suppress(SetAside):
                fold.apply_sample(record.value, record.key, record.timestamp * 1_000)


def _settle(folds: Sequence[Refold]) -> None:
    for fold in folds:
        fold.settle()


def _finish(folds: Sequence[Refold], now_us: int) -> None:
    for fold in folds:
        fold.finish(now_us)


def _takings(margins: Margins, currency: str) -> list[Takings]:
    return [
        Takings(key.model, key.account, sums.revenue, sums.without_cost + sums.foreign_cost)
        for key, sums in margins.rows
        if key.currency == currency
    ]


def _differences(found: Economics, told: Margins, currency: str) -> dict[Bucket, int]:
    differences = {bucket: found.buckets[bucket] - told.buckets.get((currency, bucket), 0) for bucket in Bucket}
    return {bucket: amount for bucket, amount in differences.items() if amount}


async def _some(reader: Reader, topic: str, partition: int, position: int, end: int) -> AsyncGenerator[Record, None]:
    """The first READ_MAX of them; then the reading is closed."""
    if position >= end:
        return
    records = reader.read(topic, partition, position, end)
    count = 0
    try:
        async for record in records:
            yield record
            count += 1
            if count >= READ_MAX:
                return
    finally:
        await records.aclose()


def whole_hours(from_us: int, until_us: int) -> tuple[int, int]:
    """The hours that begin in [from_us, until_us)."""
    return -(-from_us // HOUR_US) * HOUR_US, -(-until_us // HOUR_US) * HOUR_US
