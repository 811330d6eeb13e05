"""Law R3: sessions and levels go through the hours of the day: their seconds are split where the wall clock's names change."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.admission import FieldBound, Question
from engine.catalog import BadCatalogue, CatalogueDocument, PlanDefinition, check_succession, compile_catalogue
from engine.meters import ConditionDefinition, DimensionDefinition, MeterDefinition
from engine.meters.definitions import HoursDefinition
from engine.money import NANO
from engine.snapshot import decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, Bench, Store, kept_open, per_unit, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r3_durations import used
from tests.laws.test_r4_time_of_day import SPRING, TARIFF, WEEK, name_at

PRICE = {"peak": 3, "night": 1, "shoulder": 2}  # dollars an hour
AUTUMN = us("2026-11-01T12:00:00+00:00")
LATER = us("2026-03-10T12:00:00+00:00")  # eight in the morning


def document(aggregation: str = "duration", zone: str = "America/New_York", **changed: Any) -> CatalogueDocument:
    """GPUs at $3, $1 and $2 an hour by the hours, in a cell of their kind."""
    told = {"timeout_s": 3_600} if aggregation == "duration" else {}
    meters = {
        "gpu": MeterDefinition("gpu", aggregation, "gpus", ("kind", "tariff"), session="session", **told)  # type: ignore[arg-type]
    }
    prices = {name: per_unit(str(amount), "3600", meter="gpu", tariff=name) for name, amount in PRICE.items()}
    tariff = replace(TARIFF, zone=zone)
    whole = CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, {"tariff": tariff})
    return kept_open(replace(whole, **changed), 30)


def told(bench: Bench, at: int, state: str, session: str = "s", gpus: str = "1", **more: Any) -> str:
    return bench.use(at=at, type="gpu", data={"session": session, "state": state, "gpus": gpus, "kind": "a"}, **more)


def by_hour(bench: Bench) -> dict[str, int]:
    """Nano-units of each tariff, in all segments together."""
    found: dict[str, int] = {}
    for row in bench.account().table.values():
        for (_, cell), units in row.items():
            found[cell[1]] = found.get(cell[1], 0) + units
    return {name: units for name, units in found.items() if units}


def minutes_in(begin: int, end: int) -> dict[str, int]:
    """The same of one GPU, minute by minute."""
    found: dict[str, int] = {}
    for at in range(begin, end, MINUTE):
        found[name_at(at)] = found.get(name_at(at), 0) + 60 * NANO
    return found


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-03-10T19:30:00-04:00", "2026-03-10T23:00:00-04:00"),
        ("2026-03-07T12:00:00-05:00", "2026-03-09T12:00:00-04:00"),  # the night of the 8th has no two o'clock
        ("2026-10-31T12:00:00-04:00", "2026-11-02T12:00:00-05:00"),  # that of the 1st has one o'clock twice
        ("2026-03-10T09:00:00-04:00", "2026-03-10T09:30:00-04:00"),
        ("2026-03-02T00:00:00-05:00", "2026-03-29T00:00:00-04:00"),
    ],
)
def test_seconds_count_in_the_hours_in_which_they_pass(begin: str, end: str) -> None:
    """As one would count them minute by minute, and at the price of each."""
    bench = Bench(document())
    bench.now = us(end)
    bench.open()
    assert told(bench, us(begin), "start") == "rated"
    assert told(bench, us(end), "stop") == "rated"
    expected = minutes_in(us(begin), us(end))
    assert by_hour(bench) == expected
    owed = sum(PRICE[name] * units for name, units in expected.items())
    assert sum(bench.charges()) == owed * DOLLAR // (3_600 * NANO)
    assert_the_same(bench, oracle_of(bench, paranoid=True), begin)


def test_the_night_in_which_the_clock_is_set_is_an_hour_shorter_or_longer() -> None:
    """22:00 to 06:00 are seven hours in spring, and nine in autumn."""
    for date, hours in (("2026-03-07T22:00:00-05:00", 7), ("2026-10-31T22:00:00-04:00", 9)):
        bench = Bench(document())
        bench.now = us(date) + 2 * DAY
        bench.open()
        told(bench, us(date) - HOUR, "start")
        told(bench, us(date) + 10 * HOUR, "stop")
        assert by_hour(bench)["night"] == hours * 3_600 * NANO


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.sampled_from(["start", "heartbeat", "stop"]),
        st.integers(0, 50).map(lambda step: step * 67 * MINUTE) | st.integers(0, 3 * DAY),
        st.sampled_from(["0", "1", "0.333333333"]),
    ),
    min_size=1,
    max_size=8,
)
ZONES = st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"])


def folded(
    aggregation: str, zone: str, around: int, events: list[tuple[str, str, int, str]], order: list[int]
) -> Bench:
    """The events, all at one moment, then an hour goes by; in between a lot begins, and a period."""
    bench = Bench(document(aggregation, zone), document(aggregation, "UTC"))
    bench.now = around - 4 * DAY
    bench.open(zone=zone, anchor_day=8)
    bench.scope("team")
    bench.cap("9", "team", scope="team", window="hour")
    bench.cap_rule(50, "team", cap="team")
    bench.publish(2, around - 5 * HOUR)
    bench.grant("first", "20", "promo", priority=1, expires_us=around - 2 * HOUR)
    bench.now = around + 2 * DAY
    for number in order:
        session, state, back, gpus = events[number]
        gpus = gpus if aggregation == "time_weighted_sum" else {"one": "1", "two": "0.333333333"}[session]
        outcome = told(bench, bench.now - back, state, session, gpus, id=str(number), scope="team")
        assert outcome in ("rated", "duplicate")
    for minutes in (7, 61):
        bench.tick(around + 2 * DAY + minutes * MINUTE)
    return bench


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["duration", "time_weighted_sum"]),
    ZONES,
    st.sampled_from([SPRING, AUTUMN, LATER]),
    EVENTS,
    st.randoms(use_true_random=False),
)
def test_no_order_and_no_repetition_changes_what_is_owed(
    aggregation: str, zone: str, around: int, events: list[tuple[str, str, int, str]], source: random.Random
) -> None:
    """Where the clock is set in between, a version with another zone, a lot, a period; and as the oracle has it."""
    shuffled = list(range(len(events))) * 2
    source.shuffle(shuffled)
    first = folded(aggregation, zone, around, events, list(range(len(events))))
    second = folded(aggregation, zone, around, events, shuffled)
    assert used(first) == used(second)
    assert_the_same(first, oracle_of(first, paranoid=len(events) < 4), str(events))
    assert_the_same(second, oracle_of(second), str(events))
    store, partition = Store(), second.fresh()
    at = source.randrange(len(second.log))
    for record in second.log[:at]:
        partition.apply(*record)
    store.checkpoint(partition)
    resumed = store.load_into(second.fresh())
    for record in second.log[at:]:
        resumed.apply(*record)
    again = resumed.account("acme")
    assert again is not None
    assert encode_account(again) == encode_account(second.account())
    assert encode_account(decode_account(encode_account(again), second.partition._book)) == encode_account(again)


def test_what_is_open_accrues_in_the_hour_that_it_is() -> None:
    """From ten to eight on until ten past: ten minutes at $2, ten at $3."""
    bench = Bench(document())
    bench.now = LATER - 10 * MINUTE
    bench.open()
    told(bench, bench.now, "start")
    bench.tick(LATER + 10 * MINUTE)
    found = by_hour(bench)
    assert found["shoulder"] == 600 * NANO
    assert 540 * NANO < found["peak"] <= 600 * NANO
    for minutes in range(11, 14):
        bench.tick(LATER + minutes * MINUTE)
    assert by_hour(bench)["shoulder"] == 600 * NANO
    assert_the_same(bench, oracle_of(bench, paranoid=True), "open")


def test_one_session_is_told_by_events_of_different_hours() -> None:
    """The hour is none of the dimensions that all of its events must state alike."""
    bench = Bench(document())
    bench.now = LATER + HOUR
    bench.open()
    assert [told(bench, at, state) for at, state in ((LATER - HOUR, "start"), (LATER + HOUR, "stop"))] == ["rated"] * 2
    other = {"session": "s", "state": "stop", "gpus": "1", "kind": "b"}
    assert bench.use(at=LATER, type="gpu", data=other) == "dead_lettered.session_conflict"


def test_a_session_has_a_price_in_each_hour_that_it_goes_through() -> None:
    """Without one for the night an event that adds time of it is set aside, and changes nothing."""
    prices = {name: per_unit("1", meter="gpu", tariff=name) for name in ("peak", "shoulder")}
    bench = Bench(document(plans={"plan": PlanDefinition("USD", prices)}))
    bench.now = LATER
    bench.open()
    before = encode_account(bench.account())
    assert told(bench, us("2026-03-09T23:00:00-04:00"), "start") == "dead_lettered.no_price"
    assert encode_account(bench.account()) == before
    assert told(bench, us("2026-03-09T21:00:00-04:00"), "start") == "rated"
    assert told(bench, us("2026-03-09T22:30:00-04:00"), "stop", id="x") == "dead_lettered.no_price"
    assert told(bench, us("2026-03-09T21:30:00-04:00"), "stop") == "rated"
    assert by_hour(bench) == {"shoulder": 1_800 * NANO}
    assert_the_same(bench, oracle_of(bench, paranoid=True), "no price")


def test_a_check_is_bounded_by_the_dearest_hour_and_a_hold_by_none() -> None:
    """A session may go on into any of them."""
    question = Question("acme", type="gpu", data={"kind": "a"}, bounds=(FieldBound(("gpu",), 3_600 * NANO),))
    for funds, allowed in (("2.99", False), ("3.01", True)):
        bench = DeskBench(document())
        bench.now = us("2026-03-11T03:00:00-04:00")
        bench.open()
        bench.grant("funds", funds)
        assert bench.ask(replace(question, hold_us=None)).allowed is allowed
        reason = bench.ask(replace(question, hold_us=MINUTE)).reason
        assert reason is not None
        assert reason.value == "unbounded"


@pytest.mark.parametrize("aggregation", ["duration", "time_weighted_sum"])
def test_whether_a_session_counts_is_not_said_by_an_hour(aggregation: str) -> None:
    """The hour of an event is not the hour of the session: a condition on it is refused at publication."""
    meter = document(aggregation).meters["gpu"]
    meters = {"gpu": replace(meter, when={"tariff": ConditionDefinition(one_of=("night",))})}
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, document(aggregation, meters=meters))
    (fault,) = caught.value.faults
    assert fault.path == ("meters", "gpu", "when", "tariff")
    assert "add it to group_by" in fault.message


def test_a_dimension_of_open_sessions_neither_becomes_hours_nor_ceases_to_be() -> None:
    """The cells in which they began would be read as something else. Other hours, and another zone, may follow."""
    other = replace(TARIFF, hours=(HoursDefinition("peak", "09:00", "17:00", WEEK),))
    check_succession(document(), document(dimensions={"tariff": other}))
    field = document(dimensions={"tariff": DimensionDefinition(default="peak")})
    for before, after in ((document(), field), (field, document())):
        with pytest.raises(BadCatalogue) as caught:
            check_succession(before, after)
        assert [fault.path for fault in caught.value.faults] == [("dimensions", "tariff")]
