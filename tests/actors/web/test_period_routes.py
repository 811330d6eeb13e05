"""What billing periods owe besides usage, over HTTP: posted when they close, and projected until then."""

from typing import Any

import orjson

from tests.actors.web.house import House

ACME = "/v1/customers/acme"
TERMS = {"model": "per_unit", "amount": "0.5", "minimum": "31"}


async def test_a_minimum_is_projected_until_its_period_closes_and_posted_then(house: House) -> None:
    """December, from its start on: $31 at least, $2 used."""
    await house.opened()
    agreed = {"terms": TERMS, "currency": "USD", "from": "2026-12-01T00:00:00Z"}
    headers = {"content-type": "application/json"}
    answer = await house.client.send("PUT", f"{ACME}/prices/tokens", orjson.dumps(agreed), headers=headers)
    assert answer.status == 200

    async def listed() -> list[dict[str, Any]]:
        answer = await house.client.get(f"{ACME}/period-lines")
        assert (answer.status, answer.json()["currency"]) == (200, "USD")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    assert await listed() == []
    december = {"period": "2026-12-01T00:00:00Z", "ends": "2027-01-01T00:00:00Z", "kind": "minimum", "price": "tokens"}
    december |= {"of_month": "31", "of_period": "31"}
    house.clock.now_s += 9 * 86_400
    await house.owner.use("acme", "e1", 4, time="2026-12-01T10:00:00Z")
    assert await listed() == [december | {"amount": "29", "closed": False}]
    house.clock.now_s += 32 * 86_400
    await house.owner.use("acme", "e2", 4, time="2027-01-02T10:00:00Z")
    posted, projected = await listed()
    assert posted == december | {"amount": "29", "closed": True}
    assert (projected["period"], projected["amount"], projected["closed"]) == ("2027-01-01T00:00:00Z", "29", False)
    assert (await house.client.get(f"{ACME}/adjustments")).json()["items"] == []
