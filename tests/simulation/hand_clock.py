"""A clock that stands still until it is told to move: time in tests of things that wait."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

TURNS_TO_SETTLE = 50


class HandClock:
    """The port `Clock`, moved by hand. Sleepers wake in the order (time, order of falling asleep)."""

    def __init__(self, wall_us: int = 1_750_000_000_000_000) -> None:
        self._start_us = wall_us
        self._now_s = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def wall_us(self) -> int:
        return self._start_us + round(self._now_s * 1_000_000)

    def boot_s(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, waking each sleeper at its own moment and letting everybody run in between."""
        await settle()
        end_s = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end_s:
            due_s, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._now_s = max(self._now_s, due_s)
            woken.set_result(None)
            await settle()
        self._now_s = end_s

    async def until(self, condition: Callable[[], bool], limit_s: float = 1_000_000.0) -> None:
        """Let time pass until the condition holds; fails when nobody sleeps, or after `limit_s`."""
        await settle()
        end_s = self._now_s + limit_s
        while not condition():
            assert self._sleepers, "the condition does not hold, and nobody waits for time to pass"
            assert self._sleepers[0][0] <= end_s, f"the condition does not hold after {limit_s} s"
            await self.advance(max(self._sleepers[0][0] - self._now_s, 0.0))


async def settle() -> None:
    """Let every task run that can."""
    for _ in range(TURNS_TO_SETTLE):
        await asyncio.sleep(0)
