"""Crossings: when they are told, under which id, and in what body."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.alerts import CapShare, Crossing, Phase, Rule, Standing, Wallet, alert_body, step

CROSSING = Crossing("acme", "cap-80", "1772323200000000", 3, "crossed", 8 * 10**12, 75 * 10**11)


@pytest.mark.parametrize(
    ("standing", "reached", "cleared", "after", "phase"),
    [
        (Standing(0, False), False, True, Standing(0, False), None),
        (Standing(0, False), True, False, Standing(1, True), "crossed"),
        (Standing(1, True), True, False, Standing(1, True), None),
        (Standing(1, True), False, False, Standing(1, True), None),  # between clear and threshold
        (Standing(1, True), False, True, Standing(1, False), "recovered"),
        (Standing(1, False), False, False, Standing(1, False), None),
        (Standing(1, False), True, False, Standing(2, True), "crossed"),
    ],
)
def test_a_rule_tells_when_it_becomes_active_and_when_it_clears(
    standing: Standing, reached: bool, cleared: bool, after: Standing, phase: Phase | None
) -> None:
    assert step(standing, reached=reached, cleared=cleared) == (after, phase)


@given(st.lists(st.sampled_from([(True, False), (False, True), (False, False)])))
def test_crossings_and_recoveries_take_turns_and_share_their_ordinal(readings: list[tuple[bool, bool]]) -> None:
    standing = Standing()
    told = []
    for reached, cleared in readings:
        standing, phase = step(standing, reached=reached, cleared=cleared)
        if phase is not None:
            told.append((standing.ordinal, phase))
    pairs = [(number // 2 + 1, ("crossed", "recovered")[number % 2]) for number in range(len(told))]
    assert told == pairs


def test_the_id_is_the_hash_that_the_law_names() -> None:
    text = "\0".join(["acme", "cap-80", "1772323200000000", "3", "crossed"])
    assert CROSSING.alert_id == "alert_" + hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    "other",
    [
        Crossing("acme2", "cap-80", "1772323200000000", 3, "crossed", 8 * 10**12, 75 * 10**11),
        Crossing("acme", "cap-90", "1772323200000000", 3, "crossed", 8 * 10**12, 75 * 10**11),
        Crossing("acme", "cap-80", "-", 3, "crossed", 8 * 10**12, 75 * 10**11),
        Crossing("acme", "cap-80", "1772323200000000", 4, "crossed", 8 * 10**12, 75 * 10**11),
        Crossing("acme", "cap-80", "1772323200000000", 3, "recovered", 8 * 10**12, 75 * 10**11),
    ],
)
def test_another_crossing_has_another_id(other: Crossing) -> None:
    assert other.alert_id != CROSSING.alert_id


def test_what_was_read_does_not_enter_the_id() -> None:
    assert Crossing("acme", "cap-80", "1772323200000000", 3, "crossed", 9, 7).alert_id == CROSSING.alert_id


def test_the_body_says_everything_that_led_to_it() -> None:
    body = alert_body(CROSSING, sequence=9, currency="USD", partition=2, offset=77, log_time_us=5)
    assert json.loads(body) == {
        "id": CROSSING.alert_id,
        "type": "alert.crossed",
        "data": {
            "account": "acme",
            "rule": "cap-80",
            "window": "1772323200000000",
            "ordinal": 3,
            "level": "warning",
            "sequence": 9,
            "value": "8",
            "threshold": "7.500000000000",
            "currency": "USD",
            "unit": None,
            "partition": 2,
            "offset": 77,
            "log_time_us": 5,
        },
    }


def test_an_id_conflict_has_neither_value_nor_threshold() -> None:
    conflict = Crossing("acme", "id_conflict", "gateway\0id", 1, "crossed", None, None)
    data = json.loads(alert_body(conflict, sequence=1, currency=None, partition=0, offset=0, log_time_us=0))["data"]
    assert (data["value"], data["threshold"], data["currency"]) == (None, None, None)


@given(st.integers(1, 10**30), st.integers(1, 1000))
def test_a_percentage_is_reached_at_the_smallest_amount_of_at_least_that(whole: int, percent: int) -> None:
    smallest, _ = Rule(CapShare("c"), percent, percent).limits(whole)
    assert smallest * 100 >= percent * whole
    assert (smallest - 1) * 100 < percent * whole


@given(st.integers(1, 10**30), st.integers(0, 100))
def test_downwards_it_is_reached_at_the_largest_amount_of_at_most_that(whole: int, percent: int) -> None:
    largest, _ = Rule(CapShare("c"), percent, percent, falls=True).limits(whole)
    assert largest * 100 <= percent * whole
    assert (largest + 1) * 100 > percent * whole


def test_what_is_not_in_percent_is_what_it_says() -> None:
    assert Rule(Wallet(), 7, 9, falls=True).limits(None) == (7, 9)
