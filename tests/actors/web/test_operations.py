"""Prices, dead letters, audit and commands over HTTP, on a real database and a real fold."""

import asyncio
import base64
from typing import Any

import orjson
import pytest

from actors.keys import KeyScope
from actors.ports import Outgoing
from actors.web.operations import CATALOGUE_BYTES_MAX
from engine.catalog import document_json
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.house import House, document

VERSIONS = "/v1/catalogue/versions"
LETTERS = "/v1/dead-letters"


async def publish(client: Client, body: bytes, query: str = "", **headers: str) -> Response:
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", VERSIONS + query, body, headers=sent)


# -------------------------------------------------------------------------------------------------------------- prices


async def test_a_published_version_has_a_marker_in_the_log_and_is_in_force_when_it_says(house: House) -> None:
    answer = await publish(house.client, document_json(document("0.7")))
    published = answer.json()
    assert (answer.status, published) == (201, {"version": 2, "effective": "2026-11-22T10:06:00Z"})
    assert house.owner.fold.counts["catalogue"] == 2
    await house.checkpoint()
    versions = (await house.client.get(VERSIONS)).json()["items"]
    assert [(item["version"], item["effective"]) for item in versions] == [
        (2, "2026-11-22T10:06:00Z"),
        (1, "1970-01-01T00:00:00Z"),
    ]
    shown = (await house.client.get(f"{VERSIONS}/2")).json()
    assert shown["document"]["plans"]["starter"]["prices"]["tokens"]["amount"] == "0.7"
    for seconds, version, amount in ((0, 1, "0.5"), (360, 2, "0.7")):
        house.clock.now_s = seconds
        assert (await house.client.get("/v1/plans")).json() == {
            "items": [{"plan": plan, "currency": "USD", "prices": 1} for plan in ("growth", "starter")],
            "version": version,
        }
        plan = (await house.client.get("/v1/plans/starter")).json()
        assert plan["definition"]["prices"]["tokens"]["amount"] == amount
        assert list(plan["meters"]) == ["tokens"]


async def test_a_bound_key_sees_no_plan_that_was_made_for_another(house: House) -> None:
    await house.checkpoint()
    await house.opened()
    bound = house.caller(KeyScope.READ, account="acme")
    assert [plan["plan"] for plan in (await bound.get("/v1/plans")).json()["items"]] == ["starter"]
    assert (await bound.get("/v1/plans/starter")).json()["definition"]["prices"]["tokens"]["amount"] == "0.5"
    hidden, unknown = await bound.get("/v1/plans/growth"), await bound.get("/v1/plans/none")
    assert hidden.status == unknown.status == 404
    assert hidden.json()["type"] == unknown.json()["type"] and "growth" not in hidden.json()["detail"]

    agreed = {"plan": "growth", "from": "2026-12-22T00:00:00Z"}
    headers = {"content-type": "application/json"}
    answer = await house.client.send("PUT", "/v1/customers/acme/plan", orjson.dumps(agreed), headers=headers)
    assert answer.status in (200, 201), answer.body
    assert [plan["plan"] for plan in (await bound.get("/v1/plans")).json()["items"]] == ["growth", "starter"]
    assert (await bound.get("/v1/plans/growth")).status == 200

    house.owner.silent = True
    assert (await bound.get("/v1/plans")).status == 503
    assert (await house.client.get("/v1/plans")).status == 200, "whoever may see all needs no owner"


async def test_every_fault_of_a_catalogue_is_listed_with_its_path(house: House) -> None:
    bad = orjson.loads(document_json(document("-1")))
    bad["plans"]["starter"]["currency"] = "dollars"
    bad["meters"]["extra"] = {"event_type": "x", "aggregation": "sum"}
    answer = await publish(house.client, orjson.dumps(bad))
    told = answer.json()
    assert (answer.status, told["type"]) == (422, "/problems/bad-catalogue")
    assert answer.headers["content-type"] == "application/problem+json"
    paths = {"meters.extra.aggregation", "plans.starter.currency", "plans.starter.prices.tokens.amount"}
    assert {error["path"] for error in told["errors"]} == paths
    assert all(error["message"] for error in told["errors"])
    assert await house.catalogues.latest_catalogue_version() == 1


@pytest.mark.parametrize(
    ("body", "query", "field"),
    [
        (b"{", "", "body"),
        (b'{"meters":{},"meters":{},"plans":{}}', "", "body"),
        (b'{"meters":{}}', "", "plans"),
        (b'{"meters":{},"plans":{},"taxes":{}}', "", "taxes"),
        (b'{"meters":{},"plans":{},"version":' + b"9" * 5_000 + b"}", "", "body"),
        (b'{"meters":{},"plans":{},"version":NaN}', "", "body"),
        (document_json(document("0.7")), "?effective=soon", "effective"),
    ],
)
async def test_what_is_no_catalogue_is_refused_by_field(house: House, body: bytes, query: str, field: str) -> None:
    answer = await publish(house.client, body, query)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_an_instant_too_soon_is_refused_and_a_large_catalogue_is_taken(house: House) -> None:
    soon = await publish(house.client, document_json(document("0.7")), "?effective=2026-11-22T10:05:00Z")
    assert (soon.status, soon.json()["errors"][0]["path"]) == (422, "effective")
    large = orjson.loads(document_json(document()))
    price = large["plans"]["starter"]["prices"]["tokens"]
    large["plans"] |= {f"plan-{number}": {"currency": "USD", "prices": {"tokens": price}} for number in range(500)}
    assert (await publish(house.client, orjson.dumps(large))).status == 201
    assert (await publish(house.client, b" " * (CATALOGUE_BYTES_MAX + 1))).status == 413


async def test_a_repeated_publication_is_one(house: House) -> None:
    body = document_json(document("0.7"))
    answers = [await publish(house.client, body, idempotency_key="p-1") for _ in range(3)]
    assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
    assert answers[1].headers["idempotent-replayed"] == "true"
    other = await publish(house.client, document_json(document("0.8")), idempotency_key="p-1")
    assert (other.status, other.json()["field"]) == (422, "Idempotency-Key")
    assert await house.catalogues.latest_catalogue_version() == 2


async def test_versions_and_plans_that_are_not_there(house: House) -> None:
    assert (await house.client.get("/v1/plans")).json()["type"] == "/problems/no-catalogue"
    await house.checkpoint()
    for path in (f"{VERSIONS}/9", f"{VERSIONS}/x", f"{VERSIONS}/{'9' * 30}", f"{VERSIONS}/-1", "/v1/plans/none"):
        assert (await house.client.get(path)).status == 404, path


# -------------------------------------------------------------------------------------------------------- dead letters


async def letter(house: House, **changes: Any) -> dict[str, Any]:
    """A usage event that no account takes, as the list shows it."""
    await house.owner.use("acme", "e1", 3, **changes)
    await house.checkpoint()
    item: dict[str, Any] = (await house.client.get(f"{LETTERS}?limit=1")).json()["items"][0]
    return item


async def redrive(client: Client, item: dict[str, Any], body: Any, **headers: str) -> Response:
    return await client.post(f"{LETTERS}/{item['partition']}/{item['offset']}/redrive", body, headers)


async def test_a_dead_letter_is_rated_once_its_cause_is_mended(house: House) -> None:
    item = await letter(house)
    assert (item["reason"], item["key"], item["redrivable"], item["truncated"]) == (
        "unknown_account",
        "acme",
        True,
        False,
    )
    assert orjson.loads(item["value"])["id"] == "e1"
    assert (await house.client.get(f"{LETTERS}/0/{item['offset']}")).json() == item
    await house.opened(dollars="10")
    answer = await redrive(house.client, item, {})
    assert (answer.status, answer.json()["account"], answer.json()["corrected"]) == (202, "acme", False)
    assert house.owner.fold.counts["rated"] == 1
    assert (await house.client.get("/v1/customers/acme/balance")).json()["balance"]["booked"] == "8.500000000000"
    assert (await redrive(house.client, item, {})).status == 202
    assert house.owner.fold.counts["duplicate"] == 1


async def test_a_corrected_event_keeps_its_identity(house: House) -> None:
    await house.opened(dollars="10")
    item = await letter(house, data={"model": "atlas", "tokens": -3})
    assert item["reason"] == "bad_quantity"
    mended = orjson.loads(item["value"]) | {"data": {"model": "atlas", "tokens": 3}}
    for change in ({"id": "e2"}, {"source": "other"}):
        refused = await redrive(house.client, item, {"event": mended | change})
        assert (refused.status, refused.json()["field"]) == (400, "event.id")
    broken = await redrive(house.client, item, {"event": mended | {"specversion": "0.3"}})
    assert (broken.status, broken.json()["field"]) == (400, "event")
    assert "rated" not in house.owner.fold.counts
    answer = await redrive(house.client, item, {"event": mended})
    assert (answer.status, answer.json()["corrected"]) == (202, True)
    assert house.owner.fold.counts["rated"] == 1


async def test_a_correction_may_name_another_account(house: House) -> None:
    await house.opened("globex", "10")
    item = await letter(house)
    answer = await redrive(house.client, item, {"event": orjson.loads(item["value"]) | {"subject": "globex"}})
    assert (answer.status, answer.json()["account"]) == (202, "globex")
    assert house.owner.log[-1].key == b"globex"
    assert house.owner.fold.counts["rated"] == 1


async def test_control_records_are_never_sent_again(house: House) -> None:
    await house.owner.append([Outgoing("usage", b"TGC1" + bytes(40), partition=0)])
    await house.checkpoint()
    (item,) = (await house.client.get(LETTERS)).json()["items"]
    assert (item["reason"], item["redrivable"], item["value"]) == ("bad_mac", False, "TGC1" + "\x00" * 40)
    answer = await redrive(house.client, item, {})
    assert (answer.status, answer.json()["type"]) == (422, "/problems/not-redrivable")
    assert (await redrive(house.client, {"partition": 0, "offset": 9_999}, {})).status == 404
    assert (await redrive(house.client, {"partition": "x", "offset": -1}, {})).status == 404


async def test_bytes_that_are_no_text_are_shown_in_base64_and_long_ones_cut_in_lists(house: House) -> None:
    await house.owner.append([Outgoing("usage", b"\xff\xfe", b"acme"), Outgoing("usage", b"x" * 5_000, b"\xff")])
    await house.checkpoint()
    items = {item["offset"]: item for item in (await house.client.get(LETTERS)).json()["items"]}
    short, long = (items[offset] for offset in sorted(items))
    assert short["value"] is None and base64.b64decode(short["value_base64"]) == b"\xff\xfe"
    assert (len(long["value"]), long["truncated"], long["key"]) == (4_096, True, "\ufffd")
    whole = (await house.client.get(f"{LETTERS}/0/{long['offset']}")).json()
    assert (len(whole["value"]), whole["truncated"]) == (5_000, False)
    assert (await redrive(house.client, short, {})).json()["field"] == "event"


@pytest.mark.parametrize(("key", "size", "field"), [(b"acme", 3_000_000, "event"), (b"k" * 3_000, 1, "event.subject")])
async def test_what_was_cut_when_it_was_set_aside_is_not_sent_again_as_it_was(
    house: House, key: bytes, size: int, field: str
) -> None:
    """An event and many blanks: what is kept of it would read as an event."""
    whole = orjson.dumps(orjson.loads((await letter(house))["value"]) | {"subject": "acme"})
    await house.opened(dollars="10")
    await house.owner.append([Outgoing("usage", whole + b" " * size, key, 0)])
    await house.checkpoint()
    item = (await house.client.get(LETTERS)).json()["items"][0]
    item = (await house.client.get(f"{LETTERS}/0/{item['offset']}")).json()
    assert (item["redrivable"], item["truncated"]) == (True, size > 1)
    assert "are kept" in item["detail"]
    answer = await redrive(house.client, item, {})
    assert (answer.status, answer.json()["field"]) == (400, field)
    corrected = await redrive(house.client, item, {"event": orjson.loads(whole)})
    assert (corrected.status, corrected.json()["account"]) == (202, "acme")


async def test_dead_letters_are_narrowed_and_paged_newest_first(house: House) -> None:
    for number in range(3):
        await house.owner.use("nobody", f"e{number}", 1)
        await house.owner.append([Outgoing("usage", b"not json", b"nobody")])
    await house.checkpoint()
    malformed = (await house.client.get(f"{LETTERS}?reason=malformed")).json()["items"]
    assert [item["reason"] for item in malformed] == ["malformed"] * 3
    assert (await house.client.get(f"{LETTERS}?partition=1")).json()["items"] == []
    assert (await house.client.get(f"{LETTERS}?reason=bad")).status == 400
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = (await house.client.get(f"{LETTERS}?limit=4{cursor and '&cursor='}{cursor}")).json()
        seen += [item["offset"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == 6 and seen == sorted(seen, reverse=True)


# -------------------------------------------------------------------------------------------------- audit and commands


async def test_every_act_is_in_the_trail_before_and_after_with_who_and_why(house: House) -> None:
    sent = {"x-reason": "contract 17, Zoë".encode().decode("latin-1")}
    body = {"account": "acme", "plan": "starter"}
    answer = await house.client.post("/v1/customers", body, sent)
    refused = await house.client.post("/v1/customers", body | {"plan": "none", "account": "b"})
    rows = (await house.client.get("/v1/audit")).json()["items"]
    assert [(row["act"], row["stage"], row["account"]) for row in rows] == [
        ("account.open", "refused", "b"),
        ("account.open", "asked", "b"),
        ("account.open", "done", "acme"),
        ("account.open", "asked", "acme"),
    ]
    assert rows[0]["after"] == {"problem": "unknown-plan"}
    assert rows[0]["request_id"] == refused.headers["x-request-id"]
    assert rows[3]["after"]["plan"] == "starter"
    assert {row["reason"] for row in rows[2:]} == {"contract 17, Zoë"}
    assert {row["request_id"] for row in rows[2:]} == {answer.headers["x-request-id"]}
    (public_id,) = [key.public_id for key in house.keys.by_text.values()]
    assert {row["actor"] for row in rows} == {f"key:{public_id}"}
    narrowed = await house.client.get(
        f"/v1/audit?account=acme&act=account.open&request_id={rows[2]['request_id']}&limit=1"
    )
    assert [row["stage"] for row in narrowed.json()["items"]] == ["done"]
    rest = await house.client.get(f"/v1/audit?account=acme&cursor={narrowed.json()['next_cursor']}")
    assert [row["stage"] for row in rest.json()["items"]] == ["asked"]


async def test_without_the_trail_nothing_happens(house: House) -> None:
    await house.audit.stop()
    answer = await house.client.post("/v1/customers", {"account": "acme", "plan": "starter"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    published = await publish(house.client, document_json(document("0.7")), idempotency_key="p")
    assert published.status == 503
    assert len(house.owner.log) == 1
    await house.audit.start()
    assert (await publish(house.client, document_json(document("0.7")), idempotency_key="p")).status == 201


async def test_a_reason_too_long_is_refused_before_anything_happens(house: House) -> None:
    body = {"account": "acme", "plan": "starter"}
    answer = await house.client.post("/v1/customers", body, {"x-reason": "x" * 501})
    assert (answer.status, answer.json()["field"]) == (400, "X-Reason")
    assert (await house.client.get("/v1/audit")).json()["items"] == []


async def test_commands_are_listed_with_their_answers_to_who_may_see_them(house: House) -> None:
    await house.opened(dollars="5")
    await house.client.post("/v1/customers/acme/grants", {"amount": "1", "currency": "EUR"})
    await house.opened("globex")
    await house.checkpoint()
    items = (await house.client.get("/v1/commands?account=acme")).json()["items"]
    assert [(item["kind"], item["answer"]) for item in items] == [
        ("grant", "currency_mismatch"),
        ("grant", "applied"),
        ("open_account", "applied"),
    ]
    assert items[1]["command"]["amount"] == "5"
    bound = house.caller(KeyScope.READ, account="acme")
    assert len((await bound.get("/v1/commands?account=acme")).json()["items"]) == 3
    foreign, absent = await bound.get("/v1/commands?account=globex"), await bound.get("/v1/commands?account=nobody")
    assert foreign.status == 404 and foreign.without_request_id == absent.without_request_id
    assert (await bound.get("/v1/commands")).json()["field"] == "account"


async def test_an_unanswered_command_can_be_asked_for_again(house: House) -> None:
    body = {"account": "acme", "plan": "starter"}
    house.owner.silent = True
    answer = await house.client.post("/v1/customers", body)
    told = answer.json()
    assert (answer.status, told["type"]) == (504, "/problems/command-unanswered")
    key = answer.headers["idempotency-key"]
    assert key in told["next_step"]
    house.owner.silent = False
    again = await house.client.post("/v1/customers", body, {"idempotency-key": key})
    assert (again.status, again.json()["status"]) == (201, "applied")
    assert house.owner.fold.counts["repeated"] == 1
    house.owner.away = True
    assert (await house.client.post("/v1/customers", body)).status == 503


async def test_ids_of_the_trail_survive_concurrent_writers(house: House) -> None:
    opening = [house.client.post("/v1/customers", {"account": f"a{n}", "plan": "starter"}) for n in range(20)]
    assert {answer.status for answer in await asyncio.gather(*opening)} == {201}
    rows = (await house.client.get("/v1/audit?limit=200")).json()["items"]
    assert len(rows) == 40
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows}, reverse=True)
