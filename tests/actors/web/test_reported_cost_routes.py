"""Reported costs beside computed ones, over HTTP."""

from typing import Any

from actors.keys import KeyScope
from actors.web import reported_cost_routes
from tests.actors.web.house import House

PATH = "/v1/reported-costs"
BODY: dict[str, Any] = reported_cost_routes.ROUTES[0].example.request
SPAN = "?from=2026-11-22T00:00:00Z&to=2026-11-23T00:00:00Z"


async def test_what_is_recorded_is_shown_with_its_gap(house: House) -> None:
    ingest = house.caller(KeyScope.INGEST)
    for _ in range(2):
        assert (await ingest.post(PATH, BODY)).json() == {"recorded": 1}
    (item,) = (await house.client.get(PATH + SPAN)).json()["items"]
    assert (item["provider"], item["model"], item["day"]) == ("openai", "gpt-4o", "2026-11-22T00:00:00Z")
    assert (item["computed"], item["reported"], item["gap"]) == ("0.012500000000", "0.013000000000", "0.000500000000")
    assert (item["requests"], item["differing"]) == (1, 1)


async def test_what_makes_no_sense_is_refused_by_its_place(house: House) -> None:
    item = BODY["items"][0]
    for change, field in (({"reported": "much"}, "items[0].reported"), ({"time": "soon"}, "items[0].time")):
        answer = await house.client.post(PATH, {"items": [item | change]})
        assert (answer.status, answer.json()["field"]) == (400, field)
    assert (await house.client.post(PATH, {"items": [item | {"id": "a\x00b"}]})).status == 400
    assert (await house.client.get(f"{PATH}?from=2026-11-23T00:00:00Z&to=2026-11-22T00:00:00Z")).status == 400


async def test_it_is_the_seller_s(house: House) -> None:
    assert (await house.caller(*KeyScope, account="acme").get(PATH)).status == 403
    assert (await house.caller(KeyScope.INGEST).get(PATH)).status == 403
