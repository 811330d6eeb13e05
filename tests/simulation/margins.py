"""Margin actors and the watch over margin floors in the simulator: the production classes, as one process runs them, between
simulated topics, tables and receivers, on virtual time.

It dies, hangs until another has long taken its place, loses answers and repeats, at any step. When all is healed and has
closed, rows, floors and what was told are those of one process that nothing ever happened to; and of everything that was to
be told nothing is missing, and nothing has two ids."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from random import Random
from typing import Any, Final, TypeVar
from unittest import mock

import msgspec
from msgspec import Struct

from actors import floor_watch, margin_actor
from actors.floor_watch import FloorWatch
from actors.margin_actor import MarginActor
from actors.margin_floors import KeptFloor, Looked
from actors.margin_store import MarginCheckpoint, MarginClaim
from actors.outbox import Outbox, OutboxSettings
from actors.ports import AlertRow, Attempt, CommitUnknown, Delivery, Fenced, Record
from engine.cost.floors import Floor, Of
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine
from engine.cost.margin import RUN_KEPT_US, Key, Margin
from tests.actors.test_margin_actor import KAFKA, Stored, Topics
from tests.engine.cost.test_margin import CLOSE_US, H, cost, rated
from tests.simulation.lives import INTERVAL_S, Life, World, beside_one_alone
from tests.simulation.simulate import Outcome
from tests.simulation.virtual_loop import VirtualLoop

SETTLE_US: Final = 960_000_000
PACE: Final = 1.5 * 3_600  # seconds of wall time per second that processes wait: CHAOS_S is six hours
STORE_CALLS: Final = ("claim", "rows", "costs_closed_us", "commit", "floors", "told_us", "hour", "write", "waiting")
LOG_CALLS: Final = ("bounds", "offset_from", "read")
FLOORS: Final = (
    Floor("large-20", Of.MODEL, "m", 200, 250, "warning", next_us=H),
    Floor("acme", Of.ACCOUNT, "a", 0, 100, "critical", next_us=H),
    Floor("starter", Of.PLAN, "starter", 300, 300, "info", next_us=H),
)

Result = TypeVar("Result")


class Arriving(Struct, frozen=True):
    """A line that is written `at_s` after the start."""

    at_s: float
    line: bytes | RequestLine


class Seller:
    """Beside its cost actor, what a cost process runs: it ends when one of both does."""

    def __init__(self, life: Life, world: "MarginWorld") -> None:
        ways = Ways(life, world)
        self.margin = MarginActor(
            life.name,
            (0, 1),
            clock=life,
            reader=ways,
            store=ways,
            kafka=KAFKA,
            close_us=CLOSE_US,
            runs_kept_us=RUN_KEPT_US,
            interval_s=INTERVAL_S,
        )
        self.outbox = Outbox(
            life,
            ways,
            ways,
            OutboxSettings(back_off_s=0.05, back_off_max_s=0.2, attempts_max=1_000, permit_poll_s=0.05),
            permitted=lambda: life.alive and not self.margin.fenced,
            random=Random(life.name),
        )
        self.watch = FloorWatch(
            clock=life,
            floors=ways,
            budgets=ways,
            alerts=ways,
            outbox=self.outbox,
            epoch=lambda: self.margin.epoch_of(0),
            partitions=2,
            settle_us=SETTLE_US,
            close_us=CLOSE_US,
        )

    @property
    def fenced(self) -> bool:
        return self.margin.fenced

    def views(self) -> list[Any]:
        return list(self.margin.views())

    async def run(self) -> None:
        tasks = [asyncio.ensure_future(self.margin.run()), asyncio.ensure_future(self.watch.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.watch.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.outbox.forget(-1)

    def stop(self) -> None:
        self.margin.stop()
        self.watch.stop()


class Ways:
    """All ways outwards of one process: topics, tables, receivers."""

    def __init__(self, life: Life, world: "MarginWorld") -> None:
        self._life = life
        self._world = world

    async def _through(self, site: str, work: Callable[[], Awaitable[Result]]) -> Result:
        await self._life.gate(f"{site}.before")
        result = await work()
        await self._life.gate(f"{site}.after")
        return result

    # the topics

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        await self._life.gate("bounds.before")  # once: a takeover asks for many, and else hardly gets on
        return await self._world.topics.bounds(topic, partition)

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        await self._life.gate("bounds.before")
        return await self._world.topics.bounds_of(topic, partitions)

    async def partitions(self, topic: str) -> int:
        return await self._world.topics.partitions(topic)

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        await self._life.gate("offset_from.before")
        return await self._world.topics.offset_from(topic, partition, append_ms)

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        return await self._world.topics.read_one(topic, partition, offset)

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        await self._life.gate("read.before")
        async with aclosing(self._world.topics.read_together(topic, places)) as records:
            async for each in records:
                yield each

    # the margin's table

    async def claim(self, partition: int, owner: str) -> MarginClaim:
        return await self._through("claim", lambda: self._world.stored.claim(partition, owner))

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Margin]]:
        return await self._through("rows", lambda: self._world.stored.rows(partition, from_us))

    async def costs_closed_us(self) -> int:
        async def asked() -> int:
            return self._world.costs_closed_us()

        return await self._through("costs_closed_us", asked)

    async def commit(self, checkpoints: Sequence[MarginCheckpoint]) -> None:
        async def work() -> None:
            await self._world.stored.commit(checkpoints)

        await self._committed("commit", work)

    async def _committed(self, site: str, work: Callable[[], Awaitable[Result]]) -> Result:
        await self._life.gate(f"{site}.before")
        fault = self._world.commit_fault()
        if fault == "unknown_not_done":
            raise CommitUnknown(f"simulated: {fault}")
        result = await work()
        if fault is not None:
            raise CommitUnknown(f"simulated: {fault}")
        await self._life.gate(f"{site}.after")
        return result

    # the floors' table, and the outbox

    async def all(self) -> list[KeptFloor]:
        async def asked() -> list[KeptFloor]:
            return list(self._world.floors.values())

        return await self._through("floors", asked)

    async def told_us(self, partitions: int) -> int | None:
        async def asked() -> int | None:
            at = self._world.stored.at
            return min(each.told_us for each in at.values()) if len(at) == partitions else None

        return await self._through("told_us", asked)

    async def costs_settled_us(self) -> int | None:
        """Costs come as they are drawn, and from nobody who could be behind."""
        return None

    async def hour(self, hour_us: int, of: Of, subject: str) -> list[tuple[str, Margin]]:
        async def asked() -> list[tuple[str, Margin]]:
            return self._world.hour(hour_us, of, subject)

        return await self._through("hour", asked)

    async def write(self, looked: Looked, epoch: int) -> AlertRow | None:
        async def work() -> AlertRow | None:
            return self._world.write(looked, epoch)

        return await self._committed("write", work)

    async def judge(self, epoch: int) -> list[AlertRow]:
        """No training run is under way here."""
        return []

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        async def asked() -> list[AlertRow]:
            return [row for row in self._world.outbox if row.alert_id not in self._world.delivered]

        return await self._through("waiting", asked)

    async def record_deliveries(self, deliveries: list[Delivery]) -> None:
        await self._life.gate("deliveries.before")
        self._world.delivered |= {each.alert_id for each in deliveries if each.delivered}

    # the receivers

    async def post(self, alert: AlertRow) -> Attempt:
        await self._life.gate("post.before")
        if self._world.receiver_fails():
            return Attempt(delivered=False, error="simulated: 503")
        self._world.posted.append(alert)
        await self._life.gate("post.after")
        return Attempt(delivered=True)


class MarginWorld(World):
    """Everything of one run. The same lines come at the same moments, whatever happens to those who read them."""

    START_US = H
    SETTLE_US = SETTLE_US
    LOG_CALLS = LOG_CALLS
    STORE_CALLS = STORE_CALLS
    DONE_CALLS = ("commit.after", "write.after")

    def __init__(self, seed: int, loop: VirtualLoop, *, faults: bool) -> None:
        super().__init__("margin", seed, loop, faults=faults)
        self._pace = PACE
        self.topics = Topics()
        self.stored = Stored()
        self.floors = {floor.floor: KeptFloor(floor, 1) for floor in FLOORS}
        self.outbox: list[AlertRow] = []
        self.delivered: set[str] = set()
        self.posted: list[AlertRow] = []
        self.hours_looked = 0
        self.arriving = sorted(_arriving(Random(f"margins {seed}")), key=lambda each: each.at_s)

    def process(self, life: Life) -> Seller:
        return Seller(life, self)

    def commit_fault(self) -> str | None:
        fault = super().commit_fault()
        return "unknown_done" if fault == "unknown_late" else fault  # nobody waits for a row's lock here

    def receiver_fails(self) -> bool:
        return self._faults and self.random.random() < 3 * self._strike_share

    def costs_closed_us(self) -> int:
        return max(0, (self.wall_us() - CLOSE_US) // HOUR_US * HOUR_US)

    def hour(self, hour_us: int, of: Of, subject: str) -> list[tuple[str, Margin]]:
        """As the query has it."""
        found: dict[str, Margin] = {}
        for key, (_, sums) in self.stored.table.items():
            if key.run or key.hour_us != hour_us or getattr(key, of.value) != subject:
                continue
            into = found.setdefault(key.currency, Margin())
            for name in (
                "revenue",
                "known_cost",
                "requests",
                "without_cost",
                "without_revenue",
                "provisional",
                "foreign_cost",
            ):
                setattr(into, name, getattr(into, name) + getattr(sums, name))
        return sorted(found.items())

    def write(self, looked: Looked, epoch: int) -> AlertRow | None:
        """One transaction of `PostgresFloors`."""
        if epoch != self.stored.epochs.get(0):
            raise Fenced("another owner")
        kept, floor = self.floors[looked.kept.floor.floor], looked.kept.floor
        if (kept.revision, kept.floor.next_us) != (looked.kept.revision, floor.next_us):
            return None
        said = looked.sight.permille is not None
        self.floors[floor.floor] = KeptFloor(
            msgspec.structs.replace(
                kept.floor,
                standing=looked.sight.standing,
                next_us=looked.hour_us + HOUR_US,
                last_us=looked.hour_us if said else kept.floor.last_us,
                last_permille=looked.sight.permille if said else kept.floor.last_permille,
            ),
            kept.revision,
        )
        self.hours_looked += 1
        alert = looked.sight.alert
        if alert is None:
            return None
        row = AlertRow(alert.alert_id, "", len(self.outbox), alert.body)
        self.outbox.append(row)
        return row

    def arrive(self, each: Arriving) -> None:
        self.topics.put(each.line, self.wall_us())

    def told(self) -> dict[str, dict[str, str]]:
        return _told(self)

    def counted(self) -> tuple[int, int]:
        return self.stored.commits, len(self.posted)

    def judge_rest(self) -> None:
        if not self.newest.alive:
            self.violated(f"{self.newest.name} has not come back")
        told = {row.alert_id for row in self.posted}
        for row in self.outbox:
            if row.alert_id not in told:
                self.violated(f"alert {row.alert_id} was never told: {row.body.decode()}")
            elif row.alert_id not in self.delivered:
                self.violated(f"alert {row.alert_id} was told, and nobody knows")
        for extra in sorted(told - {row.alert_id for row in self.outbox}):
            self.violated(f"alert {extra} was told and is in no outbox")
        if len({row.alert_id for row in self.outbox}) < len(self.outbox):
            self.violated("an alert is in the outbox twice")

    def came_about(self) -> dict[str, int]:
        """What proves nothing if it never does."""
        return {
            "margin owners followed": sum(self.stored.epochs.values()) - 2,
            "margin owners fenced": sum(life.actor.fenced for life in self.lives),
            "floors crossed": sum(b'"margin.crossed"' in row.body for row in self.outbox),
            "floors recovered": sum(b'"margin.recovered"' in row.body for row in self.outbox),
            "alerts repeated": len(self.posted) - len({row.alert_id for row in self.posted}),
            "margin rows": len(self.stored.found()),
        }


def _arriving(random: Random) -> Iterator[Arriving]:
    """Charges and costs of six hours. All of an hour comes before it is looked at; some twice, some in two stages, and some
    under a second epoch."""
    for number in range(random.randrange(10, 60)):
        account, model = random.choice("ab"), random.choice("mn")
        plan = random.choice(("growth", "starter"))
        hour = random.randrange(6)
        at_us = hour * HOUR_US + random.randrange(HOUR_US)
        request = f"r{number}"
        more: dict[str, Any] = {"account": account, "time_us": H + at_us, "plan": plan, "currency": "USD"}
        charges: list[bytes | RequestLine] = [
            rated(number, request, random.randrange(60, 140), epoch=epoch, **more)
            for epoch in range(1, random.choice((2, 2, 3)))
        ]
        spent: dict[str, Any] = {"account": account, "model": model, "hour_us": H + hour * HOUR_US, "currency": "USD"}
        amount = random.choice((40, 70, 95, 130, None))
        costs: list[bytes | RequestLine] = [
            cost(request, amount if settled else 50, seq=2 * number + settled, settled=bool(settled), **spent)
            for settled in (0, 1)
        ]
        end_us = (hour + 1) * HOUR_US + SETTLE_US // 2
        for line in charges if random.random() < 0.95 else []:
            for _ in range(random.choice((1, 1, 2))):
                yield Arriving(random.uniform(at_us, end_us) / 1e6 / PACE, line)
        for line, until_us in zip(costs, (at_us + 1, end_us), strict=True):
            for _ in range(random.choice((1, 1, 2))):
                yield Arriving(random.uniform(at_us, max(at_us + 1, until_us)) / 1e6 / PACE, line)


def _told(world: MarginWorld) -> dict[str, dict[str, str]]:
    return {
        "row": {repr(key): repr(sums) for key, sums in world.stored.found().items()},
        "floor": {name: repr(kept.floor) for name, kept in world.floors.items()},
        "alert": {row.alert_id: row.body.decode() for row in world.outbox},
    }


def simulate_margins(seed: int) -> Outcome:
    """Run a seed with faults and without, and hold the one against the other."""
    return beside_one_alone(
        seed,
        "--margins",
        lambda loop, faults: MarginWorld(seed, loop, faults=faults),
        lambda: [
            mock.patch.object(floor_watch, "LOOK_EVERY_S", INTERVAL_S),
            mock.patch.object(margin_actor, "SAY_EVERY_US", 1),
            mock.patch.object(margin_actor, "MEND_S", INTERVAL_S),
        ],
    )
