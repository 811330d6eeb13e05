"""The watch over margin floors: when an hour is looked at, and that what has crossed is told once."""

import asyncio

import pytest

from actors.floor_watch import HOURS_MAX, FloorWatch
from actors.margin_floors import KeptFloor, Looked
from actors.outbox import Outbox, OutboxSettings
from actors.ports import AlertRow, Attempt, Delivery, Fenced, StoreUnavailable
from actors.seller_alerts import ALERTS_PARTITION
from engine.cost.attribution import AHEAD_US
from engine.cost.floors import Floor, Of
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Margin
from engine.events import Malformed
from tests.actors.test_margin_actor import Time

H = 490_000 * HOUR_US
SETTLE_US, CLOSE_US = 960_000_000, 6 * HOUR_US
STEPS = 20
READY_US = H + HOUR_US + SETTLE_US + AHEAD_US


class Kept:
    """Floors, hours and outbox in memory."""

    def __init__(self) -> None:
        self.floors = {"large-20": KeptFloor(Floor("large-20", Of.MODEL, "large", 200, 250, "warning", next_us=H), 1)}
        self.hours: dict[int, list[tuple[str, Margin]]] = {H: [("USD", Margin(100, 90, 1))]}
        self.told: int | None = READY_US
        self.settled: int | None = None  # nobody attributes cost
        self.epoch = 1
        self.outbox: list[AlertRow] = []
        self.delivered: list[str] = []
        self.posted: list[str] = []
        self.trouble: Exception | None = None
        self.due: list[AlertRow] = []  # what the budgets of training runs have to tell

    async def all(self) -> list[KeptFloor]:
        return list(self.floors.values())

    async def told_us(self, partitions: int) -> int | None:
        return self.told

    async def costs_settled_us(self) -> int | None:
        return self.settled

    async def hour(self, hour_us: int, of: Of, subject: str) -> list[tuple[str, Margin]]:
        return self.hours.get(hour_us, [])

    async def write(self, looked: Looked, epoch: int) -> AlertRow | None:
        if epoch != self.epoch:
            raise Fenced("another owner")
        kept = looked.kept.floor
        floor = Floor(
            *(kept.floor, kept.of, kept.subject, kept.permille, kept.clear_permille, kept.level),
            *(looked.sight.standing, looked.hour_us + HOUR_US, looked.hour_us, looked.sight.permille),
        )
        self.floors[kept.floor] = KeptFloor(floor, 1)
        alert = looked.sight.alert
        if alert is None:
            return None
        row = AlertRow(alert.alert_id, "", len(self.outbox), alert.body)
        self.outbox.append(row)
        if self.trouble is not None:
            raise self.trouble
        return row

    async def judge(self, epoch: int) -> list[AlertRow]:
        if epoch != self.epoch:
            raise Fenced("another owner")
        due, self.due = self.due, []
        self.outbox += due
        return due

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        assert partition == ALERTS_PARTITION
        return [row for row in self.outbox if row.alert_id not in self.delivered]

    async def record_deliveries(self, deliveries: list[Delivery]) -> None:
        self.delivered += [each.alert_id for each in deliveries if each.delivered]

    async def post(self, alert: AlertRow) -> Attempt:
        self.posted.append(alert.alert_id)
        return Attempt(delivered=True)


class Rig:
    def __init__(self, kept: Kept | None = None, epoch: int | None = 1) -> None:
        self.kept = Kept() if kept is None else kept
        self.clock = Time(READY_US)
        self.epoch = epoch
        self.outbox = Outbox(self.clock, self.kept, self.kept, OutboxSettings(), permitted=lambda: True)
        self.watch = FloorWatch(
            clock=self.clock,
            floors=self.kept,
            budgets=self.kept,
            alerts=self.kept,
            outbox=self.outbox,
            epoch=lambda: self.epoch,
            partitions=2,
            settle_us=SETTLE_US,
            close_us=CLOSE_US,
        )

    async def looks(self, times: int = 3) -> list[str]:
        """What has been told after so many looks."""
        for _ in range(times):
            await self.watch.look()
            for _ in range(STEPS):  # whoever is to be told, is
                await asyncio.sleep(0)
        return self.kept.posted


async def test_an_hour_is_looked_at_once_its_costs_have_settled() -> None:
    rig = Rig()
    rig.kept.told = READY_US - 1
    assert await rig.looks() == []
    rig.kept.told = None
    assert await rig.looks() == [], "not every partition has told"
    rig.kept.told = READY_US
    rig.kept.hours[H] = [("USD", Margin(100, 90, 1, provisional=1))]
    assert await rig.looks() == []
    rig.kept.hours[H] = [("USD", Margin(100, 90, 1))]
    assert len(await rig.looks()) == 1
    assert rig.kept.delivered == rig.kept.posted
    assert rig.kept.floors["large-20"].floor.next_us == H + HOUR_US


async def test_an_hour_waits_for_a_cost_actor_that_is_behind_and_no_longer_than_until_it_closes() -> None:
    """What it has not told yet is not unknown: the hour would say nothing, and nobody would look at it again."""
    rig = Rig()
    rig.kept.hours[H] = [("USD", Margin(100, 0, 1, without_cost=1))]
    rig.kept.settled = H + HOUR_US + AHEAD_US - 1
    assert await rig.looks() == []
    assert rig.kept.floors["large-20"].floor.next_us == H
    rig.kept.hours[H] = [("USD", Margin(100, 90, 1))]
    rig.kept.settled += 1
    assert len(await rig.looks()) == 1
    late = Rig()
    late.kept.settled = H
    late.kept.told = H + HOUR_US + CLOSE_US
    assert len(await late.looks()) == 1


async def test_an_hour_that_has_closed_is_looked_at_as_it_is() -> None:
    rig = Rig()
    rig.kept.hours[H] = [("USD", Margin(100, 90, 1, provisional=1))]
    rig.kept.told = H + HOUR_US + CLOSE_US
    assert len(await rig.looks()) == 1


async def test_who_does_not_own_the_first_partition_looks_at_nothing() -> None:
    rig = Rig(epoch=None)
    assert await rig.looks() == []
    rig.epoch = 7
    assert await rig.looks() == [], "nor does who has lost it"


async def test_an_alert_whose_writing_nobody_knows_of_is_told_from_the_outbox() -> None:
    rig = Rig()
    rig.kept.trouble = StoreUnavailable("cut off")
    await rig.looks(1)
    rig.kept.trouble = None
    told = await rig.looks()
    assert len(told) == 1


async def test_the_next_owner_tells_what_was_not_told() -> None:
    first = Rig()
    first.kept.trouble = StoreUnavailable("cut off")
    await first.watch.look()
    first.kept.trouble = None
    second = Rig(first.kept)
    assert len(await second.looks()) == 1


async def test_what_budgets_have_to_tell_is_told_once_beside_the_floors() -> None:
    rig = Rig()
    rig.kept.hours.clear()
    rig.kept.due = [AlertRow("training_1", "", 7, b"{}")]
    assert await rig.looks() == ["training_1"]
    assert rig.kept.delivered == ["training_1"]


async def test_rates_that_cannot_be_read_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a cost actor of a later version: the process goes on, with all that it attributes."""
    rig = Rig()
    rig.kept.hours.clear()
    rig.kept.due = [AlertRow("training_1", "", 7, b"{}")]

    async def unreadable(epoch: int) -> list[AlertRow]:
        raise Malformed("the checkpoint has version 2, and 1 is read")

    with monkeypatch.context() as patch:
        patch.setattr(rig.kept, "judge", unreadable)
        assert await rig.looks(1) == []
    assert await rig.looks() == ["training_1"]


async def test_hours_of_long_ago_are_passed_over() -> None:
    rig = Rig()
    rig.kept.told = READY_US + (HOURS_MAX + 5) * HOUR_US
    assert await rig.looks(1) == []
    assert rig.kept.floors["large-20"].floor.next_us > H + 2 * HOUR_US


async def test_it_ends_when_it_is_asked_to() -> None:
    rig = Rig()
    rig.watch.stop()
    await rig.watch.run()
    assert rig.kept.posted == []
