"""What a stretch cost and earned, as a terminal and HTTP show it: amounts are decimal text, what is not known is null."""

from msgspec import Struct, field

from actors.web.times import instant
from actors.whatif import Found
from engine.cost.economics import Economics, Line, ModelLine
from engine.cost.token_costs import TokenClass
from engine.cost.whatif import in_a_month
from engine.money import amount_text


class TokenCost(Struct):
    """A class of a model's tokens; amounts are per 1,000,000 of them."""

    tokens: int
    direct: str | None
    loaded: str | None  # with a share of what no request took
    price_floor: str | None  # of which the loaded cost leaves the target margin


class Month(Struct):
    """A projection: as much as in the stretch, for a month."""

    cost: str  # loaded
    revenue: str
    margin: str | None


class ModelCosts(Struct):
    """A model."""

    model: str
    requests: int
    direct: str
    loaded: str
    revenue: str
    margin: str | None  # revenue less loaded cost
    unsplit: str  # of the direct cost: of tokens whose work no profile tells
    tokens: dict[TokenClass, TokenCost]
    projected_month: Month


class CustomerCosts(Struct):
    """A model and one of its customers; an empty account: nobody is known."""

    model: str
    account: str
    direct: str
    loaded: str
    revenue: str
    margin: str | None


class Side(Struct):
    """`is_projection` False: what the records come to."""

    is_projection: bool
    buckets: dict[str, str]
    utilisation_percent: str | None  # of what the GPUs cost, what requests took
    unspread: str  # what no request took, and nobody bears
    unknown: int  # executions and windows whose cost is not known
    models: list[ModelCosts]
    customers: list[CustomerCosts]


class WhatIfAnswer(Struct):
    """`differs`: where `actual` is not what was told on the topic `costs`, by how much, by bucket: rates were published
    after an hour had closed, or records are gone, or not all has been told yet."""

    from_: str = field(name="from")
    to: str
    currency: str | None
    target_margin_percent: str
    actual: Side
    projection: Side
    differs: dict[str, str]
    other_currencies: list[str]  # of charges that stand in no figure here
    records: int  # that were read


def shown(found: Found, margin_ppm: int) -> WhatIfAnswer:
    """The answer, for people and programs."""
    return WhatIfAnswer(
        *(instant(found.from_us), instant(found.until_us), found.currency or None, _percent(margin_ppm)),
        *(_side(found, found.actual, margin_ppm, False), _side(found, found.projection, margin_ppm, True)),
        {bucket.value: amount_text(amount) for bucket, amount in found.differs.items()},
        *(found.other_currencies, found.records),
    )


def _side(found: Found, sums: Economics, margin_ppm: int, is_projection: bool) -> Side:
    ppm = sums.utilisation_ppm
    return Side(
        is_projection,
        {bucket.value: amount_text(amount) for bucket, amount in sums.buckets.items()},
        None if ppm is None else _percent(ppm),
        *(amount_text(sums.unspread), sums.unknown),
        [_model(found, model, margin_ppm) for model in sums.models],
        [_customer(line) for line in sums.lines],
    )


def _model(found: Found, line: ModelLine, margin_ppm: int) -> ModelCosts:
    def month(amount: int | None) -> str | None:
        return None if amount is None else amount_text(in_a_month(amount, stretch_us, found.month_us))

    stretch_us = found.until_us - found.from_us
    tokens = {
        each: TokenCost(
            line.counts[each],
            _amount(line.unit_cost(each, loaded=False)),
            _amount(line.unit_cost(each, loaded=True)),
            _amount(line.price_floor(each, margin_ppm)),
        )
        for each in TokenClass
    }
    return ModelCosts(
        *(line.model, line.requests, amount_text(line.direct), amount_text(line.loaded), amount_text(line.revenue)),
        *(_amount(line.margin), amount_text(line.unsplit), tokens),
        Month(month(line.loaded) or "0", month(line.revenue) or "0", month(line.margin)),
    )


def _customer(line: Line) -> CustomerCosts:
    return CustomerCosts(
        *(line.model, line.account, amount_text(line.direct), amount_text(line.loaded), amount_text(line.revenue)),
        _amount(line.margin),
    )


def _amount(pico: int | None) -> str | None:
    return None if pico is None else amount_text(pico)


def _percent(ppm: int) -> str:
    """Of millionths, with their four digits."""
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04d}" if rest else str(whole)
