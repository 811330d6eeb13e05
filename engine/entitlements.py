"""What an account, and each scope on a path, is entitled to at all, whatever it has used (README, "Admitted")."""

from collections.abc import Iterable, Mapping

from engine.account import Account
from engine.catalog import Catalogue, Plan
from engine.holds import Bound
from engine.limits import ROOT, Cap, scope_path
from engine.prices.price import Price
from engine.reasons import Binding, Reason

Denial = tuple[Reason, Binding]


def standing_denies(account: Account, scope: str, now_us: int) -> Denial | None:
    """What the standing of the account, or of a scope on the path, denies; or a pause of the account."""
    if scope != ROOT or account.scopes[ROOT].standing != "active":
        denied = _path_denies(account, scope)
        if denied is not None:
            return denied
    contract = account.contract
    if not contract.pauses or not contract.paused_at(now_us):
        return None
    until_us = contract.turns_us(now_us)
    return Reason.PAUSED, Binding("standing", ROOT, "paused", None, None if until_us is None else until_us - now_us)


def _path_denies(account: Account, scope: str) -> Denial | None:
    path = scope_path(scope)
    for name in path:
        if name not in account.scopes:
            return Reason.UNKNOWN_SCOPE, Binding("scope", name, "", None, None)
    for reason in (Reason.SUSPENDED, Reason.PAST_DUE):
        for name in path:
            if account.scopes[name].standing == reason:
                return reason, Binding("standing", name, reason.value, None, None)
    return None


def granted(plan: Plan | None, account: Account, scope: str, feature: str) -> bool | str | Cap | None:
    """What a feature is worth: the plan's value of it, or the cap of its name on the path, which meters it; None: it is
    not granted."""
    value = plan.features.get(feature) if plan else None
    if value is not None:
        return value or None
    cap = account.caps.get(feature)
    return cap if cap is not None and not cap.per_request and cap.scope in scope_path(scope) else None


def list_denies(
    account: Account,
    scope: str,
    catalogue: Catalogue,
    event_type: str,
    data: Mapping[str, str],
    reach: Mapping[str, tuple[str, ...]],
) -> Denial | None:
    """What an allow-list on the path denies: a value that the request has or may reach, or one that nobody tells."""
    lists = [(name, account.scopes[name].allowed) for name in scope_path(scope) if account.scopes[name].allowed]
    if not lists:
        return None
    looked_at = {field for meter in catalogue.meters_of.get(event_type, ()) for field in meter.looks_at}
    for name, allowed in lists:
        for field, values in sorted(allowed.items()):
            told = {*reach.get(field, ()), *((data[field],) if field in data else ())}
            if (not told and field in looked_at) or not told <= set(values):
                return Reason.MODEL_NOT_ENTITLED, Binding("list", name, field, None, None)
    return None


def ceilings_on(account: Account, scope: str) -> list[Cap]:
    """The caps on each single request, by scope and name."""
    found = [cap for cap in account.caps.values() if cap.per_request]
    if not found:
        return found
    path = scope_path(scope)
    return sorted((cap for cap in found if cap.scope in path), key=lambda cap: (cap.scope, cap.cap))


def ceiling_denies(
    ceilings: Iterable[Cap], bounds: Iterable[Bound], prices: Mapping[str, Price], price: int, requests: int
) -> Denial | None:
    """The first ceiling that requests of this price and these bounds, taken together, are above."""
    for cap in ceilings:
        total = price
        if not cap.in_money:
            total = sum(
                bound.quantity
                for bound in bounds
                if any(name in prices and cap.takes(name, prices[name].meter) for name in bound.reached)
            )
        if total > cap.amount * requests:
            return Reason.OVER_CEILING, Binding("cap", cap.scope, cap.cap, cap.amount, None, cap.unit)
    return None
