"""Units that owe nothing: who is granted them, and what they take of a period's usage."""

from collections.abc import Callable
from dataclasses import replace

from loadtest.oracle.accounts import Account, Partition, QuantityGrant
from loadtest.oracle.commands import known_account
from loadtest.oracle.contract import MONTH_MAX_US, View, earliest
from loadtest.oracle.records import Fields, RefusedError, fixed_point

QUANTITY_GRANTS_MAX = 1_000


def served(account: Account, price: str, quantities: dict[int, int], included: dict[int, int]) -> dict[int, int]:
    """Of the units used in each segment of one period, and what is included there: those that grants take."""
    left = {grant.name: grant.units for grant in account.quantity_grants.values() if grant.price == price}
    found, used = {}, 0
    for segment in sorted(quantities):
        wanted = -max(0, used - included[segment])
        used += quantities[segment]
        wanted += max(0, used - included[segment])
        found[segment] = 0
        for grant in sorted(account.quantity_grants.values(), key=lambda each: (each.expires, each.begins, each.name)):
            begun = account.period_of(segment) <= grant.begins <= segment
            if grant.price == price and begun and segment < grant.ends:
                part = min(wanted - found[segment], left[grant.name])
                left[grant.name] -= part
                found[segment] += part
    return found


def as_before(took: dict[int, int], quantities: dict[int, int], included: dict[int, int]) -> dict[int, int]:
    """The same where grants take no more in a segment than they took."""
    found, used = {}, 0
    for segment in sorted(quantities):
        before, used = max(0, used - included[segment]), used + quantities[segment]
        found[segment] = min(took.get(segment, 0), max(0, used - included[segment]) - before)
    return found


def grant_quantity(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, grant, price = fields.text("account"), fields.text("grant"), fields.text("price")
    units = fixed_point(fields.string("quantity"), 9)
    begins, expires = fields.optional_integer("effective_us"), fields.optional_integer("expires_us")

    def apply() -> None:
        account = known_account(state, name)
        if units is None or units <= 0:
            raise RefusedError("bad_amount")
        if any(abs(instant or 0) > MONTH_MAX_US for instant in (begins, expires)):
            raise RefusedError("bad_quantity_grant")
        if grant in account.quantity_grants:
            raise RefusedError("lot_exists")
        version = view.version_at(state.log_us)
        assert version is not None
        plan = version.plans.get(account.plan_at(state.log_us))
        if plan is None or price not in plan.prices:
            raise RefusedError("unknown_price")
        if not plan.prices[price].adds_up or plan.prices[price].each is not None:
            raise RefusedError("bad_quantity_grant")
        start = earliest(state, account, None) if begins is None else begins
        if account.newest_us is not None:
            start = max(start, account.newest_us + 1)
        period, length, _ = account.period(start)
        until = period + length if expires is None else expires
        if until > period + length:
            raise RefusedError("bad_quantity_grant")
        if until <= start or until <= state.log_us:
            raise RefusedError("expires_too_soon")
        if len(account.quantity_grants) >= QUANTITY_GRANTS_MAX:
            raise RefusedError("too_many_quantity_grants")
        account.quantity_grants[grant] = QuantityGrant(grant, price, units, start, until)
        account.table = None

    return apply


def void_quantity_grant(state: Partition, fields: Fields, _view: View) -> Callable[[], None]:
    name, grant = fields.text("account"), fields.text("grant")

    def apply() -> None:
        account = known_account(state, name)
        if grant not in account.quantity_grants:
            raise RefusedError("unknown_lot")
        at, old = earliest(state, account, None), account.quantity_grants[grant]
        if old.voided is not None or old.expires <= at:
            raise RefusedError("lot_over")
        account.quantity_grants[grant] = replace(old, voided=max(at, old.begins))
        account.table = None

    return apply
