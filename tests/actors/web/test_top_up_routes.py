"""Automatic top-up over HTTP: set, asked, answered, shown, removed; a refusal names the field."""

from typing import Any

import pytest

from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME, put

PATH = f"{ACME}/auto-top-up"
TERMS = {"threshold": "20", "amount": "50", "currency": "USD", "days": 30}


async def test_a_low_balance_asks_and_the_payment_answers(house: House) -> None:
    await house.opened("acme", "10")
    answer = await put(house.client, PATH, TERMS)
    assert (answer.status, answer.json()["id"]) == (200, "acme")
    shown = (await house.client.get(PATH)).json()
    assert shown["amount"] == "50"
    assert (shown["days"], shown["requests"], shown["next_request"]) == (30, 1, None)
    request = shown["open"]["request"]
    assert shown["open"] == {"request": request, "amount": "50"}
    paid = await house.client.post(f"{PATH}/{request}", {"paid": True})
    assert (paid.status, paid.json()["id"]) == (200, request)
    lots = (await house.client.get(f"{ACME}/grants")).json()["items"]
    assert [(lot["kind"], lot["granted"]) for lot in lots if lot["lot"] == request] == [("paid", "50")]
    assert (await house.client.get(PATH)).json()["open"] is None
    again = await house.client.post(f"{PATH}/{request}", {"paid": False})
    told = again.json()
    assert (again.status, told["type"], told["field"]) == (409, "/problems/not-asked", "request")
    assert told["next_step"]


async def test_a_failed_payment_is_asked_for_again_later(house: House) -> None:
    await house.opened("acme", "10")
    await put(house.client, PATH, TERMS)
    request = (await house.client.get(PATH)).json()["open"]["request"]
    assert (await house.client.post(f"{PATH}/{request}", {"paid": False})).status == 200
    shown = (await house.client.get(PATH)).json()
    assert (shown["open"], shown["failed"]) == (None, 1)
    assert shown["next_request"] == "2026-11-22T11:00:00Z"


async def test_without_terms_all_is_null_and_there_is_nothing_to_remove(house: House) -> None:
    await house.opened("acme", "10")
    await put(house.client, PATH, TERMS | {"threshold": "1"})
    assert (await house.client.send("DELETE", PATH)).status == 200
    shown = (await house.client.get(PATH)).json()
    assert (shown["threshold"], shown["amount"], shown["requests"], shown["open"]) == (None, None, 0, None)
    assert (await house.client.send("DELETE", PATH)).status == 404


@pytest.mark.parametrize(
    ("change", "status", "slug", "field"),
    [
        ({"amount": "0"}, 422, "bad-amount", "amount"),
        ({"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ({"cooldown_s": 5}, 400, "invalid-request", "cooldown_s"),
        ({"attempts": 0}, 400, "invalid-request", "attempts"),
        ({"days": 9999}, 400, "invalid-request", "days"),
    ],
)
async def test_terms_that_cannot_be_are_refused_by_field(
    house: House, change: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened("acme", "10")
    answer = await put(house.client, PATH, TERMS | change)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (status, f"/problems/{slug}", field)
