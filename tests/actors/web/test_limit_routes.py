"""Rate limits and allow-lists over HTTP, seen by the next check; a standing that flips it, and back."""

from typing import Any

import pytest

from tests.actors.web.asgi_client import Client
from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME, put


async def checked(client: Client, tokens: int = 1, **more: Any) -> dict[str, Any]:
    question = {
        "account": "acme",
        "type": "llm.request",
        "data": {},
        "bounds": [{"fields": ["tokens"], "up_to": tokens}],
    }
    answer: dict[str, Any] = (await client.post("/v1/check", question | more)).json()
    return answer


async def test_a_standing_flips_the_next_check_and_back(house: House) -> None:
    """A command is answered when its owner has applied it, so the very next check knows."""
    await house.opened("acme", "10")
    for standing, allowed in (("past_due", False), ("active", True), ("suspended", False), ("active", True)):
        assert (await put(house.client, f"{ACME}/standing", {"standing": standing})).status == 200
        answer = await checked(house.client)
        assert (answer["allowed"], answer["reason"]) == (allowed, None if allowed else standing)


async def test_units_a_minute_are_set_listed_and_bind_the_next_check(house: House) -> None:
    await house.opened("acme", "10")
    assert (await put(house.client, f"{ACME}/rate-limits/tpm", {"per_minute": 10, "meter": "tokens"})).status == 200
    items = (await house.client.get(f"{ACME}/rate-limits")).json()["items"]
    assert items == [{"limit": "tpm", "scope": "", "per_minute": 10, "meter": "tokens"}]
    assert (await checked(house.client, 8))["allowed"]
    denied = await checked(house.client, 3)
    assert (denied["reason"], denied["transient"], denied["binding"]["unit"]) == ("rate_limited", True, "tokens")
    assert denied["binding"]["remaining"] == "2"
    assert denied["retry_after_s"] > 0


async def test_a_metered_feature_is_answered_in_one_check(house: House) -> None:
    await house.opened("acme", "10")
    await put(house.client, f"{ACME}/caps/tokens", {"amount": "100", "meter": "tokens", "window": "day"})
    answer = (await house.client.post("/v1/check", {"account": "acme", "feature": "tokens"})).json()
    assert (answer["allowed"], answer["feature"]) == (True, True)
    assert (answer["entitlement"]["remaining"], answer["entitlement"]["unit"]) == ("100", "tokens")
    assert answer["entitlement"]["frees_in_s"] > 0


async def test_a_ceiling_denies_the_request_and_names_itself(house: House) -> None:
    await house.opened("acme", "10")
    ceiling = {"amount": "5", "meter": "tokens", "window": "request"}
    assert (await put(house.client, f"{ACME}/caps/each", ceiling)).status == 200
    (item,) = (await house.client.get(f"{ACME}/caps")).json()["items"]
    assert (item["window"], item["spent"], item["resets_at"]) == ("request", "0", None)
    denied = await checked(house.client, 6)
    assert (denied["reason"], denied["transient"], denied["binding"]["name"]) == ("over_ceiling", False, "each")


async def test_an_allow_list_is_seen_with_its_scope_and_by_the_next_check(house: House) -> None:
    await house.opened("acme", "10")
    body: dict[str, Any] = {"values": ["atlas"]}
    assert (await put(house.client, f"{ACME}/allow-lists/model", body)).status == 200
    (root,) = (await house.client.get(f"{ACME}/scopes")).json()["items"]
    assert root["allowed"] == {"model": ["atlas"]}
    denied = await checked(house.client, data={"model": "other"})
    assert (denied["reason"], denied["binding"]["name"]) == ("model_not_entitled", "model")
    assert (await checked(house.client, data={"model": "atlas"}))["allowed"]
    assert (await put(house.client, f"{ACME}/allow-lists/model", {"values": None})).status == 200
    assert (await checked(house.client, data={"model": "other"}))["allowed"]


@pytest.mark.parametrize(
    ("path", "body", "slug", "field"),
    [
        ("rate-limits/l", {"per_minute": 5, "scope": "team:red"}, "unknown-scope", "scope"),
        ("rate-limits/l", {"per_minute": 2_000_000}, "bad-limit", "per_minute"),
        ("rate-limits/l", {"per_minute": 5, "meter": "none"}, "unknown-meter", "meter"),
        ("allow-lists/model", {"values": ["a", "a"]}, "bad-list", "values"),
        ("allow-lists/model", {"values": ["a"], "scope": "team:red"}, "unknown-scope", "scope"),
    ],
)
async def test_a_refusal_is_the_engines_own_and_names_the_field(
    house: House, path: str, body: dict[str, Any], slug: str, field: str
) -> None:
    await house.opened("acme", "10")
    answer = await put(house.client, f"{ACME}/{path}", body)
    told = answer.json()
    assert (answer.status, told["type"], told["field"]) == (422, f"/problems/{slug}", field)
