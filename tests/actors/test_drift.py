"""Drifts: each difference is told with its place, and the digit is the first that differs."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from actors.drift import Drift, digit, state_drifts
from engine.snapshot import PartitionState
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


HEADER = PartitionState(3, 5, 1, [(1, 0)], [("rated", 2)], ["acme"], ["acme"], ["acme"])


def header_drifts(**other: Any) -> list[tuple[str, str, str]]:
    def state(header: PartitionState) -> bytes:
        return msgspec.msgpack.encode([msgspec.msgpack.encode(header), [], b"", []])

    found = state_drifts("x", 0, state(HEADER), state(replace(HEADER, **other)))
    return [(drift.what, drift.expected, drift.found) for drift in found]


def test_every_field_of_a_partition_is_compared() -> None:
    """Each alone, and one that is new here, too: nothing may be called equal to the last byte that is not."""
    assert header_drifts() == []
    for name in PartitionState.__struct_fields__:
        value = getattr(HEADER, name)
        (named,) = header_drifts(**{name: value - 1 if isinstance(value, int) else []})
        assert named[0] != "header bytes"
    assert header_drifts(bound=["acme", "globex"]) == [
        ("accounts bound by an agreed price", "acme", "acme, globex"),
    ]
    assert header_drifts(leased=[]) == [("accounts with leases", "acme", "")]


def test_headers_that_read_alike_and_are_not_are_told_by_their_bytes() -> None:
    twice = [("rated", 2), ("rated", 2)]
    ((what, expected, found),) = header_drifts(counts=twice)
    assert (what, expected) == ("header bytes", msgspec.msgpack.encode(HEADER).hex())
    assert found == msgspec.msgpack.encode(replace(HEADER, counts=twice)).hex()
