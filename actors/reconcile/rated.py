"""The topic `rated` beside the log: the lines of each offset, those of the highest epoch as a set.

Blocks come nearly in the order of the log, but for replays after a takeover and for whoever woke up too late. So a first
pass notes which offsets each block tells of, and then the blocks of one stretch of the log are read together: memory is
bounded by the stretch, however long the topic."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct, field

from actors.drift import Drift
from actors.ports import LastRecord
from actors.rebuild import Reader

CHECK: Final = "offsets"
CLOCKS_APART_MS: Final = 600_000  # a line is told after its record was appended, but perhaps by another broker's clock


class _Place(Struct):
    partition: int
    offset: int
    line: int
    epoch: int


class RatedSet(Struct):
    """The lines of one offset, by number, as the highest epoch told them. The same line again is no second line."""

    epoch: int
    lines: dict[int, bytes] = field(default_factory=dict)
    unlike: list[tuple[int, bytes]] = field(default_factory=list)  # told twice under one epoch, with other content

    def add(self, number: int, line: bytes) -> None:
        known = self.lines.setdefault(number, line)
        if known != line:
            self.unlike.append((number, line))


_decoder = msgspec.json.Decoder(_Place)


def sets_of(blocks: Iterable[bytes], start: int, end: int) -> dict[int, RatedSet]:
    """The lines of the offsets [start, end); what cannot be read is passed over."""
    found: dict[int, RatedSet] = {}
    for _, place, line in _places(blocks):
        if place is None or not start <= place.offset < end:
            continue
        known = found.get(place.offset)
        if known is None or place.epoch > known.epoch:
            known = found[place.offset] = RatedSet(place.epoch)
        if place.epoch == known.epoch:
            known.add(place.line, line)
    return found


def _places(blocks: Iterable[bytes]) -> Iterator[tuple[int, _Place | None, bytes]]:
    for number, block in enumerate(blocks):
        for line in block.split(b"\n"):
            try:
                yield number, _decoder.decode(line), line
            except msgspec.MsgspecError:
                yield number, None, line


class RatedTopic:
    """One partition of the topic."""

    def __init__(self, reader: Reader, topic: str, partition: int) -> None:
        self._reader = reader
        self._topic = topic
        self._partition = partition
        self._spans: list[tuple[int, int, int]] = []  # of each block: its own offset, the least and most it tells of

    async def survey(self, since: LastRecord | None) -> list[Drift]:
        """Note where everything is that was told of the records behind `since`, and who knows what before; the lines
        that cannot be read, or are of another partition."""
        drifts: list[Drift] = []
        first, end = await self._reader.bounds(self._topic, self._partition)
        if since is not None:
            told_ms = since.append_ms - CLOCKS_APART_MS
            first = max(first, await self._reader.offset_from(self._topic, self._partition, told_ms))
        async for block in self._reader.read(self._topic, self._partition, first, end):
            least, most = None, -1
            for _, place, line in _places([block.value or b""]):
                if place is None or place.partition != self._partition:
                    where = f"line in block {block.offset} of {self._topic}"
                    drifts.append(
                        Drift(
                            CHECK,
                            self._partition,
                            "",
                            where,
                            "a rated line of this partition",
                            line.decode("utf-8", "replace"),
                        )
                    )
                    continue
                least = place.offset if least is None else min(least, place.offset)
                most = max(most, place.offset)
            if least is not None:
                self._spans.append((block.offset, least, most))
        return drifts

    async def stretch(self, start: int, end: int) -> dict[int, RatedSet]:
        """The lines of the offsets [start, end)."""
        wanted = [offset for offset, least, most in self._spans if least < end and most >= start]
        blocks: list[bytes] = []
        for first, last in _runs(wanted):
            records = self._reader.read(self._topic, self._partition, first, last + 1)
            blocks += [block.value or b"" async for block in records]
        return sets_of(blocks, start, end)


def _runs(offsets: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run without a gap; `offsets` ascend."""
    run: list[int] = []
    for offset in offsets:
        if run and offset != run[-1] + 1:
            yield run[0], run[-1]
            run = []
        run.append(offset)
    if run:
        yield run[0], run[-1]
