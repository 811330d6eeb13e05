"""The lines of the topic `costs`, as they were told of some hours."""

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec
from msgspec import Struct

from actors.ports import Record
from engine.cost.attribution import AHEAD_US
from engine.cost.lines import RequestLine, WindowLine, parse_line


class Reader(Protocol):
    """The part of the topics' reader that is needed."""

    async def partitions(self, topic: str) -> int: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class CostLines(Struct, frozen=True):
    """All of them, in the order of each partition: of one identity the newest counts."""

    lines: list[RequestLine | WindowLine]
    unreadable: int


async def read_cost_lines(reader: Reader, topic: str, from_us: int) -> CostLines:
    """Whatever can be of an hour that begins at `from_us` or later, and of later ones. Raises LogUnavailable, LogDamaged."""
    found: list[RequestLine | WindowLine] = []
    unreadable = 0
    for partition in range(await reader.partitions(topic)):
        begin = await reader.offset_from(topic, partition, max(0, from_us - AHEAD_US) // 1_000)
        _, end = await reader.bounds(topic, partition)
        if begin == end:
            continue
        async for record in reader.read(topic, partition, begin, end):
            for text in (record.value or b"").splitlines():
                try:
                    found.append(parse_line(text))
                except msgspec.MsgspecError:
                    unreadable += 1
    return CostLines(found, unreadable)
