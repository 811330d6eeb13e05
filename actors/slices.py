"""Slices and leases on their way into the log: one record for all that wait, and the next one gathers meanwhile.

A hold is approved only within a slice that its owner has read back from the log (engine/README.md, "Holds"). Slices are
written as the desk asked for them and in that order, because the desk knows each again when it is read.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.owned import Owned
from actors.ports import Clock, Log, LogUnavailable, Outgoing
from config.settings import LeaseSettings, ShardSettings
from engine.admission import SliceNeeded
from engine.events import LEASES_IN_RECORD_MAX, SLICES_MAX, Leases, Slices, seal
from engine.holds import VALID_GAP_US
from engine.money import quantity_text

_log = logging.getLogger(__name__)

RETRY_S: Final = 0.2
CLOCK_MARGIN_S: Final = 10.0  # how far the clocks of an owner and of a broker may be apart


def linger_us(settings: ShardSettings, leases: LeaseSettings) -> int:
    """How long after a change of owner a hold of the old one can still be reported.

    The old one may answer until its lease ends, and by its own clock."""
    seconds = settings.hold_ttl_max_s + settings.report_delay_s + leases.lease_s + CLOCK_MARGIN_S
    return int(seconds * 1_000_000) + VALID_GAP_US


class _Batch(Struct, eq=False):
    """One record to be, and who waits until it is read."""

    epoch: int
    read: "asyncio.Future[None]"
    of: dict[str, Mapping[str, int]] = {}
    granted: list[str] = []  # tokens of leases
    closed: list[tuple[str, str, int]] = []  # account, lease, events


class SliceWriter:
    """Puts the slices and leases of one shard's partitions into the log."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        topic: str,
        control_key: bytes,
        linger_us: int,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self._log = log
        self._clock = clock
        self._topic = topic
        self._control_key = control_key
        self._linger_us = linger_us
        self._spawn = spawn
        self._gathering: dict[Owned, _Batch] = {}
        self._writing: dict[Owned, _Batch] = {}

    async def written(self, owned: Owned, needed: SliceNeeded) -> None:
        """Return once the slice has been read back, or the partition is no longer ours: then ask again."""
        await asyncio.shield(self._batch(owned, needed).read)

    async def granted(self, owned: Owned, token: str) -> None:
        """Likewise, of a lease. If the partition is no longer ours it may be in the log, or not."""
        batch = self._gathered(owned)
        batch.granted.append(token)
        await asyncio.shield(batch.read)

    async def closed(self, owned: Owned, account: str, lease: str, events: int) -> None:
        """Likewise, of a lease that its holder has closed."""
        batch = self._gathered(owned)
        batch.closed.append((account, lease, events))
        await asyncio.shield(batch.read)

    def wish(self, owned: Owned, needed: SliceNeeded) -> None:
        """Put the slice into the log; nobody waits."""
        self._batch(owned, needed)

    def _batch(self, owned: Owned, needed: SliceNeeded) -> _Batch:
        writing = self._writing.get(owned)
        same_epoch = writing is not None and writing.epoch == owned.epoch
        if writing is not None and same_epoch and writing.of.get(needed.account) == needed.quantities:
            return writing
        gathering = self._gathered(owned)
        gathering.of[needed.account] = needed.quantities
        return gathering

    def _gathered(self, owned: Owned) -> _Batch:
        gathering = self._gathering.get(owned)
        if gathering is not None and gathering.epoch != owned.epoch:
            self._settle(gathering)
            gathering = None
        if gathering is None:
            gathering = _Batch(owned.epoch, asyncio.get_running_loop().create_future())
            self._gathering[owned] = gathering
        if owned.slicing is None:
            owned.slicing = self._spawn(self._write(owned))
        return gathering

    async def _write(self, owned: Owned) -> None:
        try:
            while (batch := self._gathering.pop(owned, None)) is not None:
                self._writing[owned] = batch
                offset = await self._append(owned, batch)
                if offset is not None:
                    await owned.folded(offset)
                self._settle(self._writing.pop(owned))
        finally:
            owned.slicing = None
            for batches in (self._writing, self._gathering):
                if owned in batches:
                    self._settle(batches.pop(owned))

    @staticmethod
    def _settle(batch: _Batch) -> None:
        if not batch.read.done():
            batch.read.set_result(None)

    async def _append(self, owned: Owned, batch: _Batch) -> int | None:
        """The offset of the last record, once all are durable. Written twice, a slice is the same slice. None: the
        epoch that the slices are for is over."""
        accounts = list(batch.of.items())
        records = [
            *(
                self._slices(owned, batch.epoch, accounts[start : start + SLICES_MAX])
                for start in range(0, len(accounts), SLICES_MAX)
            ),
            *(
                self._record(owned, Leases(batch.epoch, tuple(batch.granted[start : start + LEASES_IN_RECORD_MAX]), ()))
                for start in range(0, len(batch.granted), LEASES_IN_RECORD_MAX)
            ),
            *(
                self._record(owned, Leases(batch.epoch, (), tuple(batch.closed[start : start + LEASES_IN_RECORD_MAX])))
                for start in range(0, len(batch.closed), LEASES_IN_RECORD_MAX)
            ),
        ]
        while batch.epoch == owned.epoch:
            try:
                return (await self._log.append(records))[-1]
            except LogUnavailable as error:
                _log.warning("partition %d: slices wait for Kafka: %s", owned.number, error)
                await self._clock.sleep(RETRY_S)
        return None

    def _slices(self, owned: Owned, epoch: int, accounts: list[tuple[str, Mapping[str, int]]]) -> Outgoing:
        of = tuple(
            (account, {price: quantity_text(quantity) for price, quantity in quantities.items()})
            for account, quantities in accounts
        )
        return self._record(owned, Slices(epoch, self._linger_us, of))

    def _record(self, owned: Owned, control: Slices | Leases) -> Outgoing:
        body = msgspec.json.encode(control)
        return Outgoing("usage", seal(self._control_key, self._topic, owned.number, body), partition=owned.number)
