"""Re-rating: what it finds, what it refuses, and what it leaves alone."""

from typing import Any

import pytest

from engine.catalog import CatalogueDocument, PriceDefinition, TierDefinition
from engine.commands import Refused
from engine.manual_lines import Rerating
from engine.rerating import Difference, differences
from engine.snapshot import decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, document, graduated, per_unit, us

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")
ALL = Rerating(2, 0, 1 << 60)


def repriced(*documents: CatalogueDocument, units: int = 20, price: str = "tiered") -> Bench:
    """20 units of March, and versions that are in force from the middle of April on."""
    bench = Bench(document(), *documents)
    bench.open()
    bench.use(units, price)
    for number in range(2, 2 + len(documents)):
        bench.control({"kind": "catalogue", "version": number, "effective_us": APRIL + (10 + number) * DAY})
    bench.now = APRIL + 2 * DAY
    bench.tick(bench.now)
    return bench


def found(bench: Bench, price: str, asked: Rerating = ALL) -> list[Difference]:
    return differences(bench.account(), price, asked, bench.partition._book, bench.now)


CHEAPER = document(tiered=graduated(("10", "30"), (None, "20"), model="tiered"))


def test_the_difference_is_of_the_whole_period_and_changes_nothing() -> None:
    bench = repriced(CHEAPER)
    before = bench.partition.state_bytes()
    assert found(bench, "tiered") == [Difference(MARCH, 700 * DOLLAR, 0, 500 * DOLLAR)]
    assert bench.partition.state_bytes() == before


def test_it_is_posted_as_a_line_that_names_what_made_it() -> None:
    bench = repriced(CHEAPER)
    rated = bench.account().derive().running
    assert bench.rerate("tiered", ALL, "oops") == "applied"
    line = bench.account().lines[f"oops/tiered/{MARCH}"]
    assert (line.amount, line.period_us, line.price, line.reason, line.by) == (
        *(-200 * DOLLAR, MARCH, "tiered"),
        *("a wrong price", "ann"),
    )
    assert line.rerated == ALL
    assert bench.debt() == 500 * DOLLAR
    assert bench.account().derive().running.keys() == rated.keys()
    again = decode_account(encode_account(bench.account()), bench.partition._book)
    assert again.lines == bench.account().lines
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_the_same_one_is_posted_once_and_another_has_nothing_left() -> None:
    bench = repriced(CHEAPER)
    stated = bench.differences("tiered", ALL)
    assert bench.rerate("tiered", ALL, "oops") == "applied"
    bench.now += 32 * DAY  # when no command key is remembered any more
    assert bench.rerate("tiered", ALL, "oops", differences=stated) == "refused.line_exists"
    assert bench.rerate("tiered", ALL, "again") == "refused.no_difference"
    assert bench.debt() == 500 * DOLLAR


def test_late_usage_of_a_period_stays_as_published_until_it_is_rated_again_too() -> None:
    bench = repriced(CHEAPER)
    bench.rerate("tiered", ALL, "first")
    bench.use(10, "tiered", APRIL - DAY)
    assert bench.debt() == 900 * DOLLAR
    assert found(bench, "tiered") == [Difference(MARCH, 1_100 * DOLLAR, -200 * DOLLAR, 700 * DOLLAR)]
    assert bench.rerate("tiered", ALL, "second") == "applied"
    assert bench.debt() == 700 * DOLLAR


def test_a_later_one_counts_on_from_an_earlier_one() -> None:
    """The stretch of March that the second one does not reach keeps what the first one made of it."""
    bench = Bench(document(), document(x=per_unit("3", model="x")), document(x=per_unit("5", model="x")))
    bench.open()
    bench.use(1)
    second, third = bench.now + DAY, bench.now + 2 * DAY
    for number, at in ((2, second), (3, third)):
        bench.control({"kind": "catalogue", "version": number, "effective_us": at})
    for at in (second, third):
        bench.now = at + HOUR
        bench.use(1)
    assert bench.rerate("x", Rerating(1, third, 1 << 60), "first") == "applied"
    assert found(bench, "x", Rerating(1, second, third)) == [Difference(MARCH, 9 * DOLLAR, -4 * DOLLAR, 3 * DOLLAR)]
    assert bench.rerate("x", Rerating(1, second, third), "second") == "applied"
    assert bench.debt() == 3 * DOLLAR


def test_what_was_agreed_with_the_account_stays() -> None:
    bench = Bench(document(), document(x=per_unit("3", model="x")))
    bench.open()
    bench.agree("x", {"model": "per_unit", "amount": "0.5", "per": "1"})
    bench.use(4)
    bench.control({"kind": "catalogue", "version": 2, "effective_us": APRIL})
    assert [each.amount for each in found(bench, "x")] == [0]


def test_it_counts_in_no_cap_and_no_tier() -> None:
    bench = repriced(document(tiered=graduated((None, "500"), model="tiered")))
    bench.cap("2000")
    bench.cap_rule(50)
    assert bench.rerate("tiered", ALL) == "applied"
    assert bench.told() == []
    bench.use(1, "tiered")
    assert bench.charges()[-1] == 30 * DOLLAR


@pytest.mark.parametrize(
    ("price", "asked", "changed", "reason"),
    [
        ("tiered", ALL, {"differences": [[MARCH, "x"]]}, "bad_amount"),
        ("tiered", ALL, {"currency": "EUR"}, "currency_mismatch"),
        ("tiered", Rerating(2, APRIL, APRIL), {}, "bad_period"),
        ("tiered", Rerating(9, 0, 1 << 60), {}, "unknown_version"),
        ("unheard", ALL, {}, "unknown_price"),
        ("fees", ALL, {}, "bad_price"),
        ("tiered", Rerating(2, 0, us("2026-03-10T12:00:00+00:00")), {}, "mid_segment"),
        ("tiered", ALL, {"differences": [[MARCH, "-199"]]}, "rerate_changed"),
        ("y", ALL, {}, "no_difference"),
        ("tiered", ALL, {"reason": " "}, "no_reason"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    price: str, asked: Rerating, changed: dict[str, Any], reason: str
) -> None:
    fees = PriceDefinition("units", "percentage", {"model": "fees"}, percent="5", per_event="0.1")
    bench = repriced(document(tiered=graduated((None, "20"), model="tiered"), fees=fees), document(), price="tiered")
    before = bench.account().lines, bench.debt()
    assert bench.rerate(price, asked, **changed) == f"refused.{reason}"
    assert (bench.account().lines, bench.debt()) == before


@pytest.mark.parametrize("place", [0, 1])
def test_a_price_with_a_minimum_is_not_rated_again(place: int) -> None:
    """What is missing to it was posted by what was sold; whether it had one then, or has one in the version asked for."""
    least = document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "2", minimum="9"))
    bench = Bench(*((least, document()) if place else (document(), least)))
    bench.open()
    bench.control({"kind": "catalogue", "version": 2, "effective_us": APRIL})
    bench.use(3)
    assert bench.rerate("x", ALL, "again", differences=[[MARCH, "-3"]]) == "refused.bad_price"


def test_a_price_that_is_no_sum_is_rated_again_when_its_period_is_over() -> None:
    def volume(amount: str) -> PriceDefinition:
        return PriceDefinition("units", "volume", {"model": "x"}, tiers=(TierDefinition(amount, "1", None),))

    bench = Bench(document(x=volume("2")), document(x=volume("3")))
    bench.open()
    bench.use(5)
    bench.control({"kind": "catalogue", "version": 2, "effective_us": APRIL + 9 * DAY})
    assert bench.rerate("x", ALL) == "refused.mid_period"
    bench.now = APRIL
    assert bench.rerate("x", ALL) == "applied"
    assert bench.debt() == 15 * DOLLAR


def test_a_period_long_past_is_rated_again_with_what_came_late_for_it() -> None:
    bench = repriced(CHEAPER)
    bench.use(10, "tiered", APRIL - DAY)
    bench.adjust("by hand", "7", price="tiered", used_us=APRIL - DAY)
    bench.now = APRIL + 400 * DAY
    bench.tick(bench.now)
    assert bench.rerate("tiered", ALL) == "applied"
    assert bench.debt() == 707 * DOLLAR


def test_a_price_that_counts_another_meter_in_the_version_is_refused() -> None:
    bench = repriced(document(calls=None, tiered=per_unit("1", meter="calls")))
    with pytest.raises(Refused, match="bad_price"):
        found(bench, "tiered")
    assert bench.rerate("tiered", ALL, differences=[[MARCH, "1"]]) == "refused.bad_price"
