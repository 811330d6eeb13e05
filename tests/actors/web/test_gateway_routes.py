"""Gateways of others over HTTP."""

from typing import Any

import orjson
import pytest

from actors.gateways import GatewayKey
from actors.keys import KeyScope
from tests.actors.web.asgi_client import Response
from tests.actors.web.house import House

GATEWAYS = "/v1/gateways"
TOKEN = "sk-admin-1234567890"
BODY = {"kind": "litellm_budget", "url": "https://llm.example.com", "token": TOKEN}


async def put(house: House, path: str, body: dict[str, Any]) -> Response:
    headers = {"content-type": "application/json"}
    return await house.client.send("PUT", f"{GATEWAYS}/{path}", orjson.dumps(body), headers=headers)


async def test_a_gateway_and_its_keys_are_set_listed_and_removed(house: House) -> None:
    assert (await put(house, "proxy", BODY)).status == 204
    assert (
        await put(house, "proxy/keys/hash-1", {"account": "acme", "scope": "team", "budget": "12.50"})
    ).status == 204
    listed = await house.client.get(GATEWAYS)
    assert listed.json()["items"] == [{"gateway": "proxy", "kind": "litellm_budget", "url": "https://llm.example.com"}]
    (key,) = (await house.client.get(f"{GATEWAYS}/proxy/keys")).json()["items"]
    assert key == {
        "gateway": "proxy",
        "key": "hash-1",
        "account": "acme",
        "scope": "team",
        "budget": "12.500000000000",
        "blocked": False,
        "reason": None,
        "acts": 0,
        "told": True,
        "error": None,
    }
    epoch = await house.gateways.claim("a", 0.0)
    assert epoch is not None
    await house.gateways.decide(GatewayKey("proxy", "hash-1", "acme", "team", None), "credit_depleted", epoch)
    (key,) = (await house.client.get(f"{GATEWAYS}/proxy/keys")).json()["items"]
    assert (key["blocked"], key["reason"], key["acts"], key["told"]) == (True, "credit_depleted", 1, False)
    for path in ("proxy/keys/hash-1", "proxy"):
        assert (await house.client.send("DELETE", f"{GATEWAYS}/{path}")).status == 204
        assert (await house.client.send("DELETE", f"{GATEWAYS}/{path}")).status == 404
    assert (await put(house, "proxy/keys/hash-1", {"account": "acme"})).status == 404


async def test_a_token_is_shown_nowhere(house: House) -> None:
    await put(house, "proxy", BODY)
    for path in (GATEWAYS, f"{GATEWAYS}/proxy/keys", "/v1/audit"):
        answer = await house.client.get(path)
        assert answer.status == 200 and TOKEN.encode() not in answer.body


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("proxy", BODY | {"url": "http://llm.example.com"}, "url"),
        ("proxy", BODY | {"url": "https://169.254.169.254"}, "url"),
        ("proxy/keys/k", {"account": "acme", "budget": "-1"}, "budget"),
        ("proxy/keys/k", {"account": "acme", "budget": "much"}, "budget"),
        ("proxy/keys/k", {"account": "acme", "scope": "/a"}, "scope"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(
    house: House, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await put(house, path, body)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_gateways_are_the_seller_s(house: House) -> None:
    for scopes, account in (((KeyScope.READ, KeyScope.CREDIT), None), (tuple(KeyScope), "acme")):
        assert (await house.caller(*scopes, account=account).get(GATEWAYS)).status == 403
