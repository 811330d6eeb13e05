"""The catalogue: an immutable, numbered set of meters and plans, compiled for rating.

`CatalogueDocument` is what is published and stored as JSON; `compile_catalogue` checks it and makes the tables that
rating looks into. `PriceBook` orders the versions by the time from which each is in force (law R2).
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from engine.events import is_text
from engine.meters import (
    Cell,
    DimensionDefinition,
    Hours,
    Meter,
    TokenShapeDefinition,
    TokenUsage,
    compile_dimension,
    compile_hours,
    compile_meter,
    compile_token_shape,
)
from engine.meters import MeterDefinition as MeterDefinition  # a catalogue is made of it
from engine.money import NANO, PICO, NotADecimal, parse_amount, parse_quantity
from engine.prices.curve import Rung
from engine.prices.models import MODELS, compile_price
from engine.prices.modifiers import HUNDREDTH, Modifiers
from engine.prices.per_event import PerEvent
from engine.prices.price import Price
from engine.prices.shared import Shared
from engine.routes import Routes
from engine.units import CURRENCY, Unit, UnitDefinition, compile_unit

TIERS_MAX: Final = 100
FEATURES_MAX: Final = 1_000
FEES_MAX: Final = 100
FEATURE_TEXT_MAX: Final = 256
CELL_LOOKUPS_MAX: Final = 65_536
_EACH: Final = ("per_event", "event_minimum", "event_maximum")  # what a percentage price says of each event
CLOSE_AFTER_S: Final = 86_400  # no less: a hold is reported within a day, and what admitted it must pay for it
CLOSE_AFTER_US: Final = CLOSE_AFTER_S * 1_000_000
CLOSE_AFTER_S_MAX: Final = 30 * 86_400  # later, no usage of the period would be young enough to be rated
CLOSE_AFTER_MAX_US: Final = CLOSE_AFTER_S_MAX * 1_000_000
WINDOW_S: Final = 3_600  # how long a stream of events stays open
WINDOW_MAX_S: Final = 30 * 86_400  # by then a first event may still be known
SKEW_US: Final = 5 * 60 * 1_000_000  # how far an event's own time may run ahead of log time
TOO_OLD_US: Final = 35 * 86_400 * 1_000_000 - SKEW_US  # and how far behind it


class TierDefinition(Struct, forbid_unknown_fields=True, frozen=True):
    """`flat`: due once the quantity is above the tier's start, beside its rate."""

    amount: str
    per: str = "1"
    up_to: str | None = None
    flat: str | UnsetType = UNSET


class PriceDefinition(Struct, forbid_unknown_fields=True, frozen=True):
    """What is not said of `included` and those behind it, the stored form does not say either. `discount` is a
    percentage; from `percent` on they belong to the model `percentage`, from `factor` on to `dynamic`. `prorate`: whether a
    short period includes less, and owes less of `minimum` or `commitment` (it does, unless this is false). `minimum`: what a
    period owes at least, behind the discount; `commitment`: the same, beyond which usage counts by the factor `overage`."""

    meter: str
    model: Literal["per_unit", "graduated", "package", "volume", "step", "flat", "percentage", "dynamic"]
    where: dict[str, str] = field(default_factory=dict)
    amount: str | None = None
    per: str = "1"
    tiers: tuple[TierDefinition, ...] = ()
    included: str | UnsetType = UNSET
    maximum: str | UnsetType = UNSET
    discount: str | UnsetType = UNSET
    percent: str | UnsetType = UNSET
    per_event: str | UnsetType = UNSET
    event_minimum: str | UnsetType = UNSET
    event_maximum: str | UnsetType = UNSET
    factor: str | UnsetType = UNSET
    estimate: str | UnsetType = UNSET
    prorate: bool | UnsetType = UNSET
    minimum: str | UnsetType = UNSET
    commitment: str | UnsetType = UNSET
    overage: str | UnsetType = UNSET


class CommitmentDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What a month owes at least for several prices together; none named: for all of the plan. `overage` is of one price,
    and known here only to be refused with that word."""

    amount: str
    prices: tuple[str, ...] = ()
    prorate: bool | UnsetType = UNSET
    overage: str | UnsetType = UNSET


class AllowanceDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """So many units of several prices together that owe nothing in a month. `order`: which of them it serves first. `prorate`:
    whether a short period has less of it (it does, unless this is false)."""

    quantity: str
    prices: tuple[str, ...]
    order: Literal["dearest_first", "as_listed"] = "dearest_first"
    prorate: bool | UnsetType = UNSET


class SharedTiersDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Prices whose units fill the same tiers together, each at its own rates. `order`: in which they do, if `graduated`."""

    prices: tuple[str, ...]
    order: Literal["dearest_first", "as_listed"] = "dearest_first"


class FeeDefinition(Struct, forbid_unknown_fields=True, frozen=True):
    """An amount that each month owes whatever is used, when its period closes, or, `in_advance`, when it opens. `prorate`:
    whether a short or paused period owes less (it does, unless this is false)."""

    amount: str
    prorate: bool | UnsetType = UNSET
    in_advance: bool | UnsetType = UNSET


class SeatDefinition(Struct, forbid_unknown_fields=True, frozen=True):
    """What each of so many seats costs a month, in advance."""

    amount: str


class PlanDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """`features`: what the plan has besides prices, as true, false or a text. Without any, its stored form says nothing
    of them, as it did before there were features. `close_after_s`: how long a billing period stays open for late usage
    once it has ended. `fees`: by name, what a month owes besides usage; `commitments`: by name, what it owes at least.
    `seats`: by name, what one of them costs. `allowances`: by name, what several prices include together; `shared_tiers`: by
    name, those whose tiers their units fill together."""

    currency: str
    prices: dict[str, PriceDefinition]
    features: dict[str, bool | str] = field(default_factory=dict)
    close_after_s: int = CLOSE_AFTER_S
    fees: dict[str, FeeDefinition] = field(default_factory=dict)
    commitments: dict[str, CommitmentDefinition] = field(default_factory=dict)
    seats: dict[str, SeatDefinition] = field(default_factory=dict)
    allowances: dict[str, AllowanceDefinition] = field(default_factory=dict)
    shared_tiers: dict[str, SharedTiersDefinition] = field(default_factory=dict)


class StreamDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Events of a type may come as streams. `window_s`: how long behind the first event of one another may take its
    place."""

    window_s: int = WINDOW_S


class CatalogueDocument(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """`dimensions`: those that are more than the field of their name; every meter may group by them. `token_shapes`: by
    event type, how its events say what tokens they used. `streams`: types whose events may carry a `seq`. `units`: credits
    that a plan may name in place of a currency, and what they are worth."""

    meters: dict[str, MeterDefinition]
    plans: dict[str, PlanDefinition]
    dimensions: dict[str, DimensionDefinition] = {}
    token_shapes: dict[str, TokenShapeDefinition] = {}
    streams: dict[str, StreamDefinition] = {}
    units: dict[str, UnitDefinition] = {}


class CatalogueFault(Struct, frozen=True):
    """Why a catalogue may not be published: where (keys from the root) and what to do about it."""

    path: tuple[str | int, ...]
    message: str


class BadCatalogue(ValueError):
    """The document breaks a law; `faults` lists every breach found."""

    def __init__(self, faults: list[CatalogueFault]) -> None:
        told = ((".".join(map(str, fault.path)), fault.message) for fault in faults)
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in told))
        self.faults = faults


class NoPrice(ValueError):
    """A meter takes the event, but the account's plan has no price for its cell. Free is an explicit price of 0."""


class Fee(Struct, frozen=True):
    """What a month owes whatever is used."""

    amount: int  # pico
    prorates: bool
    in_advance: bool = False  # due when the period opens


class Commitment(Struct, frozen=True):
    """What a month owes at least for some prices together."""

    amount: int  # pico
    prices: tuple[str, ...]
    prorates: bool


class Plan:
    """A compiled plan. `price_of` is the only look-up on the rating path."""

    def __init__(
        self,
        name: str,
        currency: str,
        prices: list[Price],
        meters: dict[str, Meter],
        features: dict[str, bool | str] | None = None,
        close_after_us: int = CLOSE_AFTER_US,
        fees: Mapping[str, Fee] | None = None,
        commitments: Mapping[str, Commitment] | None = None,
        seats: Mapping[str, int] | None = None,
    ) -> None:
        """`seats`: pico of a month for one of them, by name."""
        self.name = name
        self.seats = seats or {}
        self.fees = fees or {}
        self.commitments = commitments or {}
        self.close_after_us = close_after_us
        self.features = features or {}
        self.currency = currency
        self.prices = {price.name: price for price in prices}
        # Whether a period may owe more than its usage.
        self.bills = bool(self.fees or self.commitments or self.seats) or any(
            price.floor is not None for price in prices
        )
        self.has_overage = any(price.has_overage for price in prices)
        self.has_advance = bool(self.seats) or any(fee.in_advance for fee in self.fees.values())
        self.shares = any(price.shared is not None for price in prices)  # tiers, or an allowance, between some of them
        self._by_meter: dict[str, list[Price]] = {}
        for price in prices:
            self._by_meter.setdefault(price.meter, []).append(price)
        self._meters = meters
        self._cells: dict[tuple[str, Cell], Price] = {}
        self._routes: dict[str, Routes] = {}

    def routes(self, event_type: str) -> Routes:
        """What the events of a type become under this plan."""
        routes = self._routes.get(event_type)
        if routes is None:
            meters = [meter for _, meter in sorted(self._meters.items()) if meter.event_type == event_type]
            routes = self._routes[event_type] = Routes(meters, self.price_of)
        return routes

    def price_of(self, meter: Meter, cell: Cell) -> Price:
        """The price of a meter's cell. Raises NoPrice."""
        price = self._cells.get((meter.name, cell))
        if price is None:
            price = self._find(meter, cell)
            if len(self._cells) >= CELL_LOOKUPS_MAX:
                self._cells.clear()
            self._cells[meter.name, cell] = price
        return price

    def prices_of(self, meter: Meter) -> list[Price]:
        """The prices of a meter; no two match the same cell."""
        return self._by_meter.get(meter.name, [])

    def following(self, earlier: list[dict[str, Price]]) -> "Plan":
        """This plan in a period that began under earlier versions of it: of each price, the last that could begin."""
        prices = []
        for name, price in self.prices.items():
            found: Price | None = None
            for follower in [*(sold[name] for sold in earlier if name in sold), price]:
                if found is None or (found.marginal and follower.marginal):
                    found = follower
            assert found is not None
            if found.shared is not None and earlier and name not in earlier[0]:
                found = found.sharing(None)  # what the others share is as it was when the period began
            prices.append(found.placed(price.where))
        return self._with(prices)

    def replacing(self, prices: Mapping[str, Price]) -> "Plan":
        """This plan with these in place of its own prices of the same names, in the same cells."""
        return self._with([prices.get(name, price).placed(price.where) for name, price in self.prices.items()])

    def commits(self, price: str) -> str | None:
        """The commitment that covers a price with others."""
        return next((name for name, each in self.commitments.items() if price in each.prices), None)

    def for_part(self, part: Fraction, bound: Fraction, made: list[tuple[Price, Price]]) -> "Plan":
        """This plan in a period that is a `part` of a month, for `bound` of which the account is there. `made`: prices that
        were put into that period before, each beside what it became: of the same terms come the same."""
        if part == bound == 1 or not (self.shares or any(price.in_part for price in self.prices.values())):
            return self
        return self._with([price.for_part(part, bound, made) for price in self.prices.values()])

    @cached_property
    def listed(self) -> "Plan":
        """This plan before discounts."""
        return self._with([price.listed for price in self.prices.values()])

    def _with(self, prices: list[Price]) -> "Plan":
        """This plan with these prices, in the order of its own; itself if they are the very same, as it keeps what it has
        found out of events."""
        if all(new is price for new, price in zip(prices, self.prices.values(), strict=True)):
            return self
        besides = self.features, self.close_after_us, self.fees, self.commitments, self.seats
        return Plan(self.name, self.currency, prices, self._meters, *besides)

    def _find(self, meter: Meter, cell: Cell) -> Price:
        values = dict(zip(meter.group_by, cell, strict=True))
        for price in self._by_meter.get(meter.name, ()):
            if all(values[dimension] == value for dimension, value in price.where.items()):
                return price
        raise NoPrice(f"plan {self.name} has no price for meter {meter.name}, cell {values}")


class Catalogue:
    """A compiled version."""

    def __init__(
        self,
        version: int,
        meters: dict[str, Meter],
        plans: dict[str, Plan],
        token_shapes: dict[str, TokenUsage] | None = None,
        hours: Iterable[Hours] = (),
        windows_us: dict[str, int] | None = None,
        units: Mapping[str, Unit] | None = None,
    ) -> None:
        """`windows_us`: of event types that may come as streams, how long one stays open."""
        self.version = version
        self.plans = plans
        self.meters = meters
        self.token_shapes = token_shapes or {}
        self.windows_us = windows_us or {}
        self.units = units or {}
        self.meters_of: dict[str, tuple[Meter, ...]] = {}
        for meter in sorted(meters.values(), key=lambda meter: meter.name):
            self.meters_of[meter.event_type] = (*self.meters_of.get(meter.event_type, ()), meter)
        self.hours_of: dict[str, tuple[Hours, ...]] = {}  # by event type, of those whose meters look at some
        for event_type, taking in self.meters_of.items():
            looks_at = {field for meter in taking for field in meter.looks_at}
            if found := tuple(each for each in hours if each.field in looks_at):
                self.hours_of[event_type] = found
        self.reads_as_sent = not self.token_shapes and not self.hours_of

    def closing_anew(self, before: "Catalogue | None") -> set[str]:
        """The plans whose periods close at another time than under the version before, or owe more, or no longer, than
        their usage then, or before: their accounts may want waking at another time."""

        def closing(plan: Plan | None) -> tuple[bool, bool, int]:
            return (
                (False, False, CLOSE_AFTER_US) if plan is None else (plan.bills, plan.has_advance, plan.close_after_us)
            )

        earlier = {} if before is None else before.plans
        return {name for name, plan in self.plans.items() if closing(plan) != closing(earlier.get(name))}

    def fields_of(self, event_type: str, data: dict[str, Any], time_us: int) -> dict[str, Any]:
        """What the meters of a type read of an event that is rated at a time: its data, its tokens by bucket where they
        have a shape, and what the hours are called. Raises BadUsage."""
        shape = self.token_shapes.get(event_type)
        seen = data if shape is None else shape.normalised(data)
        return seen | self.hours_at(event_type, time_us) if event_type in self.hours_of else seen

    def hours_at(self, event_type: str, time_us: int) -> dict[str, str]:
        """What the hours of a time are called, by the field under which meters of a type find that."""
        return {each.field: each.name_at(time_us) for each in self.hours_of.get(event_type, ())}


class _Checker:
    """Collects every fault of a document, so that its author mends them in one go."""

    def __init__(self, version: int, units: Collection[str] = ()) -> None:
        self.faults: list[CatalogueFault] = []
        self._version = version
        self._units = units

    def fault(self, path: tuple[str | int, ...], message: str) -> None:
        self.faults.append(CatalogueFault(path, message))

    def name(self, path: tuple[str | int, ...], value: object) -> None:
        if not is_text(value, 128):
            self.fault(path, "a name must be a string of 1 to 128 characters without NUL")

    def of_time(self, meters: Iterable[Meter], hours: Mapping[str, Hours]) -> None:
        """Whether an event of a session counts does not say whether the session does, which goes through the hours."""
        for meter in meters:
            if meter.session is not None:
                for on in sorted({each.name for each in meter.conditions} & hours.keys()):
                    message = (
                        "changes while a session goes on: add it to group_by, and give the other hours a price of 0"
                    )
                    self.fault(("meters", meter.name, "when", on), message)

    def _number(self, path: tuple[str | int, ...], text: str | None, parse: Any, minimum: int) -> int:
        try:
            value: int = parse(text if text is not None else "")
        except NotADecimal as error:
            self.fault(path, str(error))
            return 1
        if value < minimum:
            self.fault(path, f"{text} is too small" if minimum else f"{text} is negative")
            return 1
        return value

    def rung(self, path: tuple[str | int, ...], part: PriceDefinition | TierDefinition, up_to: int | None) -> Rung:
        """What a price without tiers, or a tier, costs; which of its keys its model has is tested elsewhere."""
        key = MODELS[part.model].amount_key if isinstance(part, PriceDefinition) else "amount"
        amount = getattr(part, key)
        if amount is None or amount is UNSET:
            self.fault((*path, key), f"is missing; free is an explicit {key} of 0")
            amount = "0"
        fee = part.flat if isinstance(part, TierDefinition) and part.flat is not UNSET else "0"
        return Rung(
            up_to,
            self._number((*path, key), amount, parse_amount, 0),
            self._number((*path, "per"), part.per, parse_quantity, 1),
            self._number((*path, "flat"), fee, parse_amount, 0),
        )

    def rungs(self, path: tuple[str | int, ...], definition: PriceDefinition) -> list[Rung]:
        """The tiers of a price in rising order; a price without any is one open tier."""
        name, model = definition.model, MODELS[definition.model]
        if not model.tiered:
            if definition.tiers:
                takes = "`amount` and `per`" if model.has_per else f"`{model.amount_key}`"
                self.fault((*path, "tiers"), f"{name} takes {takes}, no tiers")
            self._no_per(path, definition)
            return [self.rung(path, definition, None)]
        if definition.amount is not None:
            self.fault((*path, "amount"), f"{name} takes `tiers`; each tier has its own amount")
        if not 1 <= len(definition.tiers) <= TIERS_MAX:
            self.fault((*path, "tiers"), f"{name} takes 1 to {TIERS_MAX} tiers")
            return [Rung(None, 1, 1)]
        rungs: list[Rung] = []
        reached = 0
        for index, tier in enumerate(definition.tiers):
            here = (*path, "tiers", index)
            last = index == len(definition.tiers) - 1
            up_to = None
            if last and tier.up_to is not None:
                self.fault((*here, "up_to"), "the last tier is open: remove up_to, or add a tier behind it")
            elif not last:
                up_to = self._number((*here, "up_to"), tier.up_to, parse_quantity, 1)
                if up_to <= reached:
                    self.fault((*here, "up_to"), "must be above the up_to of the tier before it")
                    up_to = reached + 1
                reached = up_to
            if tier.flat is not UNSET and not model.has_fee:
                self.fault((*here, "flat"), f"a tier of {name} has no `flat` beside its amount")
            self._no_per(here, tier, model=name)
            rung = self.rung(here, tier, up_to)
            if model.rising and rungs and rung.amount < rungs[-1].amount:
                message = "is below the tier before it: money would go back. Where it should, use volume, with `flat`"
                self.fault((*here, "amount"), message)
            rungs.append(rung)
        return rungs

    def _no_per(
        self, path: tuple[str | int, ...], part: PriceDefinition | TierDefinition, model: str | None = None
    ) -> None:
        name = part.model if isinstance(part, PriceDefinition) else model
        assert name is not None
        if not MODELS[name].has_per and part.per != "1":
            self.fault((*path, "per"), f"an amount of {name} is for all units: remove per")

    def modifiers(self, path: tuple[str | int, ...], definition: PriceDefinition) -> Modifiers:
        """What stands around the model (law R5)."""
        included, maximum, discount = 0, None, Fraction(0)
        if definition.included is not UNSET:
            included = self._number((*path, "included"), definition.included, parse_quantity, 0)
        if definition.maximum is not UNSET:
            maximum = self._number((*path, "maximum"), definition.maximum, parse_amount, 0)
        if definition.discount is not UNSET:
            discount = Fraction(self._number((*path, "discount"), definition.discount, parse_quantity, 0), NANO)
            if discount > 100:
                self.fault((*path, "discount"), "a discount is at most 100 percent")
                discount = Fraction(100)
        floors = {
            key: self._number((*path, key), text, parse_amount, 1)
            for key, text in (("minimum", definition.minimum), ("commitment", definition.commitment))
            if text is not UNSET
        }
        for key, floor in floors.items():
            if maximum is not None and floor > maximum * (1 - discount * HUNDREDTH):
                message = "is more than maximum and discount leave: it would be owed whatever is used"
                self.fault((*path, key), message)
        if len(floors) > 1:
            self.fault(
                (*path, "minimum"), "stands beside a commitment, and both would be missed at once: keep one of them"
            )
        overage = Fraction(1)
        if definition.overage is not UNSET:
            overage = Fraction(self._number((*path, "overage"), definition.overage, parse_quantity, 1), NANO)
            if "commitment" not in floors:
                self.fault((*path, "overage"), "is the factor of usage beyond a commitment, and this price has none")
                overage = Fraction(1)
        return Modifiers(included, maximum, discount, floors.get("minimum"), floors.get("commitment"), overage)

    def price(self, plan: str, name: str, definition: PriceDefinition, meters: dict[str, Meter]) -> Price:
        path = ("plans", plan, "prices", name)
        self.name(path, name)
        meter = meters.get(definition.meter)
        if meter is None:
            self.fault((*path, "meter"), f"there is no meter {definition.meter!r}")
        else:
            for dimension, value in definition.where.items():
                if dimension not in meter.group_by:
                    self.fault(
                        (*path, "where", dimension), f"meter {meter.name} does not group by it; add it to group_by"
                    )
                self.name((*path, "where", dimension), value)
                known = meter.derived[dimension].reachable(None) if dimension in meter.derived else (None,)
                if None not in known and value not in known:
                    self.fault((*path, "where", dimension), f"{value} is no value of it; it has {_listed(known)}")
            self.for_meter(path, definition, meter)
        return self.compiled(path, name, definition, adds_up=meter is None or meter.kind is None)

    def for_meter(self, path: tuple[str | int, ...], definition: PriceDefinition, meter: Meter) -> None:
        """That the price can count what the meter says."""
        if definition.estimate is not UNSET and meter.field is None:
            self.fault((*path, "estimate"), f"meter {meter.name} sums no field that an event could lack")
        if meter.kind is not None and definition.model in ("percentage", "dynamic"):
            message = f"is of each event's amount, and meter {meter.name} takes the {meter.kind} of a period"
            self.fault((*path, "model"), message)
        if meter.session is not None and definition.model in ("percentage", "dynamic"):
            message = f"is of each event's amount, and meter {meter.name} counts the seconds of sessions"
            self.fault((*path, "model"), message)

    def compiled(self, path: tuple[str | int, ...], name: str, definition: PriceDefinition, *, adds_up: bool) -> Price:
        """The price by its own terms; `adds_up`: what its meter counts does."""
        rungs, modifiers = self.rungs(path, definition), self.modifiers(path, definition)
        per_event = self.per_event(path, definition, rungs[0])
        if per_event is not None:
            rungs = [Rung(None, 100 * PICO, NANO)]  # all of each fee
        estimate = None
        if definition.estimate is not UNSET:
            estimate = self._number((*path, "estimate"), definition.estimate, parse_quantity, 0)
        price = compile_price(
            name,
            definition.meter,
            definition.where,
            definition.model,
            rungs,
            modifiers,
            self._version,
            per_event,
            estimate,
            prorate=definition.prorate is not False,
        )
        if definition.prorate is not UNSET and definition.included is UNSET and price.floor is None:
            message = "is about an included quantity, a minimum or a commitment, and this price has none: remove it"
            self.fault((*path, "prorate"), message)
        if not adds_up:
            price.marginal = False  # what does not add up has no part that is of one version
        return price

    def per_event(self, path: tuple[str | int, ...], definition: PriceDefinition, rung: Rung) -> PerEvent | None:
        """The terms for each event, and that each key stands with the model that has it."""
        for model, keys in (("percentage", ("percent", *_EACH)), ("dynamic", ("factor", "estimate"))):
            for key in keys:
                if definition.model != model and getattr(definition, key) is not UNSET:
                    self.fault((*path, key), f"belongs to the model {model}: remove it")
        if MODELS[definition.model].amount_key != "amount" and definition.amount is not None:
            self.fault((*path, "amount"), f"{definition.model} takes `{MODELS[definition.model].amount_key}`")
        said = {key: getattr(definition, key) for key in _EACH if getattr(definition, key) is not UNSET}
        if not said:
            return None
        amounts = {key: self._number((*path, key), text, parse_quantity, 0) for key, text in said.items()}
        least, most = amounts.get("event_minimum"), amounts.get("event_maximum")
        if least is not None and most is not None and most < least:
            self.fault((*path, "event_maximum"), "is below event_minimum")
        if definition.included is not UNSET:
            self.fault(
                (*path, "included"), "what is counted are the fees of events: an included quantity has no meaning"
            )
        return PerEvent(Fraction(rung.amount, PICO), amounts.get("per_event", 0), least, most)

    def plan(self, name: str, definition: PlanDefinition, meters: dict[str, Meter]) -> Plan:
        path = ("plans", name)
        self.name(path, name)
        if not CURRENCY.fullmatch(definition.currency) and definition.currency not in self._units:
            message = f"{definition.currency!r} is not a three-letter ISO 4217 code, nor one of `units` (law M3)"
            self.fault((*path, "currency"), message)
        prices = [self.price(name, key, value, meters) for key, value in definition.prices.items()]
        for index, price in enumerate(prices):
            for other in prices[:index]:
                if price.meter == other.meter and not any(
                    price.where[dimension] != other.where[dimension] for dimension in price.where.keys() & other.where
                ):
                    self.fault((*path, "prices", price.name), f"can match the same cell as price {other.name}")
        priced = {price.meter for price in prices}
        sold = {meter.event_type for meter in meters.values() if meter.name in priced}
        for meter in meters.values():
            if meter.event_type in sold and meter.name not in priced:
                self.fault(
                    (*path, "prices"),
                    f"{meter.event_type} events also feed meter {meter.name}, which has no price here; "
                    "add one (amount 0 to give it away)",
                )
        self.features((*path, "features"), definition.features)
        if not CLOSE_AFTER_S <= definition.close_after_s <= CLOSE_AFTER_S_MAX:
            self.fault((*path, "close_after_s"), f"must be {CLOSE_AFTER_S} to {CLOSE_AFTER_S_MAX} seconds")
        close_after_us = definition.close_after_s * 1_000_000
        besides = definition.features, close_after_us, self.fees((*path, "fees"), definition)
        commitments = self.commitments((*path, "commitments"), definition, prices)
        prices = self.sharing(path, definition, prices, meters)
        seats = self.seats((*path, "seats"), definition)
        return Plan(name, definition.currency, prices, meters, *besides, commitments, seats)

    def sharing(
        self,
        path: tuple[str | int, ...],
        definition: PlanDefinition,
        prices: list[Price],
        meters: dict[str, Meter],
    ) -> list[Price]:
        """The prices, of which some share tiers or an allowance."""
        by_name = {price.name: price for price in prices}
        stated: dict[str, Mapping[str, AllowanceDefinition | SharedTiersDefinition]] = {
            "allowances": definition.allowances,
            "shared_tiers": definition.shared_tiers,
        }
        shared_by: dict[str, tuple[str | int, ...]] = {}
        for key, of in stated.items():
            if len(of) > FEES_MAX:
                self.fault((*path, key), f"a plan has at most {FEES_MAX} of them")
            for name, each in of.items():
                here = (*path, key, name)
                self.name(here, name)
                if len(set(each.prices)) < max(2, len(each.prices)):
                    self.fault((*here, "prices"), "are two prices or more, each once; one price alone shares nothing")
                for price in each.prices:
                    if price not in by_name:
                        self.fault((*here, "prices"), f"there is no price {price} in this plan")
                        continue
                    if shared_by.setdefault(price, here) != here:
                        message = (
                            f"price {price} is named in {shared_by[price][-2]} {shared_by[price][-1]}: name it once"
                        )
                        self.fault((*here, "prices"), message)
                    self._may_share((*here, "prices"), price, definition.prices[price], meters)
                known = [price for price in each.prices if price in by_name]
                if each.order == "dearest_first":
                    known.sort(key=lambda price: (-by_name[price].steepest, price))
                if isinstance(each, AllowanceDefinition):
                    shared = self._allowance(here, name, each, tuple(known), definition)
                else:
                    shared = self._shared_tiers(here, name, each, [by_name[price] for price in known], definition)
                by_name |= {price: by_name[price].sharing(shared) for price in known}
        return list(by_name.values())

    def _may_share(
        self, path: tuple[str | int, ...], name: str, price: PriceDefinition, meters: dict[str, Meter]
    ) -> None:
        for key in ("included", "maximum", "minimum", "commitment"):
            if getattr(price, key) is not UNSET:
                self.fault(path, f"price {name} has {key} of its own: remove one of the two")
        meter = meters.get(price.meter)
        if meter is not None and meter.kind is not None:
            self.fault(
                path, f"price {name} takes the {meter.kind} of a period, whose units are not apart from each other"
            )

    def _allowance(
        self,
        path: tuple[str | int, ...],
        name: str,
        each: AllowanceDefinition,
        known: tuple[str, ...],
        definition: PlanDefinition,
    ) -> Shared:
        for price in known:
            if definition.prices[price].model != "per_unit":
                model = definition.prices[price].model
                self.fault((*path, "prices"), f"price {price} is {model}: use per_unit, or shared_tiers for tiers")
        quantity = self._number((*path, "quantity"), each.quantity, parse_quantity, 1)
        return Shared(name, known, quantity, each.prorate is not False)

    def _shared_tiers(
        self,
        path: tuple[str | int, ...],
        name: str,
        each: SharedTiersDefinition,
        known: list[Price],
        definition: PlanDefinition,
    ) -> Shared:
        models = [definition.prices[price.name].model for price in known]
        for price, model in zip(known, models, strict=True):
            if model not in ("graduated", "volume") or model != models[0]:
                self.fault((*path, "prices"), f"price {price.name} is {model}: make all graduated, or all volume")
            elif _edges(price) != _edges(known[0]):
                self.fault(
                    (*path, "prices"), f"price {price.name} has other `up_to`s than {known[0].name}: state the same"
                )
            if any(tier.flat is not UNSET for tier in definition.prices[price.name].tiers):
                self.fault(
                    (*path, "prices"), f"price {price.name} has a tier with `flat`, which is nobody's: remove it"
                )
        by_sum = "volume" in models
        if by_sum and each.order != "dearest_first":
            self.fault((*path, "order"), "of volume the sum counts, in no order: remove it")
        return Shared(name, tuple(price.name for price in known), by_sum=by_sum)

    def fees(self, path: tuple[str | int, ...], definition: PlanDefinition) -> dict[str, Fee]:
        if len(definition.fees) > FEES_MAX:
            self.fault(path, f"a plan has at most {FEES_MAX} fees")
        found = {}
        for name, fee in definition.fees.items():
            self.name((*path, name), name)
            if name in definition.prices:
                self.fault((*path, name), "is the name of a price: credit for that would pay for it; choose another")
            amount = self._number((*path, name, "amount"), fee.amount, parse_amount, 1)
            found[name] = Fee(amount, fee.prorate is not False, fee.in_advance is True)
        return found

    def seats(self, path: tuple[str | int, ...], definition: PlanDefinition) -> dict[str, int]:
        if len(definition.seats) > FEES_MAX:
            self.fault(path, f"a plan has at most {FEES_MAX} kinds of seats")
        for name in definition.seats:
            self.name((*path, name), name)
            if name in definition.prices:
                self.fault((*path, name), "is the name of a price: credit for that would pay for it; choose another")
        return {
            name: self._number((*path, name, "amount"), seat.amount, parse_amount, 1)
            for name, seat in definition.seats.items()
        }

    def commitments(
        self, path: tuple[str | int, ...], definition: PlanDefinition, prices: list[Price]
    ) -> dict[str, Commitment]:
        """That no usage is missed twice, or counts for two."""
        if len(definition.commitments) > FEES_MAX:
            self.fault(path, f"a plan has at most {FEES_MAX} commitments")
        floors = {price.name: price.floor for price in prices}
        found: dict[str, Commitment] = {}
        for name, each in definition.commitments.items():
            self.name((*path, name), name)
            if name in floors:
                self.fault((*path, name), "is the name of a price: credit for that would pay for it; choose another")
            if each.overage is not UNSET:
                message = (
                    "is of one price, as which units lie beyond it must not depend on others: put it on that price"
                )
                self.fault((*path, name, "overage"), message)
            covered = each.prices or tuple(floors)
            for price in covered:
                floor, earlier = floors.get(price), [other for other, said in found.items() if price in said.prices]
                if price not in floors:
                    self.fault((*path, name, "prices"), f"there is no price {price} in this plan")
                elif floor is not None:
                    self.fault((*path, name, "prices"), f"price {price} has a {floor.kind} of its own: leave it out")
                elif earlier:
                    self.fault((*path, name, "prices"), f"commitment {earlier[0]} covers price {price}: name others")
            amount = self._number((*path, name, "amount"), each.amount, parse_amount, 1)
            found[name] = Commitment(amount, covered, each.prorate is not False)
        return found

    def stream(self, path: tuple[str, ...], definition: StreamDefinition, meters: list[Meter]) -> None:
        """That what an event has counted can be taken out again."""
        if not meters:
            self.fault(path, "no meter takes events of this type")
        if not 1 <= definition.window_s <= WINDOW_MAX_S:
            self.fault((*path, "window_s"), f"must be 1 to {WINDOW_MAX_S} seconds")
        for meter in meters:
            if meter.kind is not None or meter.session is not None:
                takes = "tells of sessions" if meter.kind is None else f"takes the {meter.kind} of a period"
                self.fault(path, f"meter {meter.name} {takes}: what an event has counted cannot be taken out again")

    def features(self, path: tuple[str | int, ...], features: dict[str, bool | str]) -> None:
        if len(features) > FEATURES_MAX:
            self.fault(path, f"a plan has at most {FEATURES_MAX} features")
        for name, value in features.items():
            self.name((*path, name), name)
            if isinstance(value, str) and not is_text(value, FEATURE_TEXT_MAX):
                message = f"must be true, false or a text of 1 to {FEATURE_TEXT_MAX} characters without NUL"
                self.fault((*path, name), message)


def _edges(price: Price) -> list[int]:
    """Where its tiers end, in nano-units behind what it includes."""
    curve = price.curves[0]
    ends = price.ends or tuple(each.end for each in curve.stretches if each.tier > 0 and each.end is not None)
    return [end - curve.included for end in ends]


def _listed(values: Iterable[str | None]) -> str:
    return ", ".join(value for value in values if value is not None)


_document_decoder: Final = msgspec.json.Decoder(CatalogueDocument)


def compile_catalogue(version: int, document: CatalogueDocument) -> Catalogue:
    """The document as look-up tables. Raises BadCatalogue with every fault."""
    checker = _Checker(version, document.units)
    units = {name: compile_unit(name, definition, checker.fault) for name, definition in document.units.items()}
    declared = document.dimensions.items()
    hours = [compile_hours(name, definition, checker.fault) for name, definition in declared if definition.hours]
    dimensions = {each.dimension: each.as_read() for each in hours} | {
        name: compile_dimension(name, definition, checker.fault)
        for name, definition in declared
        if not definition.hours
    }
    by_name = {each.dimension: each for each in hours}
    meters = {
        name: compile_meter(name, definition, dimensions, by_name, checker.fault)
        for name, definition in document.meters.items()
    }
    shapes = {
        event_type: compile_token_shape(event_type, definition, meters.values(), checker.fault)
        for event_type, definition in document.token_shapes.items()
    }
    checker.of_time(meters.values(), by_name)
    for event_type, definition in document.streams.items():
        checker.stream(("streams", event_type), definition, [m for m in meters.values() if m.event_type == event_type])
    plans = {name: checker.plan(name, definition, meters) for name, definition in document.plans.items()}
    if not meters:
        checker.fault(("meters",), "a catalogue needs at least one meter")
    if not plans:
        checker.fault(("plans",), "a catalogue needs at least one plan")
    if checker.faults:
        raise BadCatalogue(checker.faults)
    windows_us = {name: definition.window_s * 1_000_000 for name, definition in document.streams.items()}
    return Catalogue(version, meters, plans, shapes, hours, windows_us, units)


def agreed_price(name: str, definition: PriceDefinition, agreed_us: int, *, adds_up: bool) -> Price:
    """The price that an account has agreed from an instant on, in all cells. Raises BadCatalogue."""
    checker = _Checker(0)
    price = checker.compiled(("terms",), name, definition, adds_up=adds_up)
    if checker.faults:
        raise BadCatalogue(checker.faults)
    price.agreed_us = agreed_us
    return price


def check_agreed(definition: PriceDefinition, meter: Meter) -> None:
    """That the price can count what the meter says. Raises BadCatalogue."""
    checker = _Checker(0)
    checker.for_meter(("terms",), definition, meter)
    if checker.faults:
        raise BadCatalogue(checker.faults)


def check_succession(before: CatalogueDocument, after: CatalogueDocument) -> None:
    """Whether `after` may follow `before`: accounts and counters go on under it. Raises BadCatalogue."""
    faults = []
    for name, plan in before.plans.items():
        follower = after.plans.get(name)
        if follower is None:
            faults.append(CatalogueFault(("plans",), f"plan {name} is gone; its accounts could not be rated: keep it"))
            continue
        if follower.currency != plan.currency:
            message = f"plan {name} was in {plan.currency}; an account's currency never changes: make a new plan"
            faults.append(CatalogueFault(("plans", name, "currency"), message))
        for price_name, price in plan.prices.items():
            heir = follower.prices.get(price_name)
            if heir is not None and heir.meter != price.meter:
                message = f"counted meter {price.meter} before, and its counter goes on: choose a new price name"
                faults.append(CatalogueFault(("plans", name, "prices", price_name, "meter"), message))
            elif heir is not None and _counts_fees(heir) != _counts_fees(price):
                message = "counts fees of events in one version, quantities in the other: choose a new price name"
                faults.append(CatalogueFault(("plans", name, "prices", price_name, "model"), message))
    for name, unit in before.units.items():
        if after.units.get(name) != unit:
            message = "is what accounts have credit in, and is worth what it was: keep it, or declare another unit"
            faults.append(CatalogueFault(("units", name), message))
    for name, meter in before.meters.items():
        heir_kind = after.meters[name].aggregation if name in after.meters else meter.aggregation
        if heir_kind != meter.aggregation and not {heir_kind, meter.aggregation} <= {"count", "sum"}:
            message = (
                f"was {meter.aggregation} before, and what was counted cannot become {heir_kind}: make a new meter"
            )
            faults.append(CatalogueFault(("meters", name, "aggregation"), message))
        elif (
            heir_kind in ("duration", "time_weighted_sum")
            and name in after.meters
            and after.meters[name].group_by != meter.group_by
        ):
            message = "sessions that are open go on in the cells where they began: keep it, or make a new meter"
            faults.append(CatalogueFault(("meters", name, "group_by"), message))
        elif heir_kind in ("duration", "time_weighted_sum") and name in after.meters:
            faults += [
                CatalogueFault(("dimensions", dimension), f"became hours, or no more: sessions of {name} are open")
                for dimension in meter.group_by
                if _is_of_hours(before, dimension) != _is_of_hours(after, dimension)
            ]
    if faults:
        raise BadCatalogue(faults)


def _is_of_hours(document: CatalogueDocument, dimension: str) -> bool:
    return dimension in document.dimensions and bool(document.dimensions[dimension].hours)


def _counts_fees(price: PriceDefinition) -> bool:
    return any(getattr(price, key) is not UNSET for key in _EACH)


def read_document(body: bytes) -> CatalogueDocument:
    """A stored document. Raises msgspec.MsgspecError."""
    return _document_decoder.decode(body)


def document_json(document: CatalogueDocument) -> bytes:
    """The stored form: the same document gives the same bytes."""
    return msgspec.json.encode(document, order="deterministic")


def load_catalogue(version: int, body: bytes) -> Catalogue:
    """A stored catalogue. Raises msgspec.MsgspecError or BadCatalogue when the store holds something else."""
    return compile_catalogue(version, _document_decoder.decode(body))


class PriceBook:
    """The catalogue versions in force, each from an instant of event time on; the first one for all time."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # of every version but the first
        self._versions: list[Catalogue] = []
        self._in_force: dict[tuple[str, int, int], Plan] = {}  # by plan, and places of the versions from and to
        self.bills = False  # whether any version has a plan under which a period may owe more than its usage
        self.has_advance = False  # or one with fees in advance
        self.has_overage = False  # or one with a price that costs other beyond a commitment than up to it

    def publish(self, effective_us: int, catalogue: Catalogue) -> None:
        """Add a version behind all others; the first one's instant does not matter."""
        if self._versions:
            assert effective_us > (self._starts[-1] if self._starts else effective_us - 1)
            self._starts.append(effective_us)
        self._versions.append(catalogue)
        self.bills = self.bills or any(plan.bills for plan in catalogue.plans.values())
        self.has_advance = self.has_advance or any(plan.has_advance for plan in catalogue.plans.values())
        self.has_overage = self.has_overage or any(plan.has_overage for plan in catalogue.plans.values())

    def at(self, time_us: int) -> Catalogue | None:
        """The version in force at an event's own time; None before any publication."""
        if not self._versions:
            return None
        return self._versions[bisect_right(self._starts, time_us)]

    def known(self, version: int) -> Catalogue:
        """A published version by its number, whenever it is in force."""
        return next(each for each in self._versions if each.version == version)

    @property
    def last(self) -> Catalogue | None:
        """The version that was published last."""
        return self._versions[-1] if self._versions else None

    def plan_at(self, name: str, time_us: int, period_us: int) -> Plan | None:
        """The plan as it is in force at an instant of a period that starts at `period_us`: a price that is no sum of its
        units neither begins nor ends inside a period (README, "Versions inside a period"). None: it is not sold."""
        last = bisect_right(self._starts, time_us)
        plan = self._versions[last].plans.get(name) if self._versions else None
        first = bisect_right(self._starts, period_us)
        if plan is None or first >= last:
            return plan
        known = self._in_force.get((name, first, last))
        if known is None:
            earlier = [
                catalogue.plans[name].prices for catalogue in self._versions[first:last] if name in catalogue.plans
            ]
            known = self._in_force[name, first, last] = plan.following(earlier)
        return known

    def place(self, instant: int) -> int:
        """Which version, counted from 0, is in force then."""
        return bisect_right(self._starts, instant)

    @property
    def last_start(self) -> int:
        """The instant from which the last version is in force."""
        return self._starts[-1] if self._starts else 0

    def starts_within(self, after_us: int, until_us: int) -> list[int]:
        """The version starts behind one instant, up to and with another."""
        return self._starts[bisect_right(self._starts, after_us) : bisect_right(self._starts, until_us)]

    def around(self, time_us: int) -> tuple[int | None, int | None]:
        """The nearest version starts at or before, and after, the instant."""
        index = bisect_right(self._starts, time_us)
        return (
            self._starts[index - 1] if index else None,
            self._starts[index] if index < len(self._starts) else None,
        )

    @property
    def publications(self) -> int:
        """How many versions were published: it grows whenever a boundary is added."""
        return len(self._versions)

    @property
    def versions(self) -> list[tuple[int, int]]:
        """(version, effective instant) in order; the first one's instant is 0."""
        return list(zip((v.version for v in self._versions), [0, *self._starts], strict=False))
