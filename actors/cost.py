"""A cost actor: attributes the GPU cost of some partitions of the topic `served`. A plain class.

Nobody waits for it: rating, wallets and checks never read what it makes. So it owns without a lease: a claim raises the
partition's epoch, and whoever owned it before is refused at its next checkpoint. A turn of a partition: read what has come,
work out what changed, send the lines, commit. Lines go before their checkpoint and carry its epoch and number; what is sent
twice, or of a checkpoint that never came to be, is replaced by what follows.
A new owner reads the records of all hours that are not closed again, and tells what differs from the rows it finds."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, Protocol

from msgspec import Struct

from actors.cost_store import CostCheckpoint, CostClaim, CostLetter
from actors.ports import (
    Clock,
    CommitUnknown,
    Fenced,
    LastRecord,
    LogDamaged,
    LogUnavailable,
    Outgoing,
    Record,
    StoreRefused,
    StoreUnavailable,
    record_digest,
)
from config.settings import KafkaSettings
from engine.cost.attribution import AHEAD_US, Attribution, Horizons, Published, SetAside
from engine.cost.lines import request_line, window_line
from engine.cost.rollup import Key, Sums
from engine.events import Malformed

_log = logging.getLogger(__name__)

READ_MAX: Final = 20_000  # records of a turn: about a second's work
YIELD_EVERY: Final = 500
BLOCK_BYTES_MAX: Final = 512 * 1024
LETTERS_MAX: Final = 10_000  # of a checkpoint; beyond it they are counted only
MEND_S: Final = 10.0  # between two attempts at what only a person can mend


class Reader(Protocol):
    """What is asked of Kafka: `TopicReader`."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def partitions(self, topic: str) -> int: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class Appender(Protocol):
    """The way to the topic `costs`: `TopicAppender`."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]: ...


class CostCheckpoints(Protocol):
    """Where checkpoints go: `CostStore`."""

    async def claim(self, partition: int, owner: str) -> CostClaim: ...

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]: ...

    async def commit(self, checkpoint: CostCheckpoint) -> None: ...


class CostView(Struct, frozen=True):
    """What an operator sees of a partition."""

    partition: int
    epoch: int
    next_offset: int
    caught_up: bool
    counts: dict[str, int]
    halted: str = ""


class _Pending(Struct):
    """A checkpoint that is not committed yet, and the lines that go before it."""

    lines: list[Outgoing]
    checkpoint: CostCheckpoint


class _Owned:
    """A partition, and where it stands."""

    def __init__(self, number: int, claim: CostClaim, fold: Attribution) -> None:
        self.number = number
        self.fold = fold
        self.epoch = claim.epoch
        self.ckpt_seq = claim.ckpt_seq
        self.committed_offset = claim.next_offset
        self.next_offset = 0
        self.last = claim.last
        self.settled_us = 0
        self.samples: dict[int, int] = {}  # next offset by partition of `gpu-telemetry`
        self.samples_from_us: int | None = None  # samples are wanted again from then on, and were not found yet
        self.caught_up = False
        self.compared = False  # what an earlier owner told has been held against what we find
        self.letters: list[CostLetter] = []
        self.pending: _Pending | None = None


class CostActor:
    """See the module's docstring."""

    def __init__(
        self,
        owner: str,
        partitions: Sequence[int],
        *,
        clock: Clock,
        reader: Reader,
        appender: Appender,
        store: CostCheckpoints,
        control_key: bytes,
        kafka: KafkaSettings,
        horizons: Horizons,
        interval_s: float,
    ) -> None:
        """`owner` names this life of the actor. `interval_s` lies between two turns of a partition that has caught up."""
        self._owner = owner
        self._partitions = tuple(partitions)
        self._clock = clock
        self._reader = reader
        self._appender = appender
        self._store = store
        self._control_key = control_key
        self._kafka = kafka
        self._horizons = horizons
        self._interval_s = interval_s
        self._owned: dict[int, _Owned] = {}
        self._halted: dict[int, tuple[str, float]] = {}  # why, and when to try again
        self._stopping = asyncio.Event()
        self.fenced = False

    def views(self) -> list[CostView]:
        """Every partition: owned, or halted and why."""
        found = [
            CostView(part.number, part.epoch, part.next_offset, part.caught_up, dict(part.fold.counts))
            for part in self._owned.values()
        ]
        found += [CostView(number, 0, 0, False, {}, why) for number, (why, _) in self._halted.items()]
        return sorted(found, key=lambda view: view.partition)

    async def run(self) -> None:
        """Until `stop`, or until somebody else owns a partition of ours. The doors are started, and stopped, by the caller."""
        while not self._stopping.is_set() and not self.fenced:
            began_s = self._clock.boot_s()
            for number in self._partitions:
                await self._turn(number)
            behind = any(not part.caught_up for part in self._owned.values())
            pause_s = 0.0 if behind else self._interval_s - (self._clock.boot_s() - began_s)
            if pause_s > 0:
                await self._clock.sleep(pause_s)

    def stop(self) -> None:
        """End behind the turn under way. What is not committed is worked out again by the next owner."""
        self._stopping.set()

    async def _turn(self, number: int) -> None:
        _, again_s = self._halted.get(number, ("", 0.0))
        if self._stopping.is_set() or self.fenced or self._clock.boot_s() < again_s:
            return
        try:
            part = self._owned.get(number)
            if part is None:
                part = await self._take(number)
                self._owned[number] = part
                self._halted.pop(number, None)
            if part.pending is None:
                await self._read(part)
                part.pending = self._publish(part)
            if part.pending is not None:
                await self._commit(part, part.pending)
        except (LogUnavailable, StoreUnavailable) as error:
            _log.warning("cost of partition %d waits: %s", number, error)
            await self._clock.sleep(self._interval_s)
        except CommitUnknown as error:
            _log.warning(
                "cost of partition %d is claimed again, as nobody knows whether it was written: %s", number, error
            )
            self._owned.pop(number, None)
        except Fenced as error:
            _log.warning("cost of partition %d is somebody else's: %s", number, error)
            self.fenced = True
        except (LogDamaged, StoreRefused, Malformed) as error:
            self._owned.pop(number, None)
            self._halted[number] = str(error), self._clock.boot_s() + MEND_S
            _log.critical("cost of partition %d is halted: %s", number, error)

    # ------------------------------------------------------------------------------------------------------- taking over

    async def _take(self, number: int) -> _Owned:
        claim = await self._store.claim(number, self._owner)
        fold = Attribution(number, self._control_key, self._horizons)
        if claim.blob is not None:
            fold.restore(claim.blob)
            await self._check(number, claim)
        part = _Owned(number, claim, fold)
        topic = self._kafka.topic_served
        needed_ms = fold.needed_from_us // 1_000
        part.next_offset = min(await self._reader.offset_from(topic, number, needed_ms), claim.next_offset)
        part.next_offset = max(part.next_offset, (await self._reader.bounds(topic, number))[0])
        for each in range(await self._reader.partitions(self._kafka.topic_gpu_telemetry)):
            part.samples[each] = await self._samples_from(each, fold.needed_from_us)
        # All that the checkpoint knew, before anything is told.
        while part.next_offset < claim.next_offset:
            await self._read_served(part, claim.next_offset)
        fold.told(await self._store.rows(number, fold.closed_us))
        _log.info("cost of partition %d is ours at epoch %d, from offset %d", number, part.epoch, part.next_offset)
        return part

    async def _check(self, number: int, claim: CostClaim) -> None:
        """The topic must still be the one that the checkpoint saw."""
        where = f"topic {self._kafka.topic_served} partition {number}"
        first, end = await self._reader.bounds(self._kafka.topic_served, number)
        if end < claim.next_offset or first > claim.next_offset:
            raise LogDamaged(f"{where}: it holds {first} to {end}, the checkpoint ends at {claim.next_offset}", number)
        if claim.last is None or claim.last.offset < first:
            return
        record = await self._reader.read_one(self._kafka.topic_served, number, claim.last.offset)
        if record is None or record_digest(record.key, record.value) != claim.last.digest:
            raise LogDamaged(
                f"{where}: the record at {claim.last.offset} is not the one that the checkpoint saw", number
            )

    async def _samples_from(self, partition: int, instant_us: int) -> int:
        # A sample may be appended before the instant that it speaks of, by as much as clocks may differ.
        append_ms = max(0, instant_us - AHEAD_US) // 1_000
        return await self._reader.offset_from(self._kafka.topic_gpu_telemetry, partition, append_ms)

    # ----------------------------------------------------------------------------------------------------------- reading

    async def _read(self, part: _Owned) -> None:
        _, end = await self._reader.bounds(self._kafka.topic_served, part.number)
        await self._read_served(part, end)
        part.caught_up = part.next_offset >= end
        wanted_us = part.fold.take_samples_from_us()
        if wanted_us is not None:
            part.samples_from_us = min(wanted_us, part.samples_from_us or wanted_us)
        if part.samples_from_us is not None:
            back = [(each, await self._samples_from(each, part.samples_from_us)) for each in part.samples]
            part.samples.update((each, min(part.samples[each], position)) for each, position in back)
            part.samples_from_us = None
        for each in part.samples:
            await self._read_samples(part, each)

    async def _read_served(self, part: _Owned, end: int) -> None:
        """From where the partition stands to `end`, but no more than READ_MAX records, and not past what closes hours."""
        count = 0
        records = _some(self._reader.read(self._kafka.topic_served, part.number, part.next_offset, end))
        async with aclosing(records):
            async for record in records:
                if part.fold.reach(record.timestamp * 1_000):
                    return
                count += 1
                try:
                    part.fold.apply(record.value, record.key, record.timestamp * 1_000)
                except SetAside as error:
                    part.fold.counts[error.reason.value] += 1
                    if record.offset >= part.committed_offset and len(part.letters) < LETTERS_MAX:
                        letter = CostLetter(record.offset, error.reason.value, str(error), record.key, record.value)
                        part.letters.append(letter)
                part.last = LastRecord(record.offset, record.timestamp, record_digest(record.key, record.value))
                part.next_offset = record.offset + 1
                if count % YIELD_EVERY == 0:
                    await self._clock.sleep(0)
        if count < READ_MAX:  # control batches leave no record
            part.next_offset = max(part.next_offset, end)

    async def _read_samples(self, part: _Owned, partition: int) -> None:
        """To the end, or while `served` is behind, as far as that has been read: windows that settle and hours that close
        must know the samples of their time."""
        topic = self._kafka.topic_gpu_telemetry
        first, end = await self._reader.bounds(topic, partition)
        position = max(part.samples[partition], first)
        count = 0
        records = self._reader.read(topic, partition, position, end)
        async with aclosing(records):
            async for record in records:
                if record.timestamp * 1_000 > part.fold.log_us and not part.caught_up:
                    break
                try:
                    part.fold.apply_sample(record.value, record.key, record.timestamp * 1_000)
                except SetAside as error:
                    part.fold.counts[f"sample_{error.reason.value}"] += 1
                position = record.offset + 1
                count += 1
                if count % YIELD_EVERY == 0:
                    await self._clock.sleep(0)
        part.samples[partition] = position

    # -------------------------------------------------------------------------------------------------------- publishing

    def _publish(self, part: _Owned) -> _Pending | None:
        """What changed, and its checkpoint; None where nothing did."""
        fold = part.fold
        now_us = self._clock.wall_us() if part.caught_up else fold.log_us
        # The first time all is worked out: or what an earlier owner told, and we have not looked at, would be taken back.
        published = fold.publish(now_us, live=part.caught_up or not part.compared)
        part.compared = True
        told = published.rows or published.windows or published.requests or part.letters
        if not told and part.next_offset <= part.committed_offset:
            return None
        settled_us = max(part.settled_us, max(now_us, fold.log_us) - self._horizons.settle_us)
        checkpoint = CostCheckpoint(
            partition=part.number,
            epoch=part.epoch,
            ckpt_seq=part.ckpt_seq + 1,
            next_offset=max(part.next_offset, part.committed_offset),
            last=part.last,
            blob=fold.blob(),
            settled_us=max(0, settled_us),
            closed_us=fold.closed_us,
            settled_before_us=part.settled_us,
            currency=fold.currency or "",
            rows=published.rows,
            letters=part.letters,
        )
        part.letters = []
        return _Pending(self._blocks(published, checkpoint), checkpoint)

    def _blocks(self, published: Published, checkpoint: CostCheckpoint) -> list[Outgoing]:
        """Lines under the key of their replica, many to a record."""
        currency, epoch, seq = checkpoint.currency or None, checkpoint.epoch, checkpoint.ckpt_seq
        lines: dict[str, list[bytes]] = {}
        for window in published.windows:
            lines.setdefault(window.replica, []).append(window_line(window, currency, epoch, seq))
        for cost in published.requests:
            lines.setdefault(cost.served.replica, []).append(request_line(cost, currency, epoch, seq))
        blocks = []
        for replica, some in lines.items():
            block = bytearray()
            for line in some:
                if len(block) + len(line) > BLOCK_BYTES_MAX:
                    blocks.append(Outgoing("costs", bytes(block), replica.encode()))
                    block = bytearray()
                block += line + b"\n"
            blocks.append(Outgoing("costs", bytes(block), replica.encode()))
        return blocks

    async def _commit(self, part: _Owned, pending: _Pending) -> None:
        if pending.lines:
            await self._appender.append(pending.lines)
            pending.lines = []
        await self._store.commit(pending.checkpoint)
        part.pending = None
        part.ckpt_seq = pending.checkpoint.ckpt_seq
        part.committed_offset = pending.checkpoint.next_offset
        part.settled_us = pending.checkpoint.settled_us


async def _some(records: AsyncGenerator[Record, None]) -> AsyncGenerator[Record, None]:
    """The first READ_MAX of them; then the reading is closed."""
    count = 0
    try:
        async for record in records:
            yield record
            count += 1
            if count >= READ_MAX:
                return
    finally:
        await records.aclose()
