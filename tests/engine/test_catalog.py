"""Catalogues: what may be published, which price an event finds, and which version is in force."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import (
    AllowanceDefinition,
    BadCatalogue,
    Catalogue,
    CatalogueDocument,
    MeterDefinition,
    NoPrice,
    PlanDefinition,
    PriceBook,
    PriceDefinition,
    SharedTiersDefinition,
    StreamDefinition,
    TierDefinition,
    compile_catalogue,
    document_json,
    load_catalogue,
)

TOKENS = MeterDefinition("llm.request", "sum", "tokens", ("model",))
CALLS = MeterDefinition("llm.request", "count")
ANY = PriceDefinition("tokens", "per_unit", amount="1")


def document(prices: dict[str, PriceDefinition], **meters: MeterDefinition) -> CatalogueDocument:
    return CatalogueDocument(meters or {"tokens": TOKENS}, {"basic": PlanDefinition("USD", prices)})


def fault_paths(faulty: CatalogueDocument) -> list[str]:
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, faulty)
    return [".".join(map(str, fault.path)) for fault in caught.value.faults]


def test_an_event_finds_the_price_of_its_cell() -> None:
    compiled = compile_catalogue(
        1,
        document(
            {
                "large": PriceDefinition("tokens", "per_unit", {"model": "large"}, "2"),
                "small": PriceDefinition("tokens", "per_unit", {"model": "small"}, "1"),
            }
        ),
    )
    (meter,) = compiled.meters_of["llm.request"]
    plan = compiled.plans["basic"]
    assert plan.price_of(meter, ("large",)).name == "large"
    assert plan.price_of(meter, ("small",)) is plan.price_of(meter, ("small",))
    with pytest.raises(NoPrice, match="plan basic has no price for meter tokens"):
        plan.price_of(meter, ("tiny",))


def test_meters_of_a_type_come_in_the_order_of_their_names() -> None:
    prices = {"b": PriceDefinition("b", "per_unit", amount="1"), "a": PriceDefinition("a", "per_unit", amount="1")}
    compiled = compile_catalogue(1, document(prices, b=CALLS, a=CALLS))
    assert [meter.name for meter in compiled.meters_of["llm.request"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("price", "paths"),
    [
        (PriceDefinition("other", "per_unit", amount="1"), ["meter"]),
        (PriceDefinition("tokens", "per_unit"), ["amount"]),
        (PriceDefinition("tokens", "per_unit", amount="-1"), ["amount"]),
        (PriceDefinition("tokens", "per_unit", amount="1e3"), ["amount"]),
        (PriceDefinition("tokens", "per_unit", amount="1", per="0"), ["per"]),
        (PriceDefinition("tokens", "per_unit", amount="1", tiers=(TierDefinition("1"),)), ["tiers"]),
        (PriceDefinition("tokens", "per_unit", {"region": "eu"}, "1"), ["where.region"]),
        (PriceDefinition("tokens", "per_unit", {"model": ""}, "1"), ["where.model"]),
        (PriceDefinition("tokens", "graduated"), ["tiers"]),
        (PriceDefinition("tokens", "graduated", amount="1", tiers=(TierDefinition("1"),)), ["amount"]),
        (PriceDefinition("tokens", "graduated", tiers=(TierDefinition("1", up_to="5"),)), ["tiers.0.up_to"]),
        (PriceDefinition("tokens", "graduated", tiers=(TierDefinition("1"), TierDefinition("1"))), ["tiers.0.up_to"]),
        (
            PriceDefinition(
                "tokens",
                "graduated",
                tiers=(TierDefinition("1", up_to="5"), TierDefinition("x", up_to="5"), TierDefinition("1", per="0")),
            ),
            ["tiers.1.up_to", "tiers.1.amount", "tiers.2.per"],
        ),
        (PriceDefinition("tokens", "package", amount="8", per="0"), ["per"]),
        (PriceDefinition("tokens", "package", tiers=(TierDefinition("8"),)), ["tiers", "amount"]),
        (PriceDefinition("tokens", "flat", amount="8", per="100"), ["per"]),
        (PriceDefinition("tokens", "volume"), ["tiers"]),
        (PriceDefinition("tokens", "volume", tiers=(TierDefinition("1", flat="-1"),)), ["tiers.0.flat"]),
        (PriceDefinition("tokens", "step", tiers=(TierDefinition("1", per="5"),)), ["tiers.0.per"]),
        (PriceDefinition("tokens", "step", tiers=(TierDefinition("1", flat="5"),)), ["tiers.0.flat"]),
        (
            PriceDefinition("tokens", "step", tiers=(TierDefinition("2", up_to="5"), TierDefinition("1"))),
            ["tiers.1.amount"],
        ),
        (PriceDefinition("tokens", "percentage"), ["percent"]),
        (PriceDefinition("tokens", "percentage", amount="1", percent="2"), ["amount"]),
        (PriceDefinition("tokens", "per_unit", amount="1", percent="2"), ["percent"]),
        (PriceDefinition("tokens", "dynamic", factor="1", per_event="2"), ["per_event"]),
        (PriceDefinition("tokens", "percentage", percent="2", event_minimum="2", event_maximum="1"), ["event_maximum"]),
        (PriceDefinition("tokens", "percentage", percent="2", per_event="1", included="5"), ["included"]),
        (PriceDefinition("tokens", "percentage", percent="2", per_event="-1"), ["per_event"]),
        (PriceDefinition("tokens", "dynamic"), ["factor"]),
        (PriceDefinition("tokens", "dynamic", factor="1", estimate="x"), ["estimate"]),
        (PriceDefinition("tokens", "per_unit", amount="1", estimate="1"), ["estimate"]),
        (PriceDefinition("tokens", "per_unit", amount="1", included="-1"), ["included"]),
        (PriceDefinition("tokens", "per_unit", amount="1", maximum="x"), ["maximum"]),
        (PriceDefinition("tokens", "per_unit", amount="1", discount="100.1"), ["discount"]),
        (PriceDefinition("tokens", "per_unit", amount="1", discount="-1"), ["discount"]),
    ],
)
def test_a_faulty_price_is_refused_with_the_path_of_each_fault(price: PriceDefinition, paths: list[str]) -> None:
    assert fault_paths(document({"p": price})) == [f"plans.basic.prices.p.{path}" for path in paths]


@pytest.mark.parametrize(
    ("meter", "path"),
    [
        (MeterDefinition("llm.request", "sum"), "aggregation"),
        (MeterDefinition("llm.request", "count", "tokens"), "field"),
        (MeterDefinition("", "count"), "event_type"),
        (MeterDefinition("llm.request", "count", None, ("a", "a")), "group_by"),
        (MeterDefinition("llm.request", "count", None, ("",)), "group_by"),
    ],
)
def test_a_faulty_meter_is_refused(meter: MeterDefinition, path: str) -> None:
    assert fault_paths(document({"p": ANY}, tokens=meter)) == [f"meters.tokens.{path}"]


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDX", "U1D", "ÄÖÜ"])
def test_a_plan_needs_a_currency_code(currency: str) -> None:
    faulty = CatalogueDocument({"tokens": TOKENS}, {"basic": PlanDefinition(currency, {"p": ANY})})
    assert fault_paths(faulty) == ["plans.basic.currency"]


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({}, {}, True),
        ({"model": "a"}, {}, True),
        ({"model": "a"}, {"model": "a"}, True),
        ({"model": "a"}, {"model": "b"}, False),
    ],
)
def test_no_two_prices_may_match_one_cell(one: dict[str, str], other: dict[str, str], overlap: bool) -> None:
    both = document(
        {
            "one": PriceDefinition("tokens", "per_unit", one, "1"),
            "other": PriceDefinition("tokens", "per_unit", other, "1"),
        }
    )
    if overlap:
        assert fault_paths(both) == ["plans.basic.prices.other"]
    else:
        compile_catalogue(1, both)


def test_a_plan_that_sells_an_event_type_prices_every_meter_it_feeds() -> None:
    assert fault_paths(document({"p": ANY}, tokens=TOKENS, calls=CALLS)) == ["plans.basic.prices"]


def test_a_catalogue_is_not_empty() -> None:
    assert fault_paths(CatalogueDocument({}, {})) == ["meters", "plans"]


def test_a_stored_catalogue_is_the_published_one() -> None:
    published = document({"p": ANY})
    stored = document_json(published)
    assert load_catalogue(7, stored).version == 7
    assert msgspec.json.decode(stored, type=CatalogueDocument) == published
    with pytest.raises(msgspec.ValidationError):
        load_catalogue(7, stored.replace(b'"amount"', b'"amuont"'))


def version(number: int) -> Catalogue:
    return compile_catalogue(number, document({"p": ANY}))


def test_before_any_publication_no_version_is_in_force() -> None:
    assert PriceBook().at(0) is None


def test_the_first_version_is_in_force_for_all_time_and_the_next_from_its_instant_on() -> None:
    book = PriceBook()
    book.publish(500, version(1))
    book.publish(1_000, version(3))
    in_force = [found.version for time_us in (-(10**15), 999, 1_000, 10**18) if (found := book.at(time_us))]
    assert in_force == [1, 1, 3, 3]
    assert book.versions == [(1, 0), (3, 1_000)]


@given(st.lists(st.integers(1, 100), unique=True, max_size=5), st.integers(0, 101))
def test_around_gives_the_nearest_starts(starts: list[int], time_us: int) -> None:
    book = PriceBook()
    for number, start in enumerate([0, *sorted(starts)], start=1):
        book.publish(start, version(number))
    before, after = book.around(time_us)
    assert before == max((start for start in starts if start <= time_us), default=None)
    assert after == min((start for start in starts if start > time_us), default=None)


def with_features(features: dict[str, bool | str]) -> CatalogueDocument:
    return CatalogueDocument({"tokens": TOKENS}, {"basic": PlanDefinition("USD", {"p": ANY}, features)})


def test_a_plan_has_the_features_it_was_published_with() -> None:
    stored = document_json(with_features({"batch": False, "context": "128000"}))
    assert load_catalogue(1, stored).plans["basic"].features == {"batch": False, "context": "128000"}


def test_a_plan_without_features_is_stored_as_before_there_were_any() -> None:
    assert b"features" not in document_json(document({"p": ANY}))


@pytest.mark.parametrize("features", [{"": True}, {"a": ""}, {"a": "x" * 257}, {"a": "\0"}, {"a" * 129: "x"}])
def test_a_faulty_feature_is_refused_with_its_path(features: dict[str, bool | str]) -> None:
    assert fault_paths(with_features(features)) == [f"plans.basic.features.{name}" for name in features]


def test_a_plan_has_a_thousand_features_at_most() -> None:
    compile_catalogue(1, with_features({str(number): True for number in range(1000)}))
    assert fault_paths(with_features({str(number): True for number in range(1001)})) == ["plans.basic.features"]


def test_every_version_counts_as_a_publication() -> None:
    book = PriceBook()
    catalogue = compile_catalogue(1, document({"p": ANY}))
    seen = [book.publications]
    for instant in (0, 5):
        book.publish(instant, catalogue)
        seen.append(book.publications)
    assert seen == [0, 1, 2]


def test_what_stands_around_a_model_is_not_stored_where_it_is_not_said() -> None:
    stored = document_json(document({"p": PriceDefinition("tokens", "volume", tiers=(TierDefinition("1"),))}))
    assert not [word for word in (b"included", b"maximum", b"discount", b"flat") if word in stored]


def book_of(*prices: dict[str, PriceDefinition]) -> PriceBook:
    """A version at 0, 100, 200 ..."""
    book = PriceBook()
    for number, sold in enumerate(prices, start=1):
        book.publish((number - 1) * 100, compile_catalogue(number, document(sold)))
    return book


def in_force(book: PriceBook, time_us: int, period_us: int) -> dict[str, int]:
    """The version of each price."""
    plan = book.plan_at("basic", time_us, period_us)
    assert plan is not None
    return {name: price.version for name, price in plan.prices.items()}


PACKAGE = PriceDefinition("tokens", "package", {"model": "a"}, "8", "100")
UNIT = PriceDefinition("tokens", "per_unit", {"model": "b"}, "1")
CAPPED = PriceDefinition("tokens", "per_unit", {"model": "c"}, "1", maximum="5")


def test_only_a_price_that_is_a_sum_of_its_units_changes_inside_a_period() -> None:
    same = {"package": PACKAGE, "unit": UNIT, "capped": CAPPED}
    book = book_of(same, same, same)
    assert in_force(book, 99, 50) == {"package": 1, "unit": 1, "capped": 1}
    assert in_force(book, 100, 50) == {"package": 1, "unit": 2, "capped": 1}
    assert in_force(book, 250, 50) == {"package": 1, "unit": 3, "capped": 1}
    assert in_force(book, 250, 100) == {"package": 2, "unit": 3, "capped": 2}
    assert in_force(book, 250, 200) == {"package": 3, "unit": 3, "capped": 3}


def test_a_price_that_changes_its_model_waits_for_the_next_period_and_a_new_one_does_not() -> None:
    marginal = replace(PACKAGE, model="per_unit")
    book = book_of({"p": marginal}, {"p": PACKAGE, "unit": UNIT}, {"p": marginal, "unit": UNIT, "capped": CAPPED})
    assert in_force(book, 100, 0) == {"p": 1, "unit": 2}
    assert in_force(book, 200, 0) == {"p": 3, "unit": 3, "capped": 3}
    assert in_force(book, 200, 100) == {"p": 2, "unit": 3, "capped": 3}


def test_the_price_that_holds_is_the_very_same_but_for_its_cells() -> None:
    moved = replace(PACKAGE, where={"model": "z"})
    book = book_of({"p": PACKAGE}, {"p": moved})
    early, late = book.plan_at("basic", 0, 0), book.plan_at("basic", 100, 0)
    assert early is not None and late is not None
    assert late.prices["p"].terms is early.prices["p"].terms
    assert late.prices["p"].where == {"model": "z"}
    assert book.plan_at("basic", 100, 0) is late
    assert book.plan_at("gone", 100, 0) is None


def test_streams_are_of_types_whose_events_can_be_taken_out_again() -> None:
    meters = {
        "tokens": TOKENS,
        "peak": MeterDefinition("store", "max", "gigabytes"),
        "gpus": MeterDefinition("gpu", "duration", session="session"),
    }
    plan = PlanDefinition("USD", {"any": ANY})
    for event_type, window_s, paths in (
        ("llm.request", 60, []),
        ("llm.request", 0, ["streams.llm.request.window_s"]),
        ("llm.request", 30 * 86_400 + 1, ["streams.llm.request.window_s"]),
        ("store", 60, ["streams.store"]),
        ("gpu", 60, ["streams.gpu"]),
        ("unheard", 60, ["streams.unheard"]),
    ):
        stated = CatalogueDocument(meters, {"basic": plan}, streams={event_type: StreamDefinition(window_s)})
        if paths:
            assert fault_paths(stated) == paths
        else:
            assert compile_catalogue(1, stated).windows_us == {event_type: 60_000_000}


@pytest.mark.parametrize(
    ("allowance", "message"),
    [
        (AllowanceDefinition("0", ("a", "b")), "0 is too small"),
        (AllowanceDefinition("5", ("a",)), "are two prices or more, each once"),
        (AllowanceDefinition("5", ("a", "a")), "are two prices or more, each once"),
        (AllowanceDefinition("5", ("a", "nothing")), "there is no price nothing in this plan"),
        (AllowanceDefinition("5", ("a", "package")), "price package is package: use per_unit"),
        (AllowanceDefinition("5", ("a", "included")), "price included has included of its own"),
        (AllowanceDefinition("5", ("a", "least")), "price least has minimum of its own"),
        (AllowanceDefinition("5", ("a", "bound")), "price bound has commitment of its own"),
        (AllowanceDefinition("5", ("a", "most")), "price most has maximum of its own"),
        (AllowanceDefinition("5", ("a", "peak")), "price peak takes the max of a period"),
        (AllowanceDefinition("5", ("b", "taken")), "price b is named in allowances other: name it once"),
    ],
)
def test_what_no_allowance_may_be_shared_by_is_refused_with_the_reason(
    allowance: AllowanceDefinition, message: str
) -> None:
    """Only units that each cost the same, whatever else is used, are served in turn."""
    each = {name: PriceDefinition("sum", "per_unit", {"model": name}, "1") for name in ("a", "b", "c", "taken")} | {
        "package": PriceDefinition("sum", "package", {"model": "package"}, "1"),
        "included": PriceDefinition("sum", "per_unit", {"model": "included"}, "1", included="1"),
        "least": PriceDefinition("sum", "per_unit", {"model": "least"}, "1", minimum="1"),
        "bound": PriceDefinition("sum", "per_unit", {"model": "bound"}, "1", commitment="1"),
        "most": PriceDefinition("sum", "per_unit", {"model": "most"}, "1", maximum="1"),
        "peak": PriceDefinition("peak", "per_unit", {}, "1"),
    }
    meters = {"sum": MeterDefinition("use", "sum", "units", ("model",)), "peak": MeterDefinition("use", "max", "units")}
    allowances = {"other": AllowanceDefinition("5", ("b", "c")), "tested": allowance}
    if "taken" not in allowance.prices:
        del allowances["other"]
    plan = PlanDefinition("USD", each, allowances=allowances)
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, CatalogueDocument(meters, {"plan": plan}))
    (fault,) = refused.value.faults
    assert fault.path[:4] == ("plans", "plan", "allowances", "tested")
    assert fault.message.startswith(message)


def tiered(model: str, *up_to: str, flat: bool = False, **said: Any) -> PriceDefinition:
    fee = {"flat": "1"} if flat else {}
    rows = tuple(TierDefinition("1", up_to=end, **fee) for end in (*up_to, None))
    return PriceDefinition("sum", model, {"model": said.pop("name")}, tiers=rows, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (SharedTiersDefinition(("a",)), "are two prices or more, each once"),
        (SharedTiersDefinition(("a", "nothing")), "there is no price nothing in this plan"),
        (SharedTiersDefinition(("a", "unit")), "price unit is per_unit: make all graduated, or all volume"),
        (SharedTiersDefinition(("a", "sum-of")), "price sum-of is volume: make all graduated, or all volume"),
        (SharedTiersDefinition(("a", "wider")), "price wider has other `up_to`s than a: state the same"),
        (SharedTiersDefinition(("a", "fee")), "price fee has a tier with `flat`"),
        (SharedTiersDefinition(("a", "included")), "price included has included of its own"),
        (SharedTiersDefinition(("a", "least")), "price least has minimum of its own"),
        (SharedTiersDefinition(("a", "peak")), "price peak takes the max of a period"),
        (SharedTiersDefinition(("a", "taken")), "price a is named in allowances other: name it once"),
        (SharedTiersDefinition(("sum-of", "sum-too"), "as_listed"), "of volume the sum counts, in no order: remove it"),
    ],
)
def test_what_may_share_no_tiers_is_refused_with_the_reason(shared: SharedTiersDefinition, message: str) -> None:
    """Only units that stand apart from each other, in tiers that are the same, fill these together."""
    each = {
        "a": tiered("graduated", "5", "9", name="a"),
        "unit": PriceDefinition("sum", "per_unit", {"model": "unit"}, "1"),
        "other": PriceDefinition("sum", "per_unit", {"model": "other"}, "1"),
        "sum-of": tiered("volume", "5", "9", name="sum-of"),
        "sum-too": tiered("volume", "5.0", "9", name="sum-too"),
        "wider": tiered("graduated", "5", "10", name="wider"),
        "fee": tiered("graduated", "5", "9", name="fee", flat=True),
        "included": tiered("graduated", "5", "9", name="included", included="1"),
        "least": tiered("graduated", "5", "9", name="least", minimum="1"),
        "taken": tiered("graduated", "5", "9", name="taken"),
        "peak": replace(tiered("graduated", "5", "9", name="peak"), meter="peak", where={}),
    }
    meters = {"sum": MeterDefinition("use", "sum", "units", ("model",)), "peak": MeterDefinition("use", "max", "units")}
    allowances = {}
    if "taken" in shared.prices:
        allowances = {"other": AllowanceDefinition("5", ("a", "other"))}
        each["a"] = PriceDefinition("sum", "per_unit", {"model": "a"}, "1")
    plan = PlanDefinition("USD", each, allowances=allowances, shared_tiers={"tested": shared})
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, CatalogueDocument(meters, {"plan": plan}))
    faults = [fault for fault in refused.value.faults if fault.message.startswith(message)]
    assert [fault.path[:4] for fault in faults] == [("plans", "plan", "shared_tiers", "tested")]
    assert "taken" in shared.prices or faults == refused.value.faults
