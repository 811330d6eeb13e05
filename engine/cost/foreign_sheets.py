"""The public price sheets of others, as sheets of ours: genai-prices (`data.json`) and LiteLLM
(`model_prices_and_context_window.json`).

Numbers are read as they are written, never through a float. What cannot be said in our words is left out and told:
a model whole, when its tokens would be priced wrongly without it; else the one charge, under `not_covered`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine.cost.price_sheet import REQUEST, BadSheet, PriceSheet, Rate, SheetDocument, SheetModel, Terms
from engine.money import amount_text

_MILLION: Final = 1_000_000
_AMOUNT_MAX: Final = Decimal(10) ** 15

# What others call our buckets. Of a price that neither names nor excludes a bucket, it is the whole of its side.
_GENAI: Final = {
    "input_mtok": ("input_text", _MILLION),
    "output_mtok": ("output_text", _MILLION),
    "cache_read_mtok": ("input_cached", _MILLION),
    "cache_write_mtok": ("input_cache_write", _MILLION),
    "cache_write_5m_mtok": ("input_cache_write_5m", _MILLION),
    "cache_write_1h_mtok": ("input_cache_write_1h", _MILLION),
    "input_audio_mtok": ("input_audio", _MILLION),
    "output_audio_mtok": ("output_audio", _MILLION),
    "input_image_mtok": ("input_image", _MILLION),
    "input_video_mtok": ("input_video", _MILLION),
    "output_reasoning_mtok": ("output_reasoning", _MILLION),
    "requests_kcount": (REQUEST, 1_000),
}
_LITELLM: Final = {
    "input_cost_per_token": "input_text",
    "output_cost_per_token": "output_text",
    "cache_read_input_token_cost": "input_cached",
    "cache_creation_input_token_cost": "input_cache_write",
    "cache_creation_input_token_cost_above_1hr": "input_cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_reasoning_token": "output_reasoning",
    "input_cost_per_request": REQUEST,
}
_LITELLM_ABOVE: Final = re.compile(r"(.+)_above_([0-9]+)k_tokens", re.ASCII)
# Prices of another class of service than the plain one: a plain request does not pay them.
_LITELLM_OTHER_CLASS: Final = re.compile(r".*_(batches|priority|flex)$", re.ASCII)


class Imported(Struct, frozen=True):
    """A sheet, and what of the other one is not in it: (model, why)."""

    document: SheetDocument
    left_out: tuple[tuple[str, str], ...]


class _Unsayable(ValueError):
    """Of one model."""


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.Decoder(float_hook=Decimal).decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadSheet(f"no JSON: {str(error)[:200]}") from error


def _rate(field: str, value: object, per: int, units: int) -> Rate:
    """`value` for `units` units, as an amount per `per`."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _Unsayable(f"{field} is no number")
    number = Decimal(value)
    if not number.is_finite() or number < 0 or number >= _AMOUNT_MAX:
        raise _Unsayable(f"{field}: {number} is no price")
    numerator, denominator = number.as_integer_ratio()
    pico, rest = divmod(numerator * 10**12 * per, denominator * units)
    if rest:
        raise _Unsayable(f"{field}: {number} has more digits than an amount")
    return Rate(amount_text(pico), per)


# ---------------------------------------------------------------------------------------------------------- LiteLLM


def from_litellm(body: bytes, providers: Iterable[str] = ()) -> Imported:
    """Models of the providers (none: of all). Raises BadSheet."""
    found = _decoded(body)
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise BadSheet("no LiteLLM sheet: it is no object of objects")
    wanted = frozenset(providers)
    models: dict[tuple[str, str], SheetModel] = {}
    left_out: list[tuple[str, str]] = []
    for name, entry in found.items():
        provider = entry.get("litellm_provider")
        if name == "sample_spec" or (wanted and provider not in wanted):
            continue
        try:
            model = _litellm_model(name, provider, entry)
            if models.setdefault((model.provider, model.model), model) is not model:
                raise _Unsayable("its provider has a model of that name already")
        except _Unsayable as error:
            left_out.append((name, str(error)))
    return _imported("LiteLLM", models.values(), left_out)


def _litellm_model(name: str, provider: object, entry: Mapping[str, Any]) -> SheetModel:
    if type(provider) is not str or not provider:
        raise _Unsayable("it names no provider")
    bands: dict[int, dict[str, Rate]] = {}
    not_covered: list[str] = []
    for field, value in entry.items():
        if value is None or "cost" not in field or _LITELLM_OTHER_CLASS.fullmatch(field):
            continue
        above = _LITELLM_ABOVE.fullmatch(field)
        bucket = _LITELLM.get(above[1] if above else field)
        if bucket is None:
            not_covered.append(field)
            continue
        rate = _rate(field, value, 1_000 if bucket == REQUEST else _MILLION, 1)
        bands.setdefault(int(above[2]) * 1_000 if above else 0, {})[bucket] = rate
    plain = bands.get(0, {})
    if not plain:
        raise _Unsayable("it has no price of tokens or requests")
    # A band names what differs; the rest is as below it.
    terms: list[Terms] = []
    standing: dict[str, Rate] = {}
    for above_tokens in sorted(bands):
        standing = standing | bands[above_tokens]
        terms.append(Terms(standing, above_input_tokens=above_tokens))
    plain_name = name.removeprefix(f"{provider}/")
    aliases = (name,) if plain_name != name else ()
    return SheetModel(provider, plain_name, tuple(terms), aliases, tuple(sorted(not_covered)))


# ------------------------------------------------------------------------------------------------------ genai-prices


def from_genai_prices(body: bytes, providers: Iterable[str] = ()) -> Imported:
    """Models of the providers (none: of all). Raises BadSheet."""
    found = _decoded(body)
    if isinstance(found, dict):
        found = found.get("providers")
    if not isinstance(found, list) or not all(isinstance(entry, dict) and entry.get("id") for entry in found):
        raise BadSheet("no genai-prices sheet: it is no list of providers")
    wanted = frozenset(providers)
    models: dict[tuple[str, str], SheetModel] = {}
    left_out: list[tuple[str, str]] = []
    for provider in found:
        if wanted and provider["id"] not in wanted:
            continue
        for entry in provider.get("models") or ():
            name = str(entry.get("id") or "")
            try:
                models[provider["id"], name] = _genai_model(str(provider["id"]), name, entry)
            except _Unsayable as error:
                left_out.append((f"{provider['id']}/{name}", str(error)))
    return _imported("genai-prices", models.values(), left_out)


def _genai_model(provider: str, name: str, entry: Mapping[str, Any]) -> SheetModel:
    prices = entry.get("prices")
    stretches = prices if isinstance(prices, list) else [{"prices": prices}]
    terms: list[Terms] = []
    not_covered: set[str] = set()
    for stretch in stretches:
        since = _start(stretch.get("constraint"))
        # The first one holds where no other does, whatever its constraint says.
        terms.extend(_genai_terms(stretch.get("prices"), None if stretch is stretches[0] else since, not_covered))
    if entry.get("price_variants"):
        not_covered.add("price_variants")
    if not terms:
        raise _Unsayable("it has no price of tokens or requests")
    aliases = tuple(alias for alias in _aliases(entry.get("match")) if alias != name)
    return SheetModel(provider, name, tuple(terms), aliases, tuple(sorted(not_covered)))


def _start(constraint: object) -> str | None:
    if constraint is None:
        return None
    if not isinstance(constraint, dict) or set(constraint) - {"type"} != {"start_date"}:
        raise _Unsayable("a price of it holds at hours of the day only")
    return f"{constraint['start_date']}T00:00:00Z"


def _genai_terms(prices: object, since: str | None, not_covered: set[str]) -> Iterator[Terms]:
    if not isinstance(prices, dict):
        raise _Unsayable("it has no prices")
    bands: dict[int, dict[str, Rate]] = {0: {}}
    for field, value in prices.items():
        if value is None:
            continue
        if field not in _GENAI:
            not_covered.add(field)
            continue
        bucket, per = _GENAI[field]
        if not isinstance(value, dict):
            bands[0][bucket] = _rate(field, value, per, per)
            continue
        bands[0][bucket] = _rate(field, value.get("base"), per, per)
        for tier in value.get("tiers") or ():
            start = tier.get("start")
            if type(start) is not int or start < 1:
                raise _Unsayable(f"{field}: a tier starts at {start!s:.20}")
            bands.setdefault(start, {})[bucket] = _rate(field, tier.get("price"), per, per)
    standing: dict[str, Rate] = {}
    for above_tokens in sorted(bands):
        standing = standing | bands[above_tokens]
        if standing:
            yield Terms(standing, since, above_input_tokens=above_tokens)


def _aliases(match: object) -> list[str]:
    """The names that a match takes, as far as they are names or prefixes."""
    if not isinstance(match, dict):
        return []
    if "or" in match and isinstance(match["or"], list):
        return [alias for part in match["or"] for alias in _aliases(part)]
    if type(match.get("equals")) is str and match["equals"]:
        return [match["equals"]]
    if type(match.get("starts_with")) is str and match["starts_with"]:
        return [f"{match['starts_with']}*"]
    return []


def _imported(source: str, models: Iterable[SheetModel], left_out: list[tuple[str, str]]) -> Imported:
    kept = []
    for model in models:
        try:
            PriceSheet(SheetDocument("USD", (model,)))
        except BadSheet as error:
            left_out.append((f"{model.provider}/{model.model}", str(error)))
        else:
            kept.append(model)
    kept.sort(key=lambda model: (model.provider, model.model))
    return Imported(SheetDocument("USD", tuple(kept), source=source), tuple(sorted(left_out)))
