"""Rates between currencies, and margin in one of them, over HTTP."""

import orjson
import pytest
from msgspec.structs import replace

from actors.keys import KeyScope
from actors.web import margin_routes
from engine.cost.margin import Key, Margin
from tests.actors.web.asgi_client import Response
from tests.actors.web.house import House
from tests.actors.web.test_margin_routes import DOLLAR, HOURS, key, told

RATES = "/v1/margin/rates"
EUROS = f"/v1/margin?{HOURS}&currency=EUR"


async def put(house: House, place: str = "2026-11-22/USD/EUR", rate: str = "0.92") -> Response:
    headers = {"content-type": "application/json"}
    return await house.client.send("PUT", f"{RATES}/{place}", orjson.dumps({"rate": rate}), headers=headers)


async def test_a_rate_is_recorded_listed_and_removed(house: House) -> None:
    for place, rate in (
        ("2026-11-20/USD/EUR", "0.9"),
        ("2026-11-20/USD/EUR", "0.92"),
        ("2026-11-22/CREDITS/USD", "0.01"),
    ):
        assert (await put(house, place, rate)).status == 204
    credits, euro = (await house.client.get(RATES)).json()["items"]
    assert {name: euro[name] for name in ("day", "source", "target", "rate")} == {
        "day": "2026-11-20",
        "source": "USD",
        "target": "EUR",
        "rate": "0.920000000000",
    }
    assert (credits["day"], credits["source"]) == ("2026-11-22", "CREDITS")
    asked = f"{RATES}?from=2026-11-01&to=2026-11-20&target=EUR"
    assert (await house.client.get(asked)).json()["items"] == [euro]
    assert (await house.client.get(f"{RATES}?to=2026-11-19")).json()["items"] == []
    assert (await house.client.send("DELETE", f"{RATES}/2026-11-20/USD/EUR")).status == 204
    assert (await house.client.send("DELETE", f"{RATES}/2026-11-20/USD/EUR")).status == 404
    acts = (await house.client.get("/v1/audit")).json()["items"]
    assert {each["act"] for each in acts} >= {"margin_rate.set", "margin_rate.remove"}


async def test_what_makes_no_sense_is_refused_by_its_field(house: House) -> None:
    for place, rate, field in (
        ("2026-02-30/USD/EUR", "1", "day"),
        ("22.11.2026/USD/EUR", "1", "day"),
        ("0001-01-01/USD/EUR", "1", "day"),
        ("2026-11-24/USD/EUR", "1", "day"),  # it is the 22nd
        ("2026-11-22/usd/EUR", "1", "source"),
        ("2026-11-22/USD/E", "1", "target"),
        ("2026-11-22/EUR/EUR", "1", "target"),
        ("2026-11-22/USD/EUR", "0", "rate"),
        ("2026-11-22/USD/EUR", "-1", "rate"),
        ("2026-11-22/USD/EUR", "1e3", "rate"),
        ("2026-11-22/USD/EUR", "0.1234567890123", "rate"),
        ("2026-11-22/USD/EUR", "1000000000001", "rate"),
    ):
        answer = await put(house, place, rate)
        assert (answer.status, answer.json()["field"]) == (400, field), place
    for query, field in (("from=2026-11-22&to=2026-11-21", "to"), ("from=May", "from"), ("to=0000-01-01", "to")):
        answer = await house.client.get(f"{RATES}?{query}")
        assert (answer.status, answer.json()["field"]) == (400, field), query
    assert (await house.client.get(f"/v1/margin?{HOURS}&currency=euro")).json()["field"] == "currency"


async def test_margin_in_one_currency_says_at_which_rates(house: House) -> None:
    euros = replace(key("acme"), currency="EUR")
    await told(
        house,
        {
            euros: Margin(9 * DOLLAR, 0, 2, foreign_cost=2),
            key("acme"): Margin(0, 5 * DOLLAR),
            key("zen"): Margin(5 * DOLLAR, DOLLAR, 2, 1),
        },
    )
    apart = (await house.client.get(f"/v1/margin?{HOURS}&account=acme")).json()
    found = [(each["currency"], each["cost"], each["without_cost"], each["foreign_cost"]) for each in apart["items"]]
    assert (found, apart["rates"]) == ([("EUR", None, 0, 2), ("USD", "5", 0, 0)], [])

    missing = await house.client.get(EUROS)
    assert (missing.status, missing.json()["field"]) == (422, "currency")
    assert "PUT /v1/margin/rates/2026-11-22/USD/EUR" in missing.json()["next_step"]
    await put(house, "2026-11-20/USD/EUR", "0.9")
    shown = (await house.client.get(EUROS)).json()
    acme, zen = shown["items"]
    assert (acme["currency"], acme["revenue"], acme["cost"], acme["percent"]) == ("EUR", "9", "4.500000000000", "50.0")
    assert (acme["requests"], acme["foreign_cost"]) == (2, 0)
    assert (zen["revenue"], zen["cost"], zen["without_cost"]) == ("4.500000000000", None, 1)
    used = {"source": "USD", "target": "EUR", "rate": "0.900000000000", "of": "2026-11-20"}
    assert shown["rates"] == [{"day": "2026-11-22"} | used], "of the last day that has one"


async def test_a_request_is_shown_in_one_currency_too(house: House) -> None:
    class Says:
        async def of(self, account: str, request: str, at_us: int) -> list[tuple[Key, Margin]]:
            return [
                (replace(key(account), currency="EUR"), Margin(9 * DOLLAR, 0, 1, foreign_cost=1)),
                (key(account), Margin(0, 5 * DOLLAR)),
            ]

    house.services.request_margins = Says()
    await put(house)
    path = "/v1/events/req-1/margin?account=acme"
    apart = (await house.client.get(path)).json()
    assert (apart["currency"], apart["cost"], apart["foreign_cost"], apart["rates"]) == ("EUR", None, 1, [])
    shown = (await house.client.get(f"{path}&currency=EUR")).json()
    assert (shown["cost"], shown["margin"], shown["foreign_cost"]) == ("4.600000000000", "4.400000000000", 0)
    assert [each["of"] for each in shown["rates"]] == ["2026-11-22"]


async def test_the_run_of_a_request_is_shown_in_the_currency_that_it_is_charged_in(house: House) -> None:
    class Says:
        async def of(self, account: str, request: str, at_us: int) -> list[tuple[Key, Margin]]:
            return [(replace(key(account), run="talk"), Margin(9 * DOLLAR, DOLLAR, 1))]

    house.services.request_margins = Says()
    dollars = replace(key("acme"), run="talk")
    await told(house, {dollars: Margin(9 * DOLLAR, DOLLAR, 1), replace(dollars, currency="EUR"): Margin(0, DOLLAR)})
    await put(house)
    shown = (await house.client.get("/v1/events/req-1/margin?account=acme&currency=EUR")).json()
    assert (shown["currency"], shown["of_run"]["currency"], shown["of_run"]["revenue"]) == ("EUR", "USD", "9")


async def test_more_than_can_be_converted_at_once_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margin_routes, "CONVERTED_MAX", 1)
    await told(house, {key("acme"): Margin(DOLLAR), key("zen"): Margin(DOLLAR)})
    refused = await house.client.get(EUROS)
    assert (refused.status, refused.json()["field"]) == (422, "by")
    assert "a day each" in refused.json()["detail"]


async def test_rates_are_the_sellers(house: House) -> None:
    for scopes, account in (((KeyScope.READ, KeyScope.CREDIT), None), (tuple(KeyScope), "acme")):
        assert (await house.caller(*scopes, account=account).get(RATES)).status == 403
