"""A deployment of one partition without servers: a log, its checkpoints and its rated lines, as the proofs read them."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from actors.checkpoints import Posted, StoredCheckpoint
from actors.ports import (
    AccountRow,
    AlertRow,
    CommandRow,
    DeadLetterRow,
    DedupSegment,
    Head,
    LastRecord,
    Record,
    record_digest,
)
from actors.rebuild import Fold, read_stored
from actors.sealed_base import Base
from engine.catalog import document_json
from tests.engine.bench import KEY, TOPIC, Bench, Store
from tests.simulation.sim_log import SimRecord

RATED = "rated"


class BenchReader:
    """The topics, as lists: of the bench's own partition, and of others what was forwarded there."""

    def __init__(self) -> None:
        self.records: dict[str, list[SimRecord]] = {TOPIC: [], RATED: []}
        self.elsewhere: dict[int, list[SimRecord]] = {}
        self.first = 0  # what retention has left of the log
        self.first_elsewhere = 0

    def _held(self, topic: str, partition: int) -> list[SimRecord]:
        if topic == TOPIC and partition in self.elsewhere:
            return [record for record in self.elsewhere[partition] if record.offset >= self.first_elsewhere]
        return self.records[topic]

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        held = self._held(topic, partition)
        own_first = self.first if topic == TOPIC else 0
        first = self.first_elsewhere if topic == TOPIC and partition in self.elsewhere else own_first
        return first, held[-1].offset + 1 if held else 0

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        held = self._held(topic, partition)
        return next((record.offset for record in held if record.timestamp >= append_ms), len(held))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        return next((record for record in self._held(topic, partition) if record.offset == offset), None)

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        for record in self._held(topic, partition):
            if offset <= record.offset < end:
                yield record


class BenchCheckpoint(StoredCheckpoint):
    """What the cuts of a bench left in its store."""

    def __init__(self, head: Head, store: Store, catalogues: dict[int, bytes], posted: Sequence[int] = ()) -> None:
        """`posted`: how many postings there were behind each checkpoint."""
        super().__init__(None, head)
        self._posted = posted
        self._store = store
        self._catalogues = catalogues

    async def accounts(self) -> AsyncIterator[list[AccountRow]]:
        for _, row in sorted(self._store.accounts.items()):
            yield [row]

    async def dedup(self) -> AsyncIterator[DedupSegment]:
        for segment in self._store.dedup:
            yield segment

    async def remembered_commands(self, log_time_min_us: int) -> AsyncIterator[list[CommandRow]]:
        yield [row for row in self._store.commands if row.log_time_us >= log_time_min_us]

    async def engine_errors(self) -> list[int]:
        return [row.offset for row in self._store.dead_letters if row.reason == "engine_error"]

    async def catalogue(self, version: int) -> bytes | None:
        return self._catalogues.get(version)

    async def postings(self) -> list[Posted]:
        sums: dict[tuple[str, str, str, str, int | None, int], list[int]] = {}
        for number, row in enumerate(self._store.postings):
            place = row.account, row.lot, row.lot_kind, row.kind, row.usage_period_us, row.posting_period_us
            seq = min(bisect_right(self._posted, number) + 1, len(self._posted))
            known = sums.setdefault(place, [0, seq, seq])
            known[0] += row.amount
            known[2] = seq
        return [Posted(*place, *known) for place, known in sums.items()]

    async def plan_changes(self) -> list[tuple[str, int]]:
        applied = [row for row in self._store.commands if (row.kind, row.answer) == ("set_plan", "applied")]
        return [(row.account, row.log_time_us) for row in applied]

    async def alerts(self) -> list[AlertRow]:
        first: dict[str, AlertRow] = {}
        for row in self._store.alerts:
            first.setdefault(row.alert_id, row)  # as ON CONFLICT DO NOTHING does
        return list(first.values())

    async def dead_letters(self) -> list[DeadLetterRow]:
        return list(self._store.dead_letters)

    async def commands(self, offset_min: int) -> list[CommandRow]:
        return [row for row in self._store.commands if row.offset >= offset_min]


class ProofRig:
    """What a bench has written so far, checkpointed and sent on."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.store = Store()
        self.reader = BenchReader()
        self.catalogues = {version: document_json(body) for version, body in bench.documents.items()}
        self.epoch = 1
        self.ckpt_seq = 0
        self.posted: list[int] = []  # how many postings there were behind each checkpoint
        self.next_offset = 0
        self.last: LastRecord | None = None

    def checkpoint(self) -> None:
        """All that was recorded since the last call: its lines in a block of `rated`, its cut in the store."""
        lines = self.bench.partition.outputs.lines
        if lines:
            self.send_lines([line for _, line in lines])
        lines.clear()
        self.forward()
        self.store.checkpoint(self.bench.partition)
        log = self.reader.records[TOPIC]
        for row in self.bench.log[len(log) :]:
            log.append(SimRecord(row.offset, row.append_ms, row.key, row.value))
        self.ckpt_seq += 1
        self.posted.append(len(self.store.postings))
        self.next_offset = len(log)
        self.last = LastRecord(log[-1].offset, log[-1].timestamp, record_digest(log[-1].key, log[-1].value))

    def forward(self) -> None:
        """To the logs of the partitions that it belongs to."""
        forwards = self.bench.partition.outputs.forwards
        for each in forwards:
            held = self.reader.elsewhere.setdefault(each.partition, [])
            held.append(SimRecord(len(held), self.bench.now // 1000, each.key, each.value))
        forwards.clear()

    def send_lines(self, lines: list[bytes]) -> None:
        held = self.reader.records[RATED]
        held.append(SimRecord(len(held), self.bench.now // 1000, None, b"\n".join(lines)))

    def stored(self) -> BenchCheckpoint:
        head = Head(self.bench.number, self.epoch, self.ckpt_seq, self.next_offset, self.last, self.store.blob)
        return BenchCheckpoint(head, self.store, self.catalogues, tuple(self.posted))

    async def fold(self, base: Base | None = None) -> Fold:
        """Ready to run."""
        return Fold(
            self.reader,
            await read_stored(self.stored()),
            base,
            topic=TOPIC,
            partitions=self.bench.partitions,
            control_key=KEY,
            load=self.stored().catalogue,
        )
