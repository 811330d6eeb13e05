"""The whole stack under an open load: step by step up to where it no longer keeps up, then at half of that.

A step offers a rate, and asks: did the load leave at its time, and was the log rated as it grew? The highest rate at
which both hold is the stack's saturation; the broker, the database, the load and this bench share the machine. Then the
same once more while callers ask a door a thousand times a second, each of whom must be answered; at half of what is
borne then, checks are timed, and alerts from the broker to the receiver.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.cluster import Cluster, ShardStatus
from actors.deployment import until
from loadtest.bench.arrivals import Offered, steps
from loadtest.bench.callers import Asks, Calling, call
from loadtest.bench.feeder import Fed, Order, feed
from loadtest.bench.latency import Latencies
from loadtest.bench.stage import Stage, counts_of, places_of
from loadtest.bench.watch import Look, cores_between
from loadtest.probes import customers
from loadtest.workload import Shape

LOOK_EVERY_S: Final = 0.25
TELL_EVERY_S: Final = 30.0
KEPT_UP_S: Final = 1.0  # a step keeps up when no more than this much of its load is still to be rated at its end
ON_TIME_S: Final = 0.25  # and its load left no later than this
SETUP_US: Final = 3_000_000
ASKED_LEAST_PER_S: Final = 200  # where not even this is borne beside checks, these alone are too much
ASKED: Final = 64  # customers that callers ask about


class Climb(Struct, frozen=True):
    """How the ramp goes."""

    start_per_s: float = 2_000
    asked_share: float = 0.25  # of what is borne without checks: where the ramp begins in which doors are asked
    factor: float = 1.5
    ceiling_per_s: float = 60_000
    step_s: float = 6.0
    customers: int = 500  # of each step
    half_s: float = 20.0
    checks_per_s: float = 1_000
    shape: Shape = Shape()
    trace: str | None = None


class Step(Struct, frozen=True):
    """One rate, and what became of it."""

    offered_per_s: float
    rated_per_s: float  # from the first record sent to the last one rated
    kept_up: bool
    behind_s: float  # how late the load left at the end
    lag_at_end: int
    lag_max: int
    webhook_ms: dict[str, Any]
    cores: dict[str, float]
    rss_mib: dict[str, float]
    series: list[dict[str, Any]]
    check_ms: dict[str, Any] | None = None
    check_curve: list[tuple[float, float]] = []
    webhook_curve: list[tuple[float, float]] = []
    checks: dict[str, Any] | None = None


def kept_up(offered_per_s: float, behind_s: float, lag_at_end: int, checks: Offered | None = None) -> bool:
    """Whether the load was open and the fold followed it; and so were the checks, and each was answered."""
    followed = behind_s <= ON_TIME_S and lag_at_end <= offered_per_s * KEPT_UP_S
    return followed and (checks is None or (not checks.failed and checks.behind_s <= ON_TIME_S))


def sustained(climbed: Sequence[Step]) -> float:
    """The highest rate below the first that was too much. Raises ValueError when already the first was."""
    rate = 0.0
    for step in climbed:
        if not step.kept_up:
            break
        rate = step.offered_per_s
    if not rate:
        raise ValueError("the stack did not keep up with the first step: start lower")
    return rate


class Ramp:
    """Steps on one stage whose shards rate."""

    def __init__(self, stage: Stage, cluster: Cluster, climb: Climb) -> None:
        self._stage = stage
        self._cluster = cluster
        self._climb = climb
        self._number = 0

    async def run(self) -> dict[str, Any]:
        """The steps of both ramps, the saturation of each, and the step at half of what is borne with checks."""
        climbed = await self._climbed(self._climb.start_per_s)
        saturation, with_checks, half = sustained(climbed), 0.0, None
        start_per_s = saturation * self._climb.asked_share
        asked = await self._climbed(start_per_s, self._climb.checks_per_s)
        while not asked[0].kept_up and start_per_s > ASKED_LEAST_PER_S:
            start_per_s /= 2
            asked = await self._climbed(start_per_s, self._climb.checks_per_s)
        if asked[0].kept_up:
            with_checks = sustained(asked)
            half = await self.step(with_checks / 2, self._climb.half_s, self._climb.checks_per_s)
        return {
            "steps": msgspec.to_builtins(climbed),
            "saturation_per_s": saturation,
            "ceiling_reached": climbed[-1].kept_up,  # the ramp ended before the stack did
            "steps_with_checks": msgspec.to_builtins(asked),
            "saturation_with_checks_per_s": with_checks,  # 0: the checks alone are too much
            "half": msgspec.to_builtins(half),
        }

    async def _climbed(self, start_per_s: float, checks_per_s: float = 0.0) -> list[Step]:
        """Steps up to the first that is too much."""
        climbed: list[Step] = []
        for rate in steps(start_per_s, self._climb.factor, self._climb.ceiling_per_s):
            climbed.append(await self.step(rate, self._climb.step_s, checks_per_s))
            if not climbed[-1].kept_up:
                break
        return climbed

    async def step(self, rate: float, seconds: float, checks_per_s: float = 0.0) -> Step:
        """Offer `rate` for so long, with customers of the step's own; ask at a door meanwhile if told to."""
        stage = self._stage
        self._number += 1
        order = Order(
            seed=100 + self._number,
            events=round(rate * seconds),
            customers=self._climb.customers,
            duration_s=seconds,
            prefix=f"step{self._number}",
            shape=self._climb.shape,
            trace=self._climb.trace,
        )
        await self._open(order)
        asked = customers(f"asked{self._number}", ASKED, stage.settings.kafka.partitions) if checks_per_s else []
        await stage.send([command for customer in asked for command in customer.commands()])
        await stage.settled(self._cluster)
        durations = Latencies()
        checks: Offered | None = None
        calling: Calling | None = None
        if asked:
            accounts = [customer.account for customer in asked]
            calling = await call(stage.settings, Asks(accounts, checks_per_s, seconds, self._number))
        feeding = await feed(stage.settings, order, stage.catalogue)
        stage.load_is([feeding.pid] if calling is None else [feeding.pid, calling.pid])
        if calling is not None:
            calling.begin(feeding.start_us)
        await stage.clock.sleep(max(0.0, (feeding.start_us - stage.clock.wall_us()) / 1_000_000))
        stage.say(f"{rate:,.0f} events/s for {seconds:g} s, {checks_per_s:g} checks/s")
        run = _Run(stage, self._cluster, feeding.start_us)
        async with run.watching():
            if calling is not None:
                checks, durations = await calling.done()
            fed = await feeding.done()
            lag_at_end = await run.lag()
            rated_per_s = await run.rated_to_the_end(fed)
        await stage.settled(self._cluster)
        if checks is not None:
            stage.say(
                f"checks: {durations.at(50)} ms p50, {checks.failed} unanswered, {checks.behind_s:.2f} s behind at most"
            )
        webhooks = stage.webhook_delays(feeding.start_us)
        first, last = run.looks[0], run.looks[-1]
        return Step(
            offered_per_s=round(rate, 1),
            rated_per_s=round(rated_per_s, 1),
            kept_up=kept_up(rate, fed.behind_s, lag_at_end, checks),
            behind_s=fed.behind_s,
            lag_at_end=lag_at_end,
            lag_max=max(look.lag for look in run.looks),
            webhook_ms=webhooks.summary(),
            cores=cores_between(first, last),
            rss_mib={role: taken.rss_mib for role, taken in last.taken.items()},
            series=run.watch.series(first.at_s),
            check_ms=durations.summary() if checks else None,
            check_curve=durations.curve(),
            webhook_curve=webhooks.curve(),
            checks=msgspec.to_builtins(checks) if checks else None,
        )

    async def _open(self, order: Order) -> None:
        stage = self._stage
        workload = order.workload(stage.catalogue, stage.settings.kafka.partitions)
        await stage.send(workload.setup(stage.clock.wall_us() + SETUP_US))


class _Run:
    """Looks at a step while it goes."""

    def __init__(self, stage: Stage, cluster: Cluster, start_us: int) -> None:
        self.watch = stage.watch()
        self._stage = stage
        self._cluster = cluster
        self._start_us = start_us

    @property
    def looks(self) -> list[Look]:
        return self.watch.looks

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look every quarter of a second, and once more at the end."""
        task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._look()

    async def _look_on(self) -> None:
        began_s = told_s = self._stage.clock.boot_s()
        while True:
            await self._look()
            seen = self.looks[-1]
            if seen.at_s >= told_s + TELL_EVERY_S:
                told_s = seen.at_s
                self._stage.say(f"after {told_s - began_s:.0f} s: {seen.rated:,} rated in all, {seen.lag:,} behind")
            await self._stage.clock.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        statuses = await self._cluster.statuses()
        self.watch.look(counts_of(statuses)["rated"], await self._behind(statuses))

    async def lag(self) -> int:
        """Records in the log that the fold has not reached."""
        return await self._behind(await self._cluster.statuses())

    async def _behind(self, statuses: list[ShardStatus]) -> int:
        places = places_of(statuses)
        return sum(max(0, end - places.get(number, 0)) for number, end in (await self._stage.ends()).items())

    async def rated_to_the_end(self, fed: Fed) -> float:
        """Wait for it; records per second from the first one's time on."""

        async def caught_up() -> bool:
            return await self.lag() == 0

        await until(caught_up, "the step to be rated")
        return fed.sent / ((self._stage.clock.wall_us() - self._start_us) / 1_000_000)
