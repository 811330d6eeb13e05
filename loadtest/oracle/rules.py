"""Rules: what each looks at, when it is told, and the commands that set and remove one."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from loadtest.oracle.accounts import Account, Partition, Rule
from loadtest.oracle.commands import begin_to_count, known_account
from loadtest.oracle.contract import View
from loadtest.oracle.credit import Paid, counted
from loadtest.oracle.limits import Cap
from loadtest.oracle.records import SECOND_US, DeadLetterError, Fields, RefusedError, fixed_point, pico_of

PERCENT_MAX = 1000
RULES_MAX = 1_000
WITHIN_MAX_S = 3_660 * 86_400


class Seen(NamedTuple):
    """What a rule sees in a window."""

    window: str
    is_active: bool
    is_clear: bool


def seen(
    account: Account,
    name: str,
    now: int,
    *,
    spend: Callable[[str], dict[int, int]],
    paid: Callable[[], Paid],
    used: Callable[[str], dict[int, tuple[int, int]]],
    committed: Callable[[str], dict[int, tuple[int, int]]],
) -> Iterator[Seen]:
    """`spend` by month of the account, on a basis; who has `paid`; what is `used` of a price, by period: (quantity,
    included); and of a commitment: (what usage comes to, what the period commits to)."""
    rule = account.rules[name]
    if rule.measure == "spike":
        count = account.counts[name]
        bucket = now // count.length * count.length
        last = bucket - count.length
        is_high = _is_spike(count, bucket, rule.threshold)
        yield Seen("bucket", is_high, not is_high and not _is_spike(count, last, rule.clear))
        return
    for window, value, whole in _values(account, name, now, spend, paid, used, committed):
        high, low = rule.threshold, rule.clear
        if whole is not None:  # percents of it
            high, low, value = high * whole, low * whole, value * 100
        if rule.down:
            yield Seen(window, value <= high, value > low)
        else:
            yield Seen(window, value >= high, value < low)


def _is_spike(count: Cap, bucket: int, percent: int) -> bool:
    value = count.in_bucket(bucket)
    return value >= count.amount and value >= count.average(bucket) * percent / 100


def _values(
    account: Account,
    name: str,
    now: int,
    spend: Callable[[str], dict[int, int]],
    paid: Callable[[], Paid],
    used: Callable[[str], dict[int, tuple[int, int]]],
    committed: Callable[[str], dict[int, tuple[int, int]]],
) -> Iterator[tuple[str, int, int | None]]:
    """(window, value, what is 100 percent) in the order in which they are told."""
    rule = account.rules[name]
    if rule.measure in ("cap_percent", "spend", "quantity"):
        count = account.caps[rule.of] if rule.measure == "cap_percent" else account.counts[name]
        whole = count.amount if rule.measure == "cap_percent" else None
        if count.is_plain:
            months = account.scopes[count.scope] if count.scope else spend(count.basis)
            windows = {str(month): months[month] for month in sorted(months, key=str)}
        else:
            windows = count.windows(account.zone, now)
        for window, value in windows.items():
            yield window, value, whole
    elif rule.measure in ("included_percent", "commitment_percent"):
        by_period = used(rule.of) if rule.measure == "included_percent" else committed(rule.of)
        for period in sorted(by_period, key=str):
            quantity, included = by_period[period]
            if included:
                yield str(period), quantity, included
    elif rule.measure == "balance":
        held = sum(paid().left[lot.lot] for lot in counted(account.lots, account.woken))
        yield "-", held - paid().debt, None
    elif rule.measure == "lot_percent":
        yield "-", paid().left[rule.of] + paid().carried.get(rule.of, 0), paid().granted[rule.of]
    else:
        for lot in sorted(account.lots, key=lambda lot: lot.lot):
            if lot.expires is not None:
                is_near = lot.expires - rule.length <= now < lot.expires
                yield f"lot:{lot.lot}", paid().left[lot.lot] if is_near else 0, None


def looks_again(account: Account, name: str, now: int) -> Iterator[int]:
    """Instants to come at which what it sees changes although nothing happens."""
    rule = account.rules[name]
    if rule.measure == "expiring":
        for lot in account.lots:
            if lot.expires is not None and lot.expires - rule.length > now:
                yield lot.expires - rule.length
        return
    count = account.caps[rule.of] if rule.measure == "cap_percent" else account.counts.get(name)
    if count is not None and count.counts:
        crossing = account.crossings.get((name, count.window))
        instant = count.sinks_next(now)
        if instant is not None and (crossing is not None and crossing.active) != rule.down:
            yield instant


# ------------------------------------------------------------------------------------------------------------ commands


def set_rule(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, rule, on = fields.text("account"), fields.text("rule"), fields.nested("on")
    level = fields.text("level", "warning")
    measure = on.text("measure")
    if measure not in MEASURES:
        raise DeadLetterError("bad_control")
    read = MEASURES[measure](on)
    on.close()

    def apply() -> None:
        account = known_account(state, name)
        new, count = read(state, account, view)
        if level not in ("info", "warning", "critical"):
            raise RefusedError("bad_rule")
        if count is not None:
            check_countable(state, account, count, view)
            begin_to_count(account, count, account.counts.get(rule))
        if rule not in account.rules and len(account.rules) >= RULES_MAX:
            raise RefusedError("too_many_rules")
        forget(account, rule, (new, count))
        account.rules[rule] = new
        if count is not None:
            account.counts[rule] = count

    return apply


def forget(account: Account, rule: str, becomes: tuple[Rule, Cap | None] | None) -> None:
    """Take the rule away. What looks at something else afterwards is told as recovered."""
    old, counted = account.rules.pop(rule, None), account.counts.pop(rule, None)
    if old is None:
        return
    if becomes is not None:
        new, count = becomes
        looks = (new.measure, new.of, new.length, count and count.kind)
        if looks == (old.measure, old.of, old.length, counted and counted.kind):
            return
    account.released.append(rule)


def remove_rule(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, rule = fields.text("account"), fields.text("rule")

    def apply() -> None:
        account = known_account(state, name)
        if rule not in account.rules:
            raise RefusedError("unknown_rule")
        forget(account, rule, None)

    return apply


def check_countable(state: Partition, account: Account, count: Cap, view: View) -> None:
    version = view.version_at(state.log_us)
    assert version is not None
    plan = version.plans.get(account.plan_at(state.log_us))
    if count.price is not None and (plan is None or count.price not in plan.prices):
        raise RefusedError("unknown_price")
    if count.scope and count.scope not in account.scopes:
        raise RefusedError("unknown_scope")
    if count.meter is not None and count.meter not in {each.name for each in version.meters}:
        raise RefusedError("unknown_meter")
    counted = count.meter if count.price is None or plan is None else plan.prices[count.price].meter
    if not count.is_sound or any(each.name == counted and not each.adds_up for each in version.meters):
        raise RefusedError("bad_rule")


Read = Callable[[Partition, Account, View], tuple[Rule, Cap | None]]


def amounts(texts: list[str | None], read: Callable[[str], int | None], *, above_zero: bool) -> list[int]:
    """The threshold, and what clears it: the same, if it is not said."""
    found: list[int] = []
    for text in texts:
        amount = found[0] if text is None else read(text)
        if amount is None or (above_zero and amount <= 0):
            raise RefusedError("bad_amount")
        found.append(amount)
    return found


def rule_of(measure: str, threshold: int, clear: int, direction: str = "up", of: str = "", length: int = 0) -> Rule:
    if direction not in ("up", "down") or (clear < threshold if direction == "down" else clear > threshold):
        raise RefusedError("bad_rule")
    return Rule(measure, threshold, clear, direction == "down", of, length)


def percents(percent: int, clear: int | None, least: int = 1, most: int = PERCENT_MAX) -> tuple[int, int]:
    low = percent if clear is None else clear
    if not least <= percent <= most or low < least:
        raise RefusedError("bad_rule")
    return percent, low


def on_cap_percent(on: Fields) -> Read:
    cap, percent, clear = on.text("cap"), on.integer("percent"), on.optional_integer("clear_percent")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        if cap not in account.caps:
            raise RefusedError("unknown_cap")
        if account.caps[cap].window == "request":
            raise RefusedError("bad_rule")
        return rule_of("cap_percent", *percents(percent, clear), of=cap), None

    return read


def on_included_percent(on: Fields) -> Read:
    price, percent, clear = on.text("price"), on.integer("percent"), on.optional_integer("clear_percent")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        version = view.version_at(state.log_us)
        assert version is not None
        plan = version.plans.get(account.plan_at(state.log_us))
        if plan is None or price not in plan.prices:
            raise RefusedError("unknown_price")
        return rule_of("included_percent", *percents(percent, clear), of=price), None

    return read


def on_commitment_percent(on: Fields) -> Read:
    name, percent, clear = on.text("commitment"), on.integer("percent"), on.optional_integer("clear_percent")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        if not view.committed(account, account.period_of(state.log_us), name):
            raise RefusedError("unknown_commitment")
        return rule_of("commitment_percent", *percents(percent, clear), of=name), None

    return read


def on_lot_percent(on: Fields) -> Read:
    lot, percent, clear = on.text("lot"), on.integer("percent"), on.optional_integer("clear_percent")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        begun = [each.lot for each in account.lots if each.carry is None or each.effective <= state.log_us]
        if lot not in begun:
            raise RefusedError("unknown_lot")
        high, low = percents(percent, clear, 0, 100)
        if low > 100:
            raise RefusedError("bad_rule")
        return rule_of("lot_percent", high, low, "down", lot), None

    return read


def on_balance(on: Fields) -> Read:
    texts = [on.string("threshold"), on.optional_string("clear")]
    direction = on.text("direction", "down")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        threshold, clear = amounts(texts, pico_of, above_zero=False)
        return rule_of("balance", threshold, clear, direction), None

    return read


def on_expiring(on: Fields) -> Read:
    texts, within = [on.string("threshold"), on.optional_string("clear")], on.integer("within_s")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        high, low = amounts(texts, pico_of, above_zero=True)
        if not 1 <= within <= WITHIN_MAX_S:
            raise RefusedError("bad_rule")
        return rule_of("expiring", high, low, length=within * SECOND_US), None

    return read


def on_counted(measure: str) -> Callable[[Fields], Read]:
    def on_measure(on: Fields) -> Read:
        texts = [on.string("threshold"), on.optional_string("clear")]
        scope, window = on.string("scope", ""), on.text("window", "month")
        length, direction = on.optional_integer("length_s"), on.text("direction", "up")
        meter, price = None, None
        if measure == "quantity":
            meter, price = on.optional_text("meter"), on.optional_text("price")

        def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
            unit = pico_of if measure == "spend" else lambda text: fixed_point(text, 9)
            high, low = amounts(texts, unit, above_zero=True)
            if measure == "quantity" and meter is None and price is None:
                raise RefusedError("bad_rule")
            rule = rule_of(measure, high, low, direction)
            if window in ("bucket", "request") or (rule.down and window != "rolling"):
                raise RefusedError("bad_rule")
            return rule, Cap(high, scope, window, (length or 0) * SECOND_US, meter, price, state.offset)

        return read

    return on_measure


def on_spike(on: Fields) -> Read:
    percent, clear = on.integer("percent"), on.optional_integer("clear_percent")
    text, bucket = on.string("minimum"), on.integer("bucket_s")
    meter, price, scope = on.optional_text("meter"), on.optional_text("price"), on.string("scope", "")

    def read(state: Partition, account: Account, view: View) -> tuple[Rule, Cap | None]:
        minimum = pico_of(text) if meter is None and price is None else fixed_point(text, 9)
        if minimum is None or minimum <= 0:
            raise RefusedError("bad_amount")
        rule = rule_of("spike", *percents(percent, clear))
        return rule, Cap(minimum, scope, "bucket", bucket * SECOND_US, meter, price, state.offset)

    return read


MEASURES: dict[str, Callable[[Fields], Read]] = {
    "cap_percent": on_cap_percent,
    "balance": on_balance,
    "spend": on_counted("spend"),
    "quantity": on_counted("quantity"),
    "included_percent": on_included_percent,
    "commitment_percent": on_commitment_percent,
    "lot_percent": on_lot_percent,
    "expiring": on_expiring,
    "spike": on_spike,
}
