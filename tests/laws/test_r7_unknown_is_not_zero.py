"""Law R7: what cannot be read or priced is set aside with a reason, and never guessed, dropped or billed as zero."""

import random
import re
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.outcomes import DeadLetterReason
from tests.engine.bench import MALFORMED, MODELS, Bench, RandomLog, document, per_unit, versions

DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)
JSON_NOISE = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def opened() -> Bench:
    bench = Bench()
    bench.open()
    return bench


@pytest.mark.parametrize("name", MALFORMED)
def test_every_unreadable_record_has_a_reason_and_is_kept_whole(name: str) -> None:
    """The reason is one of the declared names; key and value stand in the letter as they came."""
    bench = opened()
    key, value = MALFORMED[name](bench, b"acme")
    outcome = bench.record(key, value)
    letter = bench.letter()
    assert outcome == f"dead_lettered.{letter.reason}"
    assert letter.reason in {reason.value for reason in DeadLetterReason} - {"engine_error"}
    assert (letter.key, letter.value) == (key, value)
    assert letter.detail
    assert bench.partition.outputs.lines == []


@settings(max_examples=80)
@given(JSON_NOISE)
@example("0.0")
@example("-0")
@example("1.50")
@example("-1")
@example("1.")
def test_a_quantity_is_never_guessed(units: object) -> None:
    """Only a number that is not negative is rated, and then as itself; nothing else is taken for 0 or 1."""
    bench = opened()
    outcome = bench.use(units)
    if type(units) is int and units >= 0:
        assert (outcome, bench.charges()) == ("rated", [units * 10**12])
    elif isinstance(units, str) and DECIMAL.fullmatch(units) and Decimal(units) >= 0:
        assert (outcome, bench.charges()) == ("rated", [int(Decimal(units) * 10**12)])
    else:
        assert (outcome, bench.charges()) == ("dead_lettered.bad_quantity", [])


@settings(max_examples=80)
@given(JSON_NOISE.filter(lambda model: model not in MODELS))
def test_a_dimension_is_never_guessed(model: object) -> None:
    """Only a model that is sold is rated; a missing one is not the cheapest."""
    bench = opened()
    assert bench.use(1, model) in ("dead_lettered.bad_dimension", "dead_lettered.no_price")
    assert bench.charges() == []


@settings(max_examples=100)
@given(st.binary(max_size=60) | JSON_NOISE.map(lambda value: str(value).encode()))
def test_no_value_breaks_the_fold(value: bytes) -> None:
    """Whatever bytes come, the next good event is rated."""
    bench = opened()
    reason = "bad_mac" if value.startswith(b"TGC1") else "malformed"
    assert bench.record(b"acme", value) == f"dead_lettered.{reason}"
    assert bench.use(1) == "rated"


def test_an_unknown_account_is_no_new_account() -> None:
    """Its usage waits in a dead letter until somebody opens it; then the same record is accepted."""
    bench = opened()
    value = bench.event(3)
    assert bench.record(b"late", value) == "dead_lettered.unknown_account"
    bench.open("late")
    assert bench.record(b"late", value) == "rated"


def test_no_price_is_not_a_price_of_zero() -> None:
    """A plan that gives a model away says so; one that does not mention it bills nothing."""
    bench = Bench(document(x=None, y=per_unit("0", model="y")))
    bench.open()
    assert (bench.use(1, "x"), bench.use(1, "y")) == ("dead_lettered.no_price", "rated")
    assert bench.charges() == [0]


def test_an_event_with_one_unreadable_meter_is_not_billed_for_the_others() -> None:
    """Every meter that takes the event applies, or none."""
    bench = opened()
    assert bench.use(type="llm.request", data={"model": "a"}) == "dead_lettered.bad_quantity"
    assert bench.charges() == []
    assert bench.use(type="llm.request", data={"tokens": 1}) == "dead_lettered.bad_dimension"
    assert bench.charges() == []


@settings(max_examples=8)
@given(st.integers(0, 10**9))
def test_every_record_is_counted_under_one_outcome(seed: int) -> None:
    """Nothing disappears: the counts of a random log sum to its records, and dead letters to their reasons."""
    bench = Bench(*versions())
    log = RandomLog(bench, random.Random(seed), stride_us=3_600_000_000)
    for _ in range(120):
        log.step()
    counts = {name: count for name, count in bench.partition.counts.items() if not name.startswith("alert_")}
    assert sum(counts.values()) == len(bench.log)
    letters = sum(count for name, count in counts.items() if name.startswith("dead_lettered."))
    assert letters == len(bench.partition.outputs.dead_letters)
