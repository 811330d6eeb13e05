"""What changes between two catalogues: for which plan, at which price, in words; and what is no change."""

from typing import Any

import msgspec
import pytest

from config.catalogue_diff import Difference, as_json, difference
from engine.catalog import CatalogueDocument

DOCUMENT: dict[str, Any] = {
    "meters": {
        "input": {"event_type": "llm", "aggregation": "sum", "field": "input", "group_by": ["model"]},
        "calls": {"event_type": "llm", "aggregation": "count"},
        "spare": {"event_type": "gpu", "aggregation": "count"},
    },
    "plans": {
        "starter": {
            "currency": "USD",
            "features": {"batch": False},
            "prices": {
                "input": {"meter": "input", "model": "per_unit", "amount": "2.50", "per": "1000000"},
                "calls": {
                    "meter": "calls",
                    "model": "graduated",
                    "tiers": [{"amount": "10", "up_to": "100"}, {"amount": "8"}],
                },
            },
        },
        "growth": {
            "currency": "EUR",
            "prices": {
                "input": {"meter": "input", "model": "per_unit", "amount": "2"},
                "calls": {"meter": "calls", "model": "per_unit", "amount": "0"},
            },
        },
    },
}
STARTER = ("plans", "starter")


def changed(*path: str | int, to: Any) -> Difference:
    """Against the document with one place set; `to` None takes it away."""
    new = msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    place = new
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return difference(msgspec.convert(DOCUMENT, CatalogueDocument), msgspec.convert(new, CatalogueDocument))


def said(found: Difference) -> list[tuple[str, str, list[str]]]:
    return [(plan.plan, plan.kind, [str(change) for change in plan.changes]) for plan in found.plans]


def one(*path: str | int, to: Any) -> str:
    """The only change, of the plan starter."""
    ((plan, kind, (line,)),) = said(changed(*path, to=to))
    assert (plan, kind) == ("starter", "changed")
    return line


PRICES = (*STARTER, "prices")


@pytest.mark.parametrize(
    ("path", "to", "line"),
    [
        ((*PRICES, "input", "amount"), "2.75", "price input: 2.50 per 1000000 -> 2.75 per 1000000 (+10%)"),
        ((*PRICES, "input", "per"), "2000000", "price input: 2.50 per 1000000 -> 2.50 per 2000000 (-50%)"),
        ((*PRICES, "input"), {"meter": "input", "model": "per_unit", "amount": "5", "per": "2000000"},
            "price input: 2.50 per 1000000 -> 5 per 2000000 (the same rate)"),
        ((*PRICES, "input", "amount"), "0", "price input: 2.50 per 1000000 -> 0 per 1000000 (-100%)"),
        ((*PRICES, "calls", "tiers", 0, "amount"), "12", "price calls, tier 1: 10 -> 12 (+20%)"),
        ((*PRICES, "calls", "tiers", 0, "up_to"), "200", "price calls, tier 1, up_to: 100 -> 200"),
        ((*PRICES, "calls", "tiers", 1), None, "price calls, tier 2: gone: amount 8, per 1"),
        ((*PRICES, "input", "where"), {"model": "1.0"}, "price input, where, model: not set -> 1.0"),
        ((*PRICES, "input"), None, "price input: gone: meter input, model per_unit, amount 2.50, per 1000000"),
        ((*PRICES, "more"), {"meter": "input", "model": "per_unit", "amount": "1", "where": {"model": "x"}},
            "price more: new: meter input, model per_unit, where {model x}, amount 1, per 1"),
        ((*STARTER, "features", "batch"), True, "feature batch: false -> true"),
        ((*STARTER, "features", "batch"), None, "feature batch: gone: false"),
        ((*STARTER, "features", "seats"), "5", "feature seats: new: 5"),
        ((*STARTER, "fees"), {"base": {"amount": "30"}}, "fee base: new: amount 30"),
        ((*STARTER, "shared_tiers"), {"tokens": {"prices": ["input", "calls"]}},
            "shared tiers tokens: new: prices [input; calls]"),
    ],
)  # fmt: skip
def test_a_change_says_what_becomes_of_what(path: tuple[str | int, ...], to: Any, line: str) -> None:
    assert one(*path, to=to) == line


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ((*PRICES, "input", "amount"), "2.5"),
        ((*PRICES, "input"), {"meter": "input", "model": "per_unit", "amount": "2.50", "per": "1000000.0"}),
        ((*PRICES, "calls", "tiers", 0, "up_to"), "100.0"),
        ((*PRICES, "calls", "where"), {}),
    ],
)
def test_the_same_price_written_otherwise_is_no_change(path: tuple[str | int, ...], to: Any) -> None:
    found = changed(*path, to=to)
    assert (bool(found), found) == (False, Difference([], [], []))


def test_a_dimension_is_text_where_an_amount_is_a_number() -> None:
    before = changed(*PRICES, "input", "where", to={"model": "4"}).plans[0].changes[0]
    assert (before.before, before.after) == (None, "4")
    old = msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    old["plans"]["starter"]["prices"]["input"]["where"] = {"amount": "4"}
    new = msgspec.json.decode(msgspec.json.encode(old))
    new["plans"]["starter"]["prices"]["input"]["where"] = {"amount": "4.0"}
    found = difference(msgspec.convert(old, CatalogueDocument), msgspec.convert(new, CatalogueDocument))
    assert [str(change) for change in found.plans[0].changes] == ["price input, where, amount: 4 -> 4.0"]


def test_a_meter_is_told_to_every_plan_that_prices_it() -> None:
    found = changed("meters", "input", "group_by", to=["model", "region"])
    line = "meter input, group_by: [model] -> [model; region]"
    assert said(found) == [("growth", "changed", [line]), ("starter", "changed", [line])]
    assert not found.unpriced


def test_a_meter_without_a_price_is_told_beside_the_plans() -> None:
    found = changed("meters", "spare", "event_type", to="gpu.second")
    assert (found.plans, [str(each) for each in found.unpriced]) == (
        [],
        ["meter spare, event_type: gpu -> gpu.second"],
    )
    assert found


def test_a_plan_that_is_new_shows_its_prices_and_one_that_goes_is_refused() -> None:
    plan = {"currency": "USD", "prices": {"calls": {"meter": "calls", "model": "per_unit", "amount": "1"}}}
    new = changed("plans", "team", to=plan)
    assert said(new) == [("team", "new", ["price calls: new: meter calls, model per_unit, amount 1, per 1"])]
    assert not new.refusals
    gone = changed("plans", "growth", to=None)
    assert said(gone)[0][:2] == ("growth", "gone")
    assert gone.refusals == ["plans: plan growth is gone; its accounts could not be rated: keep it"]


def test_another_currency_is_a_change_that_publication_would_refuse() -> None:
    found = changed("plans", "growth", "currency", to="USD")
    assert said(found) == [("growth", "changed", ["currency: EUR -> USD"])]
    assert found.refusals[0].startswith("plans.growth.currency: plan growth was in EUR")


def test_in_json_each_plan_says_for_whom() -> None:
    class Whom(msgspec.Struct):
        accounts: int
        names: list[str]

    found = changed(*PRICES, "input", "amount", to="3")
    (plan,) = as_json(found, {"starter": Whom(2, ["a", "b"])})["plans"]
    assert (plan["accounts"], plan["first_accounts"]) == (2, ["a", "b"])
    assert plan["changes"][0]["path"] == ("plans", "starter", "prices", "input")
    assert plan["changes"][0]["after"] == {"amount": "3", "per": "1000000"}
    assert as_json(found, {})["plans"][0]["accounts"] == 0
    assert as_json(found, None)["plans"][0]["accounts"] is None


def test_a_declared_dimension_changes_the_plans_whose_meters_look_at_it() -> None:
    context = {"of": "input", "bands": [{"name": "short", "up_to": "1000"}, {"name": "long"}]}
    old = msgspec.convert(DOCUMENT | {"dimensions": {"model": context, "idle": {"default": "x"}}}, CatalogueDocument)
    longer = context | {"bands": [{"name": "short", "up_to": "2000"}, {"name": "long"}]}
    new = msgspec.convert(DOCUMENT | {"dimensions": {"model": longer, "idle": {"default": "y"}}}, CatalogueDocument)
    found = difference(old, new)
    text = "dimension model, band 1, up_to: 1000 -> 2000"
    assert said(found) == [("growth", "changed", [text]), ("starter", "changed", [text])]
    assert list(map(str, found.unpriced)) == ["dimension idle, default: x -> y"]
    same = context | {"bands": [{"name": "short", "up_to": "1000.0"}, {"name": "long"}]}
    assert not difference(
        old,
        msgspec.structs.replace(
            old, dimensions={**old.dimensions, "model": msgspec.convert(same, type(old.dimensions["model"]))}
        ),
    )


def test_a_condition_that_changes_is_told_by_its_field() -> None:
    found = changed("meters", "calls", "when", to={"status": {"one_of": ["done"], "above": "3"}})
    assert [text for _, _, texts in said(found) for text in texts] == [
        "meter calls, when: not set -> status {one_of [done], above 3}"
    ] * 2


def test_how_long_streams_stay_open_changes_the_plans_that_price_their_events() -> None:
    after = DOCUMENT | {"streams": {"llm": {"window_s": 60}}}
    found = difference(*(msgspec.convert(body, CatalogueDocument) for body in (DOCUMENT, after)))
    text = "streams of llm: new: window_s 60"
    assert said(found) == [("growth", "changed", [text]), ("starter", "changed", [text])]


def test_a_token_shape_changes_the_plans_that_price_its_events() -> None:
    before = DOCUMENT | {"token_shapes": {"llm": {"shape": "vllm"}}}
    after = DOCUMENT | {"token_shapes": {"llm": {"shape": "anthropic"}, "gpu": {}}}
    found = difference(*(msgspec.convert(body, CatalogueDocument) for body in (before, after)))
    text = "token shape llm, shape: vllm -> anthropic"
    assert said(found) == [("growth", "changed", [text]), ("starter", "changed", [text])]
    assert list(map(str, found.unpriced)) == ["token shape gpu: new: nothing"]
