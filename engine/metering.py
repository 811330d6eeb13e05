"""What a usage event says: when and where it is rated, what each meter counts of it, and at which price (README, "A record's
way"). What cannot be told raises DeadLetter, with the reason that stands there."""

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from engine.catalog import SKEW_US, TOO_OLD_US, Catalogue, NoPrice, Plan, PriceBook
from engine.contract import Contract
from engine.events import UsageEvent
from engine.holds import BadToken, Hold, read_token
from engine.limits import scope_path
from engine.meters import BadDimension, BadQuantity, BadSession, BadUsage, Heard, Meter, is_estimated
from engine.meters.fields import value_at
from engine.outcomes import DeadLetter, DeadLetterReason
from engine.readings import Reading
from engine.routes import Usage


class Metered(Struct, frozen=True, gc=False):
    """An event as it is to be rated. `dimensions`: names of those of each cell, first of the usages, then of the readings.
    `heard`: what it says of sessions, which are charged by themselves."""

    time_us: int
    catalogue: Catalogue
    usages: list[Usage]
    readings: list[Reading]
    dimensions: tuple[tuple[str, ...], ...]
    estimated: bool
    heard: tuple[Heard, ...] = ()


class Metering:
    """Reads events by the catalogue and the holds of a deployment."""

    def __init__(self, book: PriceBook, control_key: bytes) -> None:
        self._book = book
        self._control_key = control_key

    def hold_of(self, account: str, event: UsageEvent) -> Hold | None:
        """The hold that the event names."""
        if event.hold is None:
            return None
        try:
            hold = read_token(self._control_key, event.hold)
        except BadToken as error:
            raise DeadLetter(DeadLetterReason.BAD_HOLD, f"event {event.id!r}: {error}") from None
        if hold.account != account:
            raise DeadLetter(DeadLetterReason.BAD_HOLD, f"event {event.id!r} names a hold of another account")
        return hold

    def metered(self, contract: Contract, event: UsageEvent, hold: Hold | None) -> Metered:
        """The event by the catalogue in force where it is rated. `time_of` comes first."""
        time_us = event.time_us if hold is None else hold.admitted_us
        assert time_us is not None, "time_of comes first"
        catalogue = self._book.at(time_us)
        if catalogue is None:
            raise DeadLetter(DeadLetterReason.NO_METER, "no catalogue has been published")
        return self.meter(catalogue, contract, event, time_us)

    @staticmethod
    def meter(catalogue: Catalogue, contract: Contract, event: UsageEvent, time_us: int) -> Metered:
        """What each meter of the catalogue says of the event."""
        meters = catalogue.meters_of.get(event.type)
        if not meters:
            raise DeadLetter(DeadLetterReason.NO_METER, f"no meter takes events of type {event.type!r}")
        plan = contract.stated_in(catalogue, time_us)
        usages: list[Usage] = []
        names: list[tuple[str, ...]] = []
        readings: list[Reading] = []
        read_names: list[tuple[str, ...]] = []
        heard: list[Heard] = []
        data = event.data
        try:
            estimated = is_estimated(data)
            if not catalogue.reads_as_sent:
                data = catalogue.fields_of(event.type, data, time_us)
            routed = None if plan is None or estimated else plan.routes(event.type).usages(data)
            if routed is not None:
                return Metered(time_us, catalogue, routed[0], [], routed[1], False)
            for meter in meters:
                if meter.conditions and not meter.counts(data):
                    continue
                if meter.session is not None:
                    heard.append(meter.hear(data))
                    if plan is None:
                        raise _not_sold(catalogue, contract, time_us)
                    plan.price_of(meter, meter.cell(data))
                    continue
                if meter.kind is not None:
                    aggregate = meter.aggregate(data, time_us, event.source, event.id)
                    cell = meter.cell(data)
                    if plan is None:
                        raise _not_sold(catalogue, contract, time_us)
                    readings.append((plan.price_of(meter, cell), cell, aggregate))
                    read_names.append(meter.group_by)
                    continue
                try:
                    quantity = meter.quantity(data)
                except BadQuantity:
                    estimate = _estimate(plan, meter, data)
                    if estimate is None:
                        raise
                    quantity, estimated = estimate, True
                cell = meter.cell(data)
                if plan is None:
                    raise _not_sold(catalogue, contract, time_us)
                price = plan.price_of(meter, cell)
                if price.per_event is not None:
                    quantity = price.per_event.fee(quantity)
                usages.append((price, cell, quantity))
                names.append(meter.group_by)
        except BadUsage as error:
            raise DeadLetter(DeadLetterReason.BAD_USAGE, f"event {event.id!r}: {error}") from None
        except BadSession as error:
            raise DeadLetter(DeadLetterReason.BAD_SESSION, str(error)) from None
        except BadQuantity as error:
            raise DeadLetter(DeadLetterReason.BAD_QUANTITY, str(error)) from None
        except BadDimension as error:
            raise DeadLetter(DeadLetterReason.BAD_DIMENSION, str(error)) from None
        except NoPrice as error:
            raise DeadLetter(DeadLetterReason.NO_PRICE, str(error)) from None
        return Metered(time_us, catalogue, usages, readings, (*names, *read_names), estimated, tuple(heard))


def window_of(book: PriceBook, event: UsageEvent, hold: Hold | None) -> int:
    """How long a stream stays open that the event begins, in microseconds. `time_of` comes first."""
    time_us = event.time_us if hold is None else hold.admitted_us
    assert time_us is not None, "time_of comes first"
    catalogue = book.at(time_us)
    window_us = None if catalogue is None else catalogue.windows_us.get(event.type)
    if window_us is None:
        detail = f"event {event.id!r} has a seq, and no streams are declared of its type {event.type!r}"
        raise DeadLetter(DeadLetterReason.BAD_STREAM, detail)
    return window_us


def used_of(metered: Metered) -> dict[str, int]:
    """Nano-units by price."""
    used: dict[str, int] = {}
    for price, _, quantity in metered.usages:
        used[price.name] = used.get(price.name, 0) + quantity
    for price, _, aggregate in metered.readings:
        used[price.name] = used.get(price.name, 0) + aggregate.quantity
    return used


def time_of(event: UsageEvent, hold: Hold | None, log_time_us: int) -> int:
    """The event's own time, if that is not too far from log time, nor the admission that it is rated at."""
    time_us = event.time_us
    if time_us is None:
        raise DeadLetter(DeadLetterReason.MISSING_TIME, f"event {event.id!r} states no time")
    if time_us > log_time_us + SKEW_US:
        raise DeadLetter(DeadLetterReason.TOO_FAR_AHEAD, f"event {event.id!r}: time over 5 min ahead of the log")
    if time_us < log_time_us - TOO_OLD_US:
        raise DeadLetter(DeadLetterReason.TOO_OLD, f"event {event.id!r}: time is beyond the 35-day window")
    if hold is not None and hold.admitted_us < log_time_us - TOO_OLD_US:
        raise DeadLetter(DeadLetterReason.TOO_OLD, f"event {event.id!r}: its hold is beyond the 35-day window")
    return time_us


def scopes_of(declared: Collection[str], event: UsageEvent, hold: Hold | None) -> tuple[str, ...]:
    """The declared scopes below the root that an event lies in."""
    where = event.scope
    if hold is not None and not (hold.is_lease and hold.scope in scope_path(event.scope)):
        where = hold.scope
    if not where or where in declared:
        return scope_path(where)[1:]  # whatever is declared has its parents declared
    return tuple([scope for scope in scope_path(where)[1:] if scope in declared])


def _not_sold(catalogue: Catalogue, contract: Contract, time_us: int) -> NoPrice:
    return NoPrice(f"catalogue version {catalogue.version} has no plan {contract.plan_name_at(time_us)}")


def _estimate(plan: Plan | None, meter: Meter, data: dict[str, Any]) -> int | None:
    """What a price counts for an event that does not carry the field that its meter sums; None: nothing is guessed."""
    if plan is None or meter.field is None or value_at(data, meter.field) is not None:
        return None
    try:
        return plan.price_of(meter, meter.cell(data)).estimate
    except (BadDimension, NoPrice):
        return None
