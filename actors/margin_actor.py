"""A margin actor: joins what requests are charged with what they cost, for the accounts of some partitions. A plain class.

It reads those partitions of the topic `rated`, and all of `costs`, as costs lie under their replicas. Nobody waits for it, so
it owns without a lease, and goes on by turns (actors/turns.py). A new owner reads the lines of all hours that are not closed
again, to where the topics end, before it tells what differs from the rows it finds."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.cost import MEND_S, Reader
from actors.margin_store import MarginCheckpoint, MarginClaim
from actors.ports import (
    Clock,
    CommitUnknown,
    Fenced,
    LogDamaged,
    LogUnavailable,
    Record,
    StoreRefused,
    StoreUnavailable,
)
from actors.turns import Turns, require_whole
from config.settings import KafkaSettings
from engine.cost.attribution import AHEAD_US
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, parse_line
from engine.cost.margin import RUN_KEPT_US, Key, Margin, MarginFold, closed_at
from engine.events import Malformed
from engine.placement import partition_for

_log = logging.getLogger(__name__)

# A line is not appended before the hour that it speaks of, but by what clocks may differ; and an hour more, for requests that
# began in the one before.
NEEDED_US: Final = HOUR_US + AHEAD_US
SAY_EVERY_US: Final = 30_000_000  # where nothing comes, that it is so
WAIT_US: Final = 24 * HOUR_US  # behind its time an hour closes, also where a cost actor has not come to its end


class MarginCheckpoints(Protocol):
    """Where checkpoints go: `MarginStore`."""

    async def claim(self, partition: int, owner: str) -> MarginClaim: ...

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Margin]]: ...

    async def costs_closed_us(self) -> int: ...

    async def commit(self, checkpoints: Sequence[MarginCheckpoint]) -> None: ...


class MarginView(Struct, frozen=True):
    """What an operator sees of a partition."""

    partition: int
    epoch: int
    rated_offset: int
    requests: int  # in memory
    unreadable: int
    too_late: int  # costs of closed hours


class _Owned:
    """A partition, and where it stands."""

    def __init__(self, number: int, claim: MarginClaim, fold: MarginFold, offset: int) -> None:
        self.number = number
        self.fold = fold
        self.epoch = claim.epoch
        self.ckpt_seq = claim.ckpt_seq
        self.offset = offset  # of `rated`, the next one
        self.committed = (claim.rated_offset, claim.costs_offsets, claim.closed_us)
        self.told_us = 0
        self.pending: MarginCheckpoint | None = None


class MarginActor(Turns):
    """See the module's docstring."""

    def __init__(
        self,
        owner: str,
        partitions: Sequence[int],
        *,
        clock: Clock,
        reader: Reader,
        store: MarginCheckpoints,
        kafka: KafkaSettings,
        close_us: int,
        runs_kept_us: int,
        interval_s: float,
    ) -> None:
        """`owner` names this life of the actor. `runs_kept_us`: so long behind an hour's closing its rows of runs are kept, at
        least RUN_KEPT_US. `interval_s` lies between two turns."""
        assert runs_kept_us >= RUN_KEPT_US, "a new owner has to know them"
        super().__init__(clock, interval_s)
        self._owner = owner
        self._partitions = tuple(partitions)
        self._reader = reader
        self._store = store
        self._kafka = kafka
        self._close_us = close_us
        self._runs_kept_us = runs_kept_us
        self._owned: dict[int, _Owned] = {}
        self._costs: dict[int, int] = {}  # next offset by partition of `costs`
        self._again_s = 0.0  # halted: not before
        self.halted = ""

    def views(self) -> list[MarginView]:
        """Every partition that it owns."""
        return [
            MarginView(
                *(part.number, part.epoch, part.offset, len(part.fold)),
                *(part.fold.unreadable, part.fold.too_late),
            )
            for part in self._owned.values()
        ]

    def epoch_of(self, partition: int) -> int | None:
        """At which it owns the partition; None: it does not."""
        part = self._owned.get(partition)
        return None if part is None or self.fenced else part.epoch

    async def turn(self) -> bool:
        """Read, work out, commit."""
        if self._clock.boot_s() < self._again_s:
            return False
        try:
            if len(self._owned) < len(self._partitions):
                await self._take()
            # Asked before the topics are read: what is told of these hours is read by then.
            costs_closed_us, told_us = await self._store.costs_closed_us(), self._clock.wall_us()
            await self._read()
            await self._commit(costs_closed_us, told_us)
        except (LogUnavailable, StoreUnavailable) as error:
            _log.warning("margin waits: %s", error)
        except CommitUnknown as error:
            _log.warning("margin is claimed again, as nobody knows whether it was written: %s", error)
            self._let_go()
        except Fenced as error:
            _log.warning("%s", error)
            self.fenced = True
        except (LogDamaged, StoreRefused, Malformed) as error:
            self._let_go()
            self.halted, self._again_s = str(error), self._clock.boot_s() + MEND_S
            _log.critical("margin is halted: %s", error)
        else:
            self.halted = ""
        return False

    def _let_go(self) -> None:
        self._owned.clear()
        self._costs.clear()

    # ------------------------------------------------------------------------------------------------------- taking over

    async def _take(self) -> None:
        self._let_go()
        rated, costs = self._kafka.topic_rated, self._kafka.topic_costs
        claims = {number: await self._store.claim(number, self._owner) for number in self._partitions}
        owned: dict[int, _Owned] = {}
        for number, claim in claims.items():
            first, end = await self._reader.bounds(rated, number)
            require_whole(rated, number, end, claim.rated_offset, "the checkpoint at")
            offset = max(first, await self._offset_from(rated, number, claim.closed_us))
            owned[number] = _Owned(number, claim, MarginFold(self._close_us), offset)
        from_us = min(claim.closed_us for claim in claims.values())
        for each in range(await self._reader.partitions(costs)):
            first, end = await self._reader.bounds(costs, each)
            known = (offset for claim in claims.values() for offset in claim.costs_offsets[each : each + 1])
            require_whole(costs, each, end, max(known, default=0), "the checkpoint at")
            self._costs[each] = max(first, await self._offset_from(costs, each, from_us))
        self._owned = owned
        try:
            await self._read()
            await self._compare(claims)
        except BaseException:
            self._let_go()  # or it would go on, and what an earlier owner told and is not so would stay
            raise

    async def _compare(self, claims: Mapping[int, MarginClaim]) -> None:
        """What earlier owners told is held against what has been read."""
        for number, claim in claims.items():
            rows = await self._store.rows(number, claim.closed_us)
            self._owned[number].fold.told(rows, claim.closed_us)
            _log.info("margin of partition %d is ours at epoch %d", number, claim.epoch)

    async def _offset_from(self, topic: str, partition: int, closed_us: int) -> int:
        return await self._reader.offset_from(topic, partition, max(0, closed_us - NEEDED_US) // 1_000)

    # ----------------------------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        """All that has come by now."""
        topic, owned = self._kafka.topic_rated, self._owned
        bounds = await self._reader.bounds_of(topic, list(owned))
        places = {number: (owned[number].offset, end) for number, (_, end) in bounds.items()}
        for each, (offset, end) in places.items():
            require_whole(topic, each, end, offset)
        async with aclosing(self._records(topic, places)) as records:
            async for number, record in records:
                part = owned[number]
                for text in (record.value or b"").splitlines():
                    part.fold.apply_rated(number, text, record.timestamp * 1_000)
                part.offset = record.offset + 1
        for number, (_, end) in bounds.items():  # control batches leave no record
            owned[number].offset = max(owned[number].offset, end)
        topic = self._kafka.topic_costs
        bounds = await self._reader.bounds_of(topic, list(self._costs))
        places = {each: (self._costs[each], end) for each, (_, end) in bounds.items()}
        for each, (offset, end) in places.items():
            require_whole(topic, each, end, offset)
        async with aclosing(self._records(topic, places)) as records:
            async for each, record in records:
                for text in (record.value or b"").splitlines():
                    self._apply_cost(text)
                self._costs[each] = record.offset + 1
        for each, (_, end) in bounds.items():
            self._costs[each] = max(self._costs[each], end)

    def _apply_cost(self, text: bytes) -> None:
        try:
            told = parse_line(text)
        except msgspec.MsgspecError as error:
            raise Malformed(f"a line of {self._kafka.topic_costs}: {error}") from error
        if isinstance(told, RequestLine):
            part = self._owned.get(partition_for((told.account or "").encode(), self._kafka.partitions))
            if part is not None:
                part.fold.apply_cost(told)

    async def _records(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        """Others have their turn behind every record: it is a block of many lines."""
        async with aclosing(self._reader.read_together(topic, places)) as records:
            async for each in records:
                yield each
                await self._clock.sleep(0)

    # ---------------------------------------------------------------------------------------------------------- telling

    async def _commit(self, costs_closed_us: int, told_us: int) -> None:
        """What changed of all partitions, in one transaction: it takes as long as that of one."""
        for part in self._owned.values():
            if part.pending is None:
                part.pending = self._cut(part, costs_closed_us, told_us)
        parts = [part for part in self._owned.values() if part.pending is not None]
        cuts = [part.pending for part in parts if part.pending is not None]
        if not cuts:
            return
        await self._store.commit(cuts)
        for part, cut in zip(parts, cuts, strict=True):
            part.pending = None
            part.ckpt_seq, part.told_us = cut.ckpt_seq, cut.told_us
            part.committed = (cut.rated_offset, cut.costs_offsets, cut.closed_us)
            if cut.closed_us > part.fold.closed_us:
                part.fold.forget(cut.closed_us)

    def _cut(self, part: _Owned, costs_closed_us: int, told_us: int) -> MarginCheckpoint | None:
        """None where there is nothing to be told."""
        fold, costs = part.fold, tuple(self._costs[each] for each in sorted(self._costs))
        now_us = self._clock.wall_us() - AHEAD_US  # what is appended from here on comes no earlier
        least_us = closed_at(now_us, self._close_us + WAIT_US)
        closed_us = max(fold.closed_us, least_us, min(costs_closed_us, closed_at(now_us, self._close_us)))
        rows = fold.changes()
        still = not rows and (part.offset, costs, closed_us) == part.committed
        if still and told_us < part.told_us + SAY_EVERY_US:
            return None
        runs_from_us = max(0, closed_us - self._runs_kept_us)
        return MarginCheckpoint(
            part.number, part.epoch, part.ckpt_seq + 1, part.offset, costs, closed_us, told_us, runs_from_us, rows
        )
