"""Catalogues drawn at random, and usage to be rated by them: what the laws are tried on where nobody thought of a case.

Every catalogue here may be published. Its meters count, filter, group and sum as a seller's might; its prices are of every
model, with whatever may stand around one. Its usage meets all of that, and now and then none of it.
"""

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from engine.catalog import CatalogueDocument
from engine.meters.aggregates import RANKED
from engine.prices.models import MODELS
from tests.engine.bench import Bench

PLAN: Final = "plan"
OTHER: Final = "other"  # a plan of the same prices at other terms
TYPES: Final = ("use", "job")
SOLD: Final = ("a", "b", "c")  # models with a price, where a price looks at the model
STATES: Final = ("completed", "aborted", "error")
SESSIONS: Final = 6
AMOUNTS: Final = ("0", "0.000000000001", "0.0000007", "0.25", "1", "3", "12.5")
OF_EACH_EVENT: Final = ("percentage", "dynamic")  # models of the amount that each event states
ADDITIVE: Final = ("count", "sum", "duration", "time_weighted_sum")
EXPRESSIONS: Final = ("tokens * seconds / 7", "max(tokens, 10) - 3", "default(extra, 2) * tokens", "ceil(seconds / 3)")
DIMENSIONS: Final[dict[str, dict[str, Any]]] = {
    "size": {"of": "tokens", "bands": [{"name": "short", "up_to": "10"}, {"name": "long"}]},
    "place": {"of": "region", "values": {"eu-1": "eu", "eu-2": "eu"}, "otherwise": "far", "default": "far"},
    "clock": {
        "hours": [{"name": "night", "from": "22:00", "to": "06:30"}],
        "zone": "America/New_York",
        "otherwise": "day",
    },
}
REACHED: Final = {"model": SOLD, "size": ("short", "long"), "place": ("eu", "far"), "clock": ("night", "day")}


def random_usage(source: random.Random) -> tuple[str, dict[str, object]]:
    """The type and the data of an event, with most of what any meter here asks for."""
    data: dict[str, object] = {
        "model": source.choice((*SOLD, *SOLD, *SOLD, "d")),
        "tokens": source.choice((0, 1, 10, 11, source.randrange(200), "2.5")),
        "seconds": source.choice((1, 2, 3.25, 10)),
        "region": source.choice(("eu-1", "eu-2", "us-1")),
        "status": source.choice((*STATES, "completed")),
    }
    number = source.randrange(SESSIONS)
    data |= {"session": f"s{number}", "state": source.choice(("start", "heartbeat", "stop"))}
    if source.random() < 0.8:  # as the session's other events say it
        data |= {"model": SOLD[number % 3], "tokens": 7 * number, "seconds": 1, "region": "eu-1"}
    if source.random() < 0.3:
        data["extra"] = source.randrange(4)
    if source.random() < 0.06:
        del data[source.choice(list(data))]
    return source.choice(TYPES), data


class RandomCatalogue:
    """Meters drawn once; `version` draws prices for them, as often as it is asked."""

    def __init__(self, source: random.Random, *, sharing: bool = False) -> None:
        """`sharing`: whether prices may share an allowance, or tiers."""
        self._source, self._sharing = source, sharing
        self._meters = {f"meter_{number}": self._meter(TYPES[number % 2]) for number in range(source.randrange(2, 5))}
        self._splits = {name: self._split(meter) for name, meter in self._meters.items()}
        used = {name for meter in self._meters.values() for name in meter["group_by"]}
        self._dimensions = {name: body for name, body in DIMENSIONS.items() if name in used}

    def version(self) -> CatalogueDocument:
        """A catalogue that may follow any other that was drawn here: the same prices by name, at other terms."""
        plans = {}
        for name in (PLAN, OTHER):
            close_after_s = self._source.choice((1, 1, 4, 30)) * 86_400
            prices = self._prices()
            plan = {"currency": "USD", "prices": prices, "close_after_s": close_after_s, "fees": self._fees()}
            plan["seats"] = {"editor": {"amount": "0.000000000007"}} if self._source.random() < 0.4 else {}
            plan |= self._shared(prices) if self._sharing else {}
            plans[name] = plan | {"commitments": self._commitments(prices)}
        body = {"meters": self._meters, "plans": plans, "dimensions": self._dimensions}
        return msgspec.convert(body, CatalogueDocument)

    def _fees(self) -> dict[str, Any]:
        if self._source.random() < 0.7:
            return {}
        shared = self._source.choice(({}, {}, {"prorate": False}))
        fees: dict[str, Any] = {"base fee": {"amount": self._source.choice(("5", "0.000000000001", "19.99"))} | shared}
        if self._source.random() < 0.6:
            ahead: dict[str, Any] = {"amount": self._source.choice(("7", "0.000000000031")), "in_advance": True}
            fees["ahead"] = ahead | self._source.choice(({}, {}, {"prorate": False}))
        return fees

    def _commitments(self, prices: dict[str, Any]) -> dict[str, Any]:
        """Of what has none of its own."""
        free = [name for name, price in prices.items() if not {"minimum", "commitment"} & price.keys()]
        if not free or self._source.random() < 0.6:
            return {}
        amount, shared = self._source.choice(("3", "45")), self._source.choice(({}, {}, {"prorate": False}))
        covered = self._source.sample(free, self._source.randint(1, len(free)))
        return {"together": {"amount": amount, "prices": covered} | shared}

    def _shared(self, prices: dict[str, Any]) -> dict[str, Any]:
        """By prices whose meters add up, made simple for it."""
        fit = [name for name, price in prices.items() if self._meters[price["meter"]]["aggregation"] in ADDITIVE]
        if len(fit) < 2 or self._source.random() < 0.2:
            return {}
        sharing = self._source.sample(fit, self._source.randint(2, len(fit)))
        model = self._source.choice(("per_unit", "graduated", "volume"))
        ends = [*map(str, sorted(self._source.sample(range(1, 400), self._source.randrange(1, 3)))), None]
        for name in sharing:
            prices[name] = {key: prices[name][key] for key in ("meter", "where", "discount") if key in prices[name]}
            rates = [
                {"amount": self._source.choice(AMOUNTS), "per": self._source.choice(("1", "3", "100"))} for _ in ends
            ]
            tiers = [rate | ({"up_to": end} if end else {}) for rate, end in zip(rates, ends, strict=True)]
            prices[name] |= {"model": model} | (rates[0] if model == "per_unit" else {"tiers": tiers})
        order = self._source.choice(({}, {"order": "as_listed"})) if model != "volume" else {}
        if model != "per_unit":
            return {"shared_tiers": {"together": {"prices": sharing} | order}}
        said = self._source.choice(({}, {"prorate": False}))
        quantity = self._source.choice(("7", "30.5", "400"))
        return {"allowances": {"together": {"quantity": quantity, "prices": sharing} | order | said}}

    def _prices(self) -> dict[str, Any]:
        prices = {}
        for meter, dimension in self._splits.items():
            for value in REACHED[dimension] if dimension else ("",):
                name = f"{meter}-{value}" if value else meter
                where = {dimension: value} if dimension else {}
                prices[name] = {"meter": meter, "where": where} | self._price(self._meters[meter])
        return prices

    def event(self, bench: Bench, at: int) -> bytes:
        """A usage event that the meters may ask for."""
        event_type, data = random_usage(self._source)
        return bench.event(at=at, type=event_type, data=data)

    def _meter(self, event_type: str) -> dict[str, Any]:
        source = self._source
        group_by = [name for name in REACHED if source.random() < 0.4]
        meter: dict[str, Any] = {"event_type": event_type, "group_by": group_by}
        kind = source.choice(("count", "field", "expression", "other", "time"))
        if kind == "count":
            meter["aggregation"] = "count"
        elif kind == "other":
            meter["aggregation"] = source.choice(("max", "min", "latest", "average", "unique_count"))
            meter["field"] = "region" if meter["aggregation"] == "unique_count" else "tokens"
            if meter["aggregation"] in RANKED and source.random() < 0.7:
                meter["change_points"] = source.randrange(3)
        elif kind == "time":
            timeout_s = source.choice((1, 150, None))  # None: it has levels, of which no silence is the end
            of: dict[str, str] = source.choice(({}, {"field": "tokens"}, {"expression": "tokens / 7"}))
            if timeout_s:
                meter |= {"aggregation": "duration", "session": "session", "timeout_s": timeout_s, **of}
            else:
                meter |= {"aggregation": "time_weighted_sum", "session": "session", **(of or {"field": "tokens"})}
        else:
            meter |= {"aggregation": "sum", kind: source.choice(EXPRESSIONS) if kind == "expression" else "tokens"}
        if source.random() < 0.4:
            meter["when"] = source.choice(
                (
                    {"status": {"one_of": ["completed", "aborted"]}},
                    {"status": {"none_of": ["error"]}},
                    {"tokens": {"above": "1", "at_most": "150"}},
                    {"extra": {"exists": True}},
                )
            )
        return meter

    def _split(self, meter: dict[str, Any]) -> str | None:
        """The dimension that its prices look at; None: one price for all cells."""
        return self._source.choice((None, *meter["group_by"])) if meter["group_by"] else None

    def _price(self, meter: dict[str, Any]) -> dict[str, Any]:
        source = self._source
        of_events = meter["aggregation"] in ("count", "sum")
        name = source.choice([name for name in MODELS if of_events or name not in OF_EACH_EVENT])
        model = MODELS[name]
        price: dict[str, Any] = {"model": name}
        if model.tiered:
            price["tiers"] = self._tiers(name)
        else:
            price[model.amount_key] = source.choice(AMOUNTS)
            if model.has_per:
                price["per"] = source.choice(("1", "3", "100"))
        if name == "percentage" and source.random() < 0.6:
            price |= {"per_event": source.choice(("0", "0.25")), "event_minimum": "0.1", "event_maximum": "2"}
        if name == "dynamic" and "field" in meter:
            price["estimate"] = "7"
        if "per_event" not in price and source.random() < 0.25:
            price["included"] = source.choice(("5", "0.5", "100"))
            if source.random() < 0.3:
                price["prorate"] = source.choice((True, False))
        if source.random() < 0.2:
            price["maximum"] = source.choice(("2", "500"))
        if source.random() < 0.25:
            price["discount"] = source.choice(("10", "33.3", "100"))
        if source.random() < 0.25:
            left = Decimal(price.get("maximum", "1000")) * (100 - Decimal(price.get("discount", "0"))) / 100
            if Decimal(least := source.choice(("0.0000007", "1", "40"))) <= left:
                price[source.choice(("minimum", "commitment"))] = least
            if "commitment" in price and source.random() < 0.7:
                price["overage"] = source.choice(("1.5", "0.333333333", "7"))
            if {"minimum", "commitment"} & price.keys() and source.random() < 0.3:
                price["prorate"] = source.choice((True, False))
        return price

    def _tiers(self, name: str) -> list[dict[str, Any]]:
        source, model = self._source, MODELS[name]
        ends = sorted(source.sample(range(1, 400), source.randrange(3)))
        amounts = [source.choice(AMOUNTS) for _ in range(len(ends) + 1)]
        if model.rising:
            amounts.sort(key=float)
        tiers = []
        for up_to, amount in zip([*map(str, ends), None], amounts, strict=True):
            tier: dict[str, Any] = {"amount": amount}
            if up_to is not None:
                tier["up_to"] = up_to
            if model.has_per:
                tier["per"] = source.choice(("1", "3"))
            if model.has_fee and source.random() < 0.3:
                tier["flat"] = source.choice(AMOUNTS)
            tiers.append(tier)
        return tiers

    def terms(self, price: str) -> dict[str, Any]:
        """Terms that an account might agree on for the price of this name, fit for it or not."""
        return self._price(self._meters[price.partition("-")[0]])

    def meters(self) -> Sequence[str]:
        """The names of its meters."""
        return sorted(self._meters)

    def prices(self, document: CatalogueDocument) -> Sequence[str]:
        """The names of its prices."""
        return sorted(document.plans[PLAN].prices)
