"""Commands that change what an account is sold: what each requires, and why it may be refused (README, "Control
records"). The checks of a command stand in the order of the refusals' precedence."""

from typing import Final

import msgspec

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import BadCatalogue, PriceBook, check_agreed
from engine.commands import INSTANT_LIMIT_US, Refused
from engine.contract import (
    AGREED_MAX,
    PAUSES_MAX,
    PHASES_MAX,
    SEATS_MAX,
    Agreement,
    Pause,
    Phase,
    Seats,
    compiled,
    read_terms,
)
from engine.events import SetPause, SetPlan, SetPrice, SetSeats
from engine.meters import Meter
from engine.outcomes import Refusal
from engine.periods import CALENDAR_US
from engine.prices.price import Price

COUNT_MAX: Final = 1_000_000  # seats of one name


def set_price(account: Account, command: SetPrice, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Agree on a price with this account, from an instant on. Raises Refused."""
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    catalogue = book.at(log_time_us)
    name = account.contract.plan_name_at(
        _earliest(account, log_time_us) if command.from_us is None else command.from_us
    )
    plan = catalogue.plans.get(name) if catalogue else None
    if catalogue is None or plan is None or command.price not in plan.prices:
        raise Refused(Refusal.UNKNOWN_PRICE)
    from_us = _start(account, command.from_us, log_time_us)
    published = plan.prices[command.price]
    meter = catalogue.meters[published.meter]
    terms = _terms(command, published, meter, covered=plan.commits(command.price) is not None)
    agreement = Agreement(from_us, name, command.price, terms, meter.kind is None)
    contract = account.contract.with_agreed(agreement)
    if len(contract.agreed) > AGREED_MAX:
        raise Refused(Refusal.TOO_MANY_PRICES)
    # A later one of this price may have been fit to follow what this one replaces.
    touched = [each for each in contract.agreed if each.price == command.price and each.from_us >= from_us]
    if not all(contract.begins(book, each) for each in touched):
        raise Refused(Refusal.MID_PERIOD)
    return account.set_contract(contract, log_time_us)


def set_plan(account: Account, command: SetPlan, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Sell the account another plan from an instant on. Raises Refused."""
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(command.plan) if catalogue else None
    if plan is None:
        raise Refused(Refusal.UNKNOWN_PLAN)
    if plan.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    contract = account.contract.with_phase(Phase(_start(account, command.from_us, log_time_us), plan.name))
    if len(contract.phases) > PHASES_MAX:
        raise Refused(Refusal.TOO_MANY_PHASES)
    if account.would_reprice(contract):
        raise Refused(Refusal.WOULD_REPRICE)
    return account.set_contract(contract, log_time_us)


def set_pause(account: Account, command: SetPause, log_time_us: int) -> list[Crossing]:
    """Pause the account from an instant on, or end that. Raises Refused."""
    from_us = log_time_us if command.from_us is None else command.from_us
    if not log_time_us <= from_us <= INSTANT_LIMIT_US:
        raise Refused(Refusal.BAD_START)
    contract = account.contract.with_pause(Pause(from_us, command.paused))
    if len(contract.pauses) > PAUSES_MAX:
        raise Refused(Refusal.TOO_MANY_PAUSES)
    return account.set_contract(contract, log_time_us)


def set_seats(account: Account, command: SetSeats, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Give the account so many seats from an instant on. Raises Refused."""
    from_us = log_time_us if command.from_us is None else command.from_us
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(account.contract.plan_name_at(from_us)) if catalogue else None
    if plan is None or command.seat not in plan.seats:
        raise Refused(Refusal.UNKNOWN_SEAT)
    if not 0 <= command.count <= COUNT_MAX:
        raise Refused(Refusal.BAD_SEATS)
    if not log_time_us <= from_us <= INSTANT_LIMIT_US:
        raise Refused(Refusal.BAD_START)
    contract = account.contract.with_seats(Seats(from_us, command.seat, command.count))
    if len(contract.seats) > SEATS_MAX:
        raise Refused(Refusal.TOO_MANY_SEATS)
    return account.set_contract(contract, log_time_us)


def _earliest(account: Account, log_time_us: int) -> int:
    return max(log_time_us, account.newest_event_us + 1) if account.has_usage else log_time_us


def _start(account: Account, from_us: int | None, log_time_us: int) -> int:
    """From when on a change holds: behind all usage rated so far, or what was charged would change."""
    earliest_us = _earliest(account, log_time_us)
    if from_us is None:
        return earliest_us
    if not earliest_us <= from_us <= CALENDAR_US:
        raise Refused(Refusal.BAD_START)
    return from_us


def _terms(command: SetPrice, published: Price, meter: Meter, *, covered: bool) -> str | None:
    """As they are kept. `covered`: by a commitment of the plan, beside which the price has none of its own."""
    if command.terms is None:
        return None
    try:
        definition = read_terms(command.terms, published.meter)
        check_agreed(definition, meter)
        terms = msgspec.json.encode(definition, order="deterministic").decode()
        agreed = compiled(command.price, terms, 0, meter.kind is None)
    except BadCatalogue:
        raise Refused(Refusal.BAD_PRICE) from None
    if not agreed.counts_like(published) or (covered and agreed.floor is not None):
        raise Refused(Refusal.BAD_PRICE)
    return terms
