"""What may be asked, and what is refused with the field's name. What comes of it: tests/laws/test_cost_whatif.py."""

import msgspec
import pytest

from engine.cost.economics import Costs, Takings
from engine.cost.gpu_rates import RateDocument
from engine.cost.whatif import Change, Scenario, in_a_month, parse_change
from engine.events import Malformed
from tests.engine.cost.histories import rates_document

PUBLISHED = msgspec.convert(rates_document(), RateDocument)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (b"{", "truncated"),
        (b'{"rate": {}}', "rate"),
        (b'{"gpu_rates": {"h100": "2,10"}}', "gpu_rates"),
        (b'{"gpu_rates": {"h100": "-1"}}', "below 0"),
        (b'{"price_factors": {"m": "a tenth"}}', "price_factors"),
        (b'{"utilisation_percent": "0"}', "utilisation_percent"),
        (b'{"utilisation_percent": "100.01"}', "utilisation_percent"),
        (b'{"utilisation_percent": "1.00001"}', "4 digits"),
        (b'{"target_margin_percent": "100"}', "target_margin_percent"),
    ],
)
def test_what_makes_no_sense_is_refused(change: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse_change(change)


def test_a_rate_counts_at_all_times_and_keeps_the_newest_overhead() -> None:
    rates = parse_change(b'{"gpu_rates": {"a100": "0.5"}}').rates(PUBLISHED)
    assert rates is not None
    assert [(rate.kind, rate.from_us, rate.per_hour) for rate in rates.document.rates] == [
        *((rate.kind, rate.from_us, rate.per_hour) for rate in PUBLISHED.rates[:2]),
        ("a100", 0, "0.5"),
    ]
    newest = parse_change(b'{"gpu_rates": {"h100": "2"}}').rates(PUBLISHED)
    assert newest is not None
    assert newest.document.rates[-1].overhead_ppm == 0  # as from the second rate on
    assert newest.profiles == PUBLISHED.profiles


def test_without_other_rates_the_published_ones_stay() -> None:
    assert Scenario(Change()).rates(PUBLISHED) is None
    assert Scenario(Change()).rates(None) is None


def test_a_kind_that_nobody_has_a_rate_of_is_refused_by_name() -> None:
    scenario = parse_change(b'{"gpu_rates": {"h200": "2"}}')
    with pytest.raises(Malformed, match="h200 has no published rate: there is a100, h100"):
        scenario.rates(PUBLISHED)
    with pytest.raises(Malformed, match="no rates are published"):
        scenario.rates(None)


def test_prices_are_multiplied_and_rounded_half_even() -> None:
    scenario = parse_change(b'{"price_factors": {"m": "0.5"}}')
    found = scenario.project(Costs(), [Takings("m", "a", 5), Takings("m", "b", 7), Takings("n", "a", 5)])
    assert [(line.model, line.account, line.revenue) for line in found.lines] == [
        ("m", "a", 2),
        ("m", "b", 4),
        ("n", "a", 5),
    ]


def test_a_month_is_the_stretch_gone_on() -> None:
    assert in_a_month(10, 24, 720) == 300
    assert (in_a_month(1, 2, 3), in_a_month(1, 2, 5)) == (2, 2)  # half-even
