"""Prices agreed with one account over HTTP: charged from the instant on, listed, and refused by field."""

from typing import Any

import pytest

from tests.actors.web.house import House
from tests.actors.web.test_customers import put

PRICES = "/v1/customers/acme/prices"
CHEAP = {"model": "per_unit", "amount": "0.2"}


async def test_what_is_agreed_is_charged_from_then_on_and_listed(house: House) -> None:
    await house.opened()
    await house.owner.use("acme", "e1", 1)
    house.clock.now_s += 1
    answer = await put(house.client, f"{PRICES}/tokens", {"terms": CHEAP, "currency": "USD"})
    assert (answer.status, answer.json()["id"]) == (200, "tokens")
    house.clock.now_s += 1
    await house.owner.use("acme", "e2", 1, time="2026-11-22T10:00:02Z")
    balance = (await house.client.get("/v1/customers/acme/balance")).json()
    assert balance["balance"]["booked"] == "-0.700000000000"
    (item,) = (await house.client.get(PRICES)).json()["items"]
    assert item == {"price": "tokens", "plan": "starter", "from": "2026-11-22T10:00:01Z", "terms": CHEAP | {"per": "1"}}
    later = {"terms": None, "currency": "USD", "from": "2026-12-01T00:00:00Z"}
    assert (await put(house.client, f"{PRICES}/tokens", later)).status == 200
    assert [each["terms"] for each in (await house.client.get(PRICES)).json()["items"]][1:] == [None]


@pytest.mark.parametrize(
    ("body", "price", "status", "slug", "field"),
    [
        ({"currency": "EUR"}, "tokens", 422, "currency-mismatch", "currency"),
        ({}, "unheard", 422, "unknown-price", "price"),
        ({"from": "2026-11-22T09:00:00Z"}, "tokens", 422, "bad-start", "from"),
        ({"terms": {"model": "per_unit", "amount": "-1"}}, "tokens", 400, "invalid-request", "terms.amount"),
        ({"terms": CHEAP | {"meter": "tokens"}}, "tokens", 400, "invalid-request", "terms.meter"),
        ({"terms": {"model": "package"}}, "tokens", 400, "invalid-request", "terms.amount"),
        ({"terms": CHEAP | {"per": 1}}, "tokens", 400, "invalid-request", "terms"),
        ({"terms": {"model": "percentage", "percent": "1", "per_event": "1"}}, "tokens", 422, "bad-price", "terms"),
        ({"terms": {"model": "flat", "amount": "1"}}, "tokens", 422, "mid-period", "from"),
        ({"from": "soon"}, "tokens", 400, "invalid-request", "from"),
    ],
)
async def test_a_price_that_cannot_be_agreed_on_is_refused_by_field(
    house: House, body: dict[str, Any], price: str, status: int, slug: str, field: str
) -> None:
    await house.opened()
    answer = await put(house.client, f"{PRICES}/{price}", {"terms": CHEAP, "currency": "USD"} | body)
    problem = answer.json()
    assert (answer.status, problem["type"], problem["field"]) == (status, f"/problems/{slug}", field)
    assert problem["next_step"]
    assert (await house.client.get(PRICES)).json()["items"] == []


# --------------------------------------------------------------------------------------------------------------- phases

ACME = "/v1/customers/acme"


async def test_another_plan_begins_when_it_was_said_to_and_is_listed(house: House) -> None:
    await house.opened()
    asked = {"plan": "growth", "from": "2026-12-01T00:00:00Z"}
    answer = await put(house.client, f"{ACME}/plan", asked)
    assert (answer.status, answer.json()["id"]) == (200, "growth")
    items = (await house.client.get(f"{ACME}/phases")).json()["items"]
    assert items == [{"plan": "starter", "from": None}, {"plan": "growth", "from": "2026-12-01T00:00:00Z"}]
    assert (await house.client.get(ACME)).json()["plan"] == "starter"
    house.clock.now_s += 9 * 86_400
    await house.owner.use("acme", "e1", 1, time="2026-12-01T00:00:00Z")
    assert (await house.client.get(ACME)).json()["plan"] == "growth"
    balance = (await house.client.get(f"{ACME}/balance")).json()
    assert balance["balance"]["booked"] == "-0.250000000000"


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        ({"plan": "unheard"}, 422, "unknown-plan", "plan"),
        ({"from": "2026-11-22T09:00:00Z"}, 422, "bad-start", "from"),
        ({"from": "soon"}, 400, "invalid-request", "from"),
        ({"plan": ""}, 400, "invalid-request", "plan"),
    ],
)
async def test_a_plan_that_cannot_be_sold_is_refused_by_field(
    house: House, body: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened()
    answer = await put(house.client, f"{ACME}/plan", {"plan": "growth"} | body)
    problem = answer.json()
    assert (answer.status, problem["type"], problem["field"]) == (status, f"/problems/{slug}", field)
    assert [each["plan"] for each in (await house.client.get(f"{ACME}/phases")).json()["items"]] == ["starter"]


# --------------------------------------------------------------------------------------------------------------- pauses


async def test_a_paused_account_is_denied_until_it_is_resumed_and_both_are_listed(house: House) -> None:
    await house.opened()
    assert (await put(house.client, f"{ACME}/pause", {"paused": True})).json()["id"] == "paused"
    end = "2026-12-01T00:00:00Z"
    assert (await put(house.client, f"{ACME}/pause", {"paused": False, "from": end})).json()["id"] == "resumed"
    pauses = (await house.client.get(f"{ACME}/phases")).json()["pauses"]
    assert [(each["paused"], each["from"]) for each in pauses[1:]] == [(False, end)]
    assert pauses[0]["paused"]


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        ({"from": "2026-11-22T09:00:00Z"}, 422, "bad-start", "from"),
        ({"from": "soon"}, 400, "invalid-request", "from"),
        ({"paused": "yes"}, 400, "invalid-request", "paused"),
    ],
)
async def test_a_pause_that_cannot_be_is_refused_by_field(
    house: House, body: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened()
    answer = await put(house.client, f"{ACME}/pause", {"paused": True} | body)
    problem = answer.json()
    assert (answer.status, problem["type"], problem["field"]) == (status, f"/problems/{slug}", field)
    assert (await house.client.get(f"{ACME}/phases")).json()["pauses"] == []


# --------------------------------------------------------------------------------------------------------------- seats


async def test_seats_are_charged_at_once_to_the_end_of_the_period_and_listed(house: House) -> None:
    """The plan sells editors at $18; from 1 December on three of them, which is said before."""
    await house.opened()
    start = "2026-12-01T00:00:00Z"
    assert (await put(house.client, f"{ACME}/seats/editor", {"count": 3, "from": start})).json()["id"] == "editor"
    assert (await house.client.get(f"{ACME}/phases")).json()["seats"] == [{"seat": "editor", "count": 3, "from": start}]
    house.clock.now_s += 9 * 86_400
    await house.owner.use("acme", "e1", 4, time="2026-12-01T10:00:00Z")
    lines = (await house.client.get(f"{ACME}/period-lines")).json()["items"]
    (seats,) = [line for line in lines if line["kind"] == "seat" and line["period"] == start]
    assert (seats["price"], seats["amount"], seats["closed"], seats["of_month"]) == ("editor", "54", False, "18")


@pytest.mark.parametrize(
    ("seat", "body", "status", "slug", "field"),
    [
        ("unheard", {}, 422, "unknown-seat", "seat"),
        ("editor", {"from": "2026-11-22T09:00:00Z"}, 422, "bad-start", "from"),
        ("editor", {"count": -1}, 400, "invalid-request", "count"),
    ],
)
async def test_seats_that_cannot_be_are_refused_by_field(
    house: House, seat: str, body: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened()
    answer = await put(house.client, f"{ACME}/seats/{seat}", {"count": 1} | body)
    problem = answer.json()
    assert (answer.status, problem["type"], problem["field"]) == (status, f"/problems/{slug}", field)
