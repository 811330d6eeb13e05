"""Adjustments over HTTP: a manual line with its reason, beside what late usage of closed periods changed."""

from typing import Any

import pytest

from tests.actors.web.house import House

ACME = "/v1/customers/acme"
LINE = {"amount": "-2.5", "currency": "USD", "reason": "outage", "line": "case-1"}


async def test_a_line_is_posted_and_listed_with_its_reason_and_who_asked(house: House) -> None:
    await house.opened()
    answer = await house.client.post(f"{ACME}/adjustments", LINE)
    assert (answer.status, answer.json()["id"]) == (201, "case-1")
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "2.500000000000"
    (item,) = (await house.client.get(f"{ACME}/adjustments")).json()["items"]
    assert item.pop("by").startswith("key:")
    assert item == {
        "line": "case-1",
        "period": "2026-11-01T00:00:00Z",
        "posted": "2026-11-22T10:00:00Z",
        "price": "",
        "amount": "-2.500000000000",
        "reason": "outage",
    }


async def test_late_usage_of_a_closed_period_is_listed_beside_it(house: House) -> None:
    await house.opened()
    assert (await house.client.post(f"{ACME}/adjustments", LINE | {"period": "2026-10-31T12:00:00Z"})).status == 201
    await house.owner.use("acme", "e1", 4, time="2026-10-31T23:00:00Z")
    items = (await house.client.get(f"{ACME}/adjustments")).json()["items"]
    assert [(item["line"], item["period"], item["amount"]) for item in items] == [
        (None, "2026-10-01T00:00:00Z", "2"),
        ("case-1", "2026-10-01T00:00:00Z", "-2.500000000000"),
    ]


@pytest.mark.parametrize(
    ("changed", "status", "slug", "field"),
    [
        ({"amount": "0"}, 422, "bad-amount", "amount"),
        ({"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ({"price": "unheard"}, 422, "unknown-price", "price"),
        ({"line": "taken"}, 409, "line-exists", "line"),
        ({"reason": " "}, 422, "no-reason", "reason"),
        ({"reason": ""}, 400, "invalid-request", "reason"),
        ({"period": "2027-01-01T00:00:00Z"}, 422, "bad-period", "period"),
    ],
)
async def test_a_line_that_cannot_be_is_refused_by_field(
    house: House, changed: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened()
    assert (await house.client.post(f"{ACME}/adjustments", LINE | {"line": "taken"})).status == 201
    answer = await house.client.post(f"{ACME}/adjustments", LINE | changed)
    told = answer.json()
    assert (answer.status, told["type"], told.get("field")) == (status, f"/problems/{slug}", field)
