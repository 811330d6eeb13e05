"""What a quantity owes under a price, by its model and what stands around it. All exact, in grains of a pico."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

from loadtest.oracle.records import fixed_point

MARGINAL_MODELS = ("per_unit", "graduated", "percentage", "dynamic")
EACH = ("per_event", "event_minimum", "event_maximum")


@dataclass(frozen=True)
class Tier:
    up_to: int | None  # nano; None: open
    amount: int  # pico
    per: int  # nano
    flat: int  # pico


@dataclass(frozen=True)
class Allowance:
    """What several prices include together."""

    units: int  # nano
    prices: tuple[str, ...]  # in the order in which they have of it
    prorate: bool

    def left_for(self, price: str, used: Mapping[str, int]) -> int:
        """What those before it leave a price, if so much is used of each."""
        before = self.prices[: self.prices.index(price)]
        return max(0, self.units - sum(used.get(each, 0) for each in before))


@dataclass(frozen=True)
class Ladder:
    """Tiers that several prices fill together."""

    prices: tuple[str, ...]  # in the order in which their units lie in them
    by_sum: bool  # all units are of the tier that their sum reaches


@dataclass(frozen=True)
class Place:
    """Where the units of a price lie in what it shares, in one period."""

    left: int = 0  # units of an allowance that those before it leave
    before: int = 0  # units of tiers that those before it fill
    reached: int | None = None  # what all of them come to, if that chooses the tier


ALONE = Place()


@dataclass(frozen=True)
class Price:
    name: str
    meter: str
    where: dict[str, str]
    model: str
    tiers: list[Tier]  # a price without tiers is one open tier
    included: int  # nano
    maximum: int | None  # pico
    kept: Fraction  # what a discount leaves, of 1
    estimate: int | None  # nano, of an event that lacks the field
    each: Mapping[str, Fraction] | None  # of a percentage of each event, in its own: percent and EACH, in nano
    adds_up: bool  # what its meter counts
    prorate: bool  # whether a short period includes less
    minimum: int | None  # pico that a whole period owes at least, behind the discount
    of_month: int | None  # the same, as a commitment
    overage: Fraction  # what is owed beyond the commitment counts by it
    commitment: int | None  # pico from which it does in the period at hand
    shares: Allowance | Ladder | None = None  # with others
    draws: bool = True  # on that, unless it began inside the period

    def counted(self, quantity: int | None) -> int:
        """What is counted of an event's quantity: itself, the estimate, or its fee, fixed to nine digits."""
        if quantity is None:
            assert self.estimate is not None
            quantity = self.estimate
        if self.each is None:
            return quantity
        fee = quantity * self.each["percent"] / 100 + self.each.get("per_event", 0)
        fee = max(fee, self.each.get("event_minimum", fee))
        return round(min(fee, self.each.get("event_maximum", fee)))

    def counts_like(self, other: "Price") -> bool:
        """Whether both count the same: units of one meter, or the fees of its events."""
        return self.meter == other.meter and (self.each is None) == (other.each is None)

    def for_part(self, part: Fraction, bound: Fraction) -> "Price":
        """In a period that is a part of a whole one, for `bound` of which the account is there."""
        if not bound:
            return replace(self.for_part(part, Fraction(1)), commitment=None)
        if not self.prorate:
            return self
        commitment = None if self.of_month is None else round(self.of_month * bound)
        return replace(self, included=round(self.included * part), commitment=commitment)

    def sharing(self, part: Fraction) -> "Price":
        """With what a part of a period has of its allowance."""
        if not isinstance(self.shares, Allowance) or not self.shares.prorate:
            return self
        return replace(self, shares=replace(self.shares, units=round(self.shares.units * part)))

    @property
    def marginal(self) -> bool:
        """Whether a new version may begin inside a period."""
        return (
            self.model in MARGINAL_MODELS
            and self.shares is None
            and self.maximum is None
            and self.floor is None
            and self.adds_up
        )

    @property
    def floor(self) -> int | None:
        return self.minimum if self.of_month is None else self.of_month

    def may_owe(self, minimum: int) -> bool:
        """Whether usage may come to a minimum at all; one of nothing is none."""
        return minimum > 0 and (self.maximum is None or minimum <= self.maximum * self.kept)

    @property
    def grains(self) -> int:
        """Parts of a pico so small that all that this price can owe is a whole number of them."""
        return lcm(*(Fraction(tier.amount, tier.per).denominator for tier in self.tiers)) * (
            self.kept.denominator * self.overage.denominator
        )

    def owed(self, quantity: int, period_quantity: int, grains: int) -> int:
        """What the first `quantity` nano-units of a period owe that comes to `period_quantity` in all."""
        priced = max(0, quantity - self.included)
        if not priced:
            return 0
        total = self._by_model(priced, max(0, period_quantity - self.included), grains)
        if self.maximum is not None:
            total = min(total, self.maximum * grains)
        total = total * self.kept.numerator // self.kept.denominator
        beyond = 0 if self.commitment is None else max(0, total - self.commitment * grains)
        return total - beyond + beyond * self.overage.numerator // self.overage.denominator

    def owed_at(self, place: Place, units: int, grains: int) -> int:
        """What the first `units` of a period owe that lie there, those of an allowance among them."""
        first = place.before
        last = first + max(0, units - place.left)
        whole = last if place.reached is None else place.reached
        return self.owed(last, whole, grains) - self.owed(first, whole, grains)

    def split(self, place: Place, units: int) -> list[int]:
        """How many of these units each tier has: first those of an allowance, then of the tiers in their order."""
        free = min(place.left, units)
        first, last, low, found = place.before, place.before + units - free, 0, [free]
        for tier in self.tiers:
            high = last if tier.up_to is None else tier.up_to
            if place.reached is not None:
                found.append(last - first if tier is self._reached(place.reached) else 0)
            else:
                found.append(max(0, min(last, high) - max(first, low)))
            low = high
        return found

    def _by_model(self, quantity: int, period_quantity: int, grains: int) -> int:
        if self.model == "package":
            (tier,) = self.tiers
            return (quantity + tier.per - 1) // tier.per * tier.amount * grains
        if self.model == "flat":
            return self.tiers[0].amount * grains
        if self.model == "step":
            return self._reached(quantity).amount * grains
        if self.model == "volume":
            tier = self._reached(period_quantity)
            return tier.flat * grains + tier.amount * quantity * grains // tier.per
        total, floor = 0, 0
        for tier in self.tiers:
            top = quantity if tier.up_to is None else min(quantity, tier.up_to)
            if top > floor:
                total += tier.flat * grains + tier.amount * (top - floor) * grains // tier.per
                floor = top
        return total

    def _reached(self, quantity: int) -> Tier:
        return next(tier for tier in self.tiers if tier.up_to is None or quantity <= tier.up_to)


def half_even(owed: int, grains: int) -> int:
    """The nearest whole pico; of two equally near, the even one."""
    pico, rest = divmod(owed, grains)
    return pico + 1 if 2 * rest > grains or (2 * rest == grains and pico % 2) else pico


def in_force(versions: list[Price]) -> Price:
    """The price that holds behind these versions of it, of which the first was in force when the period began (or when
    the price was new): one that is not marginal neither begins nor ends inside a period."""
    price = versions[0]
    for follower in versions[1:]:
        if price.marginal and follower.marginal:
            price = follower
    return price


def read_price(name: str, body: Mapping[str, Any], adds_up: bool) -> Price:
    """A price of a catalogue document."""

    def number(text: str, digits: int) -> int:
        value = fixed_point(text, digits)
        assert value is not None, f"price {name}: {text!r} is no number that may be published"
        return value

    def tier(part: Mapping[str, Any]) -> Tier:
        up_to = part.get("up_to")
        amount, per, flat = number(part["amount"], 12), number(part["per"], 9), number(part.get("flat", "0"), 12)
        return Tier(None if up_to is None else number(up_to, 9), amount, per, flat)

    each = None
    if any(key in body for key in EACH):
        each = {key: Fraction(number(body[key], 9)) for key in EACH if key in body}
        each["percent"] = Fraction(body["percent"])
    if each is not None:
        body = {**body, "amount": "1"}
    elif body["model"] == "percentage":
        body = {**body, "amount": body["percent"], "per": "100"}
    elif body["model"] == "dynamic":
        body = {**body, "amount": body["factor"]}
    return Price(
        name,
        body["meter"],
        dict(body["where"]),
        body["model"],
        [tier(part) for part in body["tiers"] or [body]],
        number(body.get("included", "0"), 9),
        number(body["maximum"], 12) if "maximum" in body else None,
        1 - Fraction(body.get("discount", "0")) / 100,
        number(body["estimate"], 9) if "estimate" in body else None,
        each,
        adds_up,
        body.get("prorate", True),
        number(body["minimum"], 12) if "minimum" in body else None,
        number(body["commitment"], 12) if "commitment" in body else None,
        Fraction(body.get("overage", "1")),
        number(body["commitment"], 12) if "commitment" in body else None,
    )
