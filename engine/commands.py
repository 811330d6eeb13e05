"""Commands against accounts: what each requires, and why it may be refused (README, "Control records").

The checks of a command stand in the order of the refusals' precedence.
"""

from typing import Final

from msgspec.structs import replace

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import PriceBook
from engine.credit import CARRIED, LOT_CHANGES_MAX, LOT_KINDS, Carry, Lot, LotChange, carried
from engine.events import (
    Adjust,
    Grant,
    OpenAccount,
    RefundLot,
    RemoveCap,
    Rollover,
    SetAllowed,
    SetCap,
    SetOverdraft,
    SetRateLimit,
    SetScope,
    VoidLot,
    is_scope,
)
from engine.limits import (
    BEYOND_OWED,
    BEYOND_WAIVED,
    LISTED_MAX,
    LISTS_MAX,
    PER_MINUTE_MAX,
    RATE_LIMITS_MAX,
    ROOT,
    SCOPES_MAX,
    STANDINGS,
    TALLIES_MAX,
    UNITS_PER_MINUTE_MAX,
    Cap,
    RateLimit,
    scope_path,
)
from engine.manual_lines import BACK_US, LINES_MAX, NO_PRICE, ManualLine, says_why
from engine.measures import counts_of
from engine.money import NotADecimal, parse_amount, parse_quantity
from engine.outcomes import Refusal
from engine.periods import UnknownZone, zone_of
from engine.windows import Window

LOT_TEXT_MAX: Final = 200  # characters of an id to which others are made
LOT_DAYS_MAX: Final = 3660
SECOND_US: Final = 1_000_000
INSTANT_LIMIT_US: Final = 1 << 60  # lot boundaries beyond the year 38,500 are a mistake


class Refused(Exception):
    """The command was not applied, and nothing changed."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


def amount_of(text: str, *, above_zero: bool) -> int:
    """Pico. Raises Refused."""
    try:
        amount = parse_amount(text)
    except NotADecimal:
        raise Refused(Refusal.BAD_AMOUNT) from None
    if above_zero and amount <= 0:
        raise Refused(Refusal.BAD_AMOUNT)
    return amount


def quantity_of(text: str) -> int:
    """Nano-units, above 0. Raises Refused."""
    try:
        quantity = parse_quantity(text)
    except NotADecimal:
        raise Refused(Refusal.BAD_AMOUNT) from None
    if quantity <= 0:
        raise Refused(Refusal.BAD_AMOUNT)
    return quantity


def begins_us(account: Account, wanted_us: int) -> int:
    """When what is done to lots takes hold: as wanted, but behind all usage rated so far."""
    return max(wanted_us, account.newest_event_us + 1) if account.has_usage else wanted_us


def open_account(command: OpenAccount, book: PriceBook, log_time_us: int) -> Account:
    """The new account; its currency is the plan's. Raises Refused."""
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(command.plan) if catalogue else None
    if plan is None:
        raise Refused(Refusal.UNKNOWN_PLAN)
    try:
        zone_of(command.zone)
    except UnknownZone:
        raise Refused(Refusal.UNKNOWN_ZONE) from None
    if not 1 <= command.anchor_day <= 31:
        raise Refused(Refusal.BAD_ANCHOR)
    return Account(command.account, plan.name, plan.currency, command.zone, command.anchor_day, log_time_us, book)


def grant(account: Account, command: Grant, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Add the lot. Raises Refused."""
    amount = amount_of(command.amount, above_zero=True)
    if command.lot_kind not in LOT_KINDS or any(
        abs(instant) > INSTANT_LIMIT_US for instant in (command.effective_us or 0, command.expires_us or 0)
    ):
        raise Refused(Refusal.BAD_LOT)
    if command.lot_kind == "paid" and command.pays_debt is False:
        raise Refused(Refusal.BAD_LOT)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    if account.has_lot(command.lot) or (command.rollover and account.has_lot(command.lot + CARRIED)):
        raise Refused(Refusal.LOT_EXISTS)
    if command.rollover:
        check_rollover(command.rollover, expires=command.expires_us is not None and len(command.lot) <= LOT_TEXT_MAX)
    check_scope(account, command.scope, book, log_time_us)
    effective_us = begins_us(account, log_time_us if command.effective_us is None else command.effective_us)
    if command.expires_us is not None:
        earliest = max(log_time_us, effective_us, account.newest_event_us if account.has_usage else 0)
        if command.expires_us <= earliest:
            raise Refused(Refusal.EXPIRES_TOO_SOON)
    lot = Lot(
        command.lot,
        command.lot_kind,
        amount,
        command.priority,
        effective_us,
        command.expires_us,
        tuple(sorted(set(command.scope))),
        command.pays_debt,
    )
    return account.grant([lot, *_carried(lot, command.rollover)], log_time_us)


def check_scope(account: Account, scope: tuple[str, ...], book: PriceBook, log_time_us: int) -> None:
    """What a lot may pay for is sold. Raises Refused."""
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(account.contract.plan_name_at(log_time_us)) if catalogue else None
    if scope and (plan is None or not set(scope) <= plan.prices.keys()):
        raise Refused(Refusal.UNKNOWN_PRICE)


def check_rollover(rollover: Rollover, *, expires: bool) -> None:
    """Raises Refused."""
    in_range = 1 <= rollover.percent <= 100 and 1 <= rollover.days <= LOT_DAYS_MAX
    if not in_range or not expires:
        raise Refused(Refusal.BAD_ROLLOVER)
    if rollover.cap is not None:
        try:
            amount_of(rollover.cap, above_zero=True)
        except Refused:
            raise Refused(Refusal.BAD_ROLLOVER) from None


def _carried(lot: Lot, rollover: Rollover | None) -> list[Lot]:
    """The lot that will have what this one leaves."""
    if rollover is None:
        return []
    carry = Carry(lot.lot, rollover.percent, None if rollover.cap is None else parse_amount(rollover.cap))
    return [carried(lot, carry, rollover.days)]


def void_lot(account: Account, command: VoidLot, log_time_us: int) -> list[Crossing]:
    """Take a lot's rest away, or an amount of it. Raises Refused."""
    amount = None if command.amount is None else amount_of(command.amount, above_zero=True)
    lot, at_us = _changeable(account, command, log_time_us)
    paid = account.derive().allocation
    if amount is None and lot.ends_us is not None and lot.ends_us <= at_us:
        raise Refused(Refusal.LOT_OVER)
    if amount is not None and amount > paid.remaining[lot.lot] + paid.expired.get(lot.lot, 0) + paid.unreturned(
        lot.lot
    ):
        raise Refused(Refusal.EXCEEDS_LOT)
    return _change(account, lot, LotChange(at_us, "void", amount), log_time_us)


def refund_lot(account: Account, command: RefundLot, log_time_us: int) -> list[Crossing]:
    """Give a lot back what it has burnt, or a part of that. Raises Refused."""
    amount = amount_of(command.amount, above_zero=True)
    lot, at_us = _changeable(account, command, log_time_us)
    if lot.ends_us is not None and lot.ends_us <= at_us:
        raise Refused(Refusal.LOT_OVER)
    if amount > account.derive().allocation.unreturned(lot.lot):
        raise Refused(Refusal.EXCEEDS_LOT)
    return _change(account, lot, LotChange(at_us, "refund", amount), log_time_us)


def _changeable(account: Account, command: VoidLot | RefundLot, log_time_us: int) -> tuple[Lot, int]:
    """The lot, and the instant of its change: behind all usage rated so far, as for a grant."""
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    at_us = begins_us(account, log_time_us)
    lot = account.lots.get(command.lot)
    if lot is None or (lot.carry is not None and at_us < lot.effective_us):
        raise Refused(Refusal.UNKNOWN_LOT)
    return lot, at_us


def _change(account: Account, lot: Lot, change: LotChange, log_time_us: int) -> list[Crossing]:
    if len(lot.changes) >= LOT_CHANGES_MAX:
        raise Refused(Refusal.TOO_MANY_CHANGES)
    return account.change_lot(lot.lot, change, log_time_us)


def adjust(account: Account, command: Adjust, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Post the line. Raises Refused."""
    amount = amount_of(command.amount, above_zero=False)
    if not amount:
        raise Refused(Refusal.BAD_AMOUNT)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(account.contract.plan_name_at(log_time_us)) if catalogue else None
    if command.price is not None and (plan is None or command.price not in plan.prices):
        raise Refused(Refusal.UNKNOWN_PRICE)
    if command.line in account.lines:
        raise Refused(Refusal.LINE_EXISTS)
    if len(account.lines) >= LINES_MAX:
        raise Refused(Refusal.TOO_MANY_LINES)
    if not says_why(command.reason, command.by):
        raise Refused(Refusal.NO_REASON)
    used_us = log_time_us if command.used_us is None else command.used_us
    if not log_time_us - BACK_US <= used_us <= log_time_us:
        raise Refused(Refusal.BAD_PERIOD)
    segment_us, _ = account.segment_around(log_time_us)
    place = segment_us, account.period_of(used_us)
    line = ManualLine(log_time_us, *place, command.price or NO_PRICE, amount, command.reason, command.by)
    return account.add_lines({command.line: line}, log_time_us)


def set_cap(account: Account, command: SetCap, book: PriceBook, log_time_us: int, offset: int) -> list[Crossing]:
    """Set or replace the cap, by the record at this offset. Raises Refused."""
    window = Window(command.window, (command.length_s or 0) * SECOND_US)
    in_money = command.meter is None and command.price is None
    amount = amount_of(command.amount, above_zero=True) if in_money else quantity_of(command.amount)
    of = command.meter, command.price
    waives = command.beyond == BEYOND_WAIVED
    cap = Cap(command.cap, amount, command.scope, command.hard, window, *of, basis=command.basis, waives=waives)
    if command.currency != (account.currency if in_money else None):
        raise Refused(Refusal.CURRENCY_MISMATCH)
    if not cap.basis_fits:
        raise Refused(Refusal.BAD_BASIS)
    others = any(each.waives for name, each in account.caps.items() if name != cap.cap)
    if command.beyond not in (BEYOND_OWED, BEYOND_WAIVED) or (waives and (others or not cap.may_waive)):
        raise Refused(Refusal.BAD_BEYOND)
    cap = countable(account, cap, book, log_time_us, offset, Refusal.BAD_CAP)
    if window.by_log_time or (cap.per_request and not cap.hard):
        raise Refused(Refusal.BAD_CAP)
    if cap.per_request and _is_looked_at(account, cap.cap):
        raise Refused(Refusal.CAP_IN_USE)
    return account.set_cap(cap, log_time_us)


def countable(account: Account, cap: Cap, book: PriceBook, log_time_us: int, offset: int, otherwise: Refusal) -> Cap:
    """The cap as it begins to count by the record at this offset. Raises Refused: what no cap can count, `otherwise`."""
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(account.contract.plan_name_at(log_time_us)) if catalogue else None
    if cap.price is not None and (plan is None or cap.price not in plan.prices):
        raise Refused(Refusal.UNKNOWN_PRICE)
    if cap.scope not in account.scopes:
        raise Refused(Refusal.UNKNOWN_SCOPE)
    if cap.meter is not None and (catalogue is None or cap.meter not in catalogue.meters):
        raise Refused(Refusal.UNKNOWN_METER)
    if not cap.window.valid or (cap.meter is not None and cap.price is not None):
        raise Refused(otherwise)
    if catalogue is not None and not cap.in_money:
        meter = cap.meter or (plan.prices[cap.price].meter if plan and cap.price else "")
        if meter in catalogue.meters and catalogue.meters[meter].kind is not None:
            raise Refused(otherwise)  # a window adds units up
    if cap.tallied and cap.cap not in account.tallies and len(account.tallies) >= TALLIES_MAX:
        raise Refused(Refusal.TOO_MANY_CAPS)
    return cap if cap.is_plain else replace(cap, since=offset)


def remove_cap(account: Account, command: RemoveCap, log_time_us: int) -> list[Crossing]:
    """Forget the cap. Raises Refused."""
    if command.cap not in account.caps:
        raise Refused(Refusal.UNKNOWN_CAP)
    if _is_looked_at(account, command.cap):
        raise Refused(Refusal.CAP_IN_USE)
    return account.remove_cap(command.cap, log_time_us)


def _is_looked_at(account: Account, cap: str) -> bool:
    return any(counts_of(name, rule) == cap for name, rule in account.rules.items())


def set_scope(account: Account, command: SetScope, log_time_us: int, offset: int) -> list[Crossing]:
    """Declare the scope, or change its standing. Raises Refused."""
    if command.scope != ROOT and not is_scope(command.scope):
        raise Refused(Refusal.BAD_SCOPE)
    if any(scope not in account.scopes for scope in scope_path(command.scope)[:-1]):
        raise Refused(Refusal.UNKNOWN_SCOPE)
    if command.scope not in account.scopes and len(account.scopes) > SCOPES_MAX:
        raise Refused(Refusal.TOO_MANY_SCOPES)
    if command.standing not in STANDINGS:
        raise Refused(Refusal.BAD_STANDING)
    return account.set_scope(command.scope, command.standing, log_time_us, offset)


def set_overdraft(account: Account, command: SetOverdraft, log_time_us: int) -> list[Crossing]:
    """Set how far checks may take the balance below zero. Raises Refused."""
    amount = None if command.amount is None else amount_of(command.amount, above_zero=False)
    if amount is not None and amount < 0:
        raise Refused(Refusal.BAD_AMOUNT)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    return account.set_overdraft(amount, log_time_us)


def set_allowed(account: Account, command: SetAllowed, log_time_us: int) -> list[Crossing]:
    """Set, replace or remove an allow-list of a scope. Raises Refused."""
    if command.scope not in account.scopes:
        raise Refused(Refusal.UNKNOWN_SCOPE)
    values = command.values
    if values is not None:
        lists = account.scopes[command.scope].allowed.keys() | {command.field}
        if len(lists) > LISTS_MAX or len(set(values)) != len(values) or len(values) > LISTED_MAX:
            raise Refused(Refusal.BAD_LIST)
        values = tuple(sorted(values))
    return account.set_allowed(command.scope, command.field, values, log_time_us)


def set_rate_limit(account: Account, command: SetRateLimit, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Set, replace or remove the limit. Raises Refused."""
    if command.scope not in account.scopes:
        raise Refused(Refusal.UNKNOWN_SCOPE)
    full = command.limit not in account.rate_limits and len(account.rate_limits) >= RATE_LIMITS_MAX
    most = PER_MINUTE_MAX if command.meter is None else UNITS_PER_MINUTE_MAX
    if full or not 0 <= command.per_minute <= most:
        raise Refused(Refusal.BAD_LIMIT)
    catalogue = book.at(log_time_us)
    if command.meter is not None and (catalogue is None or command.meter not in catalogue.meters):
        raise Refused(Refusal.UNKNOWN_METER)
    limit = RateLimit(command.limit, command.scope, command.per_minute, command.meter)
    return account.set_rate_limit(limit, log_time_us)
