"""Quantity grants over HTTP: granted, served, listed, voided; a refusal names the field."""

from typing import Any

import pytest

from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME

PATH = f"{ACME}/quantity-grants"
PACK = {"price": "tokens", "quantity": "10.5", "grant": "pack"}


async def test_what_is_granted_is_listed_and_voided(house: House) -> None:
    await house.opened("acme", "10")
    answer = await house.client.post(PATH, PACK)
    assert (answer.status, answer.json()["id"]) == (200, "pack")
    (item,) = (await house.client.get(PATH)).json()["items"]
    assert (item["price"], item["granted"], item["remaining"], item["used"]) == (
        "tokens",
        "10.500000000",
        "10.500000000",
        "0",
    )
    assert item["expires"] == "2026-12-01T00:00:00Z"
    assert (await house.client.post(PATH, PACK)).status == 409
    assert (await house.client.send("POST", f"{PATH}/pack/void")).status == 200
    assert (await house.client.send("POST", f"{PATH}/pack/void")).status == 409
    assert (await house.client.send("POST", f"{PATH}/unheard/void")).status == 404


@pytest.mark.parametrize(
    ("change", "status", "slug", "field"),
    [
        ({"quantity": "0"}, 422, "bad-amount", "quantity"),
        ({"price": "unheard"}, 422, "unknown-price", "price"),
        ({"expires": "2027-01-01T00:00:00Z"}, 422, "bad-quantity-grant", "expires"),
        ({"expires": "2020-01-01T00:00:00Z"}, 422, "expires-too-soon", "expires"),
        ({"expires": "soon"}, 400, "invalid-request", "expires"),
    ],
)
async def test_what_cannot_be_granted_is_refused_by_field(
    house: House, change: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened("acme", "10")
    told = (await house.client.post(PATH, PACK | change)).json()
    assert (told["status"], told["type"], told["field"]) == (status, f"/problems/{slug}", field)
