"""Rules as commands set them: what each measure requires, and why it may be refused (README, "Control records").

The checks of a command stand in the order of the refusals' precedence.
"""

from collections.abc import Mapping
from typing import Final

from engine.account import Account
from engine.alerts import (
    LEVELS,
    PERCENT_MAX,
    CapShare,
    CommitmentShare,
    Counted,
    Crossing,
    Expiring,
    IncludedShare,
    Level,
    LotShare,
    Measure,
    Rule,
    Spike,
    Wallet,
)
from engine.catalog import PriceBook
from engine.commands import SECOND_US, Refused, amount_of, countable, quantity_of
from engine.events import (
    On,
    OnBalance,
    OnCapPercent,
    OnCommitmentPercent,
    OnExpiring,
    OnIncludedPercent,
    OnLotPercent,
    OnQuantity,
    OnSpend,
    OnSpike,
    RemoveRule,
    SetRule,
)
from engine.limits import Cap, own_count
from engine.money import amount_text, quantity_text
from engine.outcomes import Refusal
from engine.windows import BUCKET, REQUEST, ROLLING, Window

RULES_MAX: Final = 1_000  # of one account: each looks at every event that is not within the guard
WITHIN_MAX_S: Final = 3_660 * 86_400  # how long before its expiry a lot may be told of
DIRECTIONS: Final = ("up", "down")


def set_rule(account: Account, command: SetRule, book: PriceBook, log_time_us: int, offset: int) -> list[Crossing]:
    """Set or replace the rule, by the record at this offset. Raises Refused."""
    rule, count = _Reader(account, command, book, log_time_us, offset).read()
    if command.rule not in account.rules and len(account.rules) >= RULES_MAX:
        raise Refused(Refusal.TOO_MANY_RULES)
    return account.set_rule(command.rule, rule, log_time_us, count)


def remove_rule(account: Account, command: RemoveRule, log_time_us: int) -> list[Crossing]:
    """Forget the rule; its ordinals stay. Raises Refused."""
    if command.rule not in account.rules:
        raise Refused(Refusal.UNKNOWN_RULE)
    return account.set_rule(command.rule, None, log_time_us)


def stated(name: str, rule: Rule, caps: Mapping[str, Cap]) -> On:
    """As the command that set it stated it."""
    count = caps.get(own_count(name))
    text = quantity_text if count is not None and not count.in_money else amount_text
    threshold, clear = text(rule.threshold), text(rule.clear)
    match rule.measure:
        case CapShare(cap=cap):
            return OnCapPercent(cap, rule.threshold, rule.clear)
        case IncludedShare(price=price):
            return OnIncludedPercent(price, rule.threshold, rule.clear)
        case CommitmentShare(commitment=commitment):
            return OnCommitmentPercent(commitment, rule.threshold, rule.clear)
        case LotShare(lot=lot):
            return OnLotPercent(lot, rule.threshold, rule.clear)
        case Wallet():
            return OnBalance(threshold, clear, DIRECTIONS[rule.falls])
        case Expiring(within_us=within_us):
            return OnExpiring(threshold, within_us // SECOND_US, clear)
        case Counted() | Spike():
            assert count is not None
            length_s, scope, kind = count.window.length_us // SECOND_US, count.scope, count.window.kind
            if isinstance(rule.measure, Spike):
                minimum = text(count.amount)
                return OnSpike(rule.threshold, minimum, length_s, rule.clear, count.meter, count.price, scope)
            more = scope, kind, length_s or None, DIRECTIONS[rule.falls]
            if count.in_money:
                return OnSpend(threshold, clear, *more)
            return OnQuantity(threshold, count.meter, count.price, clear, *more)


class _Reader:
    def __init__(self, account: Account, command: SetRule, book: PriceBook, log_time_us: int, offset: int) -> None:
        self._account = account
        self._command = command
        self._book = book
        self._log_time_us = log_time_us
        self._offset = offset

    def read(self) -> tuple[Rule, Cap | None]:
        """The rule, and what it counts itself."""
        on = self._command.on
        match on:
            case OnCapPercent():
                cap = self._account.caps.get(on.cap)
                if cap is None or cap.is_own:
                    raise Refused(Refusal.UNKNOWN_CAP)
                if cap.per_request:
                    raise Refused(Refusal.BAD_RULE)  # nothing counts in it
                return self._percents(CapShare(on.cap), on.percent, on.clear_percent), None
            case OnIncludedPercent():
                catalogue = self._book.at(self._log_time_us)
                plan = (
                    catalogue.plans.get(self._account.contract.plan_name_at(self._log_time_us)) if catalogue else None
                )
                if plan is None or on.price not in plan.prices:
                    raise Refused(Refusal.UNKNOWN_PRICE)
                return self._percents(IncludedShare(on.price), on.percent, on.clear_percent), None
            case OnCommitmentPercent():
                terms = self._account.period_terms(self._account.period_of(self._log_time_us))
                if terms is None or terms.committed(on.commitment, lambda _: 0) is None:
                    raise Refused(Refusal.UNKNOWN_COMMITMENT)
                return self._percents(CommitmentShare(on.commitment), on.percent, on.clear_percent), None
            case OnLotPercent():
                lot = self._account.lots.get(on.lot)
                if lot is None or (lot.carry is not None and self._log_time_us < lot.effective_us):
                    raise Refused(Refusal.UNKNOWN_LOT)
                clear = on.percent if on.clear_percent is None else on.clear_percent
                if not 0 <= on.percent <= clear <= 100:
                    raise Refused(Refusal.BAD_RULE)
                return self._rule(LotShare(on.lot), on.percent, clear, "down"), None
            case OnBalance():
                threshold = amount_of(on.threshold, above_zero=False)
                clear = threshold if on.clear is None else amount_of(on.clear, above_zero=False)
                return self._rule(Wallet(), threshold, clear, on.direction), None
            case OnExpiring():
                threshold = amount_of(on.threshold, above_zero=True)
                clear = threshold if on.clear is None else amount_of(on.clear, above_zero=True)
                if not 1 <= on.within_s <= WITHIN_MAX_S:
                    raise Refused(Refusal.BAD_RULE)
                return self._rule(Expiring(on.within_s * SECOND_US), threshold, clear, "up"), None
            case OnSpend():
                threshold = amount_of(on.threshold, above_zero=True)
                clear = threshold if on.clear is None else amount_of(on.clear, above_zero=True)
                return self._counting(on, threshold, clear, None, None)
            case OnQuantity():
                threshold = quantity_of(on.threshold)
                clear = threshold if on.clear is None else quantity_of(on.clear)
                if on.meter is None and on.price is None:
                    raise Refused(Refusal.BAD_RULE)
                return self._counting(on, threshold, clear, on.meter, on.price)
            case OnSpike():
                in_money = on.meter is None and on.price is None
                minimum = amount_of(on.minimum, above_zero=True) if in_money else quantity_of(on.minimum)
                rule = self._percents(Spike(), on.percent, on.clear_percent)
                window = Window(BUCKET, on.bucket_s * SECOND_US)
                return rule, self._count(minimum, on.scope, window, on.meter, on.price)

    def _counting(
        self, on: OnSpend | OnQuantity, threshold: int, clear: int, meter: str | None, price: str | None
    ) -> tuple[Rule, Cap]:
        rule = self._rule(Counted(), threshold, clear, on.direction)
        window = Window(on.window, (on.length_s or 0) * SECOND_US)
        if window.by_log_time or window.kind == REQUEST or (rule.falls and window.kind != ROLLING):
            raise Refused(Refusal.BAD_RULE)  # every other window begins below any threshold
        return rule, self._count(threshold, on.scope, window, meter, price)

    def _count(self, amount: int, scope: str, window: Window, meter: str | None, price: str | None) -> Cap:
        count = Cap(own_count(self._command.rule), amount, scope, False, window, meter, price)
        return countable(self._account, count, self._book, self._log_time_us, self._offset, Refusal.BAD_RULE)

    def _percents(self, measure: Measure, percent: int, clear_percent: int | None) -> Rule:
        clear = percent if clear_percent is None else clear_percent
        if not (1 <= percent <= PERCENT_MAX and clear >= 1):
            raise Refused(Refusal.BAD_RULE)
        return self._rule(measure, percent, clear, "up")

    def _rule(self, measure: Measure, threshold: int, clear: int, direction: str) -> Rule:
        level: Level | None = next((each for each in LEVELS if each == self._command.level), None)
        falls = direction == "down"
        if level is None or direction not in DIRECTIONS or (clear < threshold if falls else clear > threshold):
            raise Refused(Refusal.BAD_RULE)
        return Rule(measure, threshold, clear, falls, level)
