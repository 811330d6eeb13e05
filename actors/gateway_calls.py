"""What a gateway is asked, by its kind, so that a key may spend no more, or again: a table, and one call."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from engine.money import parse_amount


class GatewayKind(StrEnum):
    """Which interface it has. Wire names are stable."""

    LITELLM_BUDGET = "litellm_budget"  # a proxy of LiteLLM: the key's budget is set to 0, and back
    LITELLM_BLOCK = "litellm_block"  # the same: the key is blocked and unblocked
    OPENROUTER = "openrouter"  # its keys' credit limit is set to 0, and back


class GatewayCall(Struct, frozen=True):
    """One HTTP request: the same however often it is made."""

    method: str
    url: str
    body: bytes


def _number(budget: str | None) -> Any:
    """As JSON has it, to the last digit: text in, the same digits out, and no float between."""
    return None if budget is None else msgspec.Raw(budget.encode())


def _litellm_budget(key: str, budget: str | None, blocked: bool) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/key/update", {"key": key, "max_budget": 0 if blocked else _number(budget)}


def _litellm_block(key: str, budget: str | None, blocked: bool) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/key/block" if blocked else "/key/unblock", {"key": key}


def _openrouter(key: str, budget: str | None, blocked: bool) -> tuple[str, str, dict[str, Any]]:
    return "PATCH", f"/api/v1/keys/{quote(key, safe='')}", {"limit": 0 if blocked else _number(budget)}


_CALLS: Final[dict[GatewayKind, Callable[[str, str | None, bool], tuple[str, str, dict[str, Any]]]]] = {
    GatewayKind.LITELLM_BUDGET: _litellm_budget,
    GatewayKind.LITELLM_BLOCK: _litellm_block,
    GatewayKind.OPENROUTER: _openrouter,
}


def gateway_call(kind: GatewayKind, url: str, key: str, budget: str | None, *, blocked: bool) -> GatewayCall:
    """What makes the key stand so. `url` is the gateway's, without a path of its own interface; `budget`, a decimal, is what
    the gateway allows the key while it may spend (None: no limit)."""
    if budget is not None:
        parse_amount(budget)  # it goes into JSON as it is
    method, path, body = _CALLS[kind](key, budget, blocked)
    return GatewayCall(method, url.rstrip("/") + path, msgspec.json.encode(body))
