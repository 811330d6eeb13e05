"""Drifts: each difference is told with its place, and the digit is the first that differs."""

import pytest

from actors.drift import Drift, digit, state_drifts
from tests.engine.bench import MINUTE, random_bench


@pytest.mark.parametrize(
    ("expected", "found", "told"),
    [
        ("12000000000000", "12000000000001", "digit 1 from the right"),
        ("9", "10", "digit 2 from the right"),
        ("0.903571700000", "0.903571700001", "digit 12 behind the point"),
        ("1", "0.999999999999", "digit 1 before the point"),
        ("120.5", "20.5", "digit 3 before the point"),
        ("-1", "1", "the sign"),
        ("1.50", "1.5", "the same number, written otherwise"),
        ("plan", "plaM", "character 4"),
        ("plan", "plane", "character 5"),
        ("nothing", "1", ""),
        ("same", "same", ""),
    ],
)
def test_the_first_digit_that_differs_is_named(expected: str, found: str, told: str) -> None:
    assert digit(expected, found) == told


def test_a_drift_is_a_sentence_with_its_place() -> None:
    assert str(Drift("ledger", 3, "acme", "burn of lot a", "5", "6")) == (
        "ledger: partition 3, account acme: burn of lot a: expected 5, found 6 (digit 1 from the right)"
    )
    assert str(Drift("offsets", 3, "", "next offset", "5", "6")).startswith("offsets: partition 3: next offset: ")
    assert "... (300 characters)" in str(Drift("x", 0, "", "long", "1" * 300, "1"))


def test_equal_states_have_no_drift_and_every_part_is_compared() -> None:
    bench, log = random_bench(5, 200)
    before = bench.partition.state_bytes()
    assert list(state_drifts("x", 0, before, bench.replay().state_bytes())) == []
    bench.now += MINUTE
    while log.step() != "rated":
        pass
    bench.cap("12.5", "another", log.accounts[0])
    found = list(state_drifts("x", 0, before, bench.partition.state_bytes()))
    named = {drift.what for drift in found}
    assert {"log_time_us", "count of rated", "memory of rated events", "caps another: amount"} <= named
    assert any(name.startswith("answer to command key-") for name in named)
    assert {drift.account for drift in found} & set(log.accounts)
