"""Commands against accounts: each reads its fields, and returns what refuses or applies it."""

from bisect import insort
from collections.abc import Callable
from dataclasses import replace

from loadtest.oracle.accounts import Account, ManualLine, Partition
from loadtest.oracle.contract import View, set_pause, set_plan, set_price, set_seats
from loadtest.oracle.credit import Carry, Change, Lot, allocate
from loadtest.oracle.limits import Cap
from loadtest.oracle.periods import zone_names
from loadtest.oracle.records import SCOPE, SECOND_US, Fields, RefusedError, fixed_point, pico_of
from loadtest.oracle.waivers import owed, waive

LOT_INSTANT_MAX_US = 2**60
SCOPES_MAX = 1_000
RATE_LIMITS_MAX = 1_000
COUNTING_CAPS_MAX = 100
PER_MINUTE_MAX = 1_000_000
UNITS_PER_MINUTE_MAX = 10**15
LISTS_MAX = 16
LISTED_MAX = 1_000
LOT_CHANGES_MAX = 100
LINES_MAX = 1_000
NO_CAP = 10**40  # pico: more than any lot has
LOT_KINDS = ("paid", "promo", "commit", "refund")
STANDINGS = ("active", "past_due", "suspended")


def known_account(state: Partition, name: str) -> Account:
    if name not in state.accounts:
        raise RefusedError("unknown_account")
    return state.accounts[name]


def says_why(texts: tuple[str, str]) -> bool:
    return all(text.strip() and len(text) <= 500 and "\0" not in text for text in texts)


def open_account(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, plan = fields.text("account"), fields.text("plan")
    zone, anchor = fields.text("zone", "UTC"), fields.integer("anchor_day", 1)

    def apply() -> None:
        if name in state.accounts:
            raise RefusedError("account_exists")
        version = view.version_at(state.log_us)
        if version is None or plan not in version.plans:
            raise RefusedError("unknown_plan")
        if zone not in zone_names():
            raise RefusedError("unknown_zone")
        if not 1 <= anchor <= 31:
            raise RefusedError("bad_anchor")
        currency = version.plans[plan].currency
        state.accounts[name] = Account(name, plan, currency, zone, anchor, state.log_us, state.log_us)

    return apply


def grant(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, lot_id, kind = fields.text("account"), fields.text("lot"), fields.text("lot_kind")
    amount, currency = pico_of(fields.string("amount")), fields.text("currency")
    priority, scope = fields.integer("priority", 100), fields.texts("scope")
    requested, expires = fields.optional_integer("effective_us"), fields.optional_integer("expires_us")
    pays_debt, rollover = fields.optional_boolean("pays_debt"), read_rollover(fields)

    def apply() -> None:
        account = known_account(state, name)
        if amount is None or amount <= 0:
            raise RefusedError("bad_amount")
        if kind not in LOT_KINDS or any(abs(instant or 0) > LOT_INSTANT_MAX_US for instant in (requested, expires)):
            raise RefusedError("bad_lot")
        if kind == "paid" and pays_debt is False:
            raise RefusedError("bad_lot")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        carried_id = lot_id + "~carried"
        if account.awaits(lot_id) or (rollover and account.awaits(carried_id)):
            raise RefusedError("lot_exists")
        if any(lot.lot == lot_id or (rollover and lot.lot == carried_id) for lot in account.lots):
            raise RefusedError("lot_exists")
        if rollover:
            percent, days, cap = rollover
            if not (1 <= percent <= 100 and 1 <= days <= 3660) or expires is None or len(lot_id) > 200:
                raise RefusedError("bad_rollover")
            if cap is None or cap <= 0:
                raise RefusedError("bad_rollover")
        version = view.version_at(state.log_us)
        assert version is not None
        plan = version.plans.get(account.plan_at(state.log_us))
        if any(plan is None or price not in plan.prices for price in scope):
            raise RefusedError("unknown_price")
        effective = state.log_us if requested is None else requested
        if account.newest_us is not None:
            effective = max(effective, account.newest_us + 1)
        newest = account.newest_us
        if expires is not None and (
            expires <= state.log_us or expires <= effective or (newest is not None and expires <= newest)
        ):
            raise RefusedError("expires_too_soon")
        put(state, account, Lot(lot_id, kind, amount, priority, effective, expires, frozenset(scope), pays_debt))
        if rollover:
            assert expires is not None
            carry = Carry(lot_id, percent, None if cap == NO_CAP else cap)
            until = expires + days * 86_400_000_000
            carried = Lot(carried_id, kind, 0, priority, expires, until, frozenset(scope), pays_debt, (), carry)
            put(state, account, carried)

    return apply


def read_rollover(fields: Fields) -> tuple[int, int, int | None] | None:
    """(percent, days, the most that is carried); None as the most: it is no amount."""
    if fields.absent("rollover"):
        return None
    nested = fields.nested("rollover")
    percent, days, text = nested.integer("percent"), nested.integer("days"), nested.optional_string("cap")
    nested.close()
    return percent, days, NO_CAP if text is None else pico_of(text)


def put(state: Partition, account: Account, lot: Lot, now: int | None = None) -> None:
    """Add a lot, or replace it. Its boundaries to come are wake-ups: behind log time, or behind a wake-up of before."""
    account.lots = sorted([lot, *(other for other in account.lots if other.lot != lot.lot)], key=Lot.order)
    account.table = None
    for instant in lot.boundaries():
        if instant > (state.log_us if now is None else now) and (instant, account.account) not in state.wakes:
            insort(state.wakes, (instant, account.account))


def void_lot(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, lot_id, currency = fields.text("account"), fields.text("lot"), fields.text("currency")
    text = fields.optional_string("amount")
    amount = None if text is None else pico_of(text)

    def apply() -> None:
        account = known_account(state, name)
        if text is not None and (amount is None or amount <= 0):
            raise RefusedError("bad_amount")
        lot, at = changeable(state, account, lot_id, currency)
        assert account.table is not None
        paid = allocate(owed(account, account.table.amounts), account.table.adjusted, account.lots, account.woken)
        if amount is None and lot.over(at):
            raise RefusedError("lot_over")
        if amount is not None and amount > paid.left[lot_id] + paid.burnt(lot_id) - paid.back(lot_id):
            raise RefusedError("exceeds_lot")
        change(state, account, lot, Change(at, "void", amount))

    return apply


def refund_lot(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, lot_id, currency = fields.text("account"), fields.text("lot"), fields.text("currency")
    amount = pico_of(fields.string("amount"))

    def apply() -> None:
        account = known_account(state, name)
        if amount is None or amount <= 0:
            raise RefusedError("bad_amount")
        lot, at = changeable(state, account, lot_id, currency)
        assert account.table is not None
        paid = allocate(owed(account, account.table.amounts), account.table.adjusted, account.lots, account.woken)
        if lot.over(at):
            raise RefusedError("lot_over")
        if amount > paid.burnt(lot_id) - paid.back(lot_id):
            raise RefusedError("exceeds_lot")
        change(state, account, lot, Change(at, "refund", amount))

    return apply


def changeable(state: Partition, account: Account, lot_id: str, currency: str) -> tuple[Lot, int]:
    """The lot, and the instant of a change of it: now, but behind all usage."""
    if currency != account.currency:
        raise RefusedError("currency_mismatch")
    at = state.log_us if account.newest_us is None else max(state.log_us, account.newest_us + 1)
    for lot in account.lots:
        if lot.lot == lot_id and (lot.carry is None or lot.effective <= at):
            return lot, at
    raise RefusedError("unknown_lot")


def change(state: Partition, account: Account, lot: Lot, made: Change) -> None:
    if len(lot.changes) >= LOT_CHANGES_MAX:
        raise RefusedError("too_many_changes")
    put(state, account, replace(lot, changes=(*lot.changes, made)))


def adjust(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, line, currency = fields.text("account"), fields.text("line"), fields.text("currency")
    amount, price = pico_of(fields.string("amount")), fields.optional_text("price")
    why, used = (fields.string("reason"), fields.string("by")), fields.optional_integer("used_us")

    def apply() -> None:
        account = known_account(state, name)
        if not amount:
            raise RefusedError("bad_amount")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        version = view.version_at(state.log_us)
        assert version is not None
        plan = version.plans.get(account.plan_at(state.log_us))
        if price is not None and (plan is None or price not in plan.prices):
            raise RefusedError("unknown_price")
        if line in account.lines:
            raise RefusedError("line_exists")
        if len(account.lines) >= LINES_MAX:
            raise RefusedError("too_many_lines")
        if not says_why(why):
            raise RefusedError("no_reason")
        for_us = state.log_us if used is None else used
        if for_us > state.log_us or for_us < state.log_us - 3_660 * 86_400 * SECOND_US:
            raise RefusedError("bad_period")
        account.lines[line] = ManualLine(state.log_us, for_us, price or "", amount)
        account.newest_us = state.log_us if account.newest_us is None else max(account.newest_us, state.log_us)
        account.table = None

    return apply


def set_cap(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, cap = fields.text("account"), fields.text("cap")
    text, currency = fields.string("amount"), fields.optional_text("currency")
    scope, window = fields.string("scope", ""), fields.text("window", "month")
    length, meter, price = (
        fields.optional_integer("length_s"),
        fields.optional_text("meter"),
        fields.optional_text("price"),
    )
    hard, basis = fields.boolean("hard", True), fields.text("basis", "charged")
    beyond = fields.text("beyond", "owed")

    def apply() -> None:
        account = known_account(state, name)
        in_money = meter is None and price is None
        amount = pico_of(text) if in_money else fixed_point(text, 9)
        if amount is None or amount <= 0:
            raise RefusedError("bad_amount")
        if currency != (account.currency if in_money else None):
            raise RefusedError("currency_mismatch")
        elsewhere = scope or window != "month" or length or not in_money
        if basis != "charged" and (elsewhere or basis not in ("list", "due")):
            raise RefusedError("bad_basis")
        waives = beyond == "waived"
        others = any(each.waives for other, each in account.caps.items() if other != cap)
        if beyond not in ("owed", "waived") or (waives and (elsewhere or others or basis != "charged")):
            raise RefusedError("bad_beyond")
        version = view.version_at(state.log_us)
        assert version is not None
        sold = version.plans.get(account.plan_at(state.log_us))
        if price is not None and (sold is None or price not in sold.prices):
            raise RefusedError("unknown_price")
        if scope and scope not in account.scopes:
            raise RefusedError("unknown_scope")
        if meter is not None and meter not in {each.name for each in version.meters}:
            raise RefusedError("unknown_meter")
        new = Cap(amount, scope, window, (length or 0) * SECOND_US, meter, price, state.offset, basis, waives)
        counted = sold.prices[price].meter if sold is not None and price is not None else meter
        is_request = window == "request"
        if not new.is_sound or any(each.name == counted and not each.adds_up for each in version.meters):
            raise RefusedError("bad_cap")
        old = account.caps.get(cap)
        begin_to_count(account, new, old)
        if window == "bucket" or (is_request and not hard):
            raise RefusedError("bad_cap")
        if is_request and any(rule.measure == "cap_percent" and rule.of == cap for rule in account.rules.values()):
            raise RefusedError("cap_in_use")
        if old is not None and old.kind != new.kind:
            for rule_name, rule in account.rules.items():
                if rule.measure == "cap_percent" and rule.of == cap:
                    account.released.append(rule_name)
        account.caps[cap] = new
        if waives or (old is not None and old.waives):
            waive(account, view.version_at, state.log_us, cap, amount if waives else None)

    return apply


def begin_to_count(account: Account, new: Cap, old: Cap | None) -> None:
    """On from where the old one of its name was, if that counts the same."""
    if new.counts and len(account.counting) >= COUNTING_CAPS_MAX and (old is None or not old.counts):
        raise RefusedError("too_many_caps")
    if old is not None and old.kind == new.kind:
        new.counted, new.since = old.counted, old.since


def remove_cap(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, cap = fields.text("account"), fields.text("cap")

    def apply() -> None:
        account = known_account(state, name)
        if cap not in account.caps:
            raise RefusedError("unknown_cap")
        if any(rule.measure == "cap_percent" and rule.of == cap for rule in account.rules.values()):
            raise RefusedError("cap_in_use")
        if account.caps.pop(cap).waives:
            waive(account, view.version_at, state.log_us, cap, None)

    return apply


def set_scope(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, scope, standing = fields.text("account"), fields.string("scope"), fields.text("standing", "active")

    def apply() -> None:
        account = known_account(state, name)
        if scope and not SCOPE.fullmatch(scope):
            raise RefusedError("bad_scope")
        parts = scope.split("/")
        if any("/".join(parts[:count]) not in account.scopes for count in range(1, len(parts))):
            raise RefusedError("unknown_scope")
        if scope and scope not in account.scopes and len(account.scopes) >= SCOPES_MAX:
            raise RefusedError("too_many_scopes")
        if standing not in STANDINGS:
            raise RefusedError("bad_standing")
        if scope:
            account.scopes.setdefault(scope, {})

    return apply


def set_overdraft(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, text, currency = fields.text("account"), fields.required_string("amount"), fields.text("currency")

    def apply() -> None:
        account = known_account(state, name)
        amount = 0 if text is None else pico_of(text)
        if amount is None or amount < 0:
            raise RefusedError("bad_amount")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")

    return apply


def set_billing(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, billing, currency = fields.text("account"), fields.text("billing"), fields.text("currency")
    text = fields.optional_string("credit_limit")

    def apply() -> None:
        account = known_account(state, name)
        limit = 0 if text is None else pico_of(text)
        if limit is None or limit < 0:
            raise RefusedError("bad_amount")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        if billing not in ("prepaid", "postpaid") or (text is not None and billing == "prepaid"):
            raise RefusedError("bad_billing")
        account.postpaid = billing == "postpaid"

    return apply


def set_rate_limit(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, limit, scope = fields.text("account"), fields.text("limit"), fields.string("scope", "")
    per_minute, meter = fields.integer("per_minute"), fields.optional_text("meter")

    def apply() -> None:
        account = known_account(state, name)
        if scope and scope not in account.scopes:
            raise RefusedError("unknown_scope")
        full = limit not in account.rate_limits and len(account.rate_limits) >= RATE_LIMITS_MAX
        if full or not 0 <= per_minute <= (PER_MINUTE_MAX if meter is None else UNITS_PER_MINUTE_MAX):
            raise RefusedError("bad_limit")
        version = view.version_at(state.log_us)
        assert version is not None
        if meter is not None and meter not in {each.name for each in version.meters}:
            raise RefusedError("unknown_meter")
        account.rate_limits = account.rate_limits | {limit} if per_minute else account.rate_limits - {limit}

    return apply


def set_allowed(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, scope, field = fields.text("account"), fields.string("scope", ""), fields.text("field")
    values = fields.required_names("values")

    def apply() -> None:
        account = known_account(state, name)
        if scope and scope not in account.scopes:
            raise RefusedError("unknown_scope")
        lists = account.allowed.get(scope, set())
        if values is None:
            account.allowed[scope] = lists - {field}
            return
        if len(lists | {field}) > LISTS_MAX or len(values) > LISTED_MAX or len(set(values)) < len(values):
            raise RefusedError("bad_list")
        account.allowed[scope] = lists | {field}

    return apply


COMMANDS: dict[str, Callable[[Partition, Fields, View], Callable[[], None]]] = {
    "open_account": open_account,
    "grant": grant,
    "void_lot": void_lot,
    "refund_lot": refund_lot,
    "adjust": adjust,
    "set_cap": set_cap,
    "remove_cap": remove_cap,
    "set_scope": set_scope,
    "set_overdraft": set_overdraft,
    "set_billing": set_billing,
    "set_rate_limit": set_rate_limit,
    "set_plan": set_plan,
    "set_pause": set_pause,
    "set_seats": set_seats,
    "set_price": set_price,
    "set_allowed": set_allowed,
}
