"""What a billing period owes besides its usage: when that is posted, and how much it is."""

from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from itertools import pairwise, takewhile

from loadtest.oracle.accounts import Account, Least, Partition
from loadtest.oracle.catalogue import Plan
from loadtest.oracle.contract import VersionAt
from loadtest.oracle.periods import DAY_US, period_end
from loadtest.oracle.prices import Price

PriceAt = Callable[[str, int], Price]


def closings(account: Account, version_at: VersionAt) -> Iterator[tuple[int, int]]:
    """(when it closes, its start) of periods, without end. Of those before the account was opened, the last may close
    behind it, and none closes before those before it."""
    yield from account.closings
    if account.closings:
        closes, start = account.closings[-1]
        start += account.period(start)[1]
    else:
        start, closes = account.period_of(account.opened - 60 * DAY_US), 0
    while True:
        end = start + account.period(start)[1]
        version = version_at(end)
        plan = None if version is None else version.plans.get(account.plan_at(end - 1))
        closes = max(closes, end + (DAY_US if plan is None else plan.close_after_us))
        account.closings.append((closes, start))
        yield closes, start
        start = end


def sold(account: Account, version_at: VersionAt, start: int) -> Plan | None:
    """What binds in the period that starts then: the plan of its start, or of when the account was opened in it."""
    bound = max(start, account.opened)
    version = version_at(bound)
    if bound >= start + account.period(start)[1] or version is None:
        return None
    return version.plans.get(account.plan_at(bound))


def least(account: Account, version_at: VersionAt, price_at: PriceAt, start: int, floored: Collection[str]) -> Least:
    """Each minimum and commitment of a month, for as long as the account was bound. `floored`: prices that may have one."""
    _, length, month = account.period(start)
    bound, plan = max(start, account.opened), sold(account, version_at, start)
    if plan is None:
        return {}
    part = Fraction(start + length - bound, month)
    found: Least = {}
    for price in (price_at(name, bound) for name in plan.prices if name in floored):
        for kind, amount in (("minimum", price.minimum), ("commitment", price.of_month)):
            if amount is not None:
                found[f"{kind}\0{price.name}"] = round(amount * part) if price.prorate else amount, [price.name]
    for name, (amount, shared, prices) in plan.commitments.items():
        found[f"commitment\0{name}"] = round(amount * part) if shared else amount, prices or list(plan.prices)
    return found


def fees(
    account: Account, version_at: VersionAt, start: int, *, in_advance: bool = False, known_by: int | None = None
) -> dict[str, int]:
    """As posted: what of a month's fee is due for the time bound and not paused, and of seats in advance. `known_by`: as if
    no change of plan, no pause and no other seats came behind that."""
    _, length, month = account.period(start)
    bound, end, plan = max(start, account.opened), start + length, sold(account, version_at, start)
    if known_by is not None:
        cuts = [each for each, _ in account.phases if start < each <= known_by]
        end = min([period_end(account.zone, account.anchor, start), *cuts])
    if plan is None or bound >= end:
        return {}
    turns = [*account.pauses, *(turn for turn, _ in account.seats)]
    turns = [turn for turn in turns if bound < turn < end and (known_by is None or turn <= known_by)]
    stretches = [each for each in pairwise(sorted({bound, end, *turns})) if not is_paused(account, each[0])]
    active = sum(until - since for since, until in stretches)
    found = {
        f"fee\0{name}": round(amount * Fraction(active, month)) if shared else amount
        for name, (amount, shared, ahead) in plan.fees.items()
        if ahead == in_advance
    }
    for name, amount in plan.seats.items() if in_advance else ():
        there = sum((until - since) * seats_at(account, name, since) for since, until in stretches)
        found[f"seat\0{name}"] = round(amount * Fraction(there, month))
    return {name: amount for name, amount in found.items() if amount}


def seats_at(account: Account, seat: str, time_us: int) -> int:
    said = [count for (start, name), count in sorted(account.seats.items()) if name == seat and start <= time_us]
    return said[-1] if said else 0


def opened_by(account: Account, version_at: VersionAt, now: int) -> list[int]:
    """The starts of the periods that are open at a log time, and have begun."""
    return [
        start for closes, start in takewhile(lambda each: each[1] <= now, closings(account, version_at)) if closes > now
    ]


def next_ahead(account: Account, version_at: VersionAt, now: int, last: int) -> int | None:
    """When a fee in advance may next be due, or no longer; `last`: what is sold changes no more behind it."""
    start, length, _ = account.period(now)
    turns = [turn for turn in [*account.pauses, *(each for each, _ in account.seats)] if turn > now]
    while True:
        start += length
        plan = sold(account, version_at, start)
        if plan is not None and (plan.seats or any(ahead for _, _, ahead in plan.fees.values())):
            return min([start, *turns])
        if start > last:
            return min(turns, default=None)
        _, length, _ = account.period(start)


def is_paused(account: Account, time_us: int) -> bool:
    said = [paused for turn, paused in sorted(account.pauses.items()) if turn <= time_us]
    return bool(said) and said[-1]


def next_closing(
    state: Partition, account: Account, version_at: VersionAt, least_of: Callable[[int], Least]
) -> int | None:
    """When the next period closes that has a minimum, a commitment or a fee. `least_of`: what one owes at least."""
    changes = [each for _, each in state.versions[1:]]
    changes += [each for each, _ in account.phases] + [each.start for each in account.agreed]
    for closes, start in closings(account, version_at):
        if closes > state.log_us:
            plan = sold(account, version_at, start)
            fees_due = plan is not None and (plan.fees or plan.seats)
            if fees_due or least_of(start):
                return closes
        if start > max([state.log_us, *changes]):
            return None
    return None
