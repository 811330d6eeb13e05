"""What the port `Clock` promises, held against the machine's clocks and the one moved by hand."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from actors.clock import SystemClock
from actors.ports import Clock
from tests.simulation.hand_clock import HandClock

Pass = Callable[[float], Awaitable[None]]


@pytest.fixture(params=["simulated", "real"])
def clock_and_pass(request: pytest.FixtureRequest) -> tuple[Clock, Pass]:
    if request.param == "real":
        return SystemClock(), asyncio.sleep
    clock = HandClock()
    return clock, clock.advance


async def test_a_sleep_lasts_at_least_as_long_as_asked(clock_and_pass: tuple[Clock, Pass]) -> None:
    clock, pass_time = clock_and_pass
    before_s = clock.boot_s()
    sleeper = asyncio.create_task(clock.sleep(0.02))
    while not sleeper.done():
        await pass_time(0.005)
    assert clock.boot_s() - before_s >= 0.0199


async def test_deadlines_never_go_back(clock_and_pass: tuple[Clock, Pass]) -> None:
    clock, pass_time = clock_and_pass
    readings = []
    for _ in range(20):
        readings.append(clock.boot_s())
        await pass_time(0.0001)
    assert readings == sorted(readings)
    assert readings[0] < readings[-1]


async def test_wall_time_is_microseconds_of_this_century(clock_and_pass: tuple[Clock, Pass]) -> None:
    clock, _ = clock_and_pass
    assert isinstance(clock.wall_us(), int)
    assert 1_700_000_000_000_000 < clock.wall_us() < 4_000_000_000_000_000


def test_the_machines_clock_counts_time_spent_suspended() -> None:
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    reading_s = SystemClock().boot_s()
    assert before_s <= reading_s <= time.clock_gettime(time.CLOCK_BOOTTIME)
