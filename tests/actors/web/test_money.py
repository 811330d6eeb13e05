"""Credit over HTTP: what is granted is spendable at once, and what became of it can be read to the last digit."""

import asyncio
from typing import Any

import pytest

from actors.door_wire import Recovering
from actors.keys import KeyScope
from tests.actors.web.house import House
from tests.actors.web.test_customers import put

ACME = "/v1/customers/acme"


async def test_a_top_up_settles_debt_and_is_visible_in_the_next_balance(house: House) -> None:
    await house.opened()
    await house.owner.use("acme", "e1", 3)
    balance = (await house.client.get(f"{ACME}/balance")).json()
    assert (balance["balance"]["booked"], balance["recovering"]) == ("-1.500000000000", False)
    house.clock.now_s += 1
    answer = await house.client.post(f"{ACME}/top-ups", {"amount": "10.25", "currency": "USD", "lot": "payment-1"})
    assert (answer.status, answer.json()["id"]) == (201, "payment-1")
    balance = (await house.client.get(f"{ACME}/balance")).json()
    assert balance["balance"] == {
        "booked": "8.750000000000",
        "held": "0",
        "available": "8.750000000000",
        "overdraft": "0",
        "currency": "USD",
    }
    (lot,) = (await house.client.get(f"{ACME}/grants")).json()["items"]
    assert (lot["lot"], lot["kind"], lot["granted"], lot["remaining"]) == (
        "payment-1",
        "paid",
        "10.250000000000",
        "8.750000000000",
    )


async def test_a_lot_without_a_name_gets_one_that_a_repetition_has_too(house: House) -> None:
    await house.opened()
    body = {"amount": "5", "currency": "USD"}
    first = await house.client.post(f"{ACME}/grants", body, {"idempotency-key": "g1"})
    again = await house.client.post(f"{ACME}/grants", body, {"idempotency-key": "g1"})
    other = await house.client.post(f"{ACME}/grants", body, {"idempotency-key": "g2"})
    assert (first.status, again.status, other.status) == (201, 201, 201)
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert len((await house.client.get(f"{ACME}/grants")).json()["items"]) == 2


async def test_a_hundred_repetitions_at_once_grant_once(house: House) -> None:
    await house.opened()
    body = {"amount": "5", "currency": "USD", "lot": "l"}
    posts = [house.client.post(f"{ACME}/grants", body, {"idempotency-key": "once"}) for _ in range(60)]
    assert {answer.status for answer in await asyncio.gather(*posts)} == {201}
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "5"


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        ({"amount": "-1"}, 422, "bad-amount", "amount"),
        ({"amount": "0.0000000000001"}, 422, "bad-amount", "amount"),
        ({"amount": "NaN"}, 422, "bad-amount", "amount"),
        ({"amount": 5}, 400, "invalid-request", "amount"),
        ({"currency": "usd"}, 400, "invalid-request", "currency"),
        ({"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ({"kind": "gift"}, 400, "invalid-request", "kind"),
        ({"lot": "first"}, 409, "lot-exists", "lot"),
        ({"prices": ["none"]}, 422, "unknown-price", "prices"),
        ({"expires": "2026-11-22T09:00:00Z"}, 422, "expires-too-soon", "expires"),
        ({"expires": "next year"}, 400, "invalid-request", "expires"),
        ({"effective": "2026-13-01T00:00:00Z"}, 400, "invalid-request", "effective"),
        ({"rollover": {"percent": 50, "days": 30}}, 422, "bad-rollover", "rollover"),
        ({"rollover": {"percent": 101, "days": 30}}, 400, "invalid-request", "rollover.percent"),
        ({"lot": "a\x00b"}, 400, "invalid-request", "body"),
    ],
)
async def test_a_grant_that_cannot_be_is_refused_by_field(
    house: House, body: dict[str, Any], status: int, slug: str, field: str
) -> None:
    await house.opened(dollars="1")
    answer = await house.client.post(f"{ACME}/grants", {"amount": "5", "currency": "USD"} | body)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (status, f"/problems/{slug}", field)
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "1"


async def test_dates_priorities_and_prices_reach_the_lot(house: House) -> None:
    await house.opened()
    body = {
        "amount": "5",
        "currency": "USD",
        "kind": "commit",
        "lot": "l",
        "priority": 7,
        "effective": "2026-12-01T00:00:00+01:00",
        "expires": "2027-01-01T00:00:00.5Z",
        "prices": ["tokens"],
        "rollover": {"percent": 50, "days": 30, "cap": "2"},
    }
    assert (await house.client.post(f"{ACME}/grants", body)).status == 201
    (lot,) = (await house.client.get(f"{ACME}/grants")).json()["items"]
    assert lot == {
        "lot": "l",
        "kind": "commit",
        "granted": "5",
        "remaining": "5",
        "expired": "0",
        "priority": 7,
        "effective": "2026-11-30T23:00:00Z",
        "expires": "2027-01-01T00:00:00.500000Z",
        "prices": ["tokens"],
        "refunded": "0",
        "voided": "0",
        "carried": "0",
        "pays_debt": False,
    }


async def test_what_is_left_at_the_expiry_is_listed_as_a_lot_of_its_own(house: House) -> None:
    await house.opened()
    body = {"amount": "10", "currency": "USD", "lot": "l", "expires": "2026-11-23T00:00:00Z"}
    more = {"rollover": {"percent": 50, "days": 2}}
    assert (await house.client.post(f"{ACME}/grants", body | more)).status == 201
    house.clock.now_s += 86_400
    await house.client.post(f"{ACME}/top-ups", {"amount": "1", "currency": "USD", "lot": "now"})
    lots = (await house.client.get(f"{ACME}/grants")).json()["items"]
    told = {lot["lot"]: (lot["granted"], lot["remaining"], lot["expired"], lot["carried"]) for lot in lots}
    assert told == {"l": ("10", "0", "5", "5"), "l~carried": ("5", "5", "0", "0"), "now": ("1", "1", "0", "0")}


async def test_a_payment_that_is_paid_back_is_void_and_its_burnt_part_is_debt(house: House) -> None:
    await house.opened()
    house.clock.now_s -= 60
    await house.client.post(f"{ACME}/top-ups", {"amount": "10", "currency": "USD", "lot": "card"})
    house.clock.now_s += 60
    await house.owner.use("acme", "e1", 14)
    house.clock.now_s += 60
    back = await house.client.post(f"{ACME}/grants/card/refund", {"amount": "2", "currency": "USD"})
    assert (back.status, back.json()["id"]) == (200, "card")
    void = await house.client.post(f"{ACME}/grants/card/void", {"amount": "10", "currency": "USD"})
    assert (void.status, void.json()["id"]) == (200, "card")
    assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["booked"] == "-5"
    (lot,) = (await house.client.get(f"{ACME}/grants")).json()["items"]
    told = (lot["granted"], lot["remaining"], lot["refunded"], lot["voided"])
    assert told == ("10", "0", "7", "10")


@pytest.mark.parametrize(
    ("path", "body", "status", "slug", "field"),
    [
        ("none/void", {}, 404, "not-found", None),
        ("first/void", {"amount": "0"}, 422, "bad-amount", "amount"),
        ("first/void", {"amount": "5.1"}, 422, "exceeds-lot", "amount"),
        ("first/void", {"currency": "EUR"}, 422, "currency-mismatch", "currency"),
        ("first/refund", {"amount": "0.1"}, 422, "exceeds-lot", "amount"),
        ("first/refund", {}, 400, "invalid-request", "amount"),
        ("gone/void", {}, 409, "lot-over", "lot"),
        ("gone/refund", {"amount": "1"}, 409, "lot-over", "lot"),
    ],
)
async def test_a_change_of_a_lot_that_cannot_be_is_refused_by_field(
    house: House, path: str, body: dict[str, Any], status: int, slug: str, field: str | None
) -> None:
    await house.opened(dollars="5")
    await house.client.post(f"{ACME}/grants", {"amount": "1", "currency": "USD", "lot": "gone"})
    await house.client.post(f"{ACME}/grants/gone/void", {"currency": "USD"})
    answer = await house.client.post(f"{ACME}/grants/{path}", {"currency": "USD"} | body)
    told = answer.json()
    assert (answer.status, told["type"], told.get("field")) == (status, f"/problems/{slug}", field)


async def test_an_overdraft_is_an_amount_or_without_limit(house: House) -> None:
    await house.opened()
    for amount in ("20", None):
        assert (await put(house.client, f"{ACME}/overdraft", {"amount": amount, "currency": "USD"})).status == 200
        assert (await house.client.get(f"{ACME}/balance")).json()["balance"]["overdraft"] == amount
    refused = await put(house.client, f"{ACME}/overdraft", {"amount": "-1", "currency": "USD"})
    assert (refused.status, refused.json()["field"]) == (422, "amount")
    missing = await put(house.client, f"{ACME}/overdraft", {"currency": "USD"})
    assert (missing.status, missing.json()["field"]) == (400, "amount")


async def test_usage_is_told_by_period_price_and_cell(house: House) -> None:
    await house.opened(dollars="100")
    await house.owner.use("acme", "e1", 3)
    await house.owner.use("acme", "e2", 4)
    usage = (await house.client.get(f"{ACME}/usage")).json()
    assert usage["items"] == [
        {
            "period": "2026-11-01T00:00:00Z",
            "price": "tokens",
            "cell": ["atlas"],
            "quantity": "7",
            "amount": "3.500000000000",
            "worth": None,
        }
    ]
    later = (await house.client.get(f"{ACME}/usage?since=2026-11-01T00:00:00.000001Z")).json()
    assert later["items"] == []
    bad = await house.client.get(f"{ACME}/usage?since=today")
    assert (bad.status, bad.json()["field"]) == (400, "since")


async def test_the_ledger_is_the_sum_of_what_happened_newest_first_page_by_page(house: House) -> None:
    await house.opened(dollars="5")
    await house.checkpoint()
    for number in range(3):
        await house.owner.use("acme", f"e{number}", 4)
        await house.checkpoint()
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = (await house.client.get(f"{ACME}/ledger?limit=1{cursor and '&cursor='}{cursor}")).json()
        seen += page["items"]
        cursor = page["next_cursor"]
    assert len({item["id"] for item in seen}) == len(seen)
    assert (seen[-1]["kind"], seen[-1]["amount"], seen[-1]["usage_period"]) == ("grant", "5", None)
    assert [(item["kind"], item["lot"], item["amount"]) for item in seen[:-1]] == [
        ("debt", "", "1"),
        ("burn", "first", "1"),
        ("burn", "first", "2"),
        ("burn", "first", "2"),
    ]


async def test_alerts_are_shown_as_they_are_told(house: House) -> None:
    await house.opened(dollars="5")
    await put(house.client, f"{ACME}/rules/low", {"on": {"measure": "balance", "threshold": "2"}})
    await house.owner.use("acme", "e", 8)
    assert (await house.client.get(f"{ACME}/alerts")).json() == {"items": [], "next_cursor": None}
    await house.checkpoint()
    (item,) = (await house.client.get(f"{ACME}/alerts")).json()["items"]
    assert (item["alert"]["type"], item["alert"]["data"]["rule"]) == ("alert.crossed", "low")
    assert (item["attempts"], item["delivered"], item["given_up"], item["error"]) == (0, None, None, "")


async def test_while_the_owner_changes_the_balance_of_the_last_checkpoint_says_what_it_is(house: House) -> None:
    await house.opened(dollars="5")
    house.owner.recovering = Recovering(0, 300)
    unknown = await house.client.get(f"{ACME}/balance")
    assert (unknown.status, unknown.headers["retry-after"]) == (503, "1")
    await house.checkpoint()
    for told, booked in ((None, "5"), ("4.5", "4.5")):
        house.owner.recovering = Recovering(0, 300, told)
        report = (await house.client.get(f"{ACME}/balance")).json()
        assert (report["recovering"], report["balance"]["booked"], report["as_of"]) == (True, booked, None)
        assert report["balance"]["available"] is None


async def test_lists_of_an_account_that_is_not_open_are_not_empty_but_absent(house: House) -> None:
    await house.opened()
    for path in ("ledger", "alerts", "balance", "usage", "grants"):
        assert (await house.client.get(f"/v1/customers/nobody/{path}")).status == 404
        assert (await house.client.get(f"{ACME}/{path}")).status == 200


async def test_credit_takes_its_own_scope_of_a_key(house: House) -> None:
    await house.opened()
    body = {"amount": "5", "currency": "USD"}
    others = house.caller(*(scope for scope in KeyScope if scope is not KeyScope.CREDIT))
    assert (await others.post(f"{ACME}/grants", body)).status == 403
    assert (await others.post(f"{ACME}/top-ups", body)).status == 403
    assert (await house.caller(KeyScope.CREDIT, account="acme").post(f"{ACME}/top-ups", body)).status == 201
    assert (await house.caller(KeyScope.CREDIT, account="other").post(f"{ACME}/top-ups", body)).status == 404
