"""What rules look at: what each measure comes to, when it may change by itself, and how far usage may go before it does
(README, "Rules").

A new measure is a case in each of the three functions here. One that says nothing in `rooms` is evaluated with every
event: that is slow, and never wrong.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from engine.alerts import (
    WALLET_WINDOW,
    CapShare,
    CommitmentShare,
    Counted,
    Expiring,
    IncludedShare,
    LotShare,
    Rule,
    Spike,
    Standing,
    Wallet,
)
from engine.bases import LIST
from engine.credit import UNBOUNDED, Lot
from engine.derived import Derived
from engine.limits import ROOT, Cap, own_count
from engine.prices.price import Price
from engine.windows import AVERAGED, Counts

_NEVER_STOOD: Final = Standing()

Standings = Mapping[tuple[str, str], Standing]  # by rule and window


class Moment(NamedTuple):
    """What an account counts and has at an instant, as far as the passing of time changes it."""

    caps: Mapping[str, Cap]
    tallies: Mapping[str, Counts]
    lots: Mapping[str, Lot]
    zone: str
    now_us: int


class View(NamedTuple):
    """What rules are evaluated on."""

    at: Moment
    derived: Derived
    spends: Mapping[str, Mapping[int, int]]  # of scopes: calendar month start -> pico
    committed: Callable[[str, int, Derived], tuple[int, int] | None]  # of a commitment, in the period that starts then:
    # pico that its usage comes to, and that the period commits to; None: it has no such commitment

    def months(self, cap: Cap) -> Mapping[int, int]:
        """What a month's cap on spend has counted, by the month's start."""
        return self.derived.on(cap.basis) if cap.scope == ROOT else self.spends[cap.scope]

    def windows(self, cap: Cap) -> list[tuple[str, int]]:
        """(name, amount) of each window of a cap that rules look at, in order of the name."""
        if cap.tallied:
            return cap.window.named(self.at.zone, self.at.tallies[cap.cap], self.at.now_us)
        return sorted((str(month), spend) for month, spend in self.months(cap).items())


class Reading(NamedTuple):
    """What a rule's measure comes to in one window. `reached` and `cleared` are never both true."""

    window: str
    value: int
    threshold: int
    clear: int
    reached: bool
    cleared: bool


def counts_of(name: str, rule: Rule) -> str | None:
    """The cap, or the rule's own count, that it looks at; None: at something else."""
    match rule.measure:
        case CapShare(cap=cap):
            return cap
        case Counted() | Spike():
            return own_count(name)
        case _:
            return None


def unit_of(name: str, rule: Rule, caps: Mapping[str, Cap]) -> str:
    """The meter or price whose units a rule's readings are; "": money."""
    if isinstance(rule.measure, IncludedShare):
        return rule.measure.price
    counts = counts_of(name, rule)
    return "" if counts is None else caps[counts].unit


def readings(name: str, rule: Rule, view: View) -> list[Reading]:
    """Of a rule in each of its windows, in order of the window's name."""
    match rule.measure:
        case CapShare(cap=cap):
            return [_read(rule, *window, view.at.caps[cap].amount) for window in view.windows(view.at.caps[cap])]
        case Counted():
            return [_read(rule, *window) for window in view.windows(view.at.caps[own_count(name)])]
        case Spike():
            return [_spike(rule, view.at.caps[own_count(name)], view.at)]
        case Wallet():
            return [_read(rule, WALLET_WINDOW, view.derived.allocation.balance)]
        case IncludedShare(price=price):
            return _included(rule, price, view)
        case CommitmentShare(commitment=commitment):
            periods = sorted({period for period, _ in view.derived.running}, key=str)
            found = [(str(period), view.committed(commitment, period, view.derived)) for period in periods]
            return [_read(rule, period, *each) for period, each in found if each is not None]
        case LotShare(lot=lot):
            paid = view.derived.allocation
            left = paid.remaining[lot] + paid.expired.get(lot, 0) + paid.carried.get(lot, 0)
            return [_read(rule, WALLET_WINDOW, left, paid.granted[lot])]
        case Expiring(within_us=within_us):
            remaining = view.derived.allocation.remaining
            return [
                _read(rule, f"lot:{lot}", remaining[lot] if _expires_soon(each, within_us, view.at.now_us) else 0)
                for lot, each in sorted(view.at.lots.items())
                if each.expires_us is not None
            ]


def _read(rule: Rule, window: str, value: int, whole: int | None = None) -> Reading:
    threshold, clear = rule.limits(whole)
    if rule.falls:
        return Reading(window, value, threshold, clear, value <= threshold, value > clear)
    return Reading(window, value, threshold, clear, value >= threshold, value < clear)


def _spike(rule: Rule, count: Cap, at: Moment) -> Reading:
    """Reached by the bucket of this moment, cleared by the last whole one; each against the average before it."""
    window, counts = count.window, at.tallies[count.cap]
    now = window.place(at.zone, counts, at.now_us)
    assert now is not None
    last = now - window.length_us
    threshold, clear = (
        max(count.amount, -(-window.before(counts, bucket) * percent // (100 * AVERAGED)))
        for bucket, percent in ((now, rule.threshold), (last, rule.clear))
    )
    value = counts.get(now, 0)
    calm = value < threshold and counts.get(last, 0) < clear
    return Reading(window.kind, value, threshold, clear, value >= threshold, calm)


def _included(rule: Rule, price: str, view: View) -> list[Reading]:
    used = sorted((str(period), run) for (period, name), run in view.derived.running.items() if name == price)
    return [_read(rule, period, run.quantity, run.curve.included) for period, run in used if run.curve.included]


def _expires_soon(lot: Lot, within_us: int, now_us: int) -> bool:
    return lot.expires_us is not None and lot.expires_us - within_us <= now_us < lot.expires_us


# -------------------------------------------------------------------------------------------------- the passing of time


def wakes_us(name: str, rule: Rule, at: Moment, standings: Standings) -> Iterator[int]:
    """Instants behind the moment at which a reading changes although nothing happens."""
    counts = counts_of(name, rule)
    if counts is not None:
        window = at.caps[counts].window
        # Sinking takes a reading to where the rule is active, or away from there.
        if window.falls and standings.get((name, window.kind), _NEVER_STOOD).active != rule.falls:
            ends_us = window.ends_us(at.zone, at.tallies[counts], at.now_us)
            if ends_us is not None:
                yield ends_us
    elif isinstance(rule.measure, Expiring):
        for lot in at.lots.values():
            if lot.expires_us is not None and lot.expires_us - rule.measure.within_us > at.now_us:
                yield lot.expires_us - rule.measure.within_us


# ---------------------------------------------------------------------------------------------------------- the guard


class Rooms:
    """How far usage of the newest segment may go before any rule can change: by less than each of these."""

    def __init__(self) -> None:
        self.charges = UNBOUNDED  # pico, of all events together
        self.counts: dict[str, int] = {}  # what a cap that counts for itself may count more
        self.quantities: dict[str, int] = {}  # per price, nano-units that the period comes to


def rooms(
    rules: Mapping[str, Rule],
    view: View,
    standings: Standings,
    period: int,
    month: int,
    price_of: Callable[[str], Price | None],
) -> Rooms:
    """For the newest segment, used or not, which lies in this billing period and calendar month; `price_of`: what is sold
    in it."""
    found = Rooms()
    for name, rule in rules.items():

        def is_active(window: str, name: str = name) -> bool:
            return standings.get((name, window), _NEVER_STOOD).active

        counts = counts_of(name, rule)
        cap = view.at.caps[counts] if counts is not None else None
        match rule.measure:
            case CapShare() | Counted() if cap is not None and not cap.tallied:
                whole = cap.amount if isinstance(rule.measure, CapShare) else None
                reading = _read(rule, str(month), view.months(cap).get(month, 0), whole)
                room = _room(rule, reading, is_active(reading.window), rises=True)
                # A list price may rise by more than what is charged.
                found.charges = min(found.charges, 0 if cap.basis == LIST else room)
            case CapShare() | Counted() if cap is not None:
                for reading in readings(name, rule, view):
                    room = _room(rule, reading, is_active(reading.window), rises=True)
                    found.counts[cap.cap] = min(found.counts.get(cap.cap, UNBOUNDED), room)
            case Spike() if cap is not None:
                reading = _spike(rule, cap, view.at)
                if not is_active(reading.window):  # no bucket comes to its end by usage
                    room = reading.threshold - reading.value
                    found.counts[cap.cap] = min(found.counts.get(cap.cap, UNBOUNDED), room)
            case IncludedShare(price=name_of):
                price, run = price_of(name_of), view.derived.running.get((period, name_of))
                used = run.quantity if run is not None else 0
                included = price.curve_at(used).included if price is not None else 0
                if included:
                    reading = _read(rule, str(period), used, included)
                    active = is_active(reading.window)
                    told_at = UNBOUNDED if active and not reading.cleared else 0 if active else reading.threshold
                    found.quantities[name_of] = min(found.quantities.get(name_of, UNBOUNDED), told_at)
            case CommitmentShare(commitment=commitment):
                bound = view.committed(commitment, period, view.derived)
                if bound is not None:
                    reading = _read(rule, str(period), *bound)
                    found.charges = min(found.charges, _room(rule, reading, is_active(reading.window), rises=True))
            case Wallet() | LotShare() | Expiring():
                for reading in readings(name, rule, view):
                    room = _room(rule, reading, is_active(reading.window), rises=False)
                    found.charges = min(found.charges, room)
            case _:
                found.charges = 0
    return found


def _room(rule: Rule, reading: Reading, active: bool, *, rises: bool) -> int:
    """Of a measure that usage moves only up, or only down, and by no more than what is charged or counted."""
    if rises != rule.falls:
        return UNBOUNDED if active else abs(reading.threshold - reading.value)
    return abs(reading.value - reading.clear) + 1 if active else UNBOUNDED
