"""What an account is sold: which price is in force for it at an instant, published or agreed with it alone."""

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from loadtest.oracle.accounts import Account, Agreed, Partition
from loadtest.oracle.catalogue import Version
from loadtest.oracle.meters import OF_SESSIONS, Meter
from loadtest.oracle.periods import period_of
from loadtest.oracle.prices import Price, in_force, read_price
from loadtest.oracle.records import Fields, RefusedError, is_text

AGREED_MAX = 1_000
PHASES_MAX = 100
PAUSES_MAX = 100
SEATS_MAX, SEAT_COUNT_MAX = 1_000, 1_000_000
INSTANT_MAX_US = 2**60
MONTH_MAX_US = 2**55  # of what has a billing period
VersionAt = Callable[[int], Version | None]


class View(NamedTuple):
    """What commands ask of the fold."""

    version_at: VersionAt
    owed: Callable[[Account], object]  # per period and price, derived from the raw events
    committed: Callable[[Account, int, str], int]  # the pico that a period commits to, by name; 0: to nothing


def segment_of(state: Partition, account: Account, time_us: int) -> int:
    """The latest boundary that is not after the instant."""
    boundaries = [account.period_of(time_us), period_of(account.zone, 1, time_us)]
    boundaries += [effective for _, effective in state.versions[1:]]
    boundaries += [each.start for each in account.agreed]
    for lot in account.lots:
        boundaries += lot.boundaries()
    for grant in account.quantity_grants.values():
        boundaries += grant.boundaries
    return max(instant for instant in boundaries if instant <= time_us)


def stated(account: Account, version: Version | None, name: str, time_us: int) -> Price | None:
    """The price as it is published and agreed for an instant."""
    plan = account.plan_at(time_us)
    if version is None or plan not in version.plans:
        return None
    published = version.plans[plan].prices.get(name)
    agreed = [each for each in account.agreed if (each.plan, each.price) == (plan, name) and each.start <= time_us]
    if published is None or not agreed:
        return published
    terms = max(agreed, key=lambda each: each.start).terms
    return published if terms is None or not terms.counts_like(published) else terms


def price_at(account: Account, version_at: VersionAt, starts: Iterable[int], name: str, time_us: int) -> Price:
    """The price of an instant, as far as it may begin inside the period of the instant; `starts` are those of versions."""
    return in_period(account, whole_price_at(account, version_at, starts, name, time_us), time_us)


def whole_price_at(account: Account, version_at: VersionAt, starts: Iterable[int], name: str, time_us: int) -> Price:
    """The same, as it was published or agreed, however short the period is."""
    period = account.period_of(time_us)
    changes = [*starts, *(each.start for each in account.agreed)]
    instants = [period, *sorted({each for each in changes if period < each <= time_us})]
    found = [stated(account, version_at(instant), name, instant) for instant in instants]
    price = in_force([each for each in found if each is not None])
    if price.shares is None:
        return price
    plan, versions = account.plan_at(period), [version_at(instant) for instant in instants]
    first = next(each for each in versions if each is not None and plan in each.plans)
    return replace(price, draws=name in first.plans[plan].prices)


def in_period(account: Account, price: Price, time_us: int) -> Price:
    start, length, whole = account.period(time_us)
    bound = min(length, max(0, start + length - account.opened))
    if length == whole and (bound == whole or price.of_month is None):
        return price
    return price.sharing(Fraction(length, whole)).for_part(Fraction(length, whole), Fraction(bound, whole))


def set_price(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, price, currency = fields.text("account"), fields.text("price"), fields.text("currency")
    requested = fields.optional_integer("from_us")
    said = None if fields.absent("terms") else fields.object("terms")

    def apply() -> None:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        account = state.accounts[name]
        if currency != account.currency:
            raise RefusedError("currency_mismatch")
        version, plan = view.version_at(state.log_us), account.plan_at(earliest(state, account, requested))
        if version is None or plan not in version.plans or price not in version.plans[plan].prices:
            raise RefusedError("unknown_price")
        published = version.plans[plan].prices[price]
        start = read_start(state, account, requested)
        terms = None if said is None else read_terms(price, published, said)
        (meter,) = [each for each in version.meters if each.name == published.meter]
        if terms is not None and not may_be_of(terms, meter):
            raise RefusedError("bad_price")
        covered = any(price in (prices or [price]) for _, _, prices in version.plans[plan].commitments.values())
        if covered and terms is not None and terms.floor is not None:
            raise RefusedError("bad_price")
        others = [each for each in account.agreed if each[:3] != (start, plan, price)]
        if len(others) >= AGREED_MAX:
            raise RefusedError("too_many_prices")
        before = account.agreed
        account.sell(agreed=[*others, Agreed(start, plan, price, terms)])
        starts = [effective for _, effective in state.versions[1:]]
        for each in account.agreed:
            if each.price == price and each.start >= start and not begins(account, view.version_at, starts, each):
                account.sell(agreed=before)
                raise RefusedError("mid_period")

    return apply


def earliest(state: Partition, account: Account, requested: int | None) -> int:
    """From when on something is wanted; if nothing is said, behind all usage."""
    if requested is not None:
        return requested
    return state.log_us if account.newest_us is None else max(state.log_us, account.newest_us + 1)


def read_start(state: Partition, account: Account, requested: int | None) -> int:
    start = earliest(state, account, requested)
    if not earliest(state, account, None) <= start <= MONTH_MAX_US:
        raise RefusedError("bad_start")
    return start


def set_plan(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, plan, requested = fields.text("account"), fields.text("plan"), fields.optional_integer("from_us")

    def apply() -> None:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        account, version = state.accounts[name], view.version_at(state.log_us)
        if version is None or plan not in version.plans:
            raise RefusedError("unknown_plan")
        if version.plans[plan].currency != account.currency:
            raise RefusedError("currency_mismatch")
        start = read_start(state, account, requested)
        before = account.phases
        phases: list[tuple[int, str]] = []
        for each in sorted([*(each for each in before if each[0] != start), (start, plan)]):
            if each[1] != (phases[-1][1] if phases else account.first_plan):
                phases.append(each)
        if len(phases) > PHASES_MAX:
            raise RefusedError("too_many_phases")
        owed = view.owed(account)
        account.sell(phases=phases)
        if view.owed(account) != owed:
            account.sell(phases=before)
            raise RefusedError("would_reprice")
        for each in phases:
            if each[0] > state.log_us and (each[0], name) not in state.wakes:
                insort(state.wakes, (each[0], name))

    return apply


def set_pause(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    """It moves no money: what is used is rated all the same."""
    name, paused, requested = fields.text("account"), fields.boolean("paused"), fields.optional_integer("from_us")

    def apply() -> None:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        account, start = state.accounts[name], state.log_us if requested is None else requested
        if not state.log_us <= start <= INSTANT_MAX_US:
            raise RefusedError("bad_start")
        pauses = account.pauses | {start: paused}
        if len(pauses) > PAUSES_MAX:
            raise RefusedError("too_many_pauses")
        account.pauses = pauses

    return apply


def set_seats(state: Partition, fields: Fields, view: View) -> Callable[[], None]:
    name, seat, count = fields.text("account"), fields.text("seat"), fields.integer("count")
    requested = fields.optional_integer("from_us")

    def apply() -> None:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        account, start = state.accounts[name], state.log_us if requested is None else requested
        version, plan = view.version_at(state.log_us), account.plan_at(start)
        if version is None or plan not in version.plans or seat not in version.plans[plan].seats:
            raise RefusedError("unknown_seat")
        if not 0 <= count <= SEAT_COUNT_MAX:
            raise RefusedError("bad_seats")
        if not state.log_us <= start <= INSTANT_MAX_US:
            raise RefusedError("bad_start")
        seats = account.seats | {(start, seat): count}
        if len(seats) > SEATS_MAX:
            raise RefusedError("too_many_seats")
        account.seats = seats

    return apply


def begins(account: Account, version_at: VersionAt, starts: Iterable[int], agreed: Agreed) -> bool:
    """Whether it takes effect at its instant, and not only with the next period."""
    if account.period_of(agreed.start) == agreed.start or account.plan_at(agreed.start) != agreed.plan:
        return True
    new = stated(account, version_at(agreed.start), agreed.price, agreed.start)
    try:
        old = price_at(account, version_at, starts, agreed.price, agreed.start - 1)
    except LookupError:  # it was not sold
        return True
    return new is None or (old.marginal and new.marginal)


def may_be_of(terms: Price, meter: Meter) -> bool:
    """Whether the price can count what the meter says: one of each event's amount, events that have one."""
    of_events = meter.adds_up and meter.aggregation not in OF_SESSIONS
    if terms.model in ("percentage", "dynamic") and not of_events:
        return False
    return terms.estimate is None or meter.field is not None


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
    if terms.floor is not None and not terms.may_owe(terms.floor):
        raise RefusedError("bad_price")
    if terms.overage <= 0 or (terms.of_month is None and "overage" in said) or {"minimum", "commitment"} <= said.keys():
        raise RefusedError("bad_price")
    if min(amounts) < 0 or not terms.counts_like(published):
        raise RefusedError("bad_price")
    return terms
