"""The trial, with contenders whose faults are known."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from loadtest.patterns.trial import (
    Cast,
    Contender,
    Money,
    Scale,
    alert_delays,
    balance_delays,
    beside,
    check_times,
    measured,
    money,
    overspend,
)
from loadtest.probes import COST_PICO, Customer, customers
from tests.simulation.hand_clock import HandClock

SCALE = Scale(checks_per_s=100, checks_s=1, delays=3, alerts=4, cap_requests=20, alert_requests=2, callers=8)
_Value = TypeVar("_Value")


def cast() -> Cast:
    (crowded,) = customers("crowded", 1, 1)
    return Cast(customers("checked", 10, 1), customers("followed", 3, 1), customers("alerted", 4, 1), crowded)


class Counter:
    """Sees usage `late_s` after it was reported; refuses by what it sees, or by what it has reserved."""

    name = "counter"
    pair = "door"
    note = ""
    failures: tuple[type[Exception], ...] = (ConnectionError,)

    def __init__(self, clock: HandClock, late_s: float, reserves: bool = False) -> None:
        self.clock = clock
        self.late_s = late_s
        self.reserves = reserves
        self.reserved: dict[str, int] = {}
        self.reported: dict[str, list[float]] = {}

    async def check(self, account: str) -> str | None:
        known = self.reserved.get(account, 0) if self.reserves else await self.booked(account)
        if known + COST_PICO > SCALE.cap_pico:
            return None
        self.reserved[account] = self.reserved.get(account, 0) + COST_PICO
        return ""

    async def spend(self, customer: Customer, token: str) -> None:
        self.reported.setdefault(customer.account, []).append(self.clock.boot_s())

    async def booked(self, account: str) -> int:
        now_s = self.clock.boot_s()
        return COST_PICO * sum(at_s + self.late_s <= now_s for at_s in self.reported.get(account, ()))

    async def alerted(self, account: str) -> float:
        while await self.booked(account) < SCALE.alert_pico:
            await self.clock.sleep(0.01)
        return self.clock.boot_s()


async def passed(clock: HandClock, work: Awaitable[_Value]) -> _Value:
    task = asyncio.ensure_future(work)
    await clock.until(task.done, 1_000)
    return await task


async def test_delays_are_what_the_contender_takes() -> None:
    clock = HandClock()
    slow: Contender = Counter(clock, 0.5)
    assert (await passed(clock, balance_delays(slow, cast(), clock, SCALE, 0.1))).at(50) == pytest.approx(500, rel=0.03)
    assert (await passed(clock, alert_delays(slow, cast(), clock, SCALE, 0.1))).at(50) == pytest.approx(500, rel=0.03)


async def test_a_timer_is_met_at_any_moment_of_its_period() -> None:
    class Timed(Counter):
        async def booked(self, account: str) -> int:
            refreshed_s = self.clock.boot_s() // 1.0
            return COST_PICO * sum(at_s < refreshed_s for at_s in self.reported.get(account, ()))

    clock = HandClock()
    delays = await passed(clock, balance_delays(Timed(clock, 0.0), cast(), clock, SCALE, 0.3))
    assert len(delays) == 3
    slowest, fastest = delays.at(100), delays.at(0)
    assert slowest is not None and fastest is not None
    assert slowest - fastest == pytest.approx(600, abs=60), "they are spread over a period, and do not follow it"


async def test_who_reserves_does_not_overspend_and_who_looks_back_does() -> None:
    clock = HandClock()
    assert await passed(clock, overspend(Counter(clock, 0.5, reserves=True), cast(), clock, SCALE)) == 0
    # Eight callers with 20 ms of work each ask 400 times a second: half a second late is 200 requests too many.
    beyond = await passed(clock, overspend(Counter(clock, 0.5), cast(), clock, SCALE))
    assert 180 < beyond < 220


async def test_callers_stop_asking_even_if_nobody_refuses() -> None:
    clock = HandClock()
    never = Counter(clock, 1_000.0)
    assert await passed(clock, overspend(never, cast(), clock, SCALE)) == pytest.approx(8 * 10 / 0.02, rel=0.05)


async def test_checks_are_spread_over_customers_who_have_spent_nothing() -> None:
    clock = HandClock()
    counter = Counter(clock, 0.0)
    latencies, failed = await passed(clock, check_times(counter, cast(), clock, SCALE))
    assert 60 < len(latencies) < 140
    assert failed == 0
    assert len(counter.reserved) == 10


async def test_who_does_not_answer_is_counted() -> None:
    class Deaf(Counter):
        async def check(self, account: str) -> str | None:
            raise ConnectionError("nobody there")

    clock = HandClock()
    latencies, failed = await passed(clock, check_times(Deaf(clock, 0.0), cast(), clock, SCALE))
    assert not len(latencies)
    assert 60 < failed < 140


async def test_a_refusal_of_one_who_spent_nothing_ends_the_trial() -> None:
    class Closed(Counter):
        async def check(self, account: str) -> str | None:
            return None

    clock = HandClock()
    with pytest.raises(ExceptionGroup):
        await passed(clock, check_times(Closed(clock, 0.0), cast(), clock, SCALE))


async def test_all_figures_are_there() -> None:
    clock = HandClock()
    figures = await passed(clock, measured(Counter(clock, 0.1, reserves=True), cast(), clock, SCALE, 0.1))
    assert figures["overspend_pico"] == 0
    assert figures["alert_p50_ms"] == pytest.approx(100, rel=0.15)
    assert None not in figures.values()


def test_a_pair_is_judged_by_the_better_of_check_and_alert() -> None:
    ours = {"check_p50_ms": 2.0, "alert_p50_ms": 20.0, "balance_p50_ms": 10.0}
    other = {"check_p50_ms": 5.0, "alert_p50_ms": 2_000.0, "balance_p50_ms": 5.0}
    assert beside(ours, other) == {"check_times": 2.5, "alert_times": 100.0, "balance_times": 0.5, "best": 100.0}
    assert beside({}, other)["best"] is None


def test_what_is_lost_of_one_customer_is_not_made_good_by_another() -> None:
    assert money({"a": 10, "b": 10}, {"a": 7, "b": 13}) == Money(3, 3)
    assert money({"a": 10}, {}) == Money(10, 0)
    assert money({}, {"a": 10}) == Money(0, 10)
    assert money({"a": 10}, {"a": 10}) == Money(0, 0)
