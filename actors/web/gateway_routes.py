"""Gateways of others over HTTP: who is told when a customer may spend no more, and again. For the seller, never for a key that
is bound to one account. A token is in no answer, log or audit row."""

from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from pydantic import SecretStr

from actors.gateway_calls import GatewayKind
from actors.gateways import ActState, Gateway, GatewayKey, GatewayRefused
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.wire import Call, Example, KeyScope, Reply, Route, absent, invalid
from engine.events import is_scope
from engine.money import NotADecimal, amount_text, parse_amount


class GatewayRequest(Struct, forbid_unknown_fields=True):
    """A gateway whose keys are to be blocked and lifted."""

    kind: GatewayKind
    url: Annotated[
        str, Meta(min_length=1, max_length=2048)
    ]  # https, port 443 or 8443, and every address of the name public
    token: Annotated[str, Meta(min_length=1, max_length=4096, pattern="^[!-~]+$")]  # lets its holder administer keys


class GatewayKeyRequest(Struct, forbid_unknown_fields=True):
    """Whose the key is."""

    account: Annotated[str, Meta(min_length=1, max_length=128)]
    scope: Annotated[str, Meta(max_length=256)] = ""  # the path inside the account; absent: all of it
    budget: Annotated[str, Meta(max_length=32)] | None = None  # what the gateway allows it otherwise; absent: no limit


class GatewayItem(Struct):
    gateway: str
    kind: GatewayKind
    url: str


class GatewayList(Struct):
    items: list[GatewayItem]


class GatewayKeyItem(Struct):
    """A key, how it is to stand, and whether the gateway knows."""

    gateway: str
    key: str
    account: str
    scope: str
    budget: str | None
    blocked: bool
    reason: str | None
    acts: int  # how often that has changed
    told: bool  # the gateway has taken the last change, or there was none
    error: str | None  # of the last attempt to tell it


class GatewayKeyList(Struct):
    items: list[GatewayKeyItem]


class _Trailed(Struct):
    """A gateway in the audit trail."""

    kind: str
    host: str


async def put_gateway(call: Call, entry: Entry) -> Reply:
    """PUT /v1/gateways/{gateway}."""
    asked: GatewayRequest = call.body
    name = call.params["gateway"]
    entry.subject = name
    entry.after = _Trailed(asked.kind.value, urlsplit(asked.url).hostname or "")
    try:
        await call.services.gateways.put(Gateway(name, asked.kind, asked.url), SecretStr(asked.token))
    except GatewayRefused as error:
        raise invalid(error.field, str(error)) from None
    return Reply()


async def remove_gateway(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/gateways/{gateway}."""
    entry.subject = call.params["gateway"]
    if not await call.services.gateways.remove(call.params["gateway"]):
        raise absent("gateway")
    return Reply()


async def list_gateways(call: Call) -> Reply:
    """GET /v1/gateways."""
    found: list[Gateway] = await call.services.gateways.all()
    return Reply(GatewayList([GatewayItem(each.gateway, each.kind, each.url) for each in found]))


async def put_key(call: Call, entry: Entry) -> Reply:
    """PUT /v1/gateways/{gateway}/keys/{key}."""
    asked: GatewayKeyRequest = call.body
    entry.subject, entry.account, entry.after = call.params["gateway"], asked.account, asked
    if asked.scope and not is_scope(asked.scope):
        raise invalid("scope", f"{asked.scope[:40]!r} is no path of a scope")
    try:
        budget = None if asked.budget is None else amount_text(parse_amount(asked.budget))
    except NotADecimal as error:
        raise invalid("budget", str(error)) from None
    if budget is not None and budget.startswith("-"):
        raise invalid("budget", "it is below 0")
    key = GatewayKey(call.params["gateway"], call.params["key"], asked.account, asked.scope, budget)
    try:
        await call.services.gateways.put_key(key)
    except GatewayRefused:
        raise absent("gateway") from None
    return Reply()


async def remove_key(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/gateways/{gateway}/keys/{key}."""
    entry.subject = call.params["gateway"]
    if not await call.services.gateways.remove_key(call.params["gateway"], call.params["key"]):
        raise absent("key")
    return Reply()


async def list_keys(call: Call) -> Reply:
    """GET /v1/gateways/{gateway}/keys."""
    keys: list[GatewayKey] = await call.services.gateways.keys(call.params["gateway"])
    acts: dict[str, ActState] = await call.services.gateways.acts([key.act_id for key in keys if key.ordinal])
    return Reply(GatewayKeyList([_item(key, acts.get(key.act_id)) for key in keys]))


def _item(key: GatewayKey, act: ActState | None) -> GatewayKeyItem:
    return GatewayKeyItem(
        *(key.gateway, key.key, key.account, key.scope, key.budget, key.blocked, key.reason or None, key.ordinal),
        *(key.ordinal == 0 or (act is not None and act.told), None if act is None or act.told else act.error or None),
    )


_GATEWAY: Final = {"gateway": "proxy"}
_KEY: Final = {"gateway": "proxy", "key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05"}

ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/gateways/{gateway}",
        scope=KeyScope.ADMIN,
        handler=administered("gateway.set", put_gateway, "gateway", shown=False),
        summary="Set or replace a gateway of others",
        description=(
            "A gateway that asks nobody before a request is told when a customer may spend nothing more (no credit, a hard cap "
            "on money reached, paused, or not in good standing), and when it may again: `litellm_budget` sets the key's budget "
            "to 0 and back, `litellm_block` blocks and unblocks it, `openrouter` sets its limit to 0 and back. What was spent "
            "by then "
            "is spent: a check before each request is what prevents it." + ACT_TEXT
        ),
        tags=("gateways",),
        example=Example(
            params=_GATEWAY,
            request={"kind": "litellm_budget", "url": "https://llm.example.com", "token": "an-administrators-token"},
        ),
        request=GatewayRequest,
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="DELETE",
        path="/v1/gateways/{gateway}",
        scope=KeyScope.ADMIN,
        handler=administered("gateway.remove", remove_gateway, "gateway"),
        summary="Remove a gateway",
        description="It is told nothing any more; its keys stay as it has them." + ACT_TEXT,
        tags=("gateways",),
        example=Example(params=_GATEWAY),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such gateway.", **ACT_REFUSALS},
    ),
    Route(
        method="GET",
        path="/v1/gateways",
        scope=KeyScope.ADMIN,
        handler=list_gateways,
        summary="List gateways",
        description="Without their tokens.",
        tags=("gateways",),
        example=Example(
            response={"items": [{"gateway": "proxy", "kind": "litellm_budget", "url": "https://llm.example.com"}]}
        ),
        response=GatewayList,
    ),
    Route(
        method="PUT",
        path="/v1/gateways/{gateway}/keys/{key}",
        scope=KeyScope.ADMIN,
        handler=administered("gateway_key.set", put_key, "gateway"),
        summary="Say whose a gateway's key is",
        description=(
            "From about a second later on it is looked after: told to the gateway is only what changes. Name the key as the "
            "gateway's administration does: by its hash, not by the secret itself." + ACT_TEXT
        ),
        tags=("gateways",),
        example=Example(params=_KEY, request={"account": "acme", "scope": "team-red", "budget": "100"}),
        request=GatewayKeyRequest,
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such gateway, or there are as many keys as there may be.", **ACT_REFUSALS},
    ),
    Route(
        method="DELETE",
        path="/v1/gateways/{gateway}/keys/{key}",
        scope=KeyScope.ADMIN,
        handler=administered("gateway_key.remove", remove_key, "gateway"),
        summary="Look after a gateway's key no more",
        description="It stays as the gateway has it." + ACT_TEXT,
        tags=("gateways",),
        example=Example(params=_KEY),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such key.", **ACT_REFUSALS},
    ),
    Route(
        method="GET",
        path="/v1/gateways/{gateway}/keys",
        scope=KeyScope.ADMIN,
        handler=list_keys,
        summary="List a gateway's keys",
        description="How each is to stand, why, and whether the gateway has been told.",
        tags=("gateways",),
        example=Example(
            params=_GATEWAY,
            response={
                "items": [
                    {
                        **_KEY,
                        "account": "acme",
                        "scope": "team-red",
                        "budget": "100",
                        "blocked": True,
                        "reason": "credit_depleted",
                        "acts": 1,
                        "told": True,
                        "error": None,
                    }
                ]
            },
        ),
        response=GatewayKeyList,
    ),
)
