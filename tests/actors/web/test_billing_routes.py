"""How an account is billed, over HTTP."""

from typing import Any

import orjson
import pytest

from tests.actors.web.house import House

PATH = "/v1/customers/acme/billing"


async def put(house: House, body: dict[str, Any]) -> Any:
    return await house.client.send("PUT", PATH, orjson.dumps(body), headers={"content-type": "application/json"})


async def test_a_closed_period_of_a_postpaid_account_is_due_until_it_is_paid(house: House) -> None:
    await house.opened()
    shown = (await house.client.get(PATH)).json()
    assert (shown["billing"], shown["credit_limit"], shown["due"]) == ("prepaid", "0", [])
    answer = await put(house, {"billing": "postpaid", "credit_limit": "9", "currency": "USD"})
    assert (answer.status, answer.json()["status"]) == (200, "applied")
    house.clock.now_s += 9 * 86_400
    await house.owner.use("acme", "e1", 4, time="2026-12-01T10:00:00Z")
    house.clock.now_s += 32 * 86_400
    await house.owner.use("acme", "e2", 4, time="2027-01-02T10:00:00Z")
    shown = (await house.client.get(PATH)).json()
    assert (shown["billing"], shown["credit_limit"], shown["currency"]) == ("postpaid", "9", "USD")
    assert [(each["period"], each["ends"]) for each in shown["due"]] == [
        ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    ]


@pytest.mark.parametrize(
    ("body", "slug", "field"),
    [
        ({"billing": "postpaid", "credit_limit": "-1"}, "bad-amount", "credit_limit"),
        ({"billing": "prepaid", "credit_limit": "5"}, "bad-billing", "billing"),
        ({"billing": "postpaid", "currency": "EUR"}, "currency-mismatch", "currency"),
    ],
)
async def test_a_fault_is_refused_and_says_where(house: House, body: dict[str, Any], slug: str, field: str) -> None:
    await house.opened()
    answer = await put(house, {"currency": "USD"} | body)
    told = answer.json()
    assert (answer.status, told["type"].rpartition("/")[2], told["field"]) == (422, slug, field)
