"""Margin in one currency: what was charged, or cost, in another is converted at the rate that was recorded for its day (law
M3). Nothing is converted where nobody asks for it, and nothing at a rate that nobody has recorded."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.cost.margin import By, Key, Margin, told_apart
from engine.money import PICO, round_half_even

DAY_US: Final = 86_400_000_000
CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9]{2,11}")  # or a unit of the catalogue
_FIRST: Final = date(1970, 1, 1)
KEPT_DAYS: Final = 7  # so long the rate of a day holds for days without one of their own: a weekend, holidays


def date_of(day: int) -> date:
    """Of a day counted from 1970."""
    return _FIRST + timedelta(days=day)


def day_of(day: date) -> int:
    """The same, the other way round."""
    return (day - _FIRST).days


class Rate(Struct, frozen=True, order=True):
    """One unit of `source` is so much of `target`, in pico, on a day (of UTC, counted from 1970)."""

    day: int
    source: str
    target: str
    pico: int


class Used(Struct, frozen=True, order=True):
    """What was converted on this day, and at which rate: of that day, or of the last one before it."""

    day: int
    rate: Rate


class NoRate(Exception):
    """Nobody has recorded a rate for this day, or for one of the seven before it."""

    def __init__(self, day: int, source: str, target: str) -> None:
        super().__init__(
            f"no rate from {source} to {target} is recorded for the day, nor for the {KEPT_DAYS} before it"
        )
        self.day = day
        self.source = source
        self.target = target


class Rates:
    """Those that were recorded."""

    def __init__(self, rates: Iterable[Rate]) -> None:
        self._known = {(each.day, each.source, each.target): each for each in rates}

    def of(self, day: int, source: str, target: str) -> Rate:
        """The one that holds on that day. Raises NoRate."""
        for before in range(KEPT_DAYS + 1):
            found = self._known.get((day - before, source, target))
            if found is not None:
                return found
        raise NoRate(day, source, target)


class _Sum:
    """Exact until it is told: rounded once. What has one rate is added up first, as whole numbers."""

    def __init__(self) -> None:
        self.by_rate: dict[int, Margin] = {}  # pico

    def add(self, sums: Margin, rate: int) -> None:
        self.by_rate.setdefault(rate, Margin()).add(sums)

    def told(self) -> Margin:
        whole = Margin()
        for sums in self.by_rate.values():
            whole.add(sums)
        revenue, cost = (
            round_half_even(sum(getattr(sums, name) * rate for rate, sums in self.by_rate.items()), PICO)
            for name in ("revenue", "known_cost")
        )
        return replace(whole, revenue=revenue, known_cost=cost, foreign_cost=0)


def in_currency(
    rows: Iterable[tuple[Key, Margin]], target: str, rates: Rates, by: Sequence[By]
) -> tuple[list[tuple[Key, Margin]], list[Used]]:
    """Sums in `target`, in order, and the rates that they were made at. Each row's `hour_us` says of which day it is.

    What a request cost in another currency than it was charged in is known then: it is in another row. Raises NoRate."""
    found: dict[Key, _Sum] = {}
    used: set[Used] = set()
    for key, sums in rows:
        pico = PICO
        if key.currency != target and (sums.revenue or sums.known_cost):
            day = key.hour_us // DAY_US
            rate = rates.of(day, key.currency, target)
            used.add(Used(day, rate))
            pico = rate.pico
        found.setdefault(replace(told_apart(key, by, key.request), currency=target), _Sum()).add(sums, pico)
    return [(key, found[key].told()) for key in sorted(found)], sorted(used)
