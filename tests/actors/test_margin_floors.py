"""Margin floors in a real Postgres: how they stand, and their alerts in the outbox, in one transaction."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from actors.cost_store import CostStore
from actors.margin_floors import KeptFloor, Looked, PostgresFloors, TooManyFloors
from actors.margin_store import MarginCheckpoint, MarginStore
from actors.migrations import migrate
from actors.ports import Delivery, Fenced
from actors.postgres import PostgresStore
from actors.seller_alerts import ALERTS_PARTITION
from engine.alerts import Standing
from engine.cost.floors import FLOORS_MAX, Floor, FloorAlert, Of, Sight
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Key, Margin, RowChange
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.actors.test_cost_store import checkpoint

SCHEMA = "margin_floors"
H = 490_000 * HOUR_US
FLOOR = Floor("large-20", Of.MODEL, "large", 200, 250, "critical", next_us=H)


@pytest.fixture
async def floors(database: str) -> AsyncIterator[PostgresFloors]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = PostgresFloors(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    for kept in await made.all():
        await made.remove(kept.floor.floor)
    await made.stop()


@pytest.fixture
async def margins(database: str, floors: PostgresFloors) -> AsyncIterator[MarginStore]:
    made = MarginStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def outbox(database: str, floors: PostgresFloors) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


async def test_a_floor_that_is_replaced_goes_on_and_one_that_comes_again_keeps_its_ordinal(
    floors: PostgresFloors, margins: MarginStore
) -> None:
    await floors.put(FLOOR)
    (kept,) = await floors.all()
    assert kept == KeptFloor(FLOOR, kept.revision)
    epoch = (await margins.claim(0, "a")).epoch
    assert await floors.write(Looked(kept, H, Sight(Standing(3, active=True), 99)), epoch) is None
    await floors.put(replace(FLOOR, permille=100, next_us=H + 9 * HOUR_US))
    (kept,) = await floors.all()
    assert (kept.floor.permille, kept.floor.standing, kept.floor.next_us) == (
        100,
        Standing(3, active=True),
        H + HOUR_US,
    )
    await floors.put(replace(FLOOR, subject="mini"))
    assert (await floors.all())[0].floor.standing == Standing(3, active=False), "another thing has not crossed"
    assert await floors.remove("large-20") and not await floors.remove("large-20")
    assert await floors.all() == []
    await floors.put(replace(FLOOR, next_us=H + 9 * HOUR_US))
    (kept,) = await floors.all()
    assert (kept.floor.standing, kept.floor.next_us) == (Standing(3, active=False), H + 9 * HOUR_US)


async def test_standing_and_alert_are_written_together_once_by_the_owner_alone(
    floors: PostgresFloors, margins: MarginStore, outbox: PostgresStore
) -> None:
    await floors.put(replace(FLOOR, floor="other"))
    kept = next(each for each in await floors.all() if each.floor.floor == "other")
    old = (await margins.claim(0, "a")).epoch
    new = (await margins.claim(0, "b")).epoch
    alert = FloorAlert("margin_1", b'{"data":{"rule":"other"}}')
    crossing = Looked(kept, H, Sight(Standing(1, active=True), 150, alert))
    with pytest.raises(Fenced, match="no longer at epoch"):
        await floors.write(crossing, old)
    row = await floors.write(crossing, new)
    assert row is not None and (row.alert_id, row.account) == ("margin_1", "")
    assert await floors.write(crossing, new) is None, "the hour has been looked at"
    assert [each.alert_id for each in await outbox.waiting_alerts(ALERTS_PARTITION)] == ["margin_1"]
    await outbox.record_deliveries([Delivery("margin_1", 1, delivered=True, given_up=False, error="")])
    assert await outbox.waiting_alerts(ALERTS_PARTITION) == []


async def test_an_hour_is_summed_for_what_the_floor_is_of(floors: PostgresFloors, margins: MarginStore) -> None:
    assert await floors.told_us(2) is None
    for partition, account in ((0, "acme"), (1, "zen")):
        claim = await margins.claim(partition, "a")
        keys = [Key(H, account, "large", "", "growth", "USD"), Key(H + HOUR_US, account, "large", "", "growth", "USD")]
        rows = [RowChange(key, Margin(10, 4, 1, 0, 0, 1)) for key in keys]
        cut = MarginCheckpoint(partition, claim.epoch, claim.ckpt_seq + 1, 1, (), 0, 50 + partition, 0, rows)
        await margins.commit([cut])
    assert await floors.told_us(2) == 50
    assert await floors.hour(H, Of.MODEL, "large") == [("USD", Margin(20, 8, 2, 0, 0, 2))]
    assert await floors.hour(H, Of.PLAN, "growth") == [("USD", Margin(20, 8, 2, 0, 0, 2))]
    assert await floors.hour(H, Of.ACCOUNT, "zen") == [("USD", Margin(10, 4, 1, 0, 0, 1))]
    assert await floors.hour(H, Of.ACCOUNT, "large") == []


async def test_costs_have_settled_where_every_partition_that_has_any_says_so(
    database: str, floors: PostgresFloors
) -> None:
    assert await floors.costs_settled_us() is None
    costs = CostStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await costs.start()
    for partition, settled_us in ((0, 9 * HOUR_US), (1, 7 * HOUR_US)):
        cut = checkpoint(await costs.claim(partition, "a"), partition)
        await costs.commit([replace(cut, settled_us=settled_us)])
    await costs.claim(2, "a")  # there has nothing come ever
    await costs.stop()
    assert await floors.costs_settled_us() == 7 * HOUR_US


async def test_there_are_only_so_many(floors: PostgresFloors, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FLOORS_MAX == 1_000
    monkeypatch.setattr("actors.margin_floors.FLOORS_MAX", 1)
    await floors.put(FLOOR)
    with pytest.raises(TooManyFloors):
        await floors.put(replace(FLOOR, floor="one-more"))
    await floors.put(replace(FLOOR, permille=1))
