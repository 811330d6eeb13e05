"""The machine's clocks."""

import asyncio
import time


class SystemClock:
    """The `Clock` port. Deadlines use CLOCK_BOOTTIME: a lease must also run out in a machine that slept."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def boot_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
