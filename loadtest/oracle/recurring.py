"""Recurring grants: which lots come into being, and the commands that set and remove one."""

from bisect import insort
from collections.abc import Callable

from loadtest.oracle.accounts import Account, Partition, Recurring
from loadtest.oracle.commands import LOT_KINDS, NO_CAP, known_account, put, read_rollover
from loadtest.oracle.contract import View, earliest
from loadtest.oracle.credit import Carry, Lot
from loadtest.oracle.limits import window_end, window_start
from loadtest.oracle.periods import DAY_US, local_time, period_of
from loadtest.oracle.records import SECOND_US, Fields, RefusedError, pico_of

AHEAD_US = 300 * SECOND_US
LOTS_A_YEAR = {"period": 12, "month": 12, "week": 53}
LOTS_A_YEAR_MAX = 120


def start_of(account: Account, every: str, instant: int) -> int:
    if every == "period":
        return period_of(account.zone, account.anchor, instant)
    return window_start(every, account.zone, instant)


def end_of(account: Account, every: str, start: int) -> int:
    if every == "period":
        return start_of(account, every, start + 32 * DAY_US)  # it is over by then, and the next one is not
    return window_end(every, account.zone, start)


def give(state: Partition, account: Account, now: int) -> None:
    """The lots of all periods that begin soon, or have begun."""
    for name in sorted(account.recurring):
        recurring = account.recurring[name]
        begins = account.unpaused(max(recurring.next, 0 if account.newest_us is None else account.newest_us + 1))
        while begins is not None and begins - AHEAD_US <= now:
            start = start_of(account, recurring.every, begins)
            recurring.next = end_of(account, recurring.every, start)
            give_one(state, account, recurring, start, begins, now)
            begins = account.unpaused(recurring.next)
        if begins is not None and (begins - AHEAD_US, account.account) not in state.wakes:
            insort(state.wakes, (begins - AHEAD_US, account.account))


def give_one(state: Partition, account: Account, recurring: Recurring, start: int, begins: int, now: int) -> None:
    """The lot of the period that starts there, if it had none of this name."""
    name = f"{recurring.name}@{local_time(account.zone, start).date().isoformat()}"
    if any(lot.lot in (name, name + "~carried") for lot in account.lots):
        return
    ends: int | None = end_of(account, recurring.every, start)
    if recurring.days is not None:
        ends = begins + recurring.days * DAY_US
    if not recurring.expires:
        ends = None
    kind, scope, pays_debt = recurring.kind, recurring.scope, recurring.pays_debt
    put(state, account, Lot(name, kind, recurring.amount, recurring.priority, begins, ends, scope, pays_debt), now)
    if recurring.rollover is not None and ends is not None:
        percent, days, cap = recurring.rollover
        carry = Carry(name, percent, None if cap == NO_CAP else cap)
        until = ends + days * DAY_US
        terms = recurring.priority, ends, until, scope, pays_debt
        put(state, account, Lot(name + "~carried", kind, 0, *terms, carry=carry), now)


def set_recurring(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, grant, every = fields.text("account"), fields.text("grant"), fields.text("every")
    kind, amount, currency = fields.text("lot_kind"), pico_of(fields.string("amount")), fields.text("currency")
    priority, scope = fields.integer("priority", 100), fields.texts("scope")
    pays_debt, expires = fields.boolean("pays_debt", False), fields.boolean("expires", True)
    days, rollover = fields.optional_integer("days"), read_rollover(fields)

    def apply() -> None:
        account = known_account(state, name)
        if amount is None or amount <= 0:
            raise RefusedError("bad_amount")
        if kind not in LOT_KINDS:
            raise RefusedError("bad_lot")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        if rollover is not None:
            percent, lives, cap = rollover
            if not (1 <= percent <= 100 and 1 <= lives <= 3660) or not expires or cap is None or cap <= 0:
                raise RefusedError("bad_rollover")
        version = view.version_at(state.log_us)
        assert version is not None
        plan = version.plans.get(account.plan_at(state.log_us))
        if any(plan is None or price not in plan.prices for price in scope):
            raise RefusedError("unknown_price")
        if every not in LOTS_A_YEAR or len(grant) > 200:
            raise RefusedError("bad_recurring")
        if days is not None and (not expires or not 1 <= days <= 3660):
            raise RefusedError("bad_recurring")
        before = account.recurring.get(grant)
        begins = earliest(state, account, None) if before is None or before.every != every else before.next
        terms = kind, amount, priority, frozenset(scope), pays_debt, expires, days, rollover
        recurring = account.recurring | {grant: Recurring(grant, every, begins, *terms)}
        if sum(LOTS_A_YEAR[each.every] * (2 if each.rollover else 1) for each in recurring.values()) > LOTS_A_YEAR_MAX:
            raise RefusedError("too_many_recurring")
        account.recurring = recurring

    return apply


def remove_recurring(state: Partition, fields: Fields, _view: View) -> Callable[[], None]:
    name, grant = fields.text("account"), fields.text("grant")

    def apply() -> None:
        account = known_account(state, name)
        if grant not in account.recurring:
            raise RefusedError("unknown_recurring")
        del account.recurring[grant]

    return apply
