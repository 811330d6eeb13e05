"""What GPUs cost: by the hour, from instants on, whole or in parts."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cost.gpu_rates import HOUR_US, parse_rates
from engine.cost.served import GpuPart
from engine.events import Malformed

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "currency": "USD",
    "rates": [
        {"kind": "h100", "from_us": 0, "per_hour": "2.49", "overhead_ppm": 100_000},
        {"kind": "h100", "from_us": 10 * HOUR_US, "per_hour": "3"},
        {"kind": "a100", "from_us": 5 * HOUR_US, "per_hour": "1.000000000001"},
    ],
}
RATES = parse_rates(json.dumps(DOCUMENT).encode())


def test_an_hour_costs_the_hourly_rate() -> None:
    assert RATES.cost([GpuPart("g", "h100")], HOUR_US, 2 * HOUR_US) == (2_490_000_000_000, 249_000_000_000)
    assert RATES.cost([GpuPart("g", "h100"), GpuPart("h", "h100")], HOUR_US, 2 * HOUR_US) == (
        4_980_000_000_000,
        498_000_000_000,
    )


def test_each_instant_costs_what_its_rate_says() -> None:
    half = HOUR_US // 2
    assert RATES.cost([GpuPart("g", "h100")], 10 * HOUR_US - half, 10 * HOUR_US + half) == (
        1_245_000_000_000 + 1_500_000_000_000,
        124_500_000_000,
    )
    assert RATES.changes([GpuPart("g", "h100")], 9 * HOUR_US, 11 * HOUR_US) == {10 * HOUR_US}


def test_what_has_no_rate_has_no_known_cost() -> None:
    assert RATES.cost([GpuPart("g", "b200")], HOUR_US, 2 * HOUR_US) is None
    assert RATES.cost([GpuPart("g", "a100")], 5 * HOUR_US - 1, 6 * HOUR_US) is None
    assert RATES.cost([GpuPart("g", "h100"), GpuPart("h", "b200")], HOUR_US, 2 * HOUR_US) is None


@given(st.lists(st.integers(5 * HOUR_US, 20 * HOUR_US), min_size=2, max_size=20), st.sampled_from(["h100", "a100"]))
def test_adjoining_stretches_and_parts_add_up_to_the_whole(instants: list[int], kind: str) -> None:
    instants.sort()
    whole = RATES.cost([GpuPart("g", kind)], instants[0], instants[-1])
    found = [0, 0]
    for begin, end in pairwise(instants):
        for first, behind in ((0, 1), (1, 4), (4, 7)):
            part = RATES.cost([GpuPart("g", kind, first, behind, 7)], begin, end)
            assert part is not None
            found = [found[0] + part[0], found[1] + part[1]]
    assert whole == tuple(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 0}, "version"),
        ({"currency": "usd"}, "currency"),
        ({"rates": [{"kind": "h100", "from_us": 0, "per_hour": "-1"}]}, "h100, per_hour: -1 is below 0"),
        ({"rates": [{"kind": "h100", "from_us": 0, "per_hour": "2,49"}]}, "h100, per_hour: '2,49'"),
        ({"rates": [{"kind": "h100", "from_us": 0, "per_hour": 2.49}]}, "per_hour"),
        ({"rates": [{"kind": "h100", "from_us": 0, "per_hour": "1"}] * 2}, "h100 has two from 0 on"),
        ({"profiles": {"m": {"prefill_token_ps": 1}}}, "decode_token_ps"),
        ({"rate": []}, "rate"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused_by_the_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse_rates(json.dumps(DOCUMENT | change).encode())
