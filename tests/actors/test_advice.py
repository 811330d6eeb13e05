"""What is advised: the floors that stand crossed, and nothing where nothing is known."""

import asyncio

from msgspec.structs import replace

from actors.advice import Advisor
from actors.margin_floors import KeptFloor
from actors.ports import StoreUnavailable
from engine.alerts import Standing
from engine.cost.floors import Floor, Of
from tests.actors.test_margin_actor import Time

LARGE = Floor("large-20", Of.MODEL, "large", 200, 200, "warning", Standing(1, active=True), 0, 7, 150)


class Kept:
    def __init__(self, *floors: Floor) -> None:
        self.floors = list(floors)
        self.away = False

    async def all(self) -> list[KeptFloor]:
        if self.away:
            raise StoreUnavailable("away")
        return [KeptFloor(floor, 1) for floor in self.floors]


async def test_a_floor_that_stands_crossed_is_advised_of_its_model_and_account() -> None:
    acme = replace(LARGE, floor="acme", of=Of.ACCOUNT, subject="acme")
    stricter = replace(LARGE, floor="large-40", permille=400)
    kept = Kept(LARGE, stricter, acme, replace(LARGE, floor="fine", subject="mini", standing=Standing(3)))
    advisor = Advisor(kept, Time(0))
    assert advisor.of("acme", ["large"]) is None, "nothing is known yet"
    await advisor.refresh()
    assert advisor.of("acme", ["large"]) == acme
    assert advisor.of("zen", ["mini", "large"]) == stricter
    assert advisor.of("zen", ["mini"]) is None
    assert advisor.of("large", []) is None
    kept.away = True
    await advisor.refresh()
    assert advisor.of("zen", ["large"]) == stricter, "as it stood last"
    kept.away, kept.floors = False, []
    await advisor.refresh()
    assert advisor.of("acme", ["large"]) is None


async def test_it_looks_again_until_it_stops() -> None:
    kept = Kept()

    class Waiting(Time):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)

    advisor = Advisor(kept, Waiting(0))
    await advisor.start()
    kept.floors = [LARGE]
    while advisor.of("zen", ["large"]) is None:
        await asyncio.sleep(0)
    await advisor.stop()
    await Advisor(kept, Waiting(0)).stop()
