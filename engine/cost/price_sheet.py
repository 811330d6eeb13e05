"""What a provider charges for a resold model: a sheet of prices with effective dates, and the cost of one request by it.

A sheet is a JSON document (README.md, "Cost", has it). Amounts are decimal text per so many units, exact like every
price; the cost of a request is rounded half-even to a pico once. What is not known is None, with the reason.
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from engine.events import TEXT_MAX, Malformed, parse_time
from engine.meters.tokens import BUCKETS, TOKENS, BadUsage, TokenUsage
from engine.money import NANO, NotADecimal, parse_amount, parse_quantity, round_half_even

REQUEST: Final = "request"  # the price of a request, whatever it takes
PER_MAX: Final = 10**12
MODELS_MAX: Final = 20_000
_PERCENT: Final = 100
_CURRENCY: Final = re.compile("[A-Z]{3}", re.ASCII)
_NEVER: Final = 1 << 62

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Units = Annotated[int, msgspec.Meta(ge=1, le=PER_MAX)]
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class BadSheet(ValueError):
    """The document is no price sheet; the message names the model and the field."""


# ---------------------------------------------------------------------------------------------------- as it is written


class Rate(Struct, forbid_unknown_fields=True, frozen=True):
    """An amount per so many units."""

    amount: str
    per: _Units = 1_000_000


class Terms(Struct, rename={"since": "from"}, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What a model costs in [from, until), of requests with more input tokens than `above_input_tokens`.

    `prices` is by bucket of tokens, or `request`. A bucket without a price is priced with the one that it is part of."""

    prices: Annotated[dict[str, Rate], msgspec.Meta(min_length=1)]
    since: str | None = None  # RFC 3339; None: always
    until: str | None = None
    above_input_tokens: _Tokens = 0
    negotiated: bool = False  # agreed with the provider: before any list price


class SheetModel(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One model of one provider. An alias that ends in * is a prefix."""

    provider: _Name
    model: _Name
    terms: Annotated[tuple[Terms, ...], msgspec.Meta(min_length=1)]
    aliases: tuple[_Name, ...] = ()
    not_covered: tuple[str, ...] = ()  # what the provider also charges for, and no usage object states


class Discount(Struct, rename={"since": "from"}, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Percent off a provider's list prices in [from, until)."""

    provider: _Name
    percent: str
    since: str | None = None
    until: str | None = None


class SheetDocument(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The whole sheet."""

    currency: str
    models: Annotated[tuple[SheetModel, ...], msgspec.Meta(max_length=MODELS_MAX)]
    discounts: tuple[Discount, ...] = ()
    source: str = ""  # where the prices are from, for people


_decoder: Final = msgspec.json.Decoder(SheetDocument)


def encode_sheet(document: SheetDocument) -> bytes:
    """The document as a file has it."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


# ------------------------------------------------------------------------------------------------------- as it is used


class _Terms(Struct, frozen=True):
    since_us: int
    until_us: int
    above: int
    negotiated: bool
    pico: dict[str, Fraction]  # for one unit, by bucket
    split: frozenset[str]  # buckets that have a price of their own


class UpstreamCost(Struct, frozen=True):
    """What the provider charges for one request. `pico` None: not known, and `why`."""

    pico: int | None
    why: str | None = None
    provider: str | None = None
    model: str | None = None  # as the sheet has it
    negotiated: bool = False
    not_covered: tuple[str, ...] = ()  # charges that may come on top


class PriceSheet:
    """A sheet, ready to price requests. Raises BadSheet for one that contradicts itself."""

    def __init__(self, document: SheetDocument) -> None:
        if not _CURRENCY.fullmatch(document.currency):
            raise BadSheet(f"currency {document.currency[:10]!r} is not three capital letters")
        self.currency = document.currency
        self._models: dict[tuple[str, str], SheetModel] = {}
        self._terms: dict[tuple[str, str], tuple[_Terms, ...]] = {}
        self._exact: dict[str, set[tuple[str, str]]] = {}
        self._prefixes: dict[str, set[tuple[str, str]]] = {}
        for model in document.models:
            self._add(model)
        self._discounts = [self._discount(discount) for discount in document.discounts]

    def _add(self, model: SheetModel) -> None:
        key = (model.provider, model.model)
        where = f"{model.provider}/{model.model}"
        if key in self._models:
            raise BadSheet(f"{where}: it stands there twice")
        self._models[key] = model
        terms = tuple(_compiled(where, each) for each in model.terms)
        seen = [(each.negotiated, each.since_us, each.above) for each in terms]
        if len(set(seen)) < len(seen):
            raise BadSheet(f"{where}: two terms begin at one instant for requests of one size")
        self._terms[key] = terms
        for alias in (model.model, *model.aliases):
            names = self._prefixes if alias.endswith("*") else self._exact
            names.setdefault(alias.removesuffix("*"), set()).add(key)

    def _discount(self, discount: Discount) -> tuple[str, int, int, Fraction]:
        where = f"discount of {discount.provider}"
        try:
            percent = Fraction(parse_amount(discount.percent), 10**12)
        except NotADecimal as error:
            raise BadSheet(f"{where}: percent: {error}") from error
        if not 0 < percent <= _PERCENT:
            raise BadSheet(f"{where}: percent {discount.percent} is not above 0 and at most 100")
        since_us, until_us = _span(where, discount.since, discount.until)
        return discount.provider, since_us, until_us, 1 - percent * Fraction(1, _PERCENT)

    def find(self, model: str, provider: str | None = None) -> SheetModel | str:
        """The sheet's model of that name, else alias, else longest prefix; or why there is none."""
        found = self._of(self._exact.get(model, ()), provider)
        for length in range(len(model), 0, -1):
            if found:
                break
            found = self._of(self._prefixes.get(model[:length], ()), provider)
        if not found:
            of = "" if provider is None else f" of {provider}"
            return f"the sheet has no model {model[:80]}{of}"
        if len(found) > 1:
            names = ", ".join(sorted(key[0] for key in found))
            return f"the sheet has {model[:80]} of {names}: the usage must name its provider"
        return self._models[found[0]]

    def _of(self, keys: Iterable[tuple[str, str]], provider: str | None) -> list[tuple[str, str]]:
        return [key for key in keys if provider in (None, key[0])]

    def cost(
        self, model: str, data: Mapping[str, Any], at_us: int, *, provider: str | None = None, shape: str | None = None
    ) -> UpstreamCost:
        """Of one request: `data` has its usage object under `usage`, and its shape in `usage_shape` unless it is given."""
        found = self.find(model, provider)
        if isinstance(found, str):
            return UpstreamCost(None, found)
        key = (found.provider, found.model)
        try:
            terms = self._in_force(key, at_us, _tokens(data, shape, frozenset())["input"])
            if terms is None:
                return UpstreamCost(None, f"{found.provider}/{found.model} has no terms in force then", *key)
            nano = _tokens(data, shape, terms.split)
        except BadUsage as error:
            return UpstreamCost(None, str(error), *key)
        counts = {bucket: nano[bucket] for bucket in BUCKETS if nano[bucket]}
        unpriced = [bucket for bucket in counts if bucket not in terms.pico]
        if unpriced:
            return UpstreamCost(None, f"{found.provider}/{found.model} has no price for {unpriced[0]}", *key)
        exact = sum((terms.pico[bucket] * count for bucket, count in counts.items()), Fraction(0)) * Fraction(1, NANO)
        exact += terms.pico.get(REQUEST, 0)
        if not terms.negotiated:
            for provider_name, since_us, until_us, factor in self._discounts:
                if provider_name == found.provider and since_us <= at_us < until_us:
                    exact *= factor
        pico = round_half_even(exact.numerator, exact.denominator)
        return UpstreamCost(pico, None, *key, terms.negotiated, found.not_covered)

    def _in_force(self, key: tuple[str, str], at_us: int, input_nano: int) -> _Terms | None:
        """Agreed terms before listed ones, then the newest, then the narrowest."""
        there = [
            terms
            for terms in self._terms[key]
            if terms.since_us <= at_us < terms.until_us and (not terms.above or input_nano > terms.above * NANO)
        ]
        return max(there, key=lambda terms: (terms.negotiated, terms.since_us, terms.above), default=None)


def parse_sheet(body: bytes) -> PriceSheet:
    """Raises BadSheet."""
    try:
        document = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadSheet(str(error)[:200]) from error
    return PriceSheet(document)


def _tokens(data: Mapping[str, Any], shape: str | None, split: frozenset[str]) -> dict[str, int]:
    """Nano-tokens by bucket, and of each side. Raises BadUsage."""
    found = TokenUsage(shape, "usage", split).normalised(dict(data))[TOKENS]
    return {bucket: parse_quantity(count) for bucket, count in found.items()}


def _compiled(where: str, terms: Terms) -> _Terms:
    pico: dict[str, Fraction] = {}
    for bucket, rate in terms.prices.items():
        if bucket != REQUEST and bucket not in BUCKETS:
            raise BadSheet(f"{where}: prices.{bucket[:40]} is no bucket of tokens, nor {REQUEST}")
        try:
            amount = parse_amount(rate.amount)
        except NotADecimal as error:
            raise BadSheet(f"{where}: prices.{bucket}: {error}") from error
        if amount < 0:
            raise BadSheet(f"{where}: prices.{bucket} is negative")
        pico[bucket] = Fraction(amount, rate.per)
    since_us, until_us = _span(where, terms.since, terms.until)
    return _Terms(since_us, until_us, terms.above_input_tokens, terms.negotiated, pico, frozenset(pico) - {REQUEST})


def _span(where: str, since: str | None, until: str | None) -> tuple[int, int]:
    try:
        since_us = -_NEVER if since is None else parse_time(since)
        until_us = _NEVER if until is None else parse_time(until)
    except Malformed as error:
        raise BadSheet(f"{where}: {error}") from error
    if since_us >= until_us:
        raise BadSheet(f"{where}: until is not behind from")
    return since_us, until_us
