"""What a cost actor stands between, held by the test: topics and checkpoints in memory."""

from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from actors.cost_store import CostCheckpoint, CostClaim
from actors.ports import Fenced, LogUnavailable, Outgoing, Record, StoreUnavailable
from config.settings import KafkaSettings
from engine.cost.lines import RequestLine, WindowLine, parse_line
from engine.cost.rollup import Key, Sums
from tests.engine.cost.histories import PARTITION, Arrival

KAFKA = KafkaSettings()


class Kept(msgspec.Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Topics:
    """Both topics that are read, and the one that is written."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Kept]] = {
            (KAFKA.topic_served, PARTITION): [],
            (KAFKA.topic_gpu_telemetry, 0): [],
            (KAFKA.topic_gpu_telemetry, 1): [],
        }
        self.lines: list[RequestLine | WindowLine] = []
        self.away = False

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None, append_us: int) -> None:
        kept = self.records[topic, partition]
        kept.append(Kept(len(kept), append_us // 1_000, key, value))

    def arrive(self, arrivals: Sequence[Arrival], append_us: int) -> None:
        for number, arrival in enumerate(arrivals):
            where = (KAFKA.topic_gpu_telemetry, number % 2) if arrival.sample else (KAFKA.topic_served, PARTITION)
            self.put(*where, arrival.key, arrival.value, append_us)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        if self.away:
            raise LogUnavailable("away")
        return 0, len(self.records[topic, partition])

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        return {each: await self.bounds(topic, each) for each in partitions}

    async def partitions(self, topic: str) -> int:
        return sum(name == topic for name, _ in self.records)

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        kept = self.records[topic, partition]
        return next((record.offset for record in kept if record.timestamp >= append_ms), len(kept))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        kept = self.records[topic, partition]
        return kept[offset] if offset < len(kept) else None

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        for partition, (offset, end) in places.items():
            for record in self.records[topic, partition][offset:end]:
                yield partition, record

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        for record in records:
            assert record.topic == "costs"
            self.lines += [parse_line(line) for line in (record.value or b"").splitlines()]
        return [0] * len(records)


class Stored:
    """Checkpoints in memory, fenced as the real ones are."""

    def __init__(self) -> None:
        self.epoch = self.ckpt_seq = self.next_offset = 0
        self.last: CostCheckpoint | None = None
        self.table: dict[Key, Sums] = {}
        self.changes: dict[Key, int] = {}
        self.letters: list[str] = []
        self.trouble: list[Exception] = []
        self.commits = 0

    async def claim(self, partition: int, owner: str) -> CostClaim:
        self.epoch += 1
        if self.last is None:
            return CostClaim(self.epoch, 0, 0, None, None)
        place = self.epoch, self.ckpt_seq, self.next_offset
        return CostClaim(*place, self.last.last, self.last.blob, self.last.settled_us)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]:
        return [(key, sums) for key, sums in self.table.items() if key.hour_us >= from_us]

    async def commit(self, checkpoints: Sequence[CostCheckpoint]) -> None:
        (checkpoint,) = checkpoints  # all that is ever owned here
        trouble = self.trouble.pop() if self.trouble else None
        if isinstance(trouble, StoreUnavailable):
            raise trouble
        if (checkpoint.epoch, checkpoint.ckpt_seq) != (self.epoch, self.ckpt_seq + 1):
            raise Fenced("another owner")
        self.ckpt_seq, self.next_offset, self.last = checkpoint.ckpt_seq, checkpoint.next_offset, checkpoint
        self.commits += 1
        for row in checkpoint.rows:
            self.table[row.key] = row.sums
            self.changes[row.key] = self.changes.get(row.key, 0) + row.change
        self.letters += [letter.reason for letter in checkpoint.letters]
        if trouble is not None:
            raise trouble
