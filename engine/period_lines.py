"""What a billing period owes besides its usage, each as a line of its own (README, "What a period owes besides usage").

A line is known by its kind and by what it is of: a price, or a fee or commitment of the plan. What a period owes is a
function of what was sold at its start and of what its usage comes to; what is posted is the difference to what was posted
for it before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple

from engine.catalog import Plan, PriceBook
from engine.contract import Contract
from engine.money import round_half_even
from engine.outcomes import Line

FEE: Final = "fee"  # what is due whatever is used; it is of a fee of the plan, and no price
SEAT: Final = "seat"  # what seats of a name cost, in advance
COMMITMENT: Final = "commitment"  # what usage falls short of it, of the price of that name or of several together
_WHOLE: Final = Fraction(1)
_MARK: Final = "\0"  # no price's name has it


class Due(NamedTuple):
    """A line that a period may owe."""

    kind: str
    price: str  # the name of the one that it is of, or of the fee
    version: int | None  # of the price; None: it is agreed, or of a fee
    agreed_us: int | None  # from when on


def posted_name(line: Line) -> str:
    """Under which a line stands among what is posted: its price, or, of what a period owes besides usage, one that no
    price has."""
    return line.price if line.due is None else f"{line.due}{_MARK}{line.price}"


def kind_and_price(name: str) -> tuple[str | None, str]:
    """What stands posted under a name: the kind of a period's line, or None for usage, and the price."""
    kind, mark, price = name.rpartition(_MARK)
    return (kind if mark else None), price


@dataclass(frozen=True)
class PeriodTerms:
    """A billing period, as far as the account was open in it. `part` is how much of a whole month that is."""

    start: int
    end: int
    from_us: int  # since when the account is bound
    plan: Plan  # as it is sold then
    part: Fraction
    active: Fraction  # how much of a month it is without pauses
    seats: Mapping[str, Fraction] = field(
        default_factory=dict
    )  # how many of each there are, by how much of a month each is there

    @cached_property
    def sold(self) -> Mapping[Due, tuple[int, int]]:
        """What stands behind each line: pico for a whole month, and for this period."""
        found = {
            Due(FEE, name, None, None): (fee.amount, _fixed(fee.amount, self.active if fee.prorates else _WHOLE))
            for name, fee in self.plan.fees.items()
        }
        for name, count in self.seats.items():
            found[Due(SEAT, name, None, None)] = self.plan.seats[name], _fixed(self.plan.seats[name], count)
        for name, each in self.plan.commitments.items():
            found[Due(COMMITMENT, name, None, None)] = self._least(each.amount, prorates=each.prorates)
        for price in self.plan.prices.values():
            if price.floor is not None:
                version = price.version if price.agreed_us is None else None
                due = Due(price.floor.kind, price.name, version, price.agreed_us)
                found[due] = self._least(price.floor.amount, prorates=price.prorates)
        return found

    def _least(self, amount: int, *, prorates: bool) -> tuple[int, int]:
        return amount, _fixed(amount, self.part if prorates else _WHOLE)

    def covered(self, due: Due) -> tuple[str, ...]:
        """The prices whose usage counts for a line."""
        if due.kind in (FEE, SEAT):
            return ()
        together = self.plan.commitments.get(due.price) if due.kind == COMMITMENT else None
        return (due.price,) if together is None else together.prices

    def owed(self, usage: Callable[[str], int]) -> Mapping[Due, int]:
        """Pico per line that is due at the close, without those of nothing. `usage`: what the usage of a price comes to in
        the period."""
        sold = {due: pico for due, (_, pico) in self.sold.items() if not self.is_ahead(due)}
        owed = {due: pico - sum(map(usage, self.covered(due))) for due, pico in sold.items()}
        return {due: pico for due, pico in owed.items() if pico > 0}

    @cached_property
    def ahead(self) -> Mapping[Due, int]:
        """Pico per line that is due when the period opens, without those of nothing."""
        return {due: pico for due, (_, pico) in self.sold.items() if pico and self.is_ahead(due)}

    def committed(self, name: str, usage: Callable[[str], int]) -> tuple[int, int] | None:
        """Pico that usage comes to of a commitment, and that the period commits to. None: to nothing under this name."""
        for due, (_, pico) in self.sold.items():
            if (due.kind, due.price) == (COMMITMENT, name) and pico:
                return sum(map(usage, self.covered(due))), pico
        return None

    def is_ahead(self, due: Due) -> bool:
        """Whether it is due when the period opens."""
        return due.kind == SEAT or (due.kind == FEE and self.plan.fees[due.price].in_advance)


def _fixed(amount: int, part: Fraction) -> int:
    """The amount for a part of a month, rounded once."""
    exact = amount * part
    return round_half_even(exact.numerator, exact.denominator)


def lines_between(before: Mapping[Due, int], after: Mapping[Due, int]) -> tuple[Line, ...]:
    """What a period owes more, or less, than before, in order of kind and price."""
    changed = {
        due: after.get(due, 0) - before.get(due, 0) for due in sorted({*before, *after}, key=lambda due: due[:2])
    }
    return tuple(
        Line(due.price, (), 0, pico, (), version=due.version, agreed_us=due.agreed_us, due=due.kind)
        for due, pico in changed.items()
        if pico
    )


def period_terms(contract: Contract, book: PriceBook, start: int) -> PeriodTerms | None:
    """What binds an account in its period that starts then; None: nothing but its usage."""
    _, end = contract.period_around(start)
    from_us = max(start, contract.opened_us)
    plan = contract.plan_at(book, from_us) if from_us < end else None
    if plan is None or not plan.bills:
        return None
    _, part = contract.parts_of(start)
    active = part * Fraction(end - from_us - contract.paused_us(from_us, end), end - from_us)
    seats = {name: contract.seat_months(name, from_us, end) for name in plan.seats}
    return PeriodTerms(start, end, from_us, plan, part, active, seats)
