"""What binds requests before they run, over HTTP: how fast they may come, and which values they may name."""

from typing import Annotated

from msgspec import Meta, Struct

from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, ScopePath, described, made_example
from actors.web.hot import AsOfAnswer, Name, as_of_answer
from actors.web.wire import Call, Example, Reply, Route
from engine.events import Command, SetAllowed, SetRateLimit
from engine.limits import LISTED_MAX, UNITS_PER_MINUTE_MAX
from engine.outcomes import Refusal


class RateLimitRequest(Struct, forbid_unknown_fields=True):
    """The most checks, or units of a meter, that may be admitted in a minute."""

    per_minute: Annotated[int, Meta(ge=0, le=UNITS_PER_MINUTE_MAX)]  # 0: the limit is gone; of checks at most 1,000,000
    scope: ScopePath = ""
    meter: Name | None = None  # count its units, as requests bound them, instead of checks


class RateLimitItem(Struct):
    limit: str
    scope: str
    per_minute: int
    meter: str | None


class RateLimitList(Struct):
    items: list[RateLimitItem]
    as_of: AsOfAnswer


class AllowListRequest(Struct, forbid_unknown_fields=True):
    """The only values of a field of events that checks admit in a scope and below."""

    values: Annotated[list[Name], Meta(max_length=LISTED_MAX)] | None  # null: any; an empty list: none
    scope: ScopePath = ""


def _rate_limit(call: Call, key: str) -> tuple[Command, str]:
    asked: RateLimitRequest = call.body
    limit = call.params["limit"]
    return SetRateLimit(call.params["account"], key, limit, asked.per_minute, asked.scope, asked.meter), limit


def _allow_list(call: Call, key: str) -> tuple[Command, str]:
    asked: AllowListRequest = call.body
    values = None if asked.values is None else tuple(asked.values)
    return SetAllowed(call.params["account"], key, call.params["field"], values, asked.scope), call.params["field"]


async def list_rate_limits(call: Call) -> Reply:
    """GET /v1/customers/{account}/rate-limits."""
    view = await described(call)
    items = [RateLimitItem(limit.limit, limit.scope, limit.per_minute, limit.meter) for limit in view.rate_limits]
    return Reply(RateLimitList(items, as_of_answer(view.as_of)))


ROUTES = (
    Route(
        method="PUT",
        path="/v1/customers/{account}/rate-limits/{limit}",
        handler=commanded(
            "rate_limit.set",
            _rate_limit,
            {Refusal.UNKNOWN_SCOPE: "scope", Refusal.BAD_LIMIT: "per_minute", Refusal.UNKNOWN_METER: "meter"},
        ),
        summary="Set, replace or remove a rate limit",
        description=(
            "Counts admitted checks of the account or a scope, or with `meter` the units that they may use: of what an "
            "admitted request was bounded by, not of what it came to use. 0 removes the limit." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "limit": "burst"},
            request={"per_minute": 100_000, "meter": "output_tokens"},
            response=made_example("burst"),
        ),
        request=RateLimitRequest,
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/rate-limits",
        handler=list_rate_limits,
        summary="List rate limits",
        description="All of the account and its scopes.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [{"limit": "burst", "scope": "", "per_minute": 600, "meter": None}],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=RateLimitList,
        **READ,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/allow-lists/{field}",
        handler=commanded("allow_list.set", _allow_list, {Refusal.UNKNOWN_SCOPE: "scope", Refusal.BAD_LIST: "values"}),
        summary="Set, replace or remove an allow-list",
        description=(
            "A check in the scope or below is denied as `model_not_entitled` if the field of its `data`, or a value in its "
            "`reach`, is not on the list, or if a meter looks at the field and the check does not tell it. What is used is "
            "rated all the same. The lists of a scope stand in `GET /v1/customers/{account}/scopes`." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "field": "model"},
            request={"values": ["atlas-1", "atlas-mini"], "scope": "team:red"},
            response=made_example("model"),
        ),
        request=AllowListRequest,
        **CHANGE,
    ),
)
