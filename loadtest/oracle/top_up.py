"""Automatic top-up: when it asks for credit, and the commands that set it and say what became of a request."""

from collections.abc import Callable

from loadtest.oracle.accounts import Partition, TopUp, TopUpTerms
from loadtest.oracle.commands import known_account, put
from loadtest.oracle.contract import View
from loadtest.oracle.credit import Lot
from loadtest.oracle.periods import DAY_US
from loadtest.oracle.records import SECOND_US, Fields, RefusedError, pico_of


def asks(top_up: TopUp, balance: int, now: int) -> bool:
    """Whether a request is made now; it is open then."""
    terms = top_up.terms
    if terms is None:
        return False
    top_up.is_low = balance <= terms.threshold
    if not top_up.is_low:
        top_up.failed = 0
    quiet_until = again_at(top_up)
    if quiet_until is None or now < quiet_until:
        return False
    top_up.requests, top_up.since, top_up.open = top_up.requests + 1, now, terms
    return True


def again_at(top_up: TopUp) -> int | None:
    """From when on a request may be made; None: while all stays as it is, none will be."""
    terms = top_up.terms
    if terms is None or top_up.open is not None or not top_up.is_low or top_up.failed >= terms.attempts:
        return None
    return 0 if top_up.since is None else top_up.since + terms.cooldown


def set_top_up(state: Partition, fields: Fields, _view: View) -> Callable[[], None]:
    name, currency = fields.text("account"), fields.text("currency")
    threshold, amount = pico_of(fields.string("threshold")), pico_of(fields.string("amount"))
    cooldown, attempts = fields.integer("cooldown_s", 3600), fields.integer("attempts", 3)
    priority, days = fields.integer("priority", 100), fields.optional_integer("days")

    def apply() -> None:
        account = known_account(state, name)
        if amount is None or amount <= 0 or threshold is None:
            raise RefusedError("bad_amount")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        if not 600 <= cooldown <= 30 * 86_400 or not 1 <= attempts <= 100 or not 1 <= (days or 1) <= 3660 or days == 0:
            raise RefusedError("bad_top_up")
        account.top_up.terms = TopUpTerms(threshold, amount, cooldown * SECOND_US, attempts, priority, days)
        account.top_up.failed = 0

    return apply


def remove_top_up(state: Partition, fields: Fields, _view: View) -> Callable[[], None]:
    name = fields.text("account")

    def apply() -> None:
        account = known_account(state, name)
        if account.top_up.terms is None:
            raise RefusedError("no_top_up")
        account.top_up.terms, account.top_up.failed, account.top_up.is_low = None, 0, False

    return apply


def answer_top_up(state: Partition, fields: Fields, _view: View) -> Callable[[], None]:
    name, request, paid = fields.text("account"), fields.text("request"), fields.required_boolean("paid")

    def apply() -> None:
        account = known_account(state, name)
        if paid and any(lot.lot == request for lot in account.lots):
            raise RefusedError("lot_exists")
        top_up = account.top_up
        asked = top_up.open
        if asked is None or not account.awaits(request):
            raise RefusedError("not_asked")
        top_up.open, top_up.since = None, state.log_us
        top_up.failed = 0 if paid else top_up.failed + 1
        if paid:
            begins = state.log_us if account.newest_us is None else max(state.log_us, account.newest_us + 1)
            ends = None if asked.days is None else begins + asked.days * DAY_US
            put(state, account, Lot(request, "paid", asked.amount, asked.priority, begins, ends, frozenset()))

    return apply
