"""A cost actor: attributes the GPU cost of some partitions of the topic `served`. A plain class.

Nobody waits for it: rating, wallets and checks never read what it makes. So it owns without a lease, and goes on by turns
(actors/turns.py): read what has come, work out what changed, send the lines, commit. Lines go before their checkpoint and
carry its epoch and number; what is sent twice, or of a checkpoint that never came to be, is replaced by what follows.
A new owner reads the records of all hours that are not closed again, and tells what differs from the rows it finds."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
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
from actors.turns import Turns, require_whole
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
SAY_EVERY_US: Final = 30_000_000  # where nothing comes, up to where all has settled
MEND_S: Final = 10.0  # between two attempts at what only a person can mend


class Reader(Protocol):
    """What is asked of Kafka: `TopicReader`."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]: ...

    async def partitions(self, topic: str) -> int: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None: ...

    def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]: ...


class Appender(Protocol):
    """The way to the topic `costs`: `TopicAppender`."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]: ...


class CostCheckpoints(Protocol):
    """Where checkpoints go: `CostStore`."""

    async def claim(self, partition: int, owner: str) -> CostClaim: ...

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]: ...

    async def commit(self, checkpoints: Sequence[CostCheckpoint]) -> None: ...


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
        self.settled_us = claim.settled_us
        self.read_us = 0  # what is appended before this instant was there when its last turn began
        self.samples: dict[int, int] = {}  # next offset by partition of `gpu-telemetry`
        self.samples_from_us: int | None = None  # samples are wanted again from then on, and were not found yet
        self.caught_up = False
        self.went_on = True  # in its last turn, all the way
        self.compared = False  # what an earlier owner told has been held against what we find
        self.letters: list[CostLetter] = []
        self.pending: _Pending | None = None


class CostActor(Turns):
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
        changes_kept_us: int,
        interval_s: float,
    ) -> None:
        """`owner` names this life of the actor. `changes_kept_us`: so long behind an hour's closing its differences are kept.
        `interval_s` lies between two turns when all has caught up."""
        super().__init__(clock, interval_s)
        self._owner = owner
        self._partitions = tuple(partitions)
        self._reader = reader
        self._appender = appender
        self._store = store
        self._control_key = control_key
        self._kafka = kafka
        self._horizons = horizons
        self._changes_kept_us = changes_kept_us
        self._owned: dict[int, _Owned] = {}
        self._halted: dict[int, tuple[str, float]] = {}  # why, and when to try again

    def views(self) -> list[CostView]:
        """Every partition: owned, or halted and why."""
        found = [
            CostView(part.number, part.epoch, part.next_offset, part.caught_up, dict(part.fold.counts))
            for part in self._owned.values()
        ]
        found += [CostView(number, 0, 0, False, {}, why) for number, (why, _) in self._halted.items()]
        return sorted(found, key=lambda view: view.partition)

    async def turn(self) -> bool:
        """All partitions side by side: their records, then the samples that all of them need, then what changed. A partition
        that cannot go on waits for the next turn, and holds up no other."""
        for number in self._partitions:
            _, again_s = self._halted.get(number, ("", 0.0))
            if number not in self._owned and self._clock.boot_s() >= again_s:
                await self._guarded([number], self._own(number))
        parts = [part for part in self._owned.values() if part.pending is None]
        if parts:
            await self._guarded([part.number for part in parts], self._work_out(parts))
        told = [part for part in self._owned.values() if part.pending is not None]
        if told and not self.fenced and await self._guarded([part.number for part in told], self._send(told)):
            await self._guarded([part.number for part in told], self._commit_all(told))
        return any(part.went_on and part.pending is None and not part.caught_up for part in self._owned.values())

    async def _guarded(self, numbers: Sequence[int], work: Awaitable[None]) -> bool:
        """Do what these partitions have to do; whether it was done. What went wrong was decided for all of them."""
        which = ", ".join(map(str, numbers))
        try:
            await work
        except (LogUnavailable, StoreUnavailable) as error:
            _log.warning("cost of partition %s waits: %s", which, error)
        except CommitUnknown as error:
            _log.warning(
                "cost of partition %s is claimed again, as nobody knows whether it was written: %s", which, error
            )
            self._let_go(numbers)
        except Fenced as error:
            _log.warning("cost of partition %s is somebody else's: %s", which, error)
            self.fenced = True
        except (LogDamaged, StoreRefused, Malformed) as error:
            self._let_go(numbers)
            self._halted.update((number, (str(error), self._clock.boot_s() + MEND_S)) for number in numbers)
            _log.critical("cost of partition %s is halted: %s", which, error)
        else:
            return True
        return False

    def _let_go(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._owned.pop(number, None)

    async def _own(self, number: int) -> None:
        self._owned[number] = await self._take(number)
        self._halted.pop(number, None)

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
            await self._read_served([part], {number: claim.next_offset})
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

    async def _work_out(self, parts: Sequence[_Owned]) -> None:
        """What has come of these, and what changed by it. Of samples those of a partition that has read its records."""
        read_us = self._clock.wall_us() - AHEAD_US  # clocks differ by less
        for part in parts:
            part.went_on = False
            part.read_us = read_us
        bounds = await self._reader.bounds_of(self._kafka.topic_served, [part.number for part in parts])
        ends = {number: end for number, (_, end) in bounds.items()}
        parts = [part for part in parts if await self._guarded([part.number], self._reach(part, ends[part.number]))]
        try:
            await self._read_served(parts, ends)
        except LogDamaged:  # each by itself, to know whose it is
            parts = [part for part in parts if await self._guarded([part.number], self._read_served([part], ends))]
        read = [part for part in parts if await self._guarded([part.number], self._wanted(part, ends[part.number]))]
        await self._read_samples(read)
        for part in read:
            part.went_on = True
            await self._guarded([part.number], self._publish_of(part))

    async def _reach(self, part: _Owned, end: int) -> None:
        require_whole(self._kafka.topic_served, part.number, end, part.next_offset)

    async def _wanted(self, part: _Owned, end: int) -> None:
        """Where it has come to, and with that which samples it needs."""
        part.caught_up = part.next_offset >= end
        wanted_us = part.fold.take_samples_from_us()
        if wanted_us is not None:
            part.samples_from_us = min(wanted_us, part.samples_from_us or wanted_us)
        if part.samples_from_us is not None:
            back = [(each, await self._samples_from(each, part.samples_from_us)) for each in part.samples]
            part.samples.update((each, min(part.samples[each], position)) for each, position in back)
            part.samples_from_us = None

    async def _read_served(self, parts: Sequence[_Owned], ends: Mapping[int, int]) -> None:
        """From where each stands to its end, but no more than READ_MAX records, and not past what closes hours."""
        going = {part.number: part for part in parts}
        places = {
            part.number: (part.next_offset, min(ends[part.number], part.next_offset + READ_MAX)) for part in parts
        }
        count = 0
        async with aclosing(self._reader.read_together(self._kafka.topic_served, places)) as records:
            async for number, record in records:
                part = going.get(number)
                if part is None:
                    continue
                # What the checkpoint knew of closes nothing: if hours close sooner than they did then, they close with what
                # is published first.
                if record.offset >= part.committed_offset and part.fold.reach(record.timestamp * 1_000):
                    del going[number]  # what follows is read again, behind what is published now
                    continue
                self._apply_served(part, record)
                count += 1
                if count % YIELD_EVERY == 0:
                    await self._clock.sleep(0)
        for number, part in going.items():  # control batches leave no record
            part.next_offset = max(part.next_offset, places[number][1])

    def _apply_served(self, part: _Owned, record: Record) -> None:
        try:
            part.fold.apply(record.value, record.key, record.timestamp * 1_000)
        except SetAside as error:
            part.fold.counts[error.reason.value] += 1
            if record.offset >= part.committed_offset and len(part.letters) < LETTERS_MAX:
                letter = CostLetter(record.offset, error.reason.value, str(error), record.key, record.value)
                part.letters.append(letter)
        part.last = LastRecord(record.offset, record.timestamp, record_digest(record.key, record.value))
        part.next_offset = record.offset + 1

    async def _read_samples(self, parts: Sequence[_Owned]) -> None:
        """To the end, or while `served` is behind, as far as that has been read: windows that settle and hours that close
        must know the samples of their time. Each partition of the samples is read once, for all that need it."""
        if not parts:
            return
        topic = self._kafka.topic_gpu_telemetry
        going: dict[int, list[_Owned]] = {}
        places: dict[int, tuple[int, int]] = {}
        for each, (first, end) in (await self._reader.bounds_of(topic, sorted(parts[0].samples))).items():
            for part in parts:
                part.samples[each] = max(part.samples[each], first)
            going[each] = [part for part in parts if part.samples[each] < end]
            places[each] = (min((part.samples[each] for part in going[each]), default=end), end)
        count = 0
        async with aclosing(self._reader.read_together(topic, places)) as records:
            async for each, record in records:
                append_us = record.timestamp * 1_000
                going[each] = [part for part in going[each] if part.caught_up or append_us <= part.fold.log_us]
                self._apply_sample(going[each], each, record)
                if not any(going.values()):
                    return
                count += 1
                if count % YIELD_EVERY == 0:
                    await self._clock.sleep(0)

    def _apply_sample(self, parts: Sequence[_Owned], partition: int, record: Record) -> None:
        for part in parts:
            if record.offset < part.samples[partition]:
                continue  # another one is further back
            try:
                part.fold.apply_sample(record.value, record.key, record.timestamp * 1_000)
            except SetAside as error:
                part.fold.counts[f"sample_{error.reason.value}"] += 1
            part.samples[partition] = record.offset + 1

    # -------------------------------------------------------------------------------------------------------- publishing

    async def _publish_of(self, part: _Owned) -> None:
        part.pending = self._publish(part)
        await self._clock.sleep(0)  # others have their turn

    def _publish(self, part: _Owned) -> _Pending | None:
        """What changed, and its checkpoint; None where nothing did."""
        fold = part.fold
        now_us = self._clock.wall_us() if part.caught_up else fold.log_us
        if part.caught_up and fold.log_us:
            # Hours close where nothing comes, too: those of the margin wait for every partition's, and floors for what settles.
            fold.reach(part.read_us)
        # The first time all is worked out: or what an earlier owner told, and we have not looked at, would be taken back.
        published = fold.publish(now_us, live=part.caught_up or not part.compared)
        part.compared = True
        settled_us = max(part.settled_us, max(now_us, fold.log_us) - self._horizons.settle_us)
        told = published.rows or published.windows or published.requests or part.letters
        is_due = part.ckpt_seq and settled_us >= part.settled_us + SAY_EVERY_US
        if not told and not is_due and part.next_offset <= part.committed_offset:
            return None
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
            changes_from_us=max(0, fold.closed_us - self._changes_kept_us),
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

    async def _send(self, parts: Sequence[_Owned]) -> None:
        """All lines together: one request to a broker costs as much as ten."""
        pending = [part.pending for part in parts if part.pending is not None]
        lines = [line for each in pending for line in each.lines]
        if lines:
            await self._appender.append(lines)
        for each in pending:
            each.lines = []

    async def _commit_all(self, parts: Sequence[_Owned]) -> None:
        """In one transaction: it takes as long as that of one."""
        try:
            await self._commit(parts)
        except StoreRefused:  # each by itself, to know whose it is
            for part in parts:
                if not self.fenced:
                    await self._guarded([part.number], self._commit([part]))

    async def _commit(self, parts: Sequence[_Owned]) -> None:
        checkpoints = [part.pending.checkpoint for part in parts if part.pending is not None]
        await self._store.commit(checkpoints)
        for part, checkpoint in zip(parts, checkpoints, strict=True):
            part.pending = None
            part.ckpt_seq = checkpoint.ckpt_seq
            part.committed_offset = checkpoint.next_offset
            part.settled_us = checkpoint.settled_us
