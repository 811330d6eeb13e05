"""Open-loop arrival: calls begin at times fixed beforehand, whether or not those before them have been answered.

A caller that waits for an answer before it asks again asks less while the system is slow, and so never sees how slow it
was (coordinated omission). Here a call's time is counted from when it should have begun; only what the event loop's timers
are coarse, about a millisecond, is taken off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import numpy as np
from msgspec import Struct

from actors.ports import Clock
from loadtest.bench.latency import Latencies

TIMER_S: Final = (
    0.0015  # a call that begins no later than this after its time was held up by the timer and by nothing else
)
IN_FLIGHT_MAX: Final = 2_000  # beyond it calls begin late, and are counted from their time all the same

Times = list[float]  # seconds after the start, ascending


class Offered(Struct):
    """What came of a schedule."""

    scheduled: int
    failed: int  # calls that raised what the caller had declared as a failure
    behind_s: float  # the latest that a call began after its time
    seconds: float  # from the start to the last answer


def steady(per_s: float, seconds: float) -> Times:
    """Evenly spaced."""
    if per_s <= 0 or seconds <= 0:
        raise ValueError(f"{per_s} calls per second for {seconds} s: both must be above 0")
    return [number / per_s for number in range(round(per_s * seconds))]


def poisson(per_s: float, seconds: float, seed: int) -> Times:
    """As independent callers come: gaps are drawn, and the same seed draws the same."""
    if per_s <= 0 or seconds <= 0:
        raise ValueError(f"{per_s} calls per second for {seconds} s: both must be above 0")
    source = np.random.default_rng(seed)
    count = source.poisson(per_s * seconds)
    times: Times = np.sort(source.uniform(0.0, seconds, count)).tolist()
    return times


def steps(start: float, factor: float, ceiling: float) -> list[float]:
    """Rates of a ramp: each is `factor` times the one before, up to `ceiling`."""
    if start <= 0 or factor <= 1 or ceiling < start:
        raise ValueError(f"a ramp from {start} by {factor} to {ceiling} goes nowhere")
    rates = [start]
    while rates[-1] * factor <= ceiling:
        rates.append(rates[-1] * factor)
    return rates


async def open_loop(
    times: Iterable[float],
    call: Callable[[int], Awaitable[None]],
    clock: Clock,
    latencies: Latencies,
    failures: tuple[type[Exception], ...] = (),
    in_flight_max: int = IN_FLIGHT_MAX,
) -> Offered:
    """Begin `call(number)` at each time; its duration runs from that time. Returns when the last has ended.

    A call that raises one of `failures` is counted and has no duration; any other error ends the run."""
    start_s = clock.boot_s()
    offered = Offered(0, 0, 0.0, 0.0)
    under_way: set[asyncio.Task[None]] = set()

    async def one(number: int, from_s: float) -> None:
        try:
            await call(number)
        except failures:
            offered.failed += 1
        else:
            latencies.record(clock.boot_s() - from_s)

    async with asyncio.TaskGroup() as group:
        for number, at_s in enumerate(times):
            due_s = start_s + at_s
            if (ahead_s := due_s - clock.boot_s()) > 0:
                await clock.sleep(ahead_s)
            while len(under_way) >= in_flight_max:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            offered.scheduled += 1
            late_s = clock.boot_s() - due_s
            offered.behind_s = max(offered.behind_s, late_s)
            task = group.create_task(one(number, due_s if late_s > TIMER_S else due_s + late_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    offered.seconds = clock.boot_s() - start_s
    return offered
