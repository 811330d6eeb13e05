"""Revenue and cost of one request side by side, and sums of both: pure, over what the two topics told.

The join is by account and request: the id of the usage event that bills a request is the request's. A request whose cost is not
known has no margin, and a sum that has one in it has none (R7)."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from engine.cost.gpu_rates import HOUR_US


class Revenue(Struct, frozen=True, gc=False):
    """What one line of the topic `rated` charges for a usage event."""

    account: str
    request: str
    time_us: int
    amount: int  # pico
    currency: str
    model: str = ""  # of its cell; "" where that has none


class Cost(Struct, frozen=True, gc=False):
    """What one execution cost in one hour, as the topic `costs` has it last."""

    account: str  # "": nobody is known
    request: str
    hour_us: int
    amount: int | None  # pico; None: not known
    currency: str  # "" while no rates were known
    model: str
    feature: str = ""
    settled: bool = True


class By(StrEnum):
    """What sums may be told apart by."""

    ACCOUNT = "account"
    MODEL = "model"
    FEATURE = "feature"
    HOUR = "hour"
    REQUEST = "request"


class Margin(Struct):
    """A sum. What it is not told apart by is an empty text, or 0."""

    account: str
    model: str
    feature: str
    hour_us: int
    request: str
    currency: str
    revenue: int = 0  # pico
    known_cost: int = 0  # pico, of the requests whose cost is known
    requests: int = 0
    without_cost: int = 0  # rated, and their cost is not known
    without_revenue: int = 0  # served, and nothing is charged for them
    provisional: int = 0  # their cost may still change without a correction

    @property
    def cost(self) -> int | None:
        """None while that of any request is not known."""
        return None if self.without_cost else self.known_cost

    @property
    def margin(self) -> int | None:
        """Revenue − cost, where that is known."""
        return None if self.cost is None else self.revenue - self.cost

    @property
    def permille(self) -> int | None:
        """The margin of the revenue, rounded down; None where there is no revenue or no margin."""
        margin = self.margin
        return None if margin is None or self.revenue <= 0 else margin * 1_000 // self.revenue


class _Request(Struct):
    revenue: dict[str, int]  # by currency
    cost: int | None = None
    cost_currency: str = ""
    served: bool = False
    settled: bool = True
    hour_us: int = 0
    model: str = ""
    feature: str = ""


def margins(revenues: Iterable[Revenue], costs: Iterable[Cost], by: Sequence[By]) -> list[Margin]:
    """Sums over all requests of both, in order. A request counts in the hour in which it was last served, else rated."""
    requests: dict[tuple[str, str], _Request] = {}
    for cost in costs:
        found = requests.setdefault((cost.account, cost.request), _Request({}))
        if not found.served:
            found.served, found.cost, found.cost_currency = True, 0, cost.currency
        known = found.cost is not None and cost.amount is not None and cost.currency == found.cost_currency
        found.cost = (found.cost or 0) + (cost.amount or 0) if known else None
        found.settled &= cost.settled
        if cost.hour_us >= found.hour_us:
            found.hour_us, found.model, found.feature = cost.hour_us, cost.model, cost.feature
    for revenue in revenues:
        found = requests.setdefault((revenue.account, revenue.request), _Request({}))
        found.revenue[revenue.currency] = found.revenue.get(revenue.currency, 0) + revenue.amount
        if not found.served:
            found.hour_us = revenue.time_us - revenue.time_us % HOUR_US
            found.model = found.model or revenue.model
    sums: dict[tuple[str, str, str, int, str, str], Margin] = {}
    for (account, name), request in requests.items():
        # Cost in another currency than the revenue's is not known in the revenue's: nothing is converted here.
        currencies = list(request.revenue) or [request.cost_currency]
        for currency in currencies:
            key = (
                account if By.ACCOUNT in by else "",
                request.model if By.MODEL in by else "",
                request.feature if By.FEATURE in by else "",
                request.hour_us if By.HOUR in by else 0,
                name if By.REQUEST in by else "",
                currency,
            )
            row = sums.get(key)
            if row is None:
                row = sums[key] = Margin(*key)
            row.requests += 1
            row.revenue += request.revenue.get(currency, 0)
            row.without_revenue += not request.revenue
            if request.cost is None or request.cost_currency != currency:
                row.without_cost += 1
            else:
                row.known_cost += request.cost
                row.provisional += not request.settled
    return [sums[key] for key in sorted(sums)]
