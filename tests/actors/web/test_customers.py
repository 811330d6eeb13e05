"""Accounts and their limits over HTTP, answered by a real fold, listed from a real database."""

from typing import Any

import orjson
import pytest

from actors.door_wire import Recovering
from actors.keys import KeyScope
from actors.records import write_cursor
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.house import House

ACME = "/v1/customers/acme"


async def put(client: Client, path: str, body: Any, **headers: str) -> Response:
    sent = {"content-type": "application/json"} | headers
    return await client.send("PUT", path, orjson.dumps(body), headers=sent)


async def test_an_account_is_there_when_the_answer_is(house: House) -> None:
    body = {"account": "acme", "plan": "starter", "zone": "Europe/Berlin", "anchor_day": 15}
    answer = await house.client.post("/v1/customers", body)
    made = answer.json()
    assert (answer.status, made["status"], made["id"], made["account"]) == (201, "applied", "acme", "acme")
    assert made["idempotency_key"].startswith("api-") and made["log_time"] == "2026-11-22T10:00:00Z"
    shown = (await house.client.get(ACME)).json()
    assert (shown["plan"], shown["zone"], shown["anchor_day"]) == ("starter", "Europe/Berlin", 15)
    assert (shown["standing"], shown["balance"]["available"], shown["currency"]) == ("active", "0", "USD")
    assert shown["as_of"]["offset"] == made["offset"] + 1


async def test_a_repetition_gives_the_first_answer_and_another_body_none(house: House) -> None:
    body = {"account": "acme", "plan": "starter"}
    once = {"idempotency-key": "order-1"}
    first = await house.client.post("/v1/customers", body, once)
    again = await house.client.post("/v1/customers", body, once)
    assert (first.status, again.status) == (201, 201)
    assert again.json()["idempotency_key"] == "order-1"
    other = await house.client.post("/v1/customers", body | {"anchor_day": 2}, once)
    assert (other.status, other.json()["type"], other.json()["field"]) == (
        422,
        "/problems/idempotency-key-reused",
        "Idempotency-Key",
    )
    anew = await house.client.post("/v1/customers", body)
    assert (anew.status, anew.json()["type"]) == (409, "/problems/account-exists")
    assert house.owner.fold.counts["repeated"] == 1


@pytest.mark.parametrize(
    ("change", "status", "slug", "field"),
    [
        ({"plan": "none"}, 422, "unknown-plan", "plan"),
        ({"zone": "Mars/Olympus"}, 422, "unknown-zone", "zone"),
        ({"anchor_day": 32}, 400, "invalid-request", "anchor_day"),
        ({"account": "a\tb"}, 400, "invalid-request", "account"),
        ({"account": "é" * 129}, 400, "invalid-request", "account"),
        ({"planet": "mars"}, 400, "invalid-request", "planet"),
    ],
)
async def test_what_is_refused_names_the_field(
    house: House, change: dict[str, object], status: int, slug: str, field: str
) -> None:
    answer = await house.client.post("/v1/customers", {"account": "acme", "plan": "starter"} | change)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (status, f"/problems/{slug}", field)
    assert (await house.client.get(ACME)).status == 404


async def test_every_setting_is_seen_by_the_next_question(house: House) -> None:
    await house.opened()
    assert (await put(house.client, f"{ACME}/scopes", {"scope": "team:red", "standing": "active"})).status == 200
    changes: list[tuple[str, dict[str, Any]]] = [
        ("caps/monthly", {"amount": "500", "currency": "USD", "scope": "team:red", "hard": False}),
        ("caps/tokens", {"amount": "1000000", "meter": "tokens", "window": "first_use", "length_s": 18_000}),
        ("caps/owed", {"amount": "500", "currency": "USD", "basis": "due"}),
        ("standing", {"standing": "past_due", "scope": "team:red"}),
        ("standing", {"standing": "suspended"}),
    ]
    for path, body in changes:
        answer = await put(house.client, f"{ACME}/{path}", body)
        assert (answer.status, answer.json()["status"]) == (200, "applied"), answer.body
    items = {kind: (await house.client.get(f"{ACME}/{kind}")).json()["items"] for kind in ("scopes", "caps")}
    assert items["scopes"] == [
        {"scope": "", "standing": "suspended", "spent": "0", "allowed": {}},
        {"scope": "team:red", "standing": "past_due", "spent": "0", "allowed": {}},
    ]
    monthly = {"cap": "monthly", "scope": "team:red", "hard": False, "amount": "500", "spent": "0"}
    tokens = {"cap": "tokens", "scope": "", "hard": True, "amount": "1000000", "spent": "0"}
    charged = {"basis": "charged", "beyond": "owed"}
    assert items["caps"] == [
        monthly | {"window": "month", "length_s": None, "unit": "", "resets_at": "2026-12-01T00:00:00Z"} | charged,
        monthly
        | {"cap": "owed", "scope": "", "hard": True, "window": "month", "length_s": None, "unit": ""}
        | {"resets_at": "2026-12-01T00:00:00Z", "basis": "due", "beyond": "owed"},
        tokens | {"window": "first_use", "length_s": 18_000, "unit": "tokens", "resets_at": None} | charged,
    ]
    assert (await house.client.get(ACME)).json()["standing"] == "suspended"
    assert (await house.client.send("DELETE", f"{ACME}/caps/tokens")).status == 200
    assert [cap["cap"] for cap in (await house.client.get(f"{ACME}/caps")).json()["items"]] == [
        *("monthly", "owed"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "slug", "field"),
    [
        ("scopes", {"scope": "team:red/user:ann", "standing": "active"}, "unknown-scope", "scope"),
        ("scopes", {"scope": "team red", "standing": "active"}, "bad-scope", "scope"),
        ("caps/c", {"amount": "0", "currency": "USD"}, "bad-amount", "amount"),
        ("caps/c", {"amount": "1e3", "currency": "USD"}, "bad-amount", "amount"),
        ("caps/c", {"amount": "1", "currency": "EUR"}, "currency-mismatch", "currency"),
        ("caps/c", {"amount": "1", "currency": "USD", "scope": "team:red"}, "unknown-scope", "scope"),
        ("caps/c", {"amount": "1", "price": "none"}, "unknown-price", "price"),
        ("caps/c", {"amount": "1", "meter": "none"}, "unknown-meter", "meter"),
        ("caps/c", {"amount": "1", "currency": "USD", "window": "rolling"}, "bad-cap", "window"),
        ("caps/c", {"amount": "1", "currency": "USD", "window": "day", "basis": "list"}, "bad-basis", "basis"),
        ("caps/c", {"amount": "1", "currency": "USD", "window": "day", "beyond": "waived"}, "bad-beyond", "beyond"),
    ],
)
async def test_a_refusal_is_the_engines_own_and_names_the_field(
    house: House, path: str, body: dict[str, Any], slug: str, field: str
) -> None:
    await house.opened()
    answer = await put(house.client, f"{ACME}/{path}", body)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (422, f"/problems/{slug}", field)
    assert told["detail"] and told["next_step"]


async def test_of_an_account_that_is_not_open_nothing_is_told(house: House) -> None:
    for path in ("", "/scopes", "/caps", "/rules", "/rate-limits"):
        assert (await house.client.get(ACME + path)).status == 404
    assert (await put(house.client, f"{ACME}/standing", {"standing": "suspended"})).status == 404


async def test_the_list_is_paged_and_comes_from_checkpoints(house: House) -> None:
    for number in range(5):
        await house.opened(f"a{number}", "10")
    assert (await house.client.get("/v1/customers")).json()["items"] == []
    await house.checkpoint()
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = (await house.client.get(f"/v1/customers?limit=2{cursor and '&cursor='}{cursor}")).json()
        assert len(page["items"]) <= 2
        seen += page["items"]
        cursor = page["next_cursor"]
    assert [item["account"] for item in seen] == ["a0", "a1", "a2", "a3", "a4"]
    assert seen[0] == {"account": "a0", "partition": 0, "currency": "USD", "balance": "10", "spend": "0"}


async def test_a_cursor_of_another_list_is_none(house: House) -> None:
    for cursor in (
        "x",
        "AA",
        "%C3%A9",
        "gqFj",
        "A" * 500,
        write_cursor("ledger", 1, 2),
        write_cursor("customers", -5, "a"),
    ):
        answer = await house.client.get(f"/v1/customers?cursor={cursor}")
        assert (answer.status, answer.json()["field"]) == (400, "cursor"), cursor


async def test_while_the_owner_changes_a_caller_is_told_when_to_come_again(house: House) -> None:
    await house.opened()
    house.owner.recovering = Recovering(0, 1_300)
    answer = await house.client.get(ACME)
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")


async def test_who_may_not_change_accounts_does_not(house: House) -> None:
    reader = house.caller(KeyScope.READ, KeyScope.CREDIT, KeyScope.CHECK)
    assert (await reader.post("/v1/customers", {"account": "acme", "plan": "starter"})).status == 403
    assert (await put(reader, f"{ACME}/standing", {"standing": "active"})).status == 403
    assert "acme" not in house.owner.fold.account_ids()
