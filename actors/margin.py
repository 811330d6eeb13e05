"""Revenue and cost from the topics `rated` and `costs`: what a stretch of time has earned, request by request."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from actors.ports import Record
from actors.reconcile.rated import sets_of
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, WindowLine, parse_line
from engine.cost.margin import By, Cost, Margin, Revenue, margins
from engine.cost.window import Bucket
from engine.money import NotADecimal, parse_amount

_EVER: Final = 1 << 62
Key = TypeVar("Key")
Told = TypeVar("Told", RequestLine, WindowLine)


class Reader(Protocol):
    """The part of the topics' reader that is needed."""

    async def partitions(self, topic: str) -> int: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class _Line(Struct):
    account: str
    id: str
    time_us: int
    amount: str
    currency: str
    cell: dict[str, str] = {}
    accrued_us: int | None = None
    due: str | None = None


class Answer(Struct, frozen=True):
    """Sums over the requests of the stretch, and what its windows cost beside them."""

    rows: list[Margin]
    buckets: dict[tuple[str, Bucket], int]  # pico by currency and bucket, of windows whose cost is known
    windows_without_cost: int
    unreadable: int


_line: Final = msgspec.json.Decoder(_Line)


async def find_margins(reader: Reader, rated: str, costs: str, from_us: int, until_us: int, by: Sequence[By]) -> Answer:
    """Of requests rated, and hours and windows that begin, in [from_us, until_us). Raises LogUnavailable."""
    revenues: list[Revenue] = []
    unreadable = 0
    for partition in range(await reader.partitions(rated)):
        blocks = [record.value or b"" async for record in _of(reader, rated, partition, from_us)]
        for offset in sets_of(blocks, 0, _EVER).values():
            for text in offset.lines.values():
                try:
                    line = _line.decode(text)
                    amount = parse_amount(line.amount)
                except (msgspec.MsgspecError, NotADecimal):
                    unreadable += 1
                    continue
                # What a period owes, or open sessions came to, is of no request.
                if from_us <= line.time_us < until_us and line.due is None and line.accrued_us is None:
                    model = line.cell.get("model", "")
                    revenues.append(Revenue(line.account, line.id, line.time_us, amount, line.currency, model))
    requests: dict[tuple[str, str, int, int], RequestLine] = {}
    windows: dict[tuple[str, int], WindowLine] = {}
    for partition in range(await reader.partitions(costs)):
        async for record in _of(reader, costs, partition, from_us):
            for text in (record.value or b"").splitlines():
                try:
                    told = parse_line(text)
                except msgspec.MsgspecError:
                    unreadable += 1
                    continue
                if isinstance(told, RequestLine):
                    if from_us - HOUR_US < told.hour_us < until_us:
                        _newest(requests, (told.replica, told.request, told.attempt, told.hour_us), told)
                elif from_us <= told.window_us < until_us:
                    _newest(windows, (told.replica, told.window_us), told)
    rows = margins(revenues, [_cost(told) for told in requests.values()], by)
    buckets: dict[tuple[str, Bucket], int] = {}
    without = 0
    for window in windows.values():
        if window.cost is None:
            without += 1
            continue
        for bucket, amount_text in window.buckets.items():
            key = (window.currency or "", bucket)
            buckets[key] = buckets.get(key, 0) + parse_amount(amount_text)
    return Answer(rows, buckets, without, unreadable)


def _newest(known: dict[Key, Told], key: Key, told: Told) -> None:
    before = known.get(key)
    if before is None or (told.epoch, told.seq) >= (before.epoch, before.seq):
        known[key] = told


def _cost(told: RequestLine) -> Cost:
    amount = None if told.amount is None else parse_amount(told.amount)
    return Cost(
        *(told.account or "", told.request, told.hour_us, amount, told.currency or "", told.model),
        *(told.feature or "", told.settled),
    )


async def _of(reader: Reader, topic: str, partition: int, from_us: int) -> AsyncGenerator[Record, None]:
    """All that was appended from an hour before `from_us` on: clocks differ, and events may come ahead of their time."""
    begin = await reader.offset_from(topic, partition, max(0, (from_us - HOUR_US) // 1_000))
    _, end = await reader.bounds(topic, partition)
    if begin < end:
        async for record in reader.read(topic, partition, begin, end):
            yield record
