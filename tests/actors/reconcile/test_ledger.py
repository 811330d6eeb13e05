"""R-ledger: postings against lots and debt, place by place."""

import msgspec

from actors.checkpoints import Posted
from actors.ports import AccountRow
from actors.reconcile.ledger import ledger_drifts
from engine.account import Account
from engine.snapshot import encode_account
from tests.engine.bench import DAY, DOLLAR, START, Bench

PERIOD = 1_772_323_200_000_000  # March 2026 in UTC, the only month with usage here


def spent() -> Account:
    """A lot of 10 dollars, 12 used: 10 burnt, 2 owed."""
    bench = Bench()
    bench.open()
    bench.grant("first", "10")
    bench.now += 1_000_000
    bench.use(12)
    return bench.account()


POSTED = [
    Posted("acme", "first", "paid", "grant", None, 10 * DOLLAR),
    Posted("acme", "first", "paid", "burn", PERIOD, 10 * DOLLAR),
    Posted("acme", "", "", "debt", PERIOD, 2 * DOLLAR),
]


def told(*postings: Posted, **beside: object) -> list[str]:
    account = spent()
    row = AccountRow("acme", encode_account(account), None, -2 * DOLLAR, 12 * DOLLAR, "USD")
    row = msgspec.structs.replace(row, **beside)
    return [str(drift) for drift in ledger_drifts(0, {"acme": account}, {"acme": row}, postings)]


def test_postings_that_say_what_the_account_says_have_no_drift() -> None:
    assert START > PERIOD
    assert told(*POSTED) == []
    assert told(*POSTED, Posted("acme", "first", "paid", "expire", None, 0)) == [], "a sum of nothing is nothing"


def test_each_place_is_compared_and_conservation_too() -> None:
    grant, burn, debt = POSTED
    assert told(grant, msgspec.structs.replace(burn, amount=10 * DOLLAR - 1), debt) == [
        f"ledger: partition 0, account acme: burn of lot first in the period from {PERIOD}: expected 10, "
        "found 9.999999999999 (digit 2 before the point)",
        "ledger: partition 0, account acme: remaining of lot first: expected 0, found 0.000000000001 "
        "(digit 12 behind the point)",
    ]
    (missing,) = told(grant, burn)
    assert missing.startswith(
        f"ledger: partition 0, account acme: debt in the period from {PERIOD}: expected 2, found 0"
    )
    assert any(
        "kind of lot first: expected paid, found promo" in line
        for line in told(msgspec.structs.replace(grant, lot_kind="promo"), burn, debt)
    )
    (strange,) = told(*POSTED, Posted("acme", "second", "paid", "expire", None, 7))
    assert "expire of lot second: expected 0, found 0.000000000007" in strange


def test_two_kinds_in_one_place_are_both_counted() -> None:
    """Of what is posted nothing stays unread, whichever order the database gives it in."""
    grant, burn, debt = POSTED
    strange = msgspec.structs.replace(burn, lot_kind="promo", amount=5 * DOLLAR)
    for postings in ((grant, strange, burn, debt), (grant, burn, debt, strange)):
        found = told(*postings)
        assert any("burn of lot first in the period" in line and "expected 10, found 15" in line for line in found)
        assert any("kind of lot first: expected paid, found promo" in line for line in found)
    halves = [msgspec.structs.replace(burn, amount=5 * DOLLAR), msgspec.structs.replace(strange, lot_kind="paid")]
    assert told(grant, *halves, debt) == [], "the sum counts, however many rows it has"
    owed = told(grant, burn, msgspec.structs.replace(debt, lot_kind="paid"))
    assert owed == ["ledger: partition 0, account acme: kind of lot of debt: expected nothing, found paid"]


def test_what_is_shown_to_people_is_compared() -> None:
    assert any("balance shown" in line for line in told(*POSTED, balance=0))
    assert any("spend shown" in line for line in told(*POSTED, spend=0))
    assert any("currency shown: expected USD, found EUR" in line for line in told(*POSTED, currency="EUR"))
    assert any("next wake-up: expected nothing, found 5" in line for line in told(*POSTED, wake_us=5))


def test_postings_of_an_account_that_is_not_open_are_a_drift_unless_its_snapshot_cannot_be_read() -> None:
    assert len(list(ledger_drifts(0, {}, {}, POSTED))) == 1
    row = AccountRow("acme", b"", None, 0, 0, "USD")
    assert list(ledger_drifts(0, {}, {"acme": row}, POSTED)) == []


def test_what_is_due_is_expected_as_such() -> None:
    """Of an account that pays by invoice, once the period is closed."""
    bench = Bench()
    bench.open()
    bench.command("set_billing", billing="postpaid", currency="USD")
    bench.use(2)
    bench.tick(START + 60 * DAY)
    account = bench.account()
    row = AccountRow("acme", encode_account(account), account.wake_us(), -2 * DOLLAR, 2 * DOLLAR, "USD")
    for kind, drifts in (("due", 0), ("debt", 2)):
        posted = [Posted("acme", "", "", kind, PERIOD, 2 * DOLLAR)]
        assert len(list(ledger_drifts(0, {"acme": account}, {"acme": row}, posted))) == drifts
