"""Laws R2, R4: the hour at which an event is rated is a dimension, and so it has a price of its own."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.admission import FieldBound, Question
from engine.catalog import BadCatalogue, CatalogueDocument, PlanDefinition, compile_catalogue
from engine.holds import seal_token
from engine.meters import DimensionDefinition, MeterDefinition
from engine.meters.definitions import HoursDefinition
from engine.money import NANO
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, MINUTE, START, Bench, per_unit, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

ZONE = "America/New_York"
WEEK = ("mon", "tue", "wed", "thu", "fri")
TARIFF = DimensionDefinition(
    hours=(HoursDefinition("peak", "08:00", "20:30", WEEK), HoursDefinition("night", "22:00", "06:00")),
    zone=ZONE,
    otherwise="shoulder",
)


def document(**changed: Any) -> CatalogueDocument:
    """Tokens at $3, $1 and $2 by the hours; of those told at night, a count as well."""
    meters = {"tokens": MeterDefinition("use", "sum", "tokens", ("tariff", "model"))}
    prices = {
        name: per_unit(amount, meter="tokens", tariff=name)
        for name, amount in (("peak", "3"), ("night", "1"), ("shoulder", "2"))
    }
    whole = CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, {"tariff": TARIFF})
    return replace(whole, **changed)


def tokens(bench: Bench, at: int, n: int = 1, **more: Any) -> str:
    return bench.use(at=at, data={"tokens": n, "model": "m"}, **more)


def name_at(time_us: int) -> str:
    here = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).astimezone(ZoneInfo(ZONE))
    clock = f"{here:%H:%M}"
    if here.weekday() < 5 and "08:00" <= clock < "20:30":
        return "peak"
    return "night" if clock >= "22:00" or clock < "06:00" else "shoulder"


SPRING = us("2026-03-08T12:00:00+00:00")  # the clocks of New York are set forward in this night


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-5 * DAY, 3 * DAY), st.integers(1, 9)), min_size=1, max_size=20))
def test_each_event_is_priced_by_the_wall_clock_of_its_own_time(events: list[tuple[int, int]]) -> None:
    """However late it is told, over a week in which the clocks are set, and as the oracle has it."""
    bench = Bench(document())
    bench.now = SPRING + 3 * DAY
    bench.open()
    for after, n in events:
        assert tokens(bench, SPRING + after, n) == "rated"
    price = {"peak": 3, "night": 1, "shoulder": 2}
    assert bench.charges() == [n * price[name_at(SPRING + after)] * DOLLAR for after, n in events]
    assert_the_same(bench, oracle_of(bench), str(events))


def test_an_event_cannot_say_what_its_hour_is_called() -> None:
    """Neither by the dimension's name nor by what stands for it inside."""
    bench = Bench(document())
    bench.open()
    said = {"tokens": 1, "model": "m", "tariff": "night", "\x00tariff": "night"}
    assert bench.use(at=START, data=said) == "rated"
    assert bench.charges() == [3 * DOLLAR]


def test_what_is_taken_back_is_what_was_charged() -> None:
    """D3: the hour is the one of the event's own time, whenever it is cancelled."""
    bench = Bench(document())
    bench.open()
    at = us("2026-03-09T23:00:00+00:00")
    original = bench.event(at=at, id="a", data={"tokens": 4, "model": "m"})
    bench.record(b"acme", original)
    assert bench.correct(original) == "cancelled" and bench.charges() == [12 * DOLLAR, -12 * DOLLAR]


def question(hold_us: int | None) -> Question:
    return Question(
        "acme", type="use", data={"model": "m"}, bounds=(FieldBound(("tokens",), 10 * NANO),), hold_us=hold_us
    )


@pytest.mark.parametrize(
    ("funds", "hold_us", "allowed"),
    [("9.99", MINUTE, False), ("10", MINUTE, True), ("10", None, False), ("30", None, True)],
)
def test_a_hold_is_bounded_by_the_hour_of_its_admission_and_a_mere_check_by_the_dearest(
    funds: str, hold_us: int | None, allowed: bool
) -> None:
    """At night 10 tokens cost $10; what is only asked may run at noon, for $30."""
    bench = DeskBench(document())
    bench.now = us("2026-03-11T04:30:00+00:00")
    bench.open()
    bench.grant("funds", funds)
    assert bench.ask(question(hold_us)).allowed is allowed


def test_a_held_event_is_rated_at_the_hour_of_its_admission() -> None:
    """R2: a minute before eight it was admitted, four minutes behind it is told."""
    bench = DeskBench(document())
    bench.now = us("2026-03-11T11:59:00+00:00")  # 07:59 in New York
    bench.open()
    bench.grant("funds", "20")
    hold = bench.ask(question(10 * MINUTE)).hold
    assert hold is not None
    bench.now += 5 * MINUTE
    assert tokens(bench, bench.now, 10, hold=seal_token(KEY, hold)) == "rated"
    assert bench.charges() == [20 * DOLLAR]


WRONG: dict[str, tuple[Callable[[], DimensionDefinition], str]] = {
    "no otherwise": (lambda: replace(TARIFF, otherwise=None), "otherwise"),
    "no such zone": (lambda: replace(TARIFF, zone="Mars/Base"), "zone"),
    "a zone of nothing": (lambda: DimensionDefinition(of="x", zone="UTC"), "zone"),
    "of a field": (lambda: replace(TARIFF, of="x"), "of"),
    "no time": (lambda: replace(TARIFF, hours=(HoursDefinition("a", "8:00", "20:00"),)), "hours.0.from"),
    "behind the day": (lambda: replace(TARIFF, hours=(HoursDefinition("a", "08:00", "24:01"),)), "hours.0.to"),
    "of no length": (lambda: replace(TARIFF, hours=(HoursDefinition("a", "08:00", "08:00"),)), "hours.0.to"),
    "no day": (lambda: replace(TARIFF, hours=(HoursDefinition("a", "08:00", "09:00", ()),)), "hours.0.days"),
    "no such day": (lambda: replace(TARIFF, hours=(HoursDefinition("a", "08:00", "09:00", ("Mo",)),)), "hours.0.days"),
    "no name": (lambda: replace(TARIFF, hours=(HoursDefinition("", "08:00", "09:00"),)), "hours.0.name"),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_hours_that_say_nothing_are_refused_at_publication(what: str) -> None:
    """Each fault cites the key that is wrong."""
    made, key = WRONG[what]
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, document(dimensions={"tariff": made()}))
    assert f"dimensions.tariff.{key}" in [".".join(map(str, fault.path)) for fault in caught.value.faults]


def test_a_price_is_of_an_hour_that_there_is() -> None:
    """A name that no hour has would never be charged."""
    plan = PlanDefinition("USD", {"p": per_unit("1", meter="tokens", tariff="dawn")})
    with pytest.raises(BadCatalogue, match="dawn is no value of it; it has night, peak, shoulder"):
        compile_catalogue(1, document(plans={"plan": plan}))


def test_what_begins_at_an_hour_belongs_to_it() -> None:
    """Half-open: the last microsecond before eight is not peak."""
    bench = Bench(document())
    bench.open()
    eight = us("2026-03-10T12:00:00+00:00")
    assert eight - HOUR <= START
    for at in (eight - 1, eight):
        tokens(bench, at)
    assert bench.charges() == [2 * DOLLAR, 3 * DOLLAR]
