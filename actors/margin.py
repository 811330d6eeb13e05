"""Revenue and cost from the topics `rated` and `costs`: what a stretch of time has earned, request by request."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.ports import Record
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, WindowLine, parse_line
from engine.cost.margin import By, Key, Margin, MarginFold
from engine.cost.window import Bucket
from engine.events import Malformed
from engine.money import parse_amount
from engine.placement import partition_for


class Reader(Protocol):
    """The part of the topics' reader that is needed."""

    async def partitions(self, topic: str) -> int: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class TooMuch(Exception):
    """More would have to be read than one question may cost."""


AROUND_US: Final = HOUR_US // 2
EVENT_RECORDS_MAX: Final = 50_000  # blocks of many lines


class Answer(Struct, frozen=True):
    """Sums over the requests of the stretch, and what its windows cost beside them."""

    rows: list[tuple[Key, Margin]]
    buckets: dict[tuple[str, Bucket], int]  # pico by currency and bucket, as far as it is known
    windows_without_cost: int
    unreadable: int


async def find_margins(reader: Reader, rated: str, costs: str, from_us: int, until_us: int, by: Sequence[By]) -> Answer:
    """Of requests rated, and hours and windows that begin, in [from_us, until_us), both of which begin an hour. Raises
    LogUnavailable."""
    fold = MarginFold(None, from_us, until_us)
    for partition in range(await reader.partitions(rated)):
        async for record in _of(reader, rated, partition, from_us):
            for text in (record.value or b"").splitlines():
                fold.apply_rated(partition, text, record.timestamp * 1_000)
    return await with_costs(fold, reader, costs, from_us, until_us, by)


async def with_costs(
    fold: MarginFold, reader: Reader, costs: str, from_us: int, until_us: int, by: Sequence[By]
) -> Answer:
    """The charges that the fold has, with what their requests cost. Raises LogUnavailable."""
    unreadable = 0
    windows: dict[tuple[str, int], WindowLine] = {}
    for partition in range(await reader.partitions(costs)):
        async for record in _of(reader, costs, partition, from_us):
            for text in (record.value or b"").splitlines():
                try:
                    told = parse_line(text)
                    if isinstance(told, RequestLine):
                        fold.apply_cost(told)
                    elif from_us <= told.window_us < until_us:
                        _keep_newest(windows, told)
                except (msgspec.MsgspecError, Malformed):
                    unreadable += 1
    buckets: dict[tuple[str, Bucket], int] = {}
    without = 0
    for window in windows.values():
        if window.cost is None:
            without += 1
        if window.currency is None:  # no rates were known
            continue
        for bucket, amount_text in window.buckets.items():
            key = (window.currency, bucket)
            buckets[key] = buckets.get(key, 0) + parse_amount(amount_text)
    return Answer(fold.sums(by), buckets, without, unreadable + fold.unreadable)


async def find_margin_of(
    reader: Reader,
    topics: tuple[str, str],
    partition: int,
    account: str,
    request: str,
    stretch: tuple[int, int],
    records_max: int,
) -> list[tuple[Key, Margin]]:
    """Of one request, by hour and currency, from what was appended to `rated` (the account's partition of it) and `costs` in
    [from, until). Empty: neither says anything of it. Raises TooMuch, LogUnavailable."""
    rated, costs = topics
    fold, needle, left = MarginFold(), msgspec.json.encode(request), records_max
    places = [(rated, partition), *((costs, each) for each in range(await reader.partitions(costs)))]
    for topic, number in places:
        begin = await reader.offset_from(topic, number, max(0, stretch[0]) // 1_000)
        end = await reader.offset_from(topic, number, stretch[1] // 1_000)
        left -= max(0, end - begin)
        if left < 0:
            raise TooMuch(f"more than {records_max} records were appended in this time")
        if begin >= end:
            continue
        async for record in reader.read(topic, number, begin, end):
            for text in (record.value or b"").splitlines():
                if needle not in text:
                    continue
                if topic == rated:
                    fold.apply_rated(number, text, record.timestamp * 1_000)
                elif isinstance(told := parse_line(text), RequestLine):
                    fold.apply_cost(told)
    rows = fold.sums([By.ACCOUNT, By.MODEL, By.FEATURE, By.HOUR, By.REQUEST, By.RUN])
    return [(key, sums) for key, sums in rows if (key.account, key.request) == (account, request)]


def _keep_newest(windows: dict[tuple[str, int], WindowLine], told: WindowLine) -> None:
    place = (told.replica, told.window_us)
    before = windows.get(place)
    if before is None or (told.epoch, told.seq) >= (before.epoch, before.seq):
        windows[place] = told


async def _of(reader: Reader, topic: str, partition: int, from_us: int) -> AsyncGenerator[Record, None]:
    """All that was appended from an hour before `from_us` on: clocks differ, and events may come ahead of their time."""
    begin = await reader.offset_from(topic, partition, max(0, (from_us - HOUR_US) // 1_000))
    _, end = await reader.bounds(topic, partition)
    if begin < end:
        async for record in reader.read(topic, partition, begin, end):
            yield record


class RequestMargins:
    """Of single requests, from the topics; one question at a time, as they have one reader."""

    def __init__(self, reader: Reader, rated: str, costs: str, partitions: int) -> None:
        self._reader = reader
        self._topics = rated, costs
        self._partitions = partitions
        self._asking = asyncio.Lock()

    async def of(self, account: str, request: str, at_us: int) -> list[tuple[Key, Margin]]:
        """What was told of it around this instant, by hour and currency. Raises TooMuch, LogUnavailable."""
        partition = partition_for(account.encode(), self._partitions)
        stretch = at_us - AROUND_US, at_us + AROUND_US
        async with self._asking:
            return await find_margin_of(
                self._reader, self._topics, partition, account, request, stretch, EVENT_RECORDS_MAX
            )
