"""What an account is sold: which price is in force for it at an instant, published or agreed with it alone."""

from collections.abc import Callable, Iterable
from typing import Any

from loadtest.oracle.accounts import Account, Agreed, Partition
from loadtest.oracle.catalogue import Version
from loadtest.oracle.periods import period_of
from loadtest.oracle.prices import Price, in_force, read_price
from loadtest.oracle.records import Fields, RefusedError, is_text

AGREED_MAX = 1_000
INSTANT_MAX_US = 2**60
VersionAt = Callable[[int], Version | None]


def stated(account: Account, version: Version | None, name: str, time_us: int) -> Price | None:
    """The price as it is published and agreed for an instant."""
    if version is None or account.plan not in version.plans:
        return None
    published = version.plans[account.plan].prices.get(name)
    agreed = [each for each in account.agreed if each.price == name and each.start <= time_us]
    if published is None or not agreed:
        return published
    terms = max(agreed, key=lambda each: each.start).terms
    return published if terms is None or not terms.counts_like(published) else terms


def price_at(account: Account, version_at: VersionAt, starts: Iterable[int], name: str, time_us: int) -> Price:
    """The price of an instant, as far as it may begin inside the period of the instant; `starts` are those of versions."""
    period = period_of(account.zone, account.anchor, time_us)
    changes = [*starts, *(each.start for each in account.agreed)]
    instants = [period, *sorted({each for each in changes if period < each <= time_us})]
    found = [stated(account, version_at(instant), name, instant) for instant in instants]
    return in_force([price for price in found if price is not None])


def set_price(state: Partition, fields: Fields, version_at: VersionAt) -> Callable[[], None]:
    name, price, currency = fields.text("account"), fields.text("price"), fields.text("currency")
    requested = fields.optional_integer("from_us")
    said = None if fields.absent("terms") else fields.object("terms")

    def apply() -> None:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        account = state.accounts[name]
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        version = version_at(state.log_us)
        published = stated(account, version, price, -(2**62))
        if version is None or published is None:
            raise RefusedError("unknown_price")
        earliest = state.log_us if account.newest_us is None else max(state.log_us, account.newest_us + 1)
        start = earliest if requested is None else requested
        if not earliest <= start <= INSTANT_MAX_US:
            raise RefusedError("bad_start")
        terms = None if said is None else read_terms(price, published, said)
        others = [each for each in account.agreed if (each.start, each.price) != (start, price)]
        if len(others) >= AGREED_MAX:
            raise RefusedError("too_many_prices")
        before, account.agreed = account.agreed, [*others, Agreed(start, price, terms)]
        starts = [effective for _, effective in state.versions[1:]]
        for each in account.agreed:
            if each.price == price and each.start >= start and not begins(account, version_at, starts, each):
                account.agreed = before
                raise RefusedError("mid_period")
        account.table = None

    return apply


def begins(account: Account, version_at: VersionAt, starts: Iterable[int], agreed: Agreed) -> bool:
    """Whether it takes effect at its instant, and not only with the next period."""
    if period_of(account.zone, account.anchor, agreed.start) == agreed.start:
        return True
    new = stated(account, version_at(agreed.start), agreed.price, agreed.start)
    try:
        old = price_at(account, version_at, starts, agreed.price, agreed.start - 1)
    except LookupError:  # it was not sold
        return True
    return new is None or (old.marginal and new.marginal)


def read_terms(name: str, published: Price, said: dict[str, Any]) -> Price:
    """Of the meter and the cells of the plan's price."""
    if {"meter", "where"} & said.keys() or not is_text(said.get("model")):
        raise RefusedError("bad_price")
    try:
        tiers = [{"per": "1", **tier} for tier in said.get("tiers", [])]
        body = {"where": {}, "per": "1", **said, "tiers": tiers, "meter": published.meter}
        terms = read_price(name, body, published.adds_up)
    except (AssertionError, LookupError) as error:
        raise RefusedError("bad_price") from error
    amounts = [tier.amount for tier in terms.tiers] + [terms.included, terms.maximum or 0]
    if min(amounts) < 0 or not terms.counts_like(published):
        raise RefusedError("bad_price")
    return terms
