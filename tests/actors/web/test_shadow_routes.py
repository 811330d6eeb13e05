"""Shadows over HTTP: begun by an admin, shown side by side, ended; what stands in the way is named."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from actors.dryrun import Customer, Takings, Turn
from actors.keys import KeyScope
from config.settings import ShadowSettings
from engine.catalog import document_json
from tests.actors.web.house import House, document

DRAFTS = "/v1/catalogue/drafts"
DOLLAR = 10**12


async def drafted(house: House, amount: str) -> str:
    """The path of a new draft's shadow."""
    body = document_json(document(amount))
    made = await house.client.send("POST", DRAFTS, body, headers={"content-type": "application/json"})
    return f"{DRAFTS}/{made.json()['draft']}/shadow"


async def test_charges_of_both_stand_side_by_side(house: House, tmp_path: Path) -> None:
    path = await drafted(house, "0.7")
    assert (await house.client.get(path)).status == 404
    begun = await house.client.send("POST", path, b"")
    assert (begun.status, begun.json()["state"], begun.json()["totals"]) == (201, "running", [])
    (shadow,) = await house.shadows.active()
    claim = await house.shadows.claim(shadow, 0, "shadow-0.1")
    assert claim is not None
    base = tmp_path / "base"
    base.write_bytes(b"base")
    assert (await house.client.get(path)).json()["partitions"][0]["offset"] is None
    await house.shadows.put_base(claim, base, 5, 1_000_000, 400)
    customers = [
        Customer("acme", "starter", "USD", Takings(3 * DOLLAR, 4 * DOLLAR, 6, 6)),
        Customer("bee", "starter", "USD", Takings(3 * DOLLAR, 0, 1, 0)),
        Customer("zen", "growth", "EUR", Takings(0, DOLLAR, 0, 1)),
    ]
    await house.shadows.advance(claim, 9, 2_000_000, [Turn("rated", "dead_lettered.no_price", 1, 7, "why")], customers)
    shown = (await house.client.get(path)).json()
    amounts = {"events": 7, "events_after": 6, "before": "6", "after": "4", "difference": "-2", "percent": "-33.33"}
    euro = {"events": 0, "events_after": 1, "before": "0", "after": "1", "difference": "1", "percent": None}
    assert shown["totals"] == [
        {"currency": "EUR", "customers": 1, **euro},
        {"currency": "USD", "customers": 2, **amounts},
    ]
    assert [(each["plan"], each["difference"]) for each in shown["plans"]] == [("growth", "1"), ("starter", "-2")]
    assert [(each["account"], each["difference"]) for each in shown["customers"]] == [
        ("bee", "-3"),
        ("acme", "1"),
        ("zen", "1"),
    ]
    assert shown["turns"] == [
        {"outcome": "rated", "outcome_after": "dead_lettered.no_price", "records": 1, "partition": 0}
        | {"first_offset": 7, "detail": "why"}
    ]
    assert shown["partitions"] == [
        {"partition": 0, "base_offset": 5, "from": "1970-01-01T00:00:01Z", "offset": 9}
        | {"log_time": "1970-01-01T00:00:02Z", "trouble": None}
    ]
    one = (await house.client.get(f"{path}?account=acme")).json()
    assert [each["percent"] for each in one["customers"]] == ["33.33"] and one["totals"] == shown["totals"]
    assert (await house.client.get(f"{path}?customers=0")).json()["customers"] == []
    ended = await house.client.send("DELETE", path, b"")
    assert (ended.status, ended.json()["state"], ended.json()["totals"]) == (200, "stopped", shown["totals"])
    trail = (await house.client.get("/v1/audit?limit=10")).json()["items"]
    acts = [row["act"] for row in trail if row["stage"] == "done"]
    assert acts == ["catalogue.shadow_stop", "catalogue.shadow", "catalogue.draft"]


async def test_what_stands_in_the_way_is_named(house: House) -> None:
    path = await drafted(house, "0.7")
    for wrong in (f"{DRAFTS}/99/shadow", f"{DRAFTS}/x/shadow"):
        for method in ("GET", "POST", "DELETE"):
            assert (await house.client.send(method, wrong, b"")).status == 404, (method, wrong)
    assert (await house.client.send("DELETE", path, b"")).status == 404
    for number in range(3):
        assert (await house.client.send("POST", await drafted(house, f"0.{number + 8}"), b"")).status == 201
    assert (await house.client.send("POST", path, b"")).status == 201
    runs = await house.client.send("POST", path, b"")
    assert (runs.status, runs.json()["type"].rsplit("/", 1)[-1]) == (409, "shadow-runs")
    many = await house.client.send("POST", await drafted(house, "0.95"), b"")
    assert (many.status, many.json()["type"].rsplit("/", 1)[-1]) == (409, "too-many-shadows")
    await house.client.send("DELETE", path, b"")
    house.services.settings = house.services.settings.model_copy(update={"shadow": ShadowSettings(actors=0)})
    nobody = await house.client.send("POST", path, b"")
    assert nobody.status == 409 and "TALLYGATE_SHADOW__ACTORS" in nobody.json()["next_step"]


async def test_a_draft_that_cannot_follow_what_is_published_by_now_has_none(house: House) -> None:
    path = await drafted(house, "0.7")
    published = document("0.5")
    gone = replace(published, plans={**published.plans, "extra": published.plans["growth"]})
    await house.catalogues.publish_catalogue(2, document_json(gone))
    refused = await house.client.send("POST", path, b"")
    assert refused.status == 422 and any("extra" in str(fault) for fault in refused.json()["errors"])


@pytest.mark.parametrize("scope", [scope for scope in KeyScope if scope is not KeyScope.ADMIN])
async def test_only_the_seller_sees_what_customers_would_pay(house: House, scope: KeyScope) -> None:
    path = await drafted(house, "0.7")
    for method in ("GET", "POST", "DELETE"):
        assert (await house.caller(scope).send(method, path, b"")).status == 403
        assert (await house.caller(*KeyScope, account="acme").send(method, path, b"")).status == 403
