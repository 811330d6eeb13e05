"""A catalogue in two steps over HTTP, on a real database and a real fold."""

import orjson
import pytest

from actors.keys import KeyScope
from engine.catalog import document_json, load_catalogue
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.house import House, document

DRAFTS = "/v1/catalogue/drafts"
JSON = {"content-type": "application/json"}
NEXT = document_json(document("0.7"))


async def draft(client: Client, body: bytes = NEXT) -> Response:
    return await client.send("POST", DRAFTS, body, headers=JSON)


async def decide(client: Client, number: object, how: str, query: str = "") -> Response:
    return await client.send("POST", f"{DRAFTS}/{number}/{how}{query}", b"")


async def rated(house: House, event_id: str) -> str:
    """What 10 tokens cost that are used just now."""
    await house.owner.use("acme", event_id, 10, time=f"2026-11-22T10:{int(house.clock.now_s) // 60:02}:00Z")
    _, line = house.owner.fold.outputs.lines[-1]
    amount: str = orjson.loads(line)["amount"]
    return amount


async def test_a_draft_rates_nothing_until_another_one_approves_it(house: House) -> None:
    await house.opened()
    house.owner.library[2] = load_catalogue(2, NEXT)  # which its owner would load from the store
    approver = house.caller(KeyScope.ADMIN)
    made = await draft(house.client)
    shown = made.json()
    assert (made.status, shown["state"], shown["based_on"], shown["version"]) == (201, "draft", 1, None)
    assert shown["plans"] == [
        {"plan": "starter", "currency": "USD", "kind": "changed", "changes": ["price tokens: 0.5 -> 0.7 (+40%)"]}
    ]
    house.clock.now_s = 600
    assert await rated(house, "before") == "5"
    assert house.owner.fold.counts["catalogue"] == 1

    answer = await decide(approver, shown["draft"], "approve")
    approved = answer.json()
    assert (answer.status, approved["state"], approved["version"]) == (200, "approved", 2)
    assert approved["effective"] == "2026-11-22T10:16:00Z"
    assert approved["decided_by"] != approved["created_by"]
    house.clock.now_s = 900
    assert await rated(house, "meanwhile") == "5"
    house.clock.now_s = 960
    assert await rated(house, "after") == "7"

    assert await house.catalogues.catalogue(2) == NEXT
    page = (await house.client.get(DRAFTS)).json()
    assert page == {"items": [approved], "next_cursor": None}
    whole = (await house.client.get(f"{DRAFTS}/{shown['draft']}")).json()
    assert whole["document"] == orjson.loads(NEXT)
    assert {key: whole[key] for key in approved} == approved


async def test_both_steps_are_in_the_audit_trail_with_who_and_why(house: House) -> None:
    number = (await draft(house.client)).json()["draft"]
    approver = house.caller(KeyScope.ADMIN)
    await approver.send(
        "POST", f"{DRAFTS}/{number}/approve", b"", headers={"x-reason": "new year", "idempotency-key": "k1"}
    )
    again = await approver.send(
        "POST", f"{DRAFTS}/{number}/approve", b"", headers={"x-reason": "new year", "idempotency-key": "k1"}
    )
    assert again.headers["idempotent-replayed"] == "true"
    trail = (await house.client.get("/v1/audit?limit=10")).json()["items"]
    rows = [(row["act"], row["stage"], row["subject"], row["reason"]) for row in reversed(trail)]
    assert rows == [
        ("catalogue.draft", "asked", "", ""),
        ("catalogue.draft", "done", str(number), ""),
        ("catalogue.approve", "asked", str(number), "new year"),
        ("catalogue.approve", "done", str(number), "new year"),
    ]
    assert (trail[0]["before"]["state"], trail[0]["after"]["state"]) == ("draft", "approved")
    assert trail[0]["actor"] != trail[-1]["actor"]


async def test_a_draft_waits_for_the_instant_that_its_approval_states(house: House) -> None:
    number = (await draft(house.client)).json()["draft"]
    soon = await decide(house.client, number, "approve", "?effective=2026-11-22T10:05:00Z")
    assert (soon.status, soon.json()["type"]) == (422, "/problems/bad-catalogue")
    assert (await decide(house.client, number, "approve", "?effective=soon")).json()["field"] == "effective"
    approved = await decide(house.client, number, "approve", "?effective=2026-12-01T00:00:00Z")
    assert (approved.status, approved.json()["effective"]) == (200, "2026-12-01T00:00:00Z")


async def test_an_approval_that_broke_off_is_healed_by_sending_it_again(house: House) -> None:
    number = (await draft(house.client)).json()["draft"]
    house.owner.away = True
    assert (await decide(house.client, number, "approve")).status == 503
    assert (await house.client.get(f"{DRAFTS}/{number}")).json()["state"] == "approved"
    assert house.owner.fold.counts["catalogue"] == 1
    house.owner.away = False
    healed = await decide(house.client, number, "approve")
    assert (healed.status, healed.json()["version"]) == (200, 2)
    assert house.owner.fold.counts["catalogue"] == 2
    house.clock.now_s = 61  # five minutes before its instant no partition takes the marker any more
    late = await decide(house.client, number, "approve")
    assert (late.status, late.json()["type"]) == (409, "/problems/draft-decided")
    assert "as version 2" in late.json()["detail"]


async def test_a_draft_made_from_an_older_version_is_not_approved(house: House) -> None:
    first, second = (await draft(house.client)).json(), (await draft(house.client, document_json(document("9")))).json()
    await decide(house.client, first["draft"], "approve")
    answer = await decide(house.client, second["draft"], "approve")
    assert (answer.status, answer.json()["type"]) == (409, "/problems/draft-outdated")
    assert await house.catalogues.latest_catalogue_version() == 2
    assert (await house.client.get(f"{DRAFTS}/{second['draft']}")).json()["state"] == "draft"


async def test_a_discarded_draft_is_kept_and_never_approved(house: House) -> None:
    number = (await draft(house.client)).json()["draft"]
    answer = await decide(house.client, number, "discard")
    assert (answer.status, answer.json()["state"]) == (200, "discarded")
    for how in ("approve", "discard"):
        again = await decide(house.client, number, how)
        assert (again.status, again.json()["type"]) == (409, "/problems/draft-decided")
    assert (await house.client.get(f"{DRAFTS}/{number}")).json()["document"] == orjson.loads(NEXT)
    assert await house.catalogues.latest_catalogue_version() == 1


async def test_every_fault_of_a_draft_is_told_and_nothing_is_kept(house: House) -> None:
    answer = await draft(house.client, document_json(document("-1")))
    assert (answer.status, answer.json()["errors"][0]["path"]) == (422, "plans.starter.prices.tokens.amount")
    same = (await draft(house.client, document_json(document()))).json()
    assert (same["status"], "version 1 is this very catalogue" in same["detail"]) == (422, True)
    assert (await draft(house.client, b"{")).json()["field"] == "body"
    assert (await house.client.get(DRAFTS)).json()["items"] == []


@pytest.mark.parametrize("number", ["0", "99", "x", "9" * 30])
async def test_a_draft_that_is_not_there(house: House, number: str) -> None:
    assert (await house.client.get(f"{DRAFTS}/{number}")).status == 404
    assert (await decide(house.client, number, "approve")).status == 404
    assert (await decide(house.client, number, "discard")).status == 404


async def test_only_administrators_draft_and_decide(house: House) -> None:
    reader = house.caller(KeyScope.READ)
    number = (await draft(house.client)).json()["draft"]
    assert (await draft(reader)).status == 403
    assert (await decide(reader, number, "approve")).status == 403
    assert (await reader.get(f"{DRAFTS}/{number}")).status == 200


async def test_drafts_come_in_pages(house: House) -> None:
    numbers = [(await draft(house.client, document_json(document(f"{n}")))).json()["draft"] for n in (1, 2, 3)]
    first = (await house.client.get(f"{DRAFTS}?limit=2")).json()
    assert [item["draft"] for item in first["items"]] == numbers[:0:-1]
    rest = (await house.client.get(f"{DRAFTS}?limit=2&cursor={first['next_cursor']}")).json()
    assert ([item["draft"] for item in rest["items"]], rest["next_cursor"]) == (numbers[:1], None)
    assert (await house.client.get(f"{DRAFTS}?cursor=wrong")).status == 400
