"""Alert rules over HTTP: each measure is set, listed as it was stated, and removed; a refusal names the field."""

from typing import Any

import pytest

from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME, put

MEASURES: list[dict[str, Any]] = [
    {"measure": "balance", "threshold": "-5.5", "clear": "10"},
    {"measure": "cap_percent", "cap": "monthly", "percent": 80},
    {"measure": "spend", "threshold": "5", "window": "rolling", "length_s": 3600},
    {"measure": "quantity", "threshold": "1000", "meter": "tokens"},
    {"measure": "included_percent", "price": "tokens", "percent": 80},
    {"measure": "expiring", "threshold": "5", "within_s": 86_400},
    {"measure": "lot_percent", "lot": "welcome", "percent": 20},
    {"measure": "spike", "percent": 300, "minimum": "5", "bucket_s": 3600},
]


async def opened(house: House) -> None:
    await house.opened("acme", "10")
    lot = {"lot": "welcome", "kind": "promo", "amount": "5", "currency": "USD"}
    assert (await house.client.post(f"{ACME}/grants", lot)).status == 201
    assert (await put(house.client, f"{ACME}/caps/monthly", {"amount": "500", "currency": "USD"})).status == 200


async def test_every_measure_is_set_listed_and_removed(house: House) -> None:
    await opened(house)
    for number, on in enumerate(MEASURES):
        answer = await put(house.client, f"{ACME}/rules/r{number}", {"on": on, "level": "critical"})
        assert (answer.status, answer.json()["status"]) == (200, "applied"), (on, answer.body)
    items = (await house.client.get(f"{ACME}/rules")).json()["items"]
    assert [(item["rule"], item["level"], item["on"]["measure"]) for item in items] == [
        (f"r{number}", "critical", on["measure"]) for number, on in enumerate(MEASURES)
    ]
    assert items[0]["on"]["threshold"] == "-5.500000000000"
    assert items[0]["active_in"] == []
    assert [cap["cap"] for cap in (await house.client.get(f"{ACME}/caps")).json()["items"]] == ["monthly"]
    for number in range(len(MEASURES)):
        assert (await house.client.send("DELETE", f"{ACME}/rules/r{number}")).status == 200
    assert (await house.client.get(f"{ACME}/rules")).json()["items"] == []
    assert (await house.client.send("DELETE", f"{ACME}/rules/r0")).status == 404


async def test_a_cap_that_a_rule_looks_at_is_not_removed(house: House) -> None:
    await opened(house)
    await put(house.client, f"{ACME}/rules/r", {"on": MEASURES[1]})
    answer = await house.client.send("DELETE", f"{ACME}/caps/monthly")
    assert (answer.status, answer.json()["type"], answer.json()["field"]) == (422, "/problems/cap-in-use", "cap")


@pytest.mark.parametrize(
    ("on", "slug", "field"),
    [
        ({"measure": "cap_percent", "cap": "none", "percent": 80}, "unknown-cap", "on.cap"),
        ({"measure": "balance", "threshold": "5", "clear": "4"}, "bad-rule", "on"),
        ({"measure": "balance", "threshold": "five"}, "bad-amount", "on.threshold"),
        ({"measure": "included_percent", "price": "none", "percent": 80}, "unknown-price", "on.price"),
        ({"measure": "commitment_percent", "commitment": "none", "percent": 80}, "unknown-commitment", "on.commitment"),
        ({"measure": "quantity", "threshold": "5", "meter": "none"}, "unknown-meter", "on.meter"),
        ({"measure": "spend", "threshold": "5", "scope": "team:red"}, "unknown-scope", "on.scope"),
    ],
)
async def test_a_refusal_is_the_engines_own_and_names_the_field(
    house: House, on: dict[str, Any], slug: str, field: str
) -> None:
    await opened(house)
    answer = await put(house.client, f"{ACME}/rules/r", {"on": on})
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (422, f"/problems/{slug}", field)
    assert told["detail"] and told["next_step"]


@pytest.mark.parametrize("change", [{"level": "loud"}, {"on": {"measure": "mood"}}, {"on": {"measure": "spend"}}])
async def test_what_is_no_rule_is_no_request(house: House, change: dict[str, Any]) -> None:
    await opened(house)
    answer = await put(house.client, f"{ACME}/rules/r", {"on": MEASURES[0]} | change)
    assert (answer.status, answer.json()["type"]) == (400, "/problems/invalid-request")
