"""Offers a workload to the log, open loop: records leave at their time, whether or not anyone keeps up."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from actors.ports import Appender, Clock, LogUnavailable, Outgoing
from engine.events import seal
from loadtest.workload import Send

TICK_S: Final = 0.01  # records of one hundredth of a second leave together
EVENT_LAG_US: Final = 5_000  # an event's own time lies this far before it is sent, never ahead of its append time
RETRY_S: Final = 0.2
UNDER_WAY_MAX: Final = 200  # batches; beyond it the driver falls behind and says so, rather than filling the memory


Acknowledge = Callable[[Sequence[str], Sequence[Outgoing], Sequence[int]], None]


class Driver:
    """Sends `sends` in their order. `counts` grows by kind as records leave."""

    def __init__(
        self,
        log: Appender,
        clock: Clock,
        topic: str,
        control_key: bytes,
        acknowledged: Acknowledge = lambda _kinds, _records, _offsets: None,
    ) -> None:
        """`acknowledged` is told of every batch that has become durable: kinds, records, offsets."""
        self.counts: Counter[str] = Counter()
        self.behind_s = 0.0  # how late the last batch left
        self._log = log
        self._clock = clock
        self._topic = topic
        self._control_key = control_key
        self._acknowledged = acknowledged
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def sent(self) -> int:
        return self.counts.total()

    async def run(self, sends: Iterable[Send]) -> None:
        """Returns when the last record is durable."""
        start_s = self._clock.boot_s()
        batch: list[Outgoing] = []
        kinds: list[str] = []
        batch_end_s = 0.0
        for send in sends:
            if send.at_s >= batch_end_s:
                await self._leave(batch, kinds)
                batch, kinds = [], []
                batch_end_s = (send.at_s // TICK_S + 1) * TICK_S
                ahead_s = start_s + send.at_s - self._clock.boot_s()
                self.behind_s = max(0.0, -ahead_s)
                await self._clock.sleep(max(0.0, ahead_s))
            batch.append(self._record(send))
            kinds.append(send.kind.split(".")[0])
            self.counts[kinds[-1]] += 1
        await self._leave(batch, kinds)
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _record(self, send: Send) -> Outgoing:
        value = send.render(self._clock.wall_us() - EVENT_LAG_US)
        if send.seal_partition is not None and value is not None:
            value = seal(self._control_key, self._topic, send.seal_partition, value)
        return Outgoing("usage", value, send.key, send.partition)

    async def _leave(self, batch: list[Outgoing], kinds: list[str]) -> None:
        if not batch:
            return
        while len(self._under_way) >= UNDER_WAY_MAX:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._append(batch, kinds))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _append(self, batch: list[Outgoing], kinds: list[str]) -> None:
        while True:
            try:
                offsets = await self._log.append(batch)
            except LogUnavailable:
                await self._clock.sleep(RETRY_S)
            else:
                self._acknowledged(kinds, batch, offsets)
                return
