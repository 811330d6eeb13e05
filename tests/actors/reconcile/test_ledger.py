"""R-ledger: postings against lots and debt, place by place."""

import msgspec

from actors.checkpoints import Posted
from actors.ports import AccountRow
from actors.reconcile.ledger import ledger_drifts
from engine.account import Account
from engine.snapshot import encode_account
from tests.engine.bench import DAY, DOLLAR, START, Bench, us

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
    Posted("acme", "first", "paid", "grant", None, PERIOD, 10 * DOLLAR, 1, 1),
    Posted("acme", "first", "paid", "burn", PERIOD, PERIOD, 10 * DOLLAR, 1, 1),
    Posted("acme", "", "", "debt", PERIOD, PERIOD, 2 * DOLLAR, 1, 1),
]


def told(*postings: Posted, **beside: object) -> list[str]:
    account = spent()
    row = AccountRow("acme", encode_account(account), None, -2 * DOLLAR, 12 * DOLLAR, "USD")
    row = msgspec.structs.replace(row, **beside)
    return [str(drift) for drift in ledger_drifts(0, {"acme": account}, {"acme": row}, postings, START + DAY)]


def test_postings_that_say_what_the_account_says_have_no_drift() -> None:
    assert START > PERIOD
    assert told(*POSTED) == []
    assert told(*POSTED, Posted("acme", "first", "paid", "expire", None, PERIOD, 0, 1, 1)) == [], (
        "a sum of nothing is nothing"
    )


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
    (strange,) = told(*POSTED, Posted("acme", "second", "paid", "expire", None, PERIOD, 7, 1, 1))
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
    assert len(list(ledger_drifts(0, {}, {}, POSTED, START))) == 1
    row = AccountRow("acme", b"", None, 0, 0, "USD")
    assert list(ledger_drifts(0, {}, {"acme": row}, POSTED, START)) == []


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
        posted = [Posted("acme", "", "", kind, PERIOD, PERIOD, 2 * DOLLAR, 1, 1)]
        assert len(list(ledger_drifts(0, {"acme": account}, {"acme": row}, posted, START + 60 * DAY))) == drifts


# ------------------------------------------------------------------------------------------------------ posting periods

APRIL = us("2026-04-01T00:00:00+00:00")
FEBRUARY, JANUARY = us("2026-02-01T00:00:00+00:00"), us("2026-01-01T00:00:00+00:00")


def told_of_periods(
    *rows: tuple[int, int], used: int | None = PERIOD, log_time_us: int = APRIL + DAY, changed: int | None = None
) -> list[str]:
    """Of a burn that was posted in so many parts, each in (period, checkpoint)."""
    account = spent()
    grant, burn, debt = POSTED
    parts = [msgspec.structs.replace(burn, posting_period_us=said, first_seq=seq, last_seq=seq) for said, seq in rows]
    parts = [msgspec.structs.replace(part, amount=burn.amount if part is parts[0] else 0) for part in parts]
    parts = [msgspec.structs.replace(part, usage_period_us=used) for part in parts]
    row = AccountRow("acme", encode_account(account), None, -2 * DOLLAR, 12 * DOLLAR, "USD")
    changes = [] if changed is None else [("acme", changed), ("globex", APRIL)]
    found = ledger_drifts(0, {"acme": account}, {"acme": row}, [grant, debt, *parts], log_time_us, changes)
    return [str(drift) for drift in found if "posting period" in drift.what or "checkpoint" in drift.what]


def test_what_is_posted_behind_midnight_is_posted_in_the_next_period() -> None:
    """In which period usage of its last moment is posted follows from when the checkpoint came."""
    assert told_of_periods((PERIOD, 1)) == told_of_periods((APRIL, 2)) == []
    assert told_of_periods((PERIOD, 1), (PERIOD, 2), (APRIL, 3), (APRIL, 7)) == []


def test_a_posting_period_is_one_of_the_account_that_has_begun() -> None:
    where = "ledger: partition 0, account acme: posting period of burn of lot first: expected"
    assert told_of_periods((PERIOD + 1, 2)) == [
        f"{where} {PERIOD}, found {PERIOD + 1} (digit 1 from the right)",
    ]
    for said in (APRIL, -1, 1 << 62):
        (found,) = told_of_periods((said, 2), log_time_us=APRIL - 1)
        assert found.startswith(f"{where} one begun by {APRIL - 1}, found {said}")


def test_nothing_is_posted_in_a_period_before_that_of_its_usage() -> None:
    """But in the one before it, as long as log time may lie there while usage does not: five minutes."""
    assert told_of_periods((FEBRUARY, 0)) == []
    (found,) = told_of_periods((JANUARY, 0))
    assert found.startswith(
        f"ledger: partition 0, account acme: posting period of burn of lot first in the period from {PERIOD}: expected "
        f"{FEBRUARY}, found {JANUARY}"
    )


def test_posting_periods_never_fall() -> None:
    (found,) = told_of_periods((PERIOD, 5), (APRIL, 4))
    assert found.startswith(
        f"ledger: partition 0, account acme: first checkpoint that posts in the period from {APRIL}: expected one behind 5, "
        "found 4"
    )
    assert len(told_of_periods((PERIOD, 5), (APRIL, 5))) == 1, "a checkpoint posts all of an account in one period"


def test_a_period_that_another_plan_of_the_same_instant_replaced_was_one() -> None:
    """Its postings stay in it, and later ones are in the period that it was cut from."""
    instant = PERIOD + 10 * DAY
    rows = (instant, 2), (PERIOD, 3)
    assert len(told_of_periods(*rows)) == 1
    assert told_of_periods(*rows, changed=instant) == []
