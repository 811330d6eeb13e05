"""A provider's bill over HTTP, on a real database."""

from typing import Any

from actors.keys import KeyScope
from actors.web import billed_routes
from tests.actors.web.asgi_client import Response
from tests.actors.web.house import House

BILL = "/v1/billed-usage"
SPAN = "?from=2026-11-22T09:00:00Z&to=2026-11-22T10:00:00Z"
BODY: dict[str, Any] = billed_routes.ROUTES[0].example.request


async def send(house: House, **changes: Any) -> Response:
    return await house.client.post(BILL, BODY | changes)


async def test_a_bill_is_imported_once_and_reconciled(house: House) -> None:
    assert (await send(house)).json() == {"added": 1, "known": 0, "contradicted": [], "prices": 1}
    assert (await send(house)).json()["known"] == 1
    found = (await house.client.get(f"{BILL}/reconciliation{SPAN}")).json()
    assert found["items"] == [
        {
            "endpoint": "atlas-large",
            "hour": "2026-11-22T09:00:00Z",
            "currency": "USD",
            "billed": "2.975000000000",
            "corrected": "0",
            "ours": "0",
            "delta": "2.975000000000",
        }
    ]
    assert found["endpoints"][0]["delta"] == "2.975000000000"
    assert (found["begin"], found["end"], found["faults"]) == ("2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z", [])


async def test_what_makes_no_sense_is_refused_by_its_place(house: House) -> None:
    record, price = BODY["usage"][0], BODY["prices"][0]
    for changes, field in (
        ({"usage": [record, record | {"quantity": "-1"}]}, "usage[1]"),
        ({"usage": [record | {"end": "later"}]}, "usage[0].end"),
        ({"prices": [price | {"amount": "free"}]}, "prices[0]"),
    ):
        answer = await send(house, **changes)
        assert (answer.status, answer.json()["field"]) == (400, field), changes
    for query, field in (
        ("?models=a", "models"),
        ("?models=a=b,c=b", "models"),
        ("?from=2026-11-22T09:00:00Z&to=2026-11-22T08:00:00Z", "to"),
        ("?from=2020-11-22T09:00:00Z", "from"),
    ):
        answer = await house.client.get(f"{BILL}/reconciliation{query}")
        assert (answer.status, answer.json()["field"]) == (400, field), query


async def test_it_is_the_seller_s(house: House) -> None:
    for scopes, account in (((KeyScope.READ, KeyScope.INGEST), None), (tuple(KeyScope), "acme")):
        caller = house.caller(*scopes, account=account)
        assert (await caller.get(f"{BILL}/reconciliation")).status == 403
        assert (await caller.post(BILL, BODY)).status == 403
