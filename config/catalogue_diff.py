"""What a catalogue changes against another, in words: per plan, and within it per price, meter and feature.

It compares the documents key by key, so a field that catalogues get tomorrow is compared today. A number written another
way is no change.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from engine.catalog import BadCatalogue, CatalogueDocument, check_succession
from engine.money import NotADecimal, parse_amount, parse_quantity

Kind = Literal["new", "gone", "changed"]

# Fields whose text is a decimal: there 5 and 5.0 say the same. Elsewhere (names, values of dimensions) they do not.
AMOUNTS: Final = frozenset({"amount", "flat", "maximum", "minimum", "factor", "percent"})
QUANTITIES: Final = frozenset(
    {"per", "up_to", "above", "at_least", "below", "at_most", "included", "discount", "estimate", "quantity"}
    | {"per_event", "event_minimum", "event_maximum"}
)
NAMED_BY_ITS_AUTHOR: Final = frozenset({"where", "features", "values"})  # below them all is text, under any key


class Change(Struct, frozen=True):
    """One change: of what, and from what to what, as JSON values; None: not there."""

    path: tuple[str | int, ...]  # keys from the root of the document
    subject: str  # "price large-output, tier 2"
    text: str  # what becomes of it
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


class PlanChanges(Struct, frozen=True):
    """What becomes of one plan; without `changes` it is as it was."""

    plan: str
    currency: str
    kind: Kind
    changes: list[Change]


class Difference(Struct, frozen=True):
    """`refusals`: why the second document could not follow the first one in publication."""

    plans: list[PlanChanges]  # those that change, by name
    unpriced: list[Change]  # of meters that no plan has a price for
    refusals: list[str]

    def __bool__(self) -> bool:
        return bool(self.plans or self.unpriced)


def difference(before: CatalogueDocument, after: CatalogueDocument) -> Difference:
    """What changes from one document to the other."""
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    meters = {
        name: list(_named(("meters", name), f"meter {name}", old["meters"].get(name), new["meters"].get(name)))
        for name in sorted(old["meters"].keys() | new["meters"].keys())
    }
    read = _read_by_meters(old, new)
    plans = []
    priced: set[str] = set()
    for name in sorted(old["plans"].keys() | new["plans"].keys()):
        was, becomes = old["plans"].get(name), new["plans"].get(name)
        counted = _meters(was) | _meters(becomes)
        priced |= counted
        changes = list(_plan(name, was, becomes))
        if was is not None and becomes is not None:
            changes += [change for meter in sorted(counted) for change in meters.get(meter, ())]
            changes += [change for using, found in read if using & counted for change in found]
        if changes:
            kind: Kind = "new" if was is None else "gone" if becomes is None else "changed"
            plans.append(PlanChanges(name, (becomes or was)["currency"], kind, changes))
    unpriced = [change for name, changes in meters.items() if name not in priced for change in changes]
    unpriced += [change for using, found in read if not using & priced for change in found]
    return Difference(plans, unpriced, _refusals(before, after))


def as_json(found: Difference, whom: Mapping[str, Any] | None) -> dict[str, Any]:
    """The difference as JSON values. `whom` says who has each plan (`actors/subscribers.py`); None: it is not known."""
    shown: dict[str, Any] = msgspec.to_builtins(found)
    for plan in shown["plans"]:
        one = None if whom is None else whom.get(plan["plan"])
        plan["accounts"] = None if whom is None else 0 if one is None else one.accounts
        plan["first_accounts"] = [] if one is None else one.names
    return shown


def _refusals(before: CatalogueDocument, after: CatalogueDocument) -> list[str]:
    try:
        check_succession(before, after)
    except BadCatalogue as error:
        return [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in error.faults]
    return []


def _read_by_meters(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[set[str], list[Change]]]:
    """What changes of each declared dimension, token shape and kind of stream, beside the meters that look at it."""
    found = []
    for key, word in (("dimensions", "dimension"), ("token_shapes", "token shape"), ("streams", "streams of")):
        was, becomes = old.get(key, {}), new.get(key, {})
        for name in sorted(was.keys() | becomes.keys()):
            using = {
                meter
                for document in (old, new)
                for meter, body in document["meters"].items()
                if name in _looks_at(key, body)
            }
            changes = list(_named((key, name), f"{word} {name}", was.get(name), becomes.get(name)))
            found.append((using, changes))
    return found


def _looks_at(key: str, meter: Mapping[str, Any]) -> set[str]:
    if key in ("token_shapes", "streams"):
        return {meter["event_type"]}
    return {*meter.get("group_by", ()), *meter.get("when", ())}


def _meters(plan: Mapping[str, Any] | None) -> set[str]:
    return set() if plan is None else {price["meter"] for price in plan["prices"].values()}


def _plan(name: str, was: Mapping[str, Any] | None, becomes: Mapping[str, Any] | None) -> Iterator[Change]:
    path = ("plans", name)
    was, becomes = was or {}, becomes or {}
    for key in [*was, *(key for key in becomes if key not in was)]:
        old, new = was.get(key), becomes.get(key)
        if key in ("prices", "features", "fees", "commitments", "seats", "allowances", "shared_tiers"):
            old, new, word = old or {}, new or {}, key.removesuffix("s").replace("_", " ").replace("tier", "tiers")
            for each in sorted(old.keys() | new.keys()):
                yield from _named((*path, key, each), f"{word} {each}", old.get(each), new.get(each))
        elif was and becomes:  # of a new plan, or one that is gone, its prices say it all
            yield from _walk((*path, key), key, old, new)


def _named(path: tuple[str | int, ...], subject: str, old: Any, new: Any) -> Iterator[Change]:
    """A price, meter or feature: whole where it comes or goes."""
    if old is None and new is None:
        return
    if old is None:
        yield Change(path, subject, f"new: {_shown(new)}", None, new)
    elif new is None:
        yield Change(path, subject, f"gone: {_shown(old)}", old, None)
    else:
        yield from _walk(path, subject, old, new)


def _walk(path: tuple[str | int, ...], subject: str, old: Any, new: Any) -> Iterator[Change]:
    """What differs between two values at the same place."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _mapping(path, subject, old, new)
    elif _of_mappings(old) and _of_mappings(new) and old and new:
        one = subject.removesuffix("s")
        for index in range(max(len(old), len(new))):
            pair = (each[index] if index < len(each) else None for each in (old, new))
            yield from _named((*path, index), f"{one} {index + 1}", *pair)
    elif not _same(path, old, new):
        yield Change(path, subject, f"{_shown(old)} -> {_shown(new)}", old, new)


def _mapping(
    path: tuple[str | int, ...], subject: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    rates = (None, None) if path[-1] in NAMED_BY_ITS_AUTHOR else (_rate(old), _rate(new))
    written = all(_same((*path, key), old.get(key), new.get(key)) for key in ("amount", "per"))
    if None not in rates and not written:
        said = [f"{each['amount']}{_per(each)}" for each in (old, new)]
        yield Change(path, subject, f"{said[0]} -> {said[1]}{_by(*rates)}", _amounts(old), _amounts(new))
    for key in [*old, *(key for key in new if key not in old)]:
        if None in rates or key not in ("amount", "per"):
            yield from _walk((*path, key), f"{subject}, {key}", old.get(key), new.get(key))


def _of_mappings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, dict) for each in value)


def _rate(value: Mapping[str, Any]) -> Fraction | None:
    """The exact price of a unit, where the mapping states one."""
    try:
        return Fraction(parse_amount(value["amount"]), parse_quantity(value["per"]))
    except (KeyError, TypeError, NotADecimal, ZeroDivisionError):
        return None


def _amounts(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[key] for key in ("amount", "per")}


def _per(value: Mapping[str, Any]) -> str:
    return "" if _same(("per",), value["per"], "1") else f" per {value['per']}"


def _by(old: Fraction | None, new: Fraction | None) -> str:
    if not old or new is None:
        return ""
    if old == new:  # of packages the size matters too
        return " (the same rate)"
    return f" ({float((new / old - 1) * 100):+.4g}%)"


def _same(path: tuple[str | int, ...], old: Any, new: Any) -> bool:
    if old == new:
        return True
    key = "" if NAMED_BY_ITS_AUTHOR & set(path[-2:-1]) else path[-1]
    parse = parse_amount if key in AMOUNTS else parse_quantity if key in QUANTITIES else None
    if parse is None or old is None or new is None:
        return False
    try:
        return parse(old) == parse(new)
    except NotADecimal:
        return False


def _shown(value: Any) -> str:
    """A value of the document for people: what is not set is left out."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        said = [(key, each) for key, each in value.items() if each not in (None, "", [], (), {})]
        return ", ".join(f"{key} {_inner(each)}" for key, each in said) or "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + "; ".join(_inner(each) for each in value) + "]"
    return str(value)


def _inner(value: Any) -> str:
    return "{" + _shown(value) + "}" if isinstance(value, dict) else _shown(value)
