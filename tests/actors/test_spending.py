"""Whether an account may spend anything more, by what its owner says of it."""

from typing import Any

import pytest
from msgspec.structs import replace

from actors.door_wire import AccountView, AsOf, CapView, ScopeView, WalletView
from actors.spending import why_nothing_more

CAP = CapView("month", "", True, "10", "10", "month", None, "", 9)
FINE = AccountView(
    *("acme", "starter", "USD", "UTC", 1, 0, 0, WalletView("USD", "5", "5", "0", "0"), (), ()),
    *((ScopeView("", "active", "0"), ScopeView("team", "active", "0"), ScopeView("other", "active", "0")), (), (), ()),
    AsOf(0, 1, 7, 1_000, 0),
)


def wallet(booked: str, overdraft: str | None) -> dict[str, Any]:
    return {"wallet": WalletView("USD", booked, "0", booked, overdraft)}


def standing(scope: str, state: str) -> dict[str, Any]:
    return {"scopes": (ScopeView(scope, state, "0"),)}


def cap(**changes: Any) -> dict[str, Any]:
    return {"caps": (replace(CAP, **changes),)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),  # what is held may be released
        (wallet("0", "0"), "credit_depleted"),
        (wallet("-3", "0"), "credit_depleted"),
        (wallet("-3", "4"), None),
        (wallet("-4", "4"), "credit_depleted"),
        (wallet("-4", None), None),
        (standing("", "suspended"), "suspended"),
        (standing("team", "past_due"), "past_due"),
        (standing("other", "suspended"), None),
        (cap(), "cap_reached:month"),
        (cap(scope="team"), "cap_reached:month"),
        (cap(scope="other"), None),
        (cap(spent="9.999999999999"), None),
        (cap(hard=False), None),
        (cap(unit="tokens"), None),  # requests that use none of it may run
        (cap(window="request"), None),
        ({"pauses": ((500, True),)}, "paused"),
        ({"pauses": ((500, True), (900, False))}, None),
        ({"pauses": ((1_001, True),)}, None),
    ],
)
def test_what_leaves_nothing_to_spend(changes: dict[str, Any], reason: str | None) -> None:
    assert why_nothing_more(replace(FINE, **changes), "team/bob") == reason
