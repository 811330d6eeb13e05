"""The leases of an account as state. What they are for: tests/laws/test_l5_leases.py."""

from msgspec.structs import replace

from engine.holds import Bound, Hold
from engine.leases import Lease, LeaseBook
from engine.outcomes import Settled

LEASE = Hold("acme", "", 0, 1, 1, 100, 1, 200, 300, 400, (Bound(10, ("x", "y"), ("x",)), Bound(4, ("z",), ("z",))), 2)


def book() -> LeaseBook:
    granted = LeaseBook()
    granted.put(LEASE, 150)
    return granted


def test_each_bound_is_drawn_by_the_prices_it_reaches() -> None:
    leases = book()
    assert leases.draw(LEASE, {"x": 3, "y": 4, "z": 1}, 1, 150) is Settled.WITHIN
    assert leases.of[LEASE.id] == Lease(LEASE, (3, 3), 1)
    assert leases.draw(LEASE, {"y": 4}, 1, 150) is Settled.OVER_HOLD
    assert leases.of[LEASE.id].left == (0, 3)


def test_what_it_does_not_reach_and_one_request_too_many_are_over() -> None:
    leases = book()
    assert leases.draw(LEASE, {"w": 1}, 1, 150) is Settled.OVER_HOLD
    assert leases.draw(LEASE, {"w": 0, "x": 1}, 1, 150) is Settled.WITHIN
    assert leases.draw(LEASE, {"x": 1}, 1, 150) is Settled.OVER_HOLD


def test_what_is_not_known_covers_nothing() -> None:
    assert LeaseBook().draw(LEASE, {"x": 1}, 1, 150) is Settled.OVER_HOLD
    assert LeaseBook().draw(LEASE, {"x": 1}, 1, 301) is Settled.LATE


def test_an_extended_lease_is_late_by_its_last_word() -> None:
    leases = book()
    leases.put(replace(LEASE, expires_us=500, report_until_us=600, extends=True), 150)
    assert leases.draw(LEASE, {"x": 1}, 1, 450) is Settled.WITHIN


def test_it_is_done_when_all_that_was_sent_has_come() -> None:
    leases = book()
    leases.close("unheard", 1)
    leases.close(LEASE.id, 1)
    assert leases.of[LEASE.id] == Lease(LEASE, (10, 4), 0, 1)
    leases.draw(LEASE, {"x": 3}, 1, 150)
    assert leases.of[LEASE.id] == Lease(LEASE, (0, 0), 1, 1)
    before = leases.of[LEASE.id]
    leases.put(replace(LEASE, requests=3, report_until_us=500, extends=True), 150)  # it decides nothing more
    assert leases.of[LEASE.id] == before


def test_it_is_forgotten_once_nothing_can_be_reported() -> None:
    leases = book()
    assert leases.wake_us() == 401
    leases.forget(400)
    assert LEASE.id in leases.of
    leases.changed.clear()
    leases.forget(401)
    assert (leases.of, leases.wake_us()) == ({}, None)
    assert leases.changed == {LEASE.id}
    leases.put(LEASE, 401)
    assert leases.of == {}
    leases.put(replace(LEASE, report_until_us=900, extends=True), 401)  # an extension of what is gone
    assert leases.of == {}


def test_an_extension_sealed_before_extensions_said_so_is_folded_as_it_was() -> None:
    """A log is folded again by engines to come: what it made of such a record is what it makes."""
    leases = book()
    leases.forget(401)
    leases.put(replace(LEASE, report_until_us=900), 401)
    assert leases.of[LEASE.id].left == (10, 4)
