"""What quantity grants take of usage, by themselves: in time order, behind what is included, each within its bounds."""

from msgspec.structs import replace

from engine.prices.modifiers import Modifiers
from engine.quantity_grants import QuantityGrant, Service, granted_in
from tests.engine.bench import priced

PRICE = priced([(None, 1, 1)])
GRANT = QuantityGrant("g", "p", 10, 100, 200)


def test_units_are_taken_until_none_are_left() -> None:
    service = Service([GRANT])
    assert [service.take(start, 100, PRICE, 4) for start in (100, 120, 140, 160)] == [4, 4, 2, 0]
    assert service.taken == {"g": 10}
    assert service.served == {(100, "p"): 4, (120, "p"): 4, (140, "p"): 2, (160, "p"): 0}


def test_a_grant_serves_from_its_beginning_to_its_end_and_its_own_period_and_price() -> None:
    assert [GRANT.covers(start, 100) for start in (99, 100, 199, 200)] == [False, True, True, False]
    assert not GRANT.covers(150, 101)  # a period that began behind it
    voided = replace(GRANT, voided_us=150)
    assert [voided.covers(start, 100) for start in (149, 150)] == [True, False]
    assert voided.boundaries == [100, 200, 150]
    assert Service([replace(GRANT, price="other")]).take(100, 100, PRICE, 4) == 0


def test_what_is_included_goes_first_over_all_segments_of_the_period() -> None:
    price = priced([(None, 1, 1)], modifiers=Modifiers(included=6))
    service = Service([GRANT])
    assert [service.take(start, 100, price, 4) for start in (100, 120, 140)] == [0, 2, 4]


def test_the_first_to_expire_is_taken_from_first_then_the_first_to_begin_then_by_id() -> None:
    grants = [QuantityGrant(name, "p", 1, begins, ends) for name, begins, ends in (("d", 50, 300), ("c", 90, 200))]
    grants += [QuantityGrant(name, "p", 1, 80, 200) for name in ("b", "a")]
    order = []
    service = Service(grants)
    for _ in grants:
        before = set(service.taken)
        assert service.take(100, 50, PRICE, 1) == 1
        order += list(set(service.taken) - before)
    assert order == ["a", "b", "c", "d"]


def test_of_a_closed_period_no_more_is_taken_than_was() -> None:
    service = Service([GRANT], fixed={(100, "p"): 3})
    assert [service.take(start, 100, PRICE, 5) for start in (100, 120)] == [3, 0]
    assert Service([GRANT], fixed={(100, "p"): 3}).take(100, 100, PRICE, 2) == 2


def test_what_can_be_served_in_a_period() -> None:
    grants = [GRANT, replace(GRANT, grant="h", granted=5), replace(GRANT, grant="i", effective_us=700)]
    assert granted_in(grants, "p", 100, lambda instant: instant // 600 * 600 + 100) == 15
