"""The sample on the wire, and what counters count."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cost.telemetry import (
    COUNTERS,
    Increase,
    Metric,
    Owner,
    Reading,
    Sample,
    SourceKind,
    encode_sample,
    increase,
    parse_sample,
)
from engine.events import Malformed

SAMPLE = Sample(
    SourceKind.GPU, "GPU-1/2", 1_764_374_415_000_000, {Metric.ENERGY: 7, Metric.BUSY: 1_000}, owners=(Owner("n", "p"),)
)


def test_the_wire_form_is_this() -> None:
    assert encode_sample(SAMPLE) == (
        b"GPU-1/2",
        b'{"kind":"gpu","key":"GPU-1/2","time_us":1764374415000000,"values":{"energy_uj":7,"busy_permille":1000},'
        b'"owners":[{"namespace":"n","pod":"p","container":""}]}',
    )
    assert parse_sample(*reversed(encode_sample(SAMPLE))) == SAMPLE


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "tpu"}, "kind"),
        ({"key": ""}, "key"),
        ({"time_us": -1}, "time_us"),
        ({"time_us": 1_764_374_415_000_000_000}, "time_us"),
        ({"values": {}}, "values"),
        ({"values": {"energy_uj": -1}}, "values"),
        ({"values": {"energy_uj": 1.5}}, "values"),
        ({"values": {"joules": 1}}, "values"),
        ({"values": {"busy_permille": 1_001}}, "more than 1,000"),
        ({"values": {"prompt_tokens": 1}}, "is nothing that a gpu says"),
        ({"more": 1}, "more"),
    ],
)
def test_what_no_sample_is(changed: dict[str, object], told: str) -> None:
    value = msgspec.json.encode(msgspec.to_builtins(SAMPLE) | changed)
    with pytest.raises(Malformed, match=told):
        parse_sample(value, b"GPU-1/2")


def test_the_key_is_the_gpu() -> None:
    _, value = encode_sample(SAMPLE)
    with pytest.raises(Malformed, match="send it as the key"):
        parse_sample(value, b"GPU-1")
    with pytest.raises(Malformed, match="1 to"):
        parse_sample(None, b"GPU-1")


def test_between_two_readings() -> None:
    assert increase(None, Reading(5, 100)) is None
    assert increase(Reading(5, 100), Reading(8, 130)) == Increase(5, 8, 30)
    assert increase(Reading(5, 100), Reading(8, 100)) == Increase(5, 8, 0)  # the exporter repeated itself
    assert increase(Reading(5, 100), Reading(5, 100)) is None  # the record came twice
    assert increase(Reading(5, 100), Reading(4, 90)) is None  # it came late
    assert increase(Reading(5, 100), Reading(8, 20)) == Increase(5, 8, 20, reset=True)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), max_size=40))
def test_what_is_counted_is_never_more_than_what_happened(steps: list[tuple[int, bool, bool]]) -> None:
    """Each step counts some, perhaps restarts, and perhaps is scraped. Without restarts nothing is missing either."""
    stood, happened, found, restarts = 0, 0, 0, 0
    before: Reading | None = Reading(0, 0)
    for time_us, (counted, restart, scraped) in enumerate(steps, start=1):
        if restart:
            stood, restarts = 0, restarts + 1
        stood, happened = stood + counted, happened + counted
        if scraped or time_us == len(steps):
            step = increase(before, after := Reading(time_us, stood))
            assert step is not None
            found, before = found + step.by, after
    assert found <= happened
    assert restarts or found == happened


def test_counters_are_those_that_only_grow() -> None:
    assert Metric.ENERGY in COUNTERS and Metric.POWER not in COUNTERS and Metric.RUNNING not in COUNTERS
