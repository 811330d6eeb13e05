"""The reconciler of tokens, over the topics: what engines counted, what was served, what was rated."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.ports import Record
from actors.reconcile.rated import sets_of
from engine.cost.served import Served, parse_served
from engine.cost.telemetry import Sample, SourceKind, parse_sample
from engine.cost.unbilled import Rated, Unbilled, reconcile
from engine.events import Malformed
from engine.money import NANO, parse_quantity

LATE_US: Final = 3_600_000_000  # how long behind a request's end its usage event may have come: an outage of an hour
_EVER: Final = 1 << 62


class Reader(Protocol):
    """The part of the topics' reader that is needed."""

    async def partitions(self, topic: str) -> int: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncIterator[Record]: ...


class Topics(Struct, frozen=True):
    """Their names."""

    gpu_telemetry: str
    served: str
    rated: str


class PriceNames(Struct, frozen=True):
    """Prices whose quantities are tokens, of each side. Without any, a request that was rated was rated whole."""

    prompt: frozenset[str] = frozenset()
    generated: frozenset[str] = frozenset()


class _Line(Struct):
    id: str
    price: str
    quantity: str


class Answer(Struct, frozen=True):
    """What was found, and how many records could not be read."""

    found: Unbilled
    unreadable: int


_line: Final = msgspec.json.Decoder(_Line)


async def find_unbilled(reader: Reader, topics: Topics, from_us: int, to_us: int, prices: PriceNames) -> Answer:
    """Of the stretch [from_us, to_us). Raises LogUnavailable, also where a topic is missing."""
    samples: list[Sample] = []
    served: list[Served] = []
    unreadable = 0
    async for record in _since(reader, topics.gpu_telemetry, from_us):
        try:
            sample = parse_sample(record.value, record.key)
        except Malformed:
            unreadable += 1
            continue
        if sample.kind is SourceKind.ENGINE and from_us <= sample.time_us < to_us:
            samples.append(sample)
    async for record in _since(reader, topics.served, from_us):
        try:
            told = parse_served(record.value, record.key)
        except Malformed:
            unreadable += 1
            continue
        if isinstance(told, Served) and told.last_us >= from_us and told.scheduled_us < to_us:
            served.append(told)
    wanted = {record.request for record in served}
    rated: dict[str, Rated] = {}
    for partition in range(await reader.partitions(topics.rated)):
        blocks = [record.value or b"" async for record in _of(reader, topics.rated, partition, from_us)]
        lines = [line for offset in sets_of(blocks, 0, _EVER).values() for line in offset.lines.values()]
        unreadable += _add_rated(rated, lines, prices, wanted)
    return Answer(reconcile(samples, served, rated), unreadable)


def _add_rated(rated: dict[str, Rated], lines: Iterable[bytes], prices: PriceNames, wanted: set[str]) -> int:
    """Adds what the lines bill; returns how many could not be read."""
    unreadable = 0
    for text in lines:
        try:
            line = _line.decode(text)
            tokens = parse_quantity(line.quantity) // NANO
        except (msgspec.MsgspecError, ValueError):
            unreadable += 1
            continue
        if line.id in wanted:
            before = rated.get(line.id, Rated(0 if prices.prompt else None, 0 if prices.generated else None))
            rated[line.id] = Rated(
                None if before.prompt is None else before.prompt + tokens * (line.price in prices.prompt),
                None if before.generated is None else before.generated + tokens * (line.price in prices.generated),
            )
    return unreadable


async def _since(reader: Reader, topic: str, from_us: int) -> AsyncIterator[Record]:
    for partition in range(await reader.partitions(topic)):
        async for record in _of(reader, topic, partition, from_us):
            yield record


async def _of(reader: Reader, topic: str, partition: int, from_us: int) -> AsyncIterator[Record]:
    """All that was appended from a while before `from_us` on: clocks differ, and events may come before their record."""
    begin = await reader.offset_from(topic, partition, max(0, (from_us - LATE_US) // 1_000))
    _, end = await reader.bounds(topic, partition)
    if begin < end:
        async for record in reader.read(topic, partition, begin, end):
            yield record


def as_rows(found: Unbilled) -> list[Mapping[str, object]]:
    """A row per replica, side and minute, in that order."""
    return [
        {
            "replica": replica,
            "side": side.value,
            "minute_us": minute,
            **{field: getattr(tokens, field) for field in (*tokens.__struct_fields__, "unseen", "unbilled")},
        }
        for (replica, side, minute), tokens in sorted(found.minutes.items())
    ]
