import pytest

from actors.keys import REFRESH_EVERY_S, TRUSTED_FOR_S, read_key_text
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage


async def test_a_key_is_shown_once_and_can_do_what_it_was_made_for(stage: Stage, client: Client) -> None:
    answer = await client.post("/v1/keys", {"name": "gateway", "scopes": ["check", "read"], "account": "acme"})
    made = answer.json()
    assert answer.status == 201 and made["scopes"] == ["check", "read"]
    assert read_key_text(made["key"]) is not None
    listed = await client.get("/v1/keys")
    assert made["key"].encode() not in listed.body and b"digest" not in listed.body
    shown = next(item for item in listed.json()["items"] if item["id"] == made["id"])
    assert shown["created_by"].startswith("key:") and shown["account"] == "acme"
    own = Client(stage.app, made["key"])
    assert (await own.post("/v1/check", {"account": "acme"})).status == 200
    assert (await own.post("/v1/check", {"account": "globex"})).status == 404
    assert (await own.get("/v1/keys")).status == 403


async def test_who_is_answered_may_rely_on_every_replica(stage: Stage, client: Client) -> None:
    began_s = stage.clock.now_s
    made = (await client.post("/v1/keys", {"name": "n", "scopes": ["read"]})).json()
    assert stage.clock.now_s - began_s >= REFRESH_EVERY_S
    began_s = stage.clock.now_s
    assert (await client.send("DELETE", f"/v1/keys/{made['id']}")).status == 204
    assert stage.clock.now_s - began_s >= TRUSTED_FOR_S
    assert (await Client(stage.app, made["key"]).get("/metrics")).status == 401


async def test_a_key_that_never_was_cannot_be_revoked(client: Client) -> None:
    assert (await client.send("DELETE", "/v1/keys/nothere00000")).status == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"name": ""}, "name"),
        ({"expires": "tomorrow"}, "expires"),
        ({"account": ""}, "account"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_by_field(
    client: Client, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/keys", {"name": "n", "scopes": ["read"]} | change)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_the_list_is_paged_newest_first(stage: Stage, client: Client) -> None:
    for number in range(5):
        await client.post("/v1/keys", {"name": f"n{number}", "scopes": ["read"]})
    names: list[str] = []
    cursor = ""
    while True:
        told = (await client.get(f"/v1/keys?limit=2{cursor}")).json()
        names += [item["name"] for item in told["items"]]
        if told["next_cursor"] is None:
            break
        cursor = f"&cursor={told['next_cursor']}"
    assert names == ["n4", "n3", "n2", "n1", "n0", "test"]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "%E2%82%AC", "MS4u"])
async def test_a_cursor_of_ones_own_making_is_refused(client: Client, cursor: str) -> None:
    answer = await client.get(f"/v1/keys?cursor={cursor}")
    assert (answer.status, answer.json()["field"]) == (400, "cursor")


async def test_what_happens_to_keys_is_in_the_audit_trail_without_a_secret(stage: Stage, client: Client) -> None:
    made = (await client.post("/v1/keys", {"name": "n", "scopes": ["read"], "account": "acme"})).json()
    await client.send("DELETE", f"/v1/keys/{made['id']}")
    told = [(entry.act, entry.stage, entry.subject) for entry in stage.audit.entries]
    assert told == [
        ("create_key", "asked", ""),
        ("create_key", "done", made["id"]),
        ("revoke_key", "asked", made["id"]),
        ("revoke_key", "done", made["id"]),
    ]
    assert {entry.actor for entry in stage.audit.entries} == {"key:000000000000"}
    assert stage.audit.entries[1].account == "acme"
    assert made["key"].split("_")[3] not in repr(stage.audit.entries)


async def test_without_the_audit_trail_no_key_is_made(stage: Stage, client: Client) -> None:
    stage.audit.away = True
    assert (await client.post("/v1/keys", {"name": "n", "scopes": ["read"]})).status == 503
    assert len(stage.keys.records) == 1


async def test_a_repeated_request_makes_one_key(stage: Stage, client: Client) -> None:
    wanted, once = {"name": "n", "scopes": ["read"]}, {"idempotency-key": "once"}
    first = await client.post("/v1/keys", wanted, headers=once)
    again = await client.post("/v1/keys", wanted, headers=once)
    assert (first.status, first.json()) == (again.status, again.json())
    assert len(stage.keys.records) == 2
