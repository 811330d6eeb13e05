"""Who speaks for the partitions, asked without end from outside, and since when again."""

import asyncio
from typing import Final

from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Balance, BalanceView, NotFound
from actors.ports import Clock
from engine.placement import partition_for

ASK_EVERY_S: Final = 0.05
ANSWER_WITHIN_S: Final = 0.5  # nobody speaks for a partition that takes longer
SILENCE_FROM_S: Final = 3 * ASK_EVERY_S  # a successor may answer the very question that its predecessor left open


class Voices:
    """Asks the owner of every partition for a balance, many times a second. `doors` are started by the caller."""

    def __init__(self, doors: Doors, clock: Clock, partitions: int) -> None:
        self._doors = doors
        self._clock = clock
        self._accounts = [_somebody(partition, partitions) for partition in range(partitions)]
        self._heard_s = dict.fromkeys(range(partitions), float("-inf"))  # the last answer
        self._silent = set(range(partitions))
        # An answer, and the next one of that partition, SILENCE_FROM_S later at least.
        self._silences: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._ask(partition)) for partition in range(len(self._accounts))]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def silent(self) -> list[int]:
        """Partitions that nobody speaks for at this moment."""
        return sorted(self._silent)

    def silence_s(self, since_s: float) -> float:
        """The longest silence of a partition, as far as it lies behind `since_s` and has ended: 0 when there was none."""
        return max((end_s - max(start_s, since_s) for start_s, end_s in self._silences if end_s > since_s), default=0.0)

    async def _ask(self, partition: int) -> None:
        while True:
            if await self._answered(partition):
                now_s = self._clock.boot_s()
                if now_s - self._heard_s[partition] >= SILENCE_FROM_S:
                    self._silences.append((self._heard_s[partition], now_s))
                self._heard_s[partition] = now_s
                self._silent.discard(partition)
            else:
                self._silent.add(partition)
            await self._clock.sleep(ASK_EVERY_S)

    async def _answered(self, partition: int) -> bool:
        try:
            answer = await self._doors.ask(
                self._accounts[partition], Balance(self._accounts[partition]), ANSWER_WITHIN_S
            )
        except DoorUnavailable:
            return False
        return isinstance(answer, BalanceView | NotFound)


def _somebody(partition: int, partitions: int) -> str:
    """A name whose account would lie there."""
    number = 0
    while partition_for(f"voice-{number}".encode(), partitions) != partition:
        number += 1
    return f"voice-{number}"
