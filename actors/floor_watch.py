"""Looks at margin floors, hour by hour, and at the budgets of training runs, and tells the seller what has crossed. A plain
class; it runs beside the margin actor that owns the first partition, and whoever looks behind it is refused by that partition's
epoch."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from actors.margin_floors import KeptFloor, Looked
from actors.outbox import Outbox
from actors.ports import AlertRow, Clock, CommitUnknown, Fenced, StoreRefused, StoreUnavailable
from actors.seller_alerts import ALERTS_PARTITION
from engine.cost.attribution import AHEAD_US
from engine.cost.floors import Of, look
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Margin
from engine.events import Malformed

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
HOURS_MAX: Final = 48  # further back nothing is told any more: nobody acts on it


class Floors(Protocol):
    """`PostgresFloors`."""

    async def all(self) -> list[KeptFloor]: ...

    async def told_us(self, partitions: int) -> int | None: ...

    async def costs_settled_us(self) -> int | None: ...

    async def hour(self, hour_us: int, of: Of, subject: str) -> list[tuple[str, Margin]]: ...

    async def write(self, looked: Looked, epoch: int) -> AlertRow | None: ...


class Budgets(Protocol):
    """`PostgresTraining`."""

    async def judge(self, epoch: int) -> list[AlertRow]: ...


class Alerts(Protocol):
    """What of `PostgresStore` is needed."""

    async def waiting_alerts(self, partition: int) -> list[AlertRow]: ...


class FloorWatch:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        clock: Clock,
        floors: Floors,
        budgets: Budgets,
        alerts: Alerts,
        outbox: Outbox,
        epoch: Callable[[], int | None],
        partitions: int,
        settle_us: int,
        close_us: int,
    ) -> None:
        """`epoch`: of the margin's first partition; None while it is not ours. An hour is looked at `settle_us` behind its
        end, once every cost actor has come so far and no cost of it is provisional, or at the latest when it has closed."""
        self._clock = clock
        self._floors = floors
        self._budgets = budgets
        self._alerts = alerts
        self._outbox = outbox
        self._epoch = epoch
        self._partitions = partitions
        self._settle_us = settle_us
        self._close_us = close_us
        self._resumed_at: int | None = None  # the epoch at which what was untold has been taken up
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    def stop(self) -> None:
        """End behind the look under way."""
        self._stopping.set()

    async def look(self) -> None:
        """Look at every hour that has settled since the last time."""
        epoch = self._epoch()
        if epoch is None:
            return
        try:
            if self._resumed_at != epoch:
                self._outbox.resume(ALERTS_PARTITION, await self._alerts.waiting_alerts(ALERTS_PARTITION))
                self._resumed_at = epoch
            settled_us = await self._floors.costs_settled_us()
            told_us = await self._floors.told_us(self._partitions)
            for kept in await self._floors.all() if told_us is not None else ():
                await self._look_at(kept, told_us or 0, settled_us, epoch)
            for row in await self._budgets.judge(epoch):
                self._tell(row)
            await self._outbox.flush()
        except (StoreUnavailable, StoreRefused, CommitUnknown, Malformed) as error:
            _log.warning("margin floors and budgets wait: %s", error)
            self._resumed_at = None  # an alert may be in the outbox that we do not know of
        except Fenced as error:
            _log.warning("%s", error)
            self._outbox.forget(ALERTS_PARTITION)
            self._resumed_at = None

    async def _look_at(self, kept: KeptFloor, told_us: int, settled_us: int | None, epoch: int) -> None:
        floor = kept.floor
        behind_us = told_us - AHEAD_US - self._settle_us
        hour_us = max(floor.next_us, (behind_us // HOUR_US - HOURS_MAX) * HOUR_US)
        if hour_us + HOUR_US > behind_us:
            return
        closed = hour_us + HOUR_US + self._close_us <= told_us
        if settled_us is not None and hour_us + HOUR_US > settled_us - AHEAD_US and not closed:
            return  # a cost actor is behind: what it will tell is not unknown
        sums = await self._floors.hour(hour_us, floor.of, floor.subject)
        if any(each.provisional for _, each in sums) and not closed:
            return
        row = await self._floors.write(Looked(kept, hour_us, look(floor, hour_us, sums)), epoch)
        if row is not None:
            self._tell(row)

    def _tell(self, row: AlertRow) -> None:
        self._outbox.offer(ALERTS_PARTITION, row)
        self._outbox.checkpointed(ALERTS_PARTITION, row.offset + 1)
