"""What one account is sold, and for which periods: its plans, and the prices that were agreed for it alone (README,
"Agreed prices", "Phases").

The only place that knows which price is in force for an account at an instant: rating, checks, caps and views ask here.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine.catalog import BadCatalogue, Catalogue, CatalogueFault, Plan, PriceBook, PriceDefinition, agreed_price
from engine.periods import month_around
from engine.prices.price import Price

PHASES_MAX: Final = 100  # of one account
SEATS_MAX: Final = 1_000  # of one account: instants at which it has other seats
PAUSES_MAX: Final = 100  # of one account: instants at which it is paused, or is not
AGREED_MAX: Final = 1_000  # agreements of one account: each is a boundary that derivation looks at
ELSEWHERE: Final = ("meter", "where")  # what an agreement does not say: it stays the plan's

_terms_decoder: Final = msgspec.json.Decoder(PriceDefinition)


class Agreement(Struct, frozen=True):
    """From an instant on, an account pays another price than its plan has under this name."""

    from_us: int
    plan: str  # whose price it is
    price: str
    terms: str | None = None  # the price as JSON, with its meter; None: the plan's own again
    adds_up: bool = True  # what its meter counts does


@lru_cache(maxsize=4096)
def compiled(name: str, terms: str, from_us: int, adds_up: bool) -> Price:
    """A price that was agreed, of its terms as JSON. Raises BadCatalogue."""
    return agreed_price(name, _terms_decoder.decode(terms), from_us, adds_up=adds_up)


def read_terms(stated: dict[str, Any], meter: str) -> PriceDefinition:
    """What stands in a command as a price: all that a catalogue says of one but its meter and cells. Raises
    BadCatalogue."""
    for key in ELSEWHERE:
        if key in stated:
            raise BadCatalogue([CatalogueFault(("terms", key), "stays the plan's: remove it")])
    try:
        return msgspec.convert({**stated, "meter": meter}, PriceDefinition)
    except msgspec.ValidationError as error:
        raise BadCatalogue([CatalogueFault(("terms",), str(error))]) from None


class Phase(Struct, frozen=True):
    """From an instant on, an account is sold another plan."""

    from_us: int
    plan: str


class Pause(Struct, frozen=True):
    """From an instant on, an account is paused, or is not."""

    from_us: int
    paused: bool


class Seats(Struct, frozen=True):
    """From an instant on, an account has so many seats of a name."""

    from_us: int
    seat: str
    count: int


class Contract:
    """Immutable. `phases` follow the plan that the account was opened with, in order of the instant; `agreed` is in order
    of instant, price and plan."""

    def __init__(
        self,
        zone: str,
        anchor_day: int,
        plan: str,
        phases: Iterable[Phase] = (),
        agreed: Iterable[Agreement] = (),
        pauses: Iterable[Pause] = (),
        opened_us: int = 0,
        seats: Iterable[Seats] = (),
    ) -> None:
        """`opened_us`: since when the account is there, and bound."""
        self.zone = zone
        self.anchor_day = anchor_day
        self.plan = plan  # the first
        self.phases = _told_apart(plan, phases)
        self.agreed = tuple(sorted(agreed, key=lambda each: (each.from_us, each.price, each.plan)))
        self.pauses = tuple(sorted(pauses, key=lambda each: each.from_us))
        self.opened_us = opened_us
        self.seats = tuple(sorted(seats, key=lambda each: (each.from_us, each.seat)))
        self._turns = [each.from_us for each in self.pauses]
        self._paused_by: list[int] = []  # at each of these turns: how long it was paused before
        for place, turn in enumerate(self._turns):
            before = self.pauses[place - 1] if place else None
            more_us = turn - before.from_us if before is not None and before.paused else 0
            self._paused_by.append(more_us + (self._paused_by[-1] if place else 0))
        self._plans = [plan, *(each.plan for each in self.phases)]
        self._cuts = [each.from_us for each in self.phases]
        self._prices = [
            None if each.terms is None else compiled(each.price, each.terms, each.from_us, each.adds_up)
            for each in self.agreed
        ]
        self._period = 0, 0  # the one that was looked at last
        self._starts = sorted({*self._cuts, *(each.from_us for each in self.agreed)})
        self._stated: dict[tuple[int, int], Plan] = {}  # by version, and how many starts are past
        self._in_force: dict[tuple[int, ...], Plan | None] = {}
        # The answer of `plan_at` that was given last: from when to when it is so, and by which book.
        self._sold: tuple[int, int, PriceBook | None, int, Plan | None] = 0, 0, None, 0, None
        self._short: dict[int, list[tuple[Price, Price]]] = {}  # by period: whole prices, and what became of each

    def with_agreed(self, agreement: Agreement) -> "Contract":
        """The contract with this in place of what was agreed of the same price for the same instant."""
        place = agreement.from_us, agreement.plan, agreement.price
        kept = [each for each in self.agreed if (each.from_us, each.plan, each.price) != place]
        return self._with(agreed=[*kept, agreement])

    def with_phase(self, phase: Phase) -> "Contract":
        """The contract with this plan from its instant on, until the next phase."""
        kept = [each for each in self.phases if each.from_us != phase.from_us]
        return self._with(phases=[*kept, phase])

    def with_pause(self, pause: Pause) -> "Contract":
        """The contract paused, or no longer, from its instant on, until the next such instant."""
        kept = [each for each in self.pauses if each.from_us != pause.from_us]
        return self._with(pauses=[*kept, pause])

    def with_seats(self, seats: Seats) -> "Contract":
        """The contract with so many of them from its instant on, until the next such instant."""
        kept = [each for each in self.seats if (each.from_us, each.seat) != (seats.from_us, seats.seat)]
        return self._with(seats=[*kept, seats])

    def _with(
        self,
        phases: Iterable[Phase] | None = None,
        agreed: Iterable[Agreement] | None = None,
        pauses: Iterable[Pause] | None = None,
        seats: Iterable[Seats] | None = None,
    ) -> "Contract":
        return Contract(
            self.zone,
            self.anchor_day,
            self.plan,
            self.phases if phases is None else phases,
            self.agreed if agreed is None else agreed,
            self.pauses if pauses is None else pauses,
            self.opened_us,
            self.seats if seats is None else seats,
        )

    def begun_by(self, now_us: int) -> "Contract":
        """The contract as far as its phases, pauses and seats have begun at a log time."""
        phases = [each for each in self.phases if each.from_us <= now_us]
        pauses = [each for each in self.pauses if each.from_us <= now_us]
        seats = [each for each in self.seats if each.from_us <= now_us]
        if (len(phases), len(pauses), len(seats)) == (len(self.phases), len(self.pauses), len(self.seats)):
            return self
        return self._with(phases=phases, pauses=pauses, seats=seats)

    def turns_behind(self, time_us: int) -> list[int]:
        """The instants behind one at which a pause begins or ends, or the number of some seats changes."""
        turns = [*(each.from_us for each in self.pauses), *(each.from_us for each in self.seats)]
        return [turn for turn in turns if turn > time_us]

    def seat_months(self, seat: str, start: int, end: int) -> Fraction:
        """Of a stretch of one month: how many seats there are in it, by how much of the month each is there, unpaused."""
        turns = [(start, 0)]
        turns += [
            (max(start, each.from_us), each.count) for each in self.seats if each.seat == seat and each.from_us < end
        ]
        ends = [*(since for since, _ in turns[1:]), end]
        active_us = sum(
            count * (until - since - self.paused_us(since, until))
            for (since, count), until in zip(turns, ends, strict=True)
            if since < until
        )
        return self.part_of_month(start, end) * Fraction(active_us, end - start)

    def is_like(self, other: "Contract | None") -> bool:
        """Whether the other says the same."""
        return other is not None and (self.plan, self.phases, self.agreed, self.pauses, self.seats) == (
            *(other.plan, other.phases, other.agreed, other.pauses, other.seats),
        )

    def paused_at(self, time_us: int) -> bool:
        """Whether the account is paused at an instant."""
        place = bisect_right(self._turns, time_us)
        return place > 0 and self.pauses[place - 1].paused

    def turns_us(self, time_us: int) -> int | None:
        """The instant behind this one at which a pause ends or begins; None: nobody has said."""
        paused = self.paused_at(time_us)
        return next((each.from_us for each in self.pauses if each.from_us > time_us and each.paused != paused), None)

    def paused_us(self, start: int, end: int) -> int:
        """How long the account is paused in [start, end), as far as anybody has said."""
        return self._paused_until(end) - self._paused_until(start)

    def _paused_until(self, time_us: int) -> int:
        """How long it is in all, before an instant."""
        place = bisect_right(self._turns, time_us) - 1
        if place < 0:
            return 0
        turn = self.pauses[place]
        return self._paused_by[place] + (time_us - turn.from_us if turn.paused else 0)

    def unpaused_from(self, time_us: int) -> int | None:
        """The first instant from this one on at which the account is not paused; None: nobody has said."""
        return self.turns_us(time_us) if self.paused_at(time_us) else time_us

    # ------------------------------------------------------------------------------------------------------- periods

    def period_around(self, time_us: int) -> tuple[int, int]:
        """[start, end) of the billing period of an instant: a month from the anchor day on, cut where a phase begins."""
        start, end = self._period
        if not start <= time_us < end:
            start, end = month_around(self.zone, self.anchor_day, time_us)
            if self._cuts:
                place = bisect_right(self._cuts, time_us)
                if place:
                    start = max(start, self._cuts[place - 1])
                if place < len(self._cuts):
                    end = min(end, self._cuts[place])
            self._period = start, end
        return start, end

    def period_of(self, time_us: int) -> int:
        """Start of the billing period of an instant."""
        return self.period_around(time_us)[0]

    def part_of_month(self, start: int, end: int) -> Fraction:
        """How much of its month, from the anchor day on, a stretch of time inside it is."""
        first, last = month_around(self.zone, self.anchor_day, start)
        return Fraction(end - start, last - first)

    def parts_of(self, time_us: int) -> tuple[Fraction, Fraction]:
        """How much of its month the billing period of an instant is, and for how much of one the account is there in it."""
        start, end = self.period_around(time_us)
        part, from_us = self.part_of_month(start, end), max(start, self.opened_us)
        if from_us == start:
            return part, part
        return part, self.part_of_month(from_us, end) if from_us < end else Fraction(0)

    def around(self, time_us: int) -> tuple[int | None, int | None]:
        """The nearest instants at or before, and after, at which a phase or something agreed begins."""
        index = bisect_right(self._starts, time_us)
        return (
            self._starts[index - 1] if index else None,
            self._starts[index] if index < len(self._starts) else None,
        )

    @property
    def bills(self) -> bool:
        """Whether it was ever agreed on a price by which a period may owe more than its usage."""
        return any(price is not None and price.floor is not None for price in self._prices)

    @property
    def last_start(self) -> int:
        """The instant behind which no phase and nothing agreed begins."""
        return self._starts[-1] if self._starts else 0

    def starts_within(self, after_us: int, until_us: int) -> list[int]:
        """The instants behind one, up to and with another, at which a phase or something agreed begins."""
        return self._starts[bisect_right(self._starts, after_us) : bisect_right(self._starts, until_us)]

    # ---------------------------------------------------------------------------------------------------- what is sold

    def plan_name_at(self, time_us: int) -> str:
        """The plan that the account is sold at an instant."""
        return self._plans[bisect_right(self._cuts, time_us)] if self._cuts else self.plan

    def stated_in(self, catalogue: Catalogue, time_us: int) -> Plan | None:
        """The plan as this version, in force at an instant, and agreements state it, whatever was so when its period
        began. None: it is not sold."""
        if not self._starts or time_us < self._starts[0]:
            return catalogue.plans.get(self.plan)
        name = self.plan_name_at(time_us)
        plan = catalogue.plans.get(name)
        if plan is None or not self.agreed:
            return plan
        key = catalogue.version, bisect_right(self._starts, time_us)
        known = self._stated.get(key)
        if known is None:
            latest: dict[str, Price | None] = {}
            for each, price in zip(self.agreed, self._prices, strict=True):
                if each.from_us <= time_us and each.plan == name:
                    latest[each.price] = price
            agreed = {
                name: price
                for name, price in latest.items()
                if price is not None and name in plan.prices and plan.prices[name].counts_like(price)
            }
            known = self._stated[key] = plan.replacing(agreed) if agreed else plan
        return known

    def plan_at(self, book: PriceBook, time_us: int) -> Plan | None:
        """The plan as it is in force at an instant: a price that is no sum of its units neither begins nor ends inside a
        period, and in a short period included quantities are short as well. None: it is not sold."""
        from_us, until_us, of, publications, plan = self._sold  # mostly one stretch of time is asked about again
        if not from_us <= time_us < until_us or of is not book or publications != book.publications:
            plan = self._plan_at(book, time_us)
            from_us, until_us = self.period_around(time_us)
            for before_us, behind_us in (book.around(time_us), self.around(time_us)):
                from_us = from_us if before_us is None else max(from_us, before_us)
                until_us = until_us if behind_us is None else min(until_us, behind_us)
            self._sold = from_us, until_us, book, book.publications, plan
        return plan

    def _plan_at(self, book: PriceBook, time_us: int) -> Plan | None:
        period_us, _ = self.period_around(time_us)
        if not self._starts and (period_us >= self.opened_us or not book.has_overage):
            return book.plan_at(self.plan, time_us, period_us)
        key = (period_us, book.place(period_us), book.place(time_us), bisect_right(self._starts, time_us))
        if key not in self._in_force:
            within = {*book.starts_within(period_us, time_us), *self.starts_within(period_us, time_us)}
            catalogues = [(book.at(instant), instant) for instant in (period_us, *sorted(within))]
            *earlier, last = [self.stated_in(found, instant) if found else None for found, instant in catalogues]
            sold = [plan.prices for plan in earlier if plan is not None]
            plan = None if last is None else last.following(sold)
            made = self._short.setdefault(period_us, [])
            self._in_force[key] = plan and plan.for_part(*self.parts_of(time_us), made)
        return self._in_force[key]

    def priced_by(self, catalogue: Catalogue, name: str, time_us: int) -> Price | None:
        """A price as a version states it for the plan of an instant, agreements aside; short where the period is."""
        plan = catalogue.plans.get(self.plan_name_at(time_us))
        if plan is None or name not in plan.prices:
            return None
        part, bound = self.parts_of(time_us)
        if part == bound == 1:
            return plan.prices[name]
        return plan.prices[name].for_part(part, bound, self._short.setdefault(self.period_of(time_us), []))

    def prices_at(self, book: PriceBook) -> Callable[[int, str], Price]:
        """The look-up that derivation asks for: (instant, name) -> the price in force."""

        def price_at(time_us: int, name: str) -> Price:
            plan = self.plan_at(book, time_us)
            assert plan is not None
            return plan.prices[name]

        return price_at

    def begins(self, book: PriceBook, agreement: Agreement) -> bool:
        """Whether what was agreed takes effect at its instant, and not only with the next period."""
        from_us = agreement.from_us
        if from_us == self.period_of(from_us) or agreement.plan != self.plan_name_at(from_us):
            return True
        before, catalogue = self.plan_at(book, from_us - 1), book.at(from_us)
        stated = self.stated_in(catalogue, from_us) if catalogue else None
        held = None if before is None else before.prices.get(agreement.price)
        if stated is None or held is None or agreement.price not in stated.prices:
            return True
        return held.marginal and stated.prices[agreement.price].marginal


def _told_apart(plan: str, phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """In order, without those that change nothing."""
    found: list[Phase] = []
    for phase in sorted(phases, key=lambda each: each.from_us):
        if phase.plan != (found[-1].plan if found else plan):
            found.append(phase)
    return tuple(found)
