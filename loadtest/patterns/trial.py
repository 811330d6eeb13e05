"""What every contender is put through, whoever it is: the same questions, the same clock, the same arithmetic."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from msgspec import Struct

from actors.ports import Clock
from loadtest.bench.arrivals import open_loop, poisson
from loadtest.bench.latency import Latencies
from loadtest.probes import COST_PICO, Customer

POLL_S: Final = 0.001  # between two looks at a balance, at first
POLL_SHARE: Final = 0.02  # of what has been waited, later: who waits for a timer leaves the contender alone
WITHIN_S: Final = 60.0


class Contender(Protocol):
    """One way to ask and to report. `failures` are what its connections raise when nobody answered in time."""

    name: str
    pair: str  # what it is compared with: http, door or lease
    note: str  # the timers and settings that its figures hang on
    failures: tuple[type[Exception], ...]

    async def check(self, account: str) -> str | None:
        """Ask whether one request may run: a token for its usage (perhaps empty), or None for a refusal."""

    async def spend(self, customer: Customer, token: str) -> None:
        """Report that the request ran, and cost COST_PICO."""

    async def booked(self, account: str) -> int:
        """What a check sees as spent, in pico."""

    async def alerted(self, account: str) -> float:
        """When the customer's alert came, by the boot clock; waits for it."""


class Scale(Struct, frozen=True):
    """How long to measure."""

    events: int = 25_000  # in the log, when they are counted and when the process is killed
    customers: int = 1_000  # that these are spread over
    checks_per_s: float = 200.0
    checks_s: float = 10.0
    delays: int = 20  # customers whose event is followed to the balance
    alerts: int = 20  # customers followed to the alert
    cap_requests: int = 200
    alert_requests: int = 5
    callers: int = 64
    work_s: float = 0.02  # how long a request runs, between its check and its usage
    overspend_s: float = 10.0  # then callers give up asking, refused or not

    @property
    def cap_pico(self) -> int:
        return self.cap_requests * COST_PICO

    @property
    def alert_pico(self) -> int:
        return self.alert_requests * COST_PICO


class Cast(Struct, frozen=True):
    """The customers of one contender's trial; each opened with the cap and the alert of the scale."""

    checked: Sequence[Customer]
    followed: Sequence[Customer]
    alerted: Sequence[Customer]
    crowded: Customer

    def everybody(self) -> list[Customer]:
        return [*self.checked, *self.followed, *self.alerted, self.crowded]


async def check_times(contender: Contender, cast: Cast, clock: Clock, scale: Scale) -> tuple[Latencies, int]:
    """Checks that come as independent callers do, and how many nobody answered; each is allowed, and nothing is used.

    Each customer has been asked about once before: the first time is another case, for everybody."""
    for customer in cast.checked:
        with suppress(*contender.failures):
            await contender.check(customer.account)
    times = poisson(scale.checks_per_s, scale.checks_s, seed=1)
    latencies = Latencies()

    async def ask(number: int) -> None:
        account = cast.checked[number % len(cast.checked)].account
        if await contender.check(account) is None:
            raise AssertionError(f"{contender.name}: {account} has spent nothing, and was refused")

    offered = await open_loop(times, ask, clock, latencies, contender.failures)
    return latencies, offered.failed


async def balance_delays(contender: Contender, cast: Cast, clock: Clock, scale: Scale, apart_s: float) -> Latencies:
    """From handing over an event to a balance that has it, of customers whose events come `apart_s` after each other.

    One after the other they would each begin where a timer has just ended, and wait for all of its next period."""
    latencies = Latencies()

    async def follow(number: int, customer: Customer) -> None:
        await clock.sleep(number * apart_s)
        wanted = await contender.booked(customer.account) + COST_PICO
        began_s = clock.boot_s()
        await contender.spend(customer, "")
        async with asyncio.timeout(WITHIN_S):
            while await contender.booked(customer.account) < wanted:
                await clock.sleep(max(POLL_S, POLL_SHARE * (clock.boot_s() - began_s)))
        latencies.record(clock.boot_s() - began_s)

    async with asyncio.TaskGroup() as group:
        for number, customer in enumerate(cast.followed):
            group.create_task(follow(number, customer))
    return latencies


async def alert_delays(contender: Contender, cast: Cast, clock: Clock, scale: Scale, apart_s: float) -> Latencies:
    """From handing over the event that crosses to the alert, of customers that cross `apart_s` after each other."""
    latencies = Latencies()

    async def follow(number: int, customer: Customer) -> None:
        await clock.sleep(number * apart_s)
        for _ in range(scale.alert_requests - 1):
            await contender.spend(customer, "")
        began_s = clock.boot_s()
        await contender.spend(customer, "")
        async with asyncio.timeout(WITHIN_S):
            latencies.record(max(0.0, await contender.alerted(customer.account) - began_s))

    async with asyncio.TaskGroup() as group:
        for number, customer in enumerate(cast.alerted):
            group.create_task(follow(number, customer))
    return latencies


async def overspend(contender: Contender, cast: Cast, clock: Clock, scale: Scale) -> int:
    """Requests that ran beyond the cap, when `callers` ask again as soon as they may, until they are refused."""
    deadline_s = clock.boot_s() + scale.overspend_s
    ran = 0

    async def caller() -> None:
        nonlocal ran
        while clock.boot_s() < deadline_s:
            try:
                token = await contender.check(cast.crowded.account)
            except contender.failures:
                continue  # fail closed, and ask again
            if token is None:
                return
            await clock.sleep(scale.work_s)
            ran += 1
            await contender.spend(cast.crowded, token)

    async with asyncio.TaskGroup() as group:
        for _ in range(scale.callers):
            group.create_task(caller())
    return max(0, ran - scale.cap_requests)


async def measured(contender: Contender, cast: Cast, clock: Clock, scale: Scale, apart_s: float) -> dict[str, Any]:
    """All of it but what needs a full log or a kill."""
    checks, failed = await check_times(contender, cast, clock, scale)
    balances = await balance_delays(contender, cast, clock, scale, apart_s)
    alerts = await alert_delays(contender, cast, clock, scale, apart_s)
    beyond = await overspend(contender, cast, clock, scale)
    return {
        "pair": contender.pair,
        "note": contender.note,
        "check_p50_ms": checks.at(50),
        "check_p99_ms": checks.at(99),
        "checks_failed": failed,
        "balance_p50_ms": balances.at(50),
        "balance_p99_ms": balances.at(99),
        "alert_p50_ms": alerts.at(50),
        "alert_p99_ms": alerts.at(99),
        "overspend_requests": beyond,
        "overspend_pico": beyond * COST_PICO,
    }


def beside(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    """How many times ours is faster, by median; `best` is the larger of check and alert, which a pair is judged by."""

    def times(name: str) -> float | None:
        return round(other[name] / ours[name], 2) if other.get(name) and ours.get(name) else None

    check, alert = times("check_p50_ms"), times("alert_p50_ms")
    return {
        "check_times": check,
        "alert_times": alert,
        "balance_times": times("balance_p50_ms"),
        "best": max((each for each in (check, alert) if each is not None), default=None),
    }


class Money(Struct, frozen=True):
    """What a store has against what should be there, customer by customer, so that one error hides no other."""

    lost_pico: int
    doubled_pico: int


def money(expected: dict[str, int], found: dict[str, int]) -> Money:
    """Differences summed by their sign; a customer that one side lacks has 0 there."""
    lost = doubled = 0
    for account in {*expected, *found}:
        difference = found.get(account, 0) - expected.get(account, 0)
        lost += max(0, -difference)
        doubled += max(0, difference)
    return Money(lost, doubled)
