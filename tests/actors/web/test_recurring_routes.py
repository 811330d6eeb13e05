"""Recurring grants over HTTP: set, granted, listed as they were stated, removed; a refusal names the field."""

from typing import Any

import pytest

from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME, put

PATH = f"{ACME}/recurring-grants"
MONTHLY = {"every": "period", "amount": "1000", "currency": "USD", "rollover": {"percent": 50, "days": 31, "cap": "9"}}


async def test_what_is_set_is_granted_listed_and_removed(house: House) -> None:
    await house.opened("acme", "10")
    answer = await put(house.client, f"{PATH}/monthly", MONTHLY)
    assert (answer.status, answer.json()["id"]) == (200, "monthly")
    (item,) = (await house.client.get(PATH)).json()["items"]
    told = {name: item[name] for name in ("grant", "every", "amount", "rollover", "next", "pays_debt", "expires")}
    assert told == {
        "grant": "monthly",
        "every": "period",
        "amount": "1000",
        "rollover": {"percent": 50, "days": 31, "cap": "9"},
        "next": "2026-12-01T00:00:00Z",
        "pays_debt": False,
        "expires": True,
    }
    lots = (await house.client.get(f"{ACME}/grants")).json()["items"]
    (lot,) = [lot for lot in lots if lot["lot"].startswith("monthly@")]
    assert (lot["lot"], lot["granted"], lot["expires"]) == ("monthly@2026-11-01", "1000", "2026-12-01T00:00:00Z")
    assert (await house.client.send("DELETE", f"{PATH}/monthly")).status == 200
    assert (await house.client.get(PATH)).json()["items"] == []
    assert (await house.client.send("DELETE", f"{PATH}/monthly")).status == 404


@pytest.mark.parametrize(
    ("change", "status", "slug", "field"),
    [
        ({"amount": "0"}, 422, "bad-amount", "amount"),
        ({"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ({"prices": ["unheard"]}, 422, "unknown-price", "prices"),
        ({"expires": False}, 422, "bad-rollover", "rollover"),
        ({"expires": False, "rollover": None, "days": 3}, 422, "bad-recurring", "days"),
        ({"every": "year"}, 400, "invalid-request", "every"),
        ({"days": 0}, 400, "invalid-request", "days"),
    ],
)
async def test_what_cannot_recur_is_refused_by_field(
    house: House, change: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened("acme", "10")
    answer = await put(house.client, f"{PATH}/monthly", MONTHLY | change)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (status, f"/problems/{slug}", field)
