"""Law R6: seats are due in advance; each change of their number is charged, or given back, to the end of the period, by
seconds of the real period."""

import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import BadCatalogue, CatalogueDocument, SeatDefinition, compile_catalogue
from engine.contract import SEATS_MAX, Contract, Seats
from engine.money import parse_amount
from tests.engine.bench import DAY, HOUR, Bench, document, us
from tests.laws.test_r5_minimum import agrees
from tests.laws.test_r6_fees import due

APRIL, MAY, JUNE = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (4, 5, 6))


def seated(**seats: str) -> CatalogueDocument:
    """Plan `plan` sells them, plan `pro` editors at $1; the others have none."""
    catalogue = document()
    sold = {name: SeatDefinition(amount) for name, amount in seats.items()}
    plan = replace(catalogue.plans["plan"], seats=sold)
    pro = replace(catalogue.plans["pro"], seats={"editor": SeatDefinition("1")})
    return replace(catalogue, plans={**catalogue.plans, "plan": plan, "pro": pro})


def opened(at: int = APRIL, **seats: str) -> Bench:
    bench = Bench(seated(**(seats or {"editor": "30"})))
    bench.now = at
    bench.open()
    return bench


def lines(bench: Bench) -> list[tuple[str, str, int]]:
    return due(bench, "seat")


def test_each_change_is_charged_or_given_back_to_the_end_of_the_period() -> None:
    """$30 a seat: 2 from 1 April are $60; a third for 20 of 30 days $20; down to 1 for the last 3 days gives $6 back."""
    bench = opened()
    assert bench.seats(2) == "applied"
    assert bench.seats(3, APRIL + 10 * DAY) == "applied"
    assert bench.seats(1, APRIL + 27 * DAY) == "applied"
    assert lines(bench) == [("editor", "60", APRIL)]
    bench.tick(APRIL + 10 * DAY)
    bench.tick(APRIL + 27 * DAY)
    assert lines(bench)[1:] == [("editor", "20", APRIL), ("editor", "-6", APRIL)]
    bench.tick(MAY + 2 * DAY)
    assert lines(bench)[3:] == [("editor", "30", MAY)]
    assert bench.account().derive().spend == {}
    agrees(bench)


def test_names_are_counted_apart_and_a_pause_gives_back_what_it_covers() -> None:
    """And a plan without seats of the name owes nothing for them; the number stays."""
    bench = opened(editor="30", viewer="3")
    assert bench.seats(1) == "applied"
    assert bench.seats(10, seat="viewer") == "applied"
    assert bench.seats(10, seat="unheard") == "refused.unknown_seat"
    bench.tick(APRIL + 10 * DAY)
    assert bench.pause() == "applied"
    assert [amount for _, amount, _ in lines(bench)] == ["30", "30", "-20", "-20"]
    bench.tick(APRIL + 20 * DAY)
    assert bench.pause(paused=False) == "applied"
    assert bench.sell("pro", APRIL + 25 * DAY) == "applied"
    bench.tick(APRIL + 25 * DAY)
    assert lines(bench)[4:] == [
        *(("editor", "10", APRIL), ("viewer", "10", APRIL), ("editor", "-5", APRIL), ("viewer", "-5", APRIL)),
        ("editor", "0.166666666667", APRIL + 25 * DAY),
    ]
    agrees(bench)


def test_what_is_no_number_of_seats_is_refused() -> None:
    """Nor are more than 1,000 changes of them kept."""
    bench = opened()
    assert bench.seats(-1) == "refused.bad_seats"
    assert bench.seats(1_000_001) == "refused.bad_seats"
    assert bench.seats(1, APRIL - 1) == "refused.bad_start"
    many = [Seats(APRIL + number, "editor", 1) for number in range(SEATS_MAX)]
    bench.account().set_contract(Contract("UTC", 1, "plan", opened_us=APRIL, seats=many), bench.now)
    assert bench.seats(2, APRIL) == "applied", "it takes the place of the first"
    assert bench.seats(2, MAY) == "refused.too_many_seats"


@pytest.mark.parametrize(
    ("seats", "path"),
    [
        ({"editor": "0"}, ("editor", "amount")),
        ({"x": "1"}, ("x",)),
        ({f"seat {number}": "1" for number in range(101)}, ()),
    ],
)
def test_what_are_no_seats_is_refused_at_publication(seats: dict[str, Any], path: tuple[str, ...]) -> None:
    """By the key that must change."""
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, seated(**seats))
    assert [fault.path for fault in refused.value.faults] == [("plans", "plan", "seats", *path)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_a_period_owes_each_seat_for_its_seconds(seed: int) -> None:
    """Changes at any instants, said before or at them, with pauses and in the month of the opening: what is posted of a
    period is the sum over all of them, rounded once."""
    source = random.Random(seed)
    bench = opened(APRIL + source.randrange(20 * 24) * HOUR, editor="0.000000000031")
    came, turns, counts = bench.now, {bench.now: False}, {bench.now: 0}
    for _ in range(source.randrange(7)):
        bench.now = min(bench.now + source.randrange(9 * DAY), MAY + 20 * DAY) // 1000 * 1000
        at = bench.now + source.choice((0, source.randrange(9 * DAY)))
        if source.random() < 0.7:
            counts[at] = source.randrange(9)
            assert bench.seats(counts[at], at) == "applied"
        else:
            turns[at] = source.random() < 0.5
            assert bench.pause(at, paused=turns[at]) == "applied"
    bench.tick(JUNE + DAY)
    posted: dict[int, int] = {}
    for _, amount, start in lines(bench):
        posted[start] = posted.get(start, 0) + parse_amount(amount)
    for start, end in ((APRIL, MAY), (MAY, JUNE)):
        edges = sorted({max(came, start), end, *(at for at in (*turns, *counts) if max(came, start) < at < end)})
        there = 0
        for since, until in pairwise(edges):
            paused = turns[max(at for at in turns if at <= since)]
            there += 0 if paused else (until - since) * counts[max(at for at in counts if at <= since)]
        assert posted.get(start, 0) == round(Fraction(31 * there, end - start))
    agrees(bench)
