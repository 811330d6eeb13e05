"""Margin floors over HTTP."""

from typing import Any

import orjson

from actors.advice import Advisor
from actors.keys import KeyScope
from actors.margin_floors import Looked
from actors.margin_store import MarginStore
from engine.cost.floors import look
from engine.cost.margin import Margin
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.house import House

FLOORS = "/v1/margin/floors"
BODY = {"of": "model", "subject": "large", "percent": "20", "clear_percent": "25.5", "level": "critical"}


async def put(house: House, name: str = "large-20", **changes: Any) -> Response:
    body = {key: value for key, value in (BODY | changes).items() if value is not None}
    headers = {"content-type": "application/json"}
    return await house.client.send("PUT", f"{FLOORS}/{name}", orjson.dumps(body), headers=headers)


async def test_a_floor_is_set_listed_and_removed(house: House) -> None:
    assert (await put(house)).status == 204
    assert (await put(house, "loss", of="account", subject="acme", percent="-3.5", clear_percent=None)).status == 204
    large, loss = (await house.client.get(FLOORS)).json()["items"]
    assert large == {
        "floor": "large-20",
        "of": "model",
        "subject": "large",
        "percent": "20.0",
        "clear_percent": "25.5",
        "level": "critical",
        "active": False,
        "ordinal": 0,
        "next_hour": "2026-11-22T10:00:00Z",
    }
    assert (loss["percent"], loss["clear_percent"]) == ("-3.5", "-3.5")
    assert (await house.client.send("DELETE", f"{FLOORS}/loss")).status == 204
    gone = await house.client.send("DELETE", f"{FLOORS}/loss")
    assert (gone.status, [each["floor"] for each in (await house.client.get(FLOORS)).json()["items"]]) == (
        404,
        ["large-20"],
    )


async def test_what_makes_no_sense_is_refused_by_its_field(house: House) -> None:
    for changes, field in (
        ({"percent": "20.05"}, "percent"),
        ({"percent": "101"}, "percent"),
        ({"percent": "1e2"}, "percent"),
        ({"percent": "-100000"}, "percent"),
        ({"clear_percent": "19.9"}, "clear_percent"),
        ({"subject": "a\u0000b"}, "body"),
    ):
        answer = await put(house, **changes)
        assert (answer.status, answer.json()["field"]) == (400, field), changes
    assert (await put(house, of="colour")).status == 400


async def test_floors_are_the_seller_s(house: House) -> None:
    for scopes, account in (((KeyScope.READ, KeyScope.CREDIT), None), (tuple(KeyScope), "acme")):
        assert (await house.caller(*scopes, account=account).get(FLOORS)).status == 403


async def test_a_check_on_a_model_below_its_floor_says_so_to_gateways_alone(house: House) -> None:
    await house.opened(dollars="100")
    advisor = Advisor(house.floors, house.clock)
    house.services.advisor = advisor
    ask = {
        "account": "acme",
        "type": "llm.request",
        "data": {"model": "large"},
        "bounds": [{"fields": ["tokens"], "up_to": 4}],
    }

    async def advice(key: Client, **changes: Any) -> Any:
        answer = await key.post("/v1/check", ask | changes)
        assert (answer.status, answer.json()["allowed"]) == (200, True)
        return answer.json()["advice"]

    await put(house)
    await advisor.refresh()
    assert await advice(house.client) is None, "a floor of which nothing is known"
    store = MarginStore(house.bench.dsn, house.bench.schema, 1.2, 5.0)
    await house.bench.started(store)
    epoch = (await store.claim(0, "a")).epoch
    (kept,) = await house.floors.all()
    hour_us = kept.floor.next_us
    sight = look(kept.floor, hour_us, [("USD", Margin(100, 85, 2))])
    assert await house.floors.write(Looked(kept, hour_us, sight), epoch) is not None
    await advisor.refresh()
    said = {
        "advice": "below_margin_floor",
        "floor": "large-20",
        "of": "model",
        "subject": "large",
        "percent": "15.0",
        "floor_percent": "20.0",
        "level": "critical",
        "hour": "2026-11-22T10:00:00Z",
    }
    assert await advice(house.client) == said
    assert await advice(house.client, data={}, reach={"model": ["large", "mini"]}) == said
    assert await advice(house.client, data={"model": "mini"}) is None
    batch = (await house.client.post("/v1/checks", {"checks": [ask]})).json()
    assert batch["outcomes"][0]["answer"]["advice"] == said
    assert await advice(house.caller(KeyScope.CHECK, account="acme")) is None, "a customer sees no margin"
