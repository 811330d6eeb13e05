"""Kafka as the simulator has it: topics in memory, shared by all processes, and one `SimLog` per process.

`SimBroker` is the cluster; its methods are the hand of the simulator (gaps, truncation, retention, outage).
Every call of a `SimLog` passes its gate before and after the effect, where the simulator may delay, stop or kill it.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from actors.ports import Clock, LogDamaged, LogUnavailable, Outgoing, Record
from engine.placement import partition_for

Gate = Callable[[str], Awaitable[None]]


async def open_gate(_site: str) -> None:
    """The gate of a test that wants no disturbance."""


class SimRecord(Struct):
    """A record as consumers see it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Damage(Struct):
    """What a partition held before it was damaged, and what was written to it since."""

    kept: list[SimRecord]
    kept_end: int
    lost_from: int  # from this offset on it does not hold what it held
    meanwhile: list[SimRecord] = []


class SimPartition:
    """One partition: records in offset order, with gaps where control batches were."""

    def __init__(self) -> None:
        self.records: list[SimRecord] = []
        self.first = 0
        self.end = 0
        self.damage: Damage | None = None
        self.damages = 0  # how often it was damaged

    @property
    def whole(self) -> list[SimRecord]:
        """The records as they are once a damage is mended."""
        if self.damage is None:
            return self.records
        return self.damage.kept + [record for record in self.damage.meanwhile if record.offset >= self.damage.kept_end]

    def read(self, offset: int, records_max: int) -> tuple[list[SimRecord], int]:
        """Up to `records_max` records from `offset` on, and the position behind them, gaps included."""
        if not self.records or self.records[-1].offset < offset:
            return [], self.end
        start = bisect_left(self.records, offset, key=lambda record: record.offset)
        found = self.records[start : start + records_max]
        if len(found) == records_max:
            return found, found[-1].offset + 1
        return found, self.end


class SimBroker:
    """The cluster. `append_time_jump_ms` is added to the clock, to let a broker's clock be wrong."""

    def __init__(self, clock: Clock, partitions: int, append_time: bool = True) -> None:
        self.partitions = partitions
        self.append_time = append_time
        self.down = False
        self.append_time_jump_ms = 0
        self._clock = clock
        self._topics = {
            role: [SimPartition() for _ in range(partitions)] for role in ("usage", "rated", "dead-letters")
        }

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> tuple[int, int]:
        """Write a record as any producer would; returns (partition, offset)."""
        if partition is None:
            partition = partition_for(key or b"", self.partitions)
        held = self._topics[topic][partition]
        append_ms = self._clock.wall_us() // 1000 + self.append_time_jump_ms
        held.records.append(SimRecord(held.end, append_ms, key, value))
        held.end += 1
        if held.damage is not None:
            held.damage.meanwhile.append(held.records[-1])
        return partition, held.end - 1

    def skip_offsets(self, partition: int, count: int) -> None:
        """Leave a gap, as the control batch of a transaction does."""
        self._topics["usage"][partition].end += count

    def truncate(self, partition: int, end: int) -> None:
        """Lose the tail, as an unclean election does. What is written next takes the same offsets again."""
        held = self._topics["usage"][partition]
        held.records = [record for record in held.records if record.offset < end]
        held.end = end

    def expire(self, partition: int, first: int) -> None:
        """Lose the head, as retention does."""
        held = self._topics["usage"][partition]
        held.records = [record for record in held.records if record.offset >= first]
        held.first = first

    def damage(self, partition: int, lost_from: int, *, replaced: bool) -> None:
        """Lose the tail, until it is mended; or find other records in its place, as of another cluster."""
        held = self._topics["usage"][partition]
        held.damage = Damage(list(held.records), held.end, lost_from)
        held.damages += 1
        if replaced:
            held.records = [
                record if record.offset < lost_from else SimRecord(record.offset, record.timestamp, b"other", b"{}")
                for record in held.records
            ]
        else:
            self.truncate(partition, lost_from)

    def damage_head(self, partition: int, first: int) -> None:
        """Lose the head, until it is mended."""
        held = self._topics["usage"][partition]
        held.damage = Damage(list(held.records), held.end, 1 << 62)
        held.damages += 1
        self.expire(partition, first)

    def mend(self, partition: int) -> None:
        """A person restores what was there; what was written meanwhile to offsets that were taken comes behind it. The end
        does not go back: a gap that came meanwhile was passed over, and no record may come to lie in it."""
        held = self._topics["usage"][partition]
        damage, held.damage = held.damage, None
        if damage is None:
            return
        reached, held.records, held.first, held.end = held.end, damage.kept, 0, damage.kept_end
        for record in damage.meanwhile:
            offset = max(record.offset, held.end)
            held.records.append(SimRecord(offset, record.timestamp, record.key, record.value))
            held.end = offset + 1
        held.end = max(held.end, reached)

    @property
    def sound(self) -> bool:
        """Whether no partition is damaged."""
        return all(held.damage is None for held in self._topics["usage"])

    def topic(self, role: str, partition: int) -> SimPartition:
        """What a partition holds."""
        return self._topics[role][partition]

    def check_up(self) -> None:
        """Raise `LogUnavailable` during an outage."""
        if self.down:
            raise LogUnavailable("the simulated Kafka is away")


def _asks_for_slices(record: Outgoing) -> bool:
    return record.topic == "usage" and b'"kind":"slices"' in (record.value or b"")


class SimLog:
    """The `Log` port of one simulated process.

    Each append takes the first of `append_faults`, if any: it fails after that many of its records were written. Each
    fetch takes the first of `fetch_back`, if any: it begins that many offsets before its positions."""

    def __init__(self, broker: SimBroker, clock: Clock, gate: Gate = open_gate) -> None:
        self.partitions = broker.partitions
        self.append_faults: list[int] = []
        self.fetch_back: list[int] = []
        self.lags = False  # nothing is handed out, whatever the log holds
        self._broker = broker
        self._clock = clock
        self._gate = gate
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._known: dict[int, int] = {}  # partition -> how often it had been damaged when its bounds were asked for
        self._turn = 0

    async def start(self) -> None:
        await self._gate("log.start.before")
        self._broker.check_up()
        if not self._broker.append_time:
            raise LogDamaged("topic usage: message.timestamp.type is CreateTime, and must be LogAppendTime")
        await self._gate("log.start.after")

    async def stop(self) -> None:
        self._positions = {}

    async def bounds(self, partition: int) -> tuple[int, int]:
        await self._gate("bounds.before")
        self._broker.check_up()
        held = self._broker.topic("usage", partition)
        bounds = held.first, held.end
        self._known[partition] = held.damages
        await self._gate("bounds.after")
        return bounds

    async def read_one(self, partition: int, offset: int) -> Record | None:
        await self._gate("read_one.before")
        self._broker.check_up()
        found, _ = self._broker.topic("usage", partition).read(offset, 1)
        await self._gate("read_one.after")
        return found[0] if found and found[0].offset == offset else None

    def assign(self, positions: dict[int, int]) -> None:
        self._positions = dict(positions)
        self._ends = {}

    async def fetch(self, records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
        await self._gate("fetch.before")
        found = self._take(records_max)
        if not found:
            await self._clock.sleep(timeout_s)
            found = self._take(records_max)
        await self._gate("fetch.after")
        return found

    def _take(self, records_max: int) -> dict[int, Sequence[Record]]:
        if self._broker.down or self.lags:
            return {}
        taken: dict[int, Sequence[Record]] = {}
        # Every fetch begins with another partition, so that a busy one starves none.
        order = sorted(self._positions)
        self._turn += 1
        back = self.fetch_back.pop(0) if self.fetch_back else 0
        damaged: int | None = None
        for index in range(len(order)):
            partition = order[(index + self._turn) % len(order)]
            position = self._positions[partition]
            held = self._broker.topic("usage", partition)
            # Who knew the partition before is told where the lost part begins, as by the leader's epoch. (Without it a
            # log that was cut and has grown again between two fetches goes unseen until the next takeover.)
            lost_from = 1 << 62
            if held.damage is not None and self._known.get(partition) != held.damages and partition in self._known:
                lost_from = held.damage.lost_from
            if not held.first <= position <= held.end or position > lost_from:
                damaged = partition
                continue
            self._ends[partition] = held.end
            if records_max > 0:
                # Never behind the position: what was handed out again is not asked for again.
                records, end = held.read(max(held.first, position - back), records_max)
                if end > lost_from:
                    records, end = [record for record in records if record.offset < lost_from], lost_from
                self._positions[partition] = max(position, end)
                records_max -= len(records)
                if records:
                    taken[partition] = records
        if damaged is not None and not taken:
            raise LogDamaged(f"usage partition {damaged}: the position is outside the log", damaged)
        return taken

    def catch_up(self) -> None:
        """What has arrived is handed out again."""
        self.lags = False

    def position(self, partition: int) -> int:
        return self._positions[partition]

    def end(self, partition: int) -> int | None:
        return self._ends.get(partition)

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        call = "append_slices" if any(_asks_for_slices(record) for record in records) else "append"
        await self._gate(f"{call}.before")
        self._broker.check_up()
        written = self.append_faults.pop(0) if self.append_faults else None
        offsets = [self._write(record) for record in records[:written]]
        if written is not None:
            raise LogUnavailable(f"the simulated Kafka took {written} of {len(records)} records")
        await self._gate(f"{call}.after")
        return offsets

    def _write(self, record: Outgoing) -> int:
        return self._broker.append(record.topic, record.key, record.value, record.partition)[1]
