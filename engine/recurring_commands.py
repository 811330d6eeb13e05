"""Commands of recurring grants: what each requires, and why it may be refused (README, "Control records"). The checks of
a command stand in the order of the refusals' precedence."""

from typing import get_args

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import PriceBook
from engine.commands import LOT_DAYS_MAX, LOT_TEXT_MAX, Refused, amount_of, begins_us, check_rollover, check_scope
from engine.credit import LOT_KINDS
from engine.events import RemoveRecurringGrant, SetRecurringGrant
from engine.money import parse_amount
from engine.outcomes import Refusal
from engine.recurring import LOTS_A_YEAR_MAX, Every, Recurring


def set_recurring(account: Account, command: SetRecurringGrant, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Grant in this period and in each to come; one that is set again changes what is granted from the next period on.
    Raises Refused."""
    amount = amount_of(command.amount, above_zero=True)
    if command.lot_kind not in LOT_KINDS:
        raise Refused(Refusal.BAD_LOT)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    if command.rollover is not None:
        check_rollover(command.rollover, expires=command.expires)
    check_scope(account, command.scope, book, log_time_us)
    every: Every | None = next((each for each in get_args(Every) if each == command.every), None)
    lives = command.days is None or (command.expires and 1 <= command.days <= LOT_DAYS_MAX)
    if every is None or not lives or len(command.grant) > LOT_TEXT_MAX:
        raise Refused(Refusal.BAD_RECURRING)
    before = account.recurring.get(command.grant)
    rollover = command.rollover
    cap = None if rollover is None or rollover.cap is None else parse_amount(rollover.cap)
    terms = Recurring(
        command.grant,
        every,
        before.next_us if before is not None and before.every == every else begins_us(account, log_time_us),
        command.lot_kind,
        amount,
        command.priority,
        tuple(sorted(set(command.scope))),
        command.pays_debt,
        command.expires,
        command.days,
        None if rollover is None else (rollover.percent, rollover.days, cap),
    )
    others = (each.lots_a_year for name, each in account.recurring.items() if name != command.grant)
    if sum(others) + terms.lots_a_year > LOTS_A_YEAR_MAX:
        raise Refused(Refusal.TOO_MANY_RECURRING)
    return account.set_recurring(command.grant, terms, log_time_us)


def remove_recurring(account: Account, command: RemoveRecurringGrant, log_time_us: int) -> list[Crossing]:
    """Grant no more; lots that there are stay. Raises Refused."""
    if command.grant not in account.recurring:
        raise Refused(Refusal.UNKNOWN_RECURRING)
    return account.set_recurring(command.grant, None, log_time_us)
