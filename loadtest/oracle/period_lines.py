"""What a billing period owes besides its usage: when that is posted, and how much it is."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

from loadtest.oracle.accounts import Account, Partition
from loadtest.oracle.contract import VersionAt
from loadtest.oracle.periods import DAY_US
from loadtest.oracle.prices import Price

PriceAt = Callable[[str, int], Price]
Terms = dict[str, int]  # price -> the least pico that the period owes for it


def minimum_of(price: str) -> str:
    """The name under which what is missing to a price's minimum is posted."""
    return f"minimum\0{price}"


def closings(account: Account, version_at: VersionAt) -> Iterator[tuple[int, int]]:
    """(when it closes, its start) of periods, without end. Of those before the account was opened, the last may close
    behind it, and none closes before those before it."""
    start, closes = account.period_of(account.opened - 60 * DAY_US), 0
    while True:
        end = start + account.period(start)[1]
        version = version_at(end)
        plan = None if version is None else version.plans.get(account.plan_at(end - 1))
        closes = max(closes, end + (DAY_US if plan is None else plan.close_after_us))
        yield closes, start
        start = end


def least(account: Account, version_at: VersionAt, price_at: PriceAt, start: int) -> Terms:
    """By what was sold when the period began, or the account was opened in it: each minimum of a month, for as long as
    the account was bound."""
    _, length, month = account.period(start)
    bound = max(start, account.opened)
    version = version_at(bound)
    if bound >= start + length or version is None or account.plan_at(bound) not in version.plans:
        return {}
    part = Fraction(start + length - bound, month)
    prices = [price_at(name, bound) for name in version.plans[account.plan_at(bound)].prices]
    return {
        price.name: round(price.minimum * part) if price.prorate else price.minimum
        for price in prices
        if price.minimum is not None
    }


def fees(account: Account, version_at: VersionAt, start: int) -> Terms:
    """By name, in the plan of the same moment: what of a month's fee is due for the time bound and not paused."""
    _, length, month = account.period(start)
    bound, end = max(start, account.opened), start + length
    version = version_at(bound)
    if bound >= end or version is None or account.plan_at(bound) not in version.plans:
        return {}
    turns = sorted({bound, end, *(turn for turn in account.pauses if bound < turn < end)})
    active = sum(until - since for since, until in pairwise(turns) if not is_paused(account, since))
    found = {
        name: round(amount * Fraction(active, month)) if shared else amount
        for name, (amount, shared) in version.plans[account.plan_at(bound)].fees.items()
    }
    return {name: amount for name, amount in found.items() if amount}


def is_paused(account: Account, time_us: int) -> bool:
    said = [paused for turn, paused in sorted(account.pauses.items()) if turn <= time_us]
    return bool(said) and said[-1]


def next_closing(state: Partition, account: Account, version_at: VersionAt, price_at: PriceAt) -> int | None:
    """When the next period closes that has a minimum, or a fee."""
    changes = [each for _, each in state.versions[1:]]
    changes += [each for each, _ in account.phases] + [each.start for each in account.agreed]
    for closes, start in closings(account, version_at):
        version = version_at(max(start, account.opened))
        plan = None if version is None else version.plans.get(account.plan_at(max(start, account.opened)))
        bound = plan is not None and plan.fees and start + account.period(start)[1] > account.opened
        if closes > state.log_us and (bound or least(account, version_at, price_at, start)):
            return closes
        if start > max([state.log_us, *changes]):
            return None
    return None
