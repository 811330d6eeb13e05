"""Re-rating over HTTP: a dry run that changes nothing, and its differences posted once."""

from typing import Any

import pytest

from tests.actors.web.house import House, document

ACME = "/v1/customers/acme"
FROM = "2026-11-01T00:00:00Z"


async def used(house: House) -> None:
    """Four tokens at $0.5; version 2, which comes later, has them at $0.25."""
    await house.opened()
    await house.owner.use("acme", "e1", 4)
    await house.owner.publish(2, document("0.25"))


async def test_a_dry_run_is_exact_and_changes_nothing_and_what_it_found_is_posted_once(house: House) -> None:
    await used(house)
    before = house.owner.fold.state_bytes()
    found = (await house.client.get(f"{ACME}/rerated?version=2&from={FROM}")).json()
    assert house.owner.fold.state_bytes() == before
    (item,) = found["items"]
    assert item == {"price": "tokens", "period": FROM, "rated": "2", "posted": "0", "owed": "1", "difference": "-1"}
    assert (found["difference"], found["refused"], found["plan"]) == ("-1", [], "starter")
    body = {"rerate": "r", "price": "tokens", "version": 2, "from": FROM, "currency": "USD", "reason": "too dear"}
    body |= {"differences": [{"period": FROM, "difference": "-1"}]}
    assert (await house.client.post(f"{ACME}/rerates", body)).status == 201
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "-1"
    (line,) = (await house.client.get(f"{ACME}/adjustments")).json()["items"]
    assert (line["amount"], line["price"], line["reason"], line["line"][:9]) == (
        "-1",
        "tokens",
        "too dear",
        "r/tokens/",
    )
    again = await house.client.post(f"{ACME}/rerates", body)
    assert (again.status, again.json()["type"]) == (409, "/problems/line-exists")


@pytest.mark.parametrize(
    ("changed", "status", "slug", "field"),
    [
        ({"version": 7}, 422, "unknown-version", "version"),
        ({"price": "unheard"}, 422, "unknown-price", "price"),
        ({"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ({"to": FROM}, 422, "bad-period", "to"),
        ({"from": "2026-11-21T00:00:00Z"}, 422, "mid-segment", "from"),
        ({"differences": [{"period": FROM, "difference": "-2"}]}, 422, "rerate-changed", "differences"),
        ({"differences": []}, 400, "invalid-request", "differences"),
        ({"differences": [{"period": FROM, "difference": "-1"}] * 2}, 400, "invalid-request", "differences"),
        ({"from": "yesterday"}, 400, "invalid-request", "from"),
        ({"reason": " "}, 422, "no-reason", "reason"),
    ],
)
async def test_what_cannot_be_posted_is_refused_by_field(
    house: House, changed: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await used(house)
    body = {"rerate": "r", "price": "tokens", "version": 2, "from": FROM, "currency": "USD", "reason": "too dear"}
    body |= {"differences": [{"period": FROM, "difference": "-1"}]}
    answer = await house.client.post(f"{ACME}/rerates", body | changed)
    assert (answer.status, answer.json()["type"], answer.json().get("field")) == (status, f"/problems/{slug}", field)
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "-2"


async def test_a_price_that_cannot_be_rated_again_is_named_with_the_reason(house: House) -> None:
    await used(house)
    found = (await house.client.get(f"{ACME}/rerated?version=2&from={FROM}&price=unheard")).json()
    assert (found["items"], found["refused"]) == ([], [{"price": "unheard", "reason": "unknown_price"}])
    assert (await house.client.get(f"/v1/customers/gone/rerated?version=2&from={FROM}")).status == 404


@pytest.mark.parametrize(("asked", "field"), [("version=7", "version"), (f"version=2&to={FROM}", "to")])
async def test_a_dry_run_by_what_was_never_published_or_of_no_time_is_refused(
    house: House, asked: str, field: str
) -> None:
    await used(house)
    answer = await house.client.get(f"{ACME}/rerated?from={FROM}&{asked}")
    assert (answer.status, answer.json()["field"]) == (400, field)
