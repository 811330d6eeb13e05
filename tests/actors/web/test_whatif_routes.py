"""What hours cost and would have cost over HTTP: who may ask, what is refused, one at a time."""

import asyncio
from typing import Any

import pytest

from actors.keys import KeyScope
from actors.ports import StoreUnavailable
from actors.web import whatif_routes
from actors.web.app import App
from actors.whatif import WhatIf
from tests.actors.test_whatif import NAMES, Deployment
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage
from tests.engine.cost.histories import HORIZONS, KEY

HOUR = {"from": "2025-11-24T16:00:00Z", "to": "2025-11-24T17:00:00Z"}  # that of the records


class Shown:
    """An app that asks the topics of a deployment."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.deployment = Deployment()
        self.deployment.tell()
        self.stage.services.whatif = WhatIf(self.deployment.topics, self.deployment, NAMES, KEY, HORIZONS)
        self.app = App(whatif_routes.ROUTES, self.stage.services)
        self.client = Client(self.app, self.stage.keys.add(KeyScope.ADMIN))

    async def ask(self, **body: Any) -> Any:
        return await self.client.post("/v1/whatif", HOUR | body)


@pytest.fixture
def place() -> Shown:
    return Shown()


async def test_an_answer_has_both_sides(place: Shown) -> None:
    answer = await place.ask(change={"gpu_rates": {"h100": "6"}, "target_margin_percent": "60"})
    assert answer.status == 200
    body = answer.json()
    assert (body["from"], body["currency"], body["differs"]) == (HOUR["from"], "USD", {})
    assert sum(float(cost) for cost in body["projection"]["buckets"].values()) == pytest.approx(6)
    assert body["actual"]["models"][0]["tokens"]["output"]["price_floor"] is not None
    assert body["projection"]["is_projection"] is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"change": {"gpu_rates": {"h200": "1"}}}, "change"),
        ({"change": {"utilisation_percent": "0"}}, "change"),
        ({"to": HOUR["from"]}, "to"),
        ({"from": "2020-01-01T00:00:00Z"}, "to"),
        ({"from": "now"}, "from"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_field(place: Shown, body: dict[str, Any], field: str) -> None:
    answer = await place.ask(**body)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_only_an_operator_may_ask(place: Shown) -> None:
    for key in (place.stage.keys.add(KeyScope.READ), place.stage.keys.add(KeyScope.ADMIN, account="acme")):
        assert (await Client(place.app, key).post("/v1/whatif", HOUR)).status == 403


async def test_one_question_at_a_time_and_of_so_many_records(place: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = await asyncio.gather(place.ask(), place.ask())
    assert sorted(answer.status for answer in answers) == [200, 503]
    monkeypatch.setattr(whatif_routes, "RECORDS_MAX", 2)
    answer = await place.ask()
    assert (answer.status, answer.json()["type"]) == (422, "/problems/too-many-records")
    assert "tallygate whatif" in answer.json()["next_step"]


async def test_a_store_that_is_away_is_told(place: Shown) -> None:
    async def blobs() -> dict[int, bytes]:
        raise StoreUnavailable("away")

    place.deployment.blobs = blobs  # type: ignore[method-assign]
    assert (await place.ask()).status == 503
