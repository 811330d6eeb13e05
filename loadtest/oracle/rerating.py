"""Re-rating: what a price of past usage would owe under another published version, and the difference posted."""

from collections.abc import Callable
from math import lcm
from typing import NamedTuple

from loadtest.oracle.accounts import Account, ManualLine, Partition
from loadtest.oracle.commands import LINES_MAX, known_account, says_why
from loadtest.oracle.contract import VersionAt, View, in_period, segment_of, whole_price_at
from loadtest.oracle.period_lines import sold as sold_when
from loadtest.oracle.prices import Price, half_even
from loadtest.oracle.quantity_grants import as_before, served
from loadtest.oracle.records import Fields, RefusedError, pico_of
from loadtest.oracle.waivers import in_force


class Asked(NamedTuple):
    version: int
    start: int
    end: int

    def covers(self, segment: int) -> bool:
        return self.start <= segment < self.end


def rerate(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, said, price = fields.text("account"), fields.text("rerate"), fields.text("price")
    asked = Asked(fields.integer("version"), fields.integer("from_us"), fields.integer("to_us"))
    currency, why = fields.text("currency"), (fields.string("reason"), fields.string("by"))
    differences = {period: pico_of(amount) for period, amount in fields.amounts("differences").items()}

    def apply() -> None:
        account = known_account(state, name)
        if None in differences.values():
            raise RefusedError("bad_amount")
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        if any(line.startswith(f"{said}/{price}/") for line in account.lines):
            raise RefusedError("line_exists")
        found = difference_of(state, account, view.version_at, price, asked)
        if differences != found:
            raise RefusedError("rerate_changed")
        if not found:
            raise RefusedError("no_difference")
        if len(account.lines) + len(found) > LINES_MAX:
            raise RefusedError("too_many_lines")
        if not says_why(why):
            raise RefusedError("no_reason")
        for period, amount in found.items():
            account.lines[f"{said}/{price}/{period}"] = ManualLine(state.log_us, period, price, amount, asked)
        account.newest_us = state.log_us if account.newest_us is None else max(account.newest_us, state.log_us)
        account.table = None

    return apply


def difference_of(state: Partition, account: Account, version_at: VersionAt, name: str, asked: Asked) -> dict[int, int]:
    """By billing period, what is not posted yet, where that is something."""
    if asked.start >= asked.end:
        raise RefusedError("bad_period")
    if asked.version not in dict(state.versions):
        raise RefusedError("unknown_version")
    plans = {account.first_plan, *(plan for _, plan in account.phases)}
    sold = [price for plan in plans if (price := published(state, version_at, asked.version, plan, name))]
    if not sold:
        raise RefusedError("unknown_price")
    if any(price.each is not None for price in sold):
        raise RefusedError("bad_price")
    table = account.table
    assert table is not None, "it is made before each command"
    used = {place: by_segment for place, by_segment in (table.quantities | table.whole).items() if place[1] == name}
    for period, _ in used:
        for edge in (asked.start, asked.end):
            if period < edge < period + account.period(period)[1] and segment_of(state, account, edge) != edge:
                raise RefusedError("mid_segment")
    found = {}
    for period in sorted({period for (period, _), by_segment in used.items() if any(map(asked.covers, by_segment))}):
        by_segment = used.get((period, name), {})
        amount = of_period(state, account, version_at, name, asked, period, by_segment)
        if amount:
            found[period] = amount
    return found


def of_period(
    state: Partition,
    account: Account,
    version_at: VersionAt,
    name: str,
    asked: Asked,
    period: int,
    by_segment: dict[int, int],
) -> int:
    again = published(state, version_at, asked.version, account.plan_at(period), name)
    if again is None:
        raise RefusedError("unknown_price")
    if in_force(account, period) is not None:
        raise RefusedError("waived")
    starts = [effective for _, effective in state.versions[1:]]
    rated = {segment: whole_price_at(account, version_at, starts, name, segment) for segment in by_segment}
    if not all(price.counts_like(again) for price in rated.values()):
        raise RefusedError("bad_price")
    if any(price.shares is not None and price.draws for price in [again, *rated.values()]):
        raise RefusedError("bad_price")
    plan = sold_when(account, version_at, period)
    together = [] if plan is None else [prices or [name] for _, _, prices in plan.commitments.values()]
    if any(price.floor is not None for price in [again, *rated.values()]) or any(name in each for each in together):
        raise RefusedError("bad_price")
    lines = [
        line
        for line in account.lines.values()
        if line.rerated and line.price == name and account.period_of(line.used_us) == period
    ]
    owed: dict[int, Price] = {}
    for segment, price in rated.items():
        owed[segment] = price
        if any(each.terms is price for each in account.agreed):
            continue
        for version, start, until in [*(line.rerated for line in lines if line.rerated), asked]:
            if start <= segment < until:
                over = published(state, version_at, version, account.plan_at(period), name)
                assert over is not None
                owed[segment] = over
    if not all(price.marginal for price in [*rated.values(), *owed.values()]):
        first = owed[min(owed)]
        runs = state.log_us < period + account.period(period)[1]
        if runs or any(price is not first for price in owed.values()):
            raise RefusedError("mid_period")
    assert account.table is not None
    on_time = account.table.quantities.get((period, name), {})
    sold = {each: whole_price_at(account, version_at, starts, name, each) for each in on_time}
    took = served(account, name, on_time, {each: in_period(account, sold[each], each).included for each in on_time})
    after, before = (
        total(by_segment, {segment: in_period(account, price, segment) for segment, price in prices.items()}, took)
        for prices in (owed, rated)
    )
    return after - before - sum(line.amount for line in lines)


def total(by_segment: dict[int, int], prices: dict[int, Price], took: dict[int, int]) -> int:
    """A of the period: each stretch at its own price, from where the count stands, rounded once. What quantity grants
    `took` they keep."""
    grains = lcm(*(price.grains for price in prices.values()))
    granted = as_before(took, by_segment, {segment: price.included for segment, price in prices.items()})
    quantity = owed = 0
    whole = sum(by_segment.values()) - sum(granted.values())
    for segment in sorted(by_segment):
        after = quantity + by_segment[segment] - granted[segment]
        owed += prices[segment].owed(after, whole, grains) - prices[segment].owed(quantity, whole, grains)
        quantity = after
    return half_even(owed, grains)


def published(state: Partition, version_at: VersionAt, number: int, plan: str, name: str) -> Price | None:
    """A price as a version has it; the first version is in force for all time."""
    first, effective = state.versions[0][0] == number, dict(state.versions)[number]
    version = version_at(-(2**62) if first else effective)
    if version is None or plan not in version.plans:
        return None
    return version.plans[plan].prices.get(name)
