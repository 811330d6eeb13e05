"""Quantity grants over HTTP: granted, listed, voided."""

from typing import Any, Final

from msgspec import Struct

from actors.commands import derived_name
from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, Amount, described, made_example
from actors.web.hot import AsOfAnswer, Name, as_of_answer
from actors.web.money import Time
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route
from engine.events import Command, GrantQuantity, VoidQuantityGrant
from engine.outcomes import Refusal


class QuantityGrantRequest(Struct, forbid_unknown_fields=True):
    """Units of one price that owe nothing, behind what it includes. They serve usage of one billing period."""

    price: Name
    quantity: Amount  # decimal text, at most 9 fractional digits
    grant: Name | None = None  # its id; absent: one that follows from the idempotency key
    effective: Time | None = None  # absent: at once
    expires: Time | None = None  # absent, and at the latest: with the billing period in which it begins


class QuantityGrantItem(Struct):
    """granted = remaining + used + expired + voided."""

    grant: str
    price: str
    granted: str
    remaining: str
    used: str
    expired: str
    voided: str
    effective: str
    expires: str


class QuantityGrantList(Struct):
    items: list[QuantityGrantItem]
    as_of: AsOfAnswer


def _grant(call: Call, key: str) -> tuple[Command, str]:
    asked: QuantityGrantRequest = call.body
    account = call.params["account"]
    grant = asked.grant or derived_name("units", account, key)
    instants = read_instant("effective", asked.effective), read_instant("expires", asked.expires)
    return GrantQuantity(account, key, grant, asked.price, asked.quantity, *instants), grant


def _void(call: Call, key: str) -> tuple[Command, str]:
    grant = call.params["grant"]
    return VoidQuantityGrant(call.params["account"], key, grant), grant


async def list_quantity_grants(call: Call) -> Reply:
    """GET /v1/customers/{account}/quantity-grants."""
    view = await described(call)
    items = [
        QuantityGrantItem(
            *(each.grant, each.price, each.granted, each.remaining, each.used, each.expired, each.voided),
            instant(each.effective_us),
            instant(each.expires_us),
        )
        for each in view.quantity_grants
    ]
    return Reply(QuantityGrantList(items, as_of_answer(view.as_of)))


_PATH: Final = "/v1/customers/{account}/quantity-grants"
_CREDIT: Final[dict[str, Any]] = {**CHANGE, "scope": KeyScope.CREDIT, "tags": ("money",)}

ROUTES: Final = (
    Route(
        method="POST",
        path=_PATH,
        handler=commanded(
            "quantity_grant.add",
            _grant,
            {
                Refusal.BAD_AMOUNT: "quantity",
                Refusal.UNKNOWN_PRICE: "price",
                Refusal.BAD_QUANTITY_GRANT: "expires",
                Refusal.EXPIRES_TOO_SOON: "expires",
                Refusal.LOT_EXISTS: "grant",
            },
        ),
        summary="Grant units of a price",
        description=(
            "They serve what is used of the price behind what it includes, and before its tiers begin. What is not used "
            "expires with the billing period." + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"price": "tokens", "quantity": "1000000", "grant": "pack-1"},
            response=made_example("pack-1"),
        ),
        request=QuantityGrantRequest,
        **_CREDIT,
    ),
    Route(
        path=_PATH,
        handler=list_quantity_grants,
        summary="List quantity grants",
        description="In the order in which those of one price are used.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {
                        "grant": "pack-1",
                        "price": "tokens",
                        "granted": "1000000",
                        "remaining": "400000",
                        "used": "600000",
                        "expired": "0",
                        "voided": "0",
                        "effective": "2026-11-20T00:00:00Z",
                        "expires": "2026-12-01T00:00:00Z",
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=QuantityGrantList,
        **{**READ, "tags": ("money",)},
    ),
    Route(
        method="POST",
        path=_PATH + "/{grant}/void",
        handler=commanded("quantity_grant.void", _void),
        summary="Void the rest of a quantity grant",
        description="It serves nothing from then on." + COMMAND_TEXT,
        example=Example(params={"account": "acme", "grant": "pack-1"}, response=made_example("pack-1")),
        **_CREDIT,
    ),
)
