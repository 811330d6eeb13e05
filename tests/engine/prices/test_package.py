"""Packages."""

from engine.money import NANO, PICO
from tests.engine.bench import priced

PACKAGE = priced([(None, 8 * PICO, 100 * NANO)], model="package")


def test_the_golden_row() -> None:
    """100 @ $8: 100, 101, 250, 301 units owe $8, $16, $24, $32."""
    assert [PACKAGE.owed(units * NANO) // PICO for units in (0, 100, 101, 250, 301)] == [0, 8, 16, 24, 32]


def test_the_smallest_part_of_a_unit_begins_a_package() -> None:
    assert [PACKAGE.owed(1), PACKAGE.owed(100 * NANO + 1)] == [8 * PICO, 16 * PICO]


def test_no_version_begins_inside_a_period() -> None:
    assert not PACKAGE.marginal


def test_each_of_many_small_events_may_begin_a_package() -> None:
    """Three events of ten units in all, wherever others' use puts them: three packages, not one."""
    assert PACKAGE.most_own(0, 10 * NANO, 3) == 24 * PICO
    assert PACKAGE.most_own(0, 201 * NANO, 1) == 24 * PICO
