"""Law L3: a check is allowed only if all that is held and this request leave no more debt than the overdraft."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.admission import Wallet
from engine.reasons import Reason
from tests.engine.bench import DOLLAR, HOUR, SECOND
from tests.engine.desk_bench import DeskBench
from tests.engine.held_life import HeldLife


def opened(dollars: str = "10") -> DeskBench:
    bench = DeskBench()
    bench.open()
    bench.grant("l", dollars)
    return bench


def overdraft(bench: DeskBench, amount: str | None) -> None:
    bench.command("set_overdraft", amount=amount, currency="USD")


def test_booked_is_the_balance_and_held_stands_beside_it() -> None:
    """booked = remaining - debt; available is what is left beside the holds."""
    bench = opened()
    bench.use(2)
    decision = bench.check("3")
    assert decision.wallet == Wallet("USD", 8 * DOLLAR, 3 * DOLLAR, 0)
    assert decision.wallet.available == 5 * DOLLAR
    assert (decision.price, decision.version) == (3 * DOLLAR, 1)
    assert bench.wallet() == (8 * DOLLAR, 3 * DOLLAR)
    assert bench.balance() == 8 * DOLLAR


def test_a_check_without_a_hold_reserves_nothing() -> None:
    """Only open holds take from what is available."""
    bench = opened()
    decision = bench.check("10", hold_us=None)
    assert (decision.reason, decision.hold) == (None, None)
    assert decision.wallet == Wallet("USD", 10 * DOLLAR, 0, 0)
    assert decision.binding is not None
    assert decision.binding.remaining == 0


def test_an_overdraft_lets_checks_take_the_balance_below_zero() -> None:
    """A check is allowed if debt stays within the overdraft."""
    bench = opened()
    overdraft(bench, "5")
    assert bench.refused("15.000000001") is Reason.CREDIT_DEPLETED
    hold = bench.hold_for("15")
    assert bench.wallet() == (10 * DOLLAR, 15 * DOLLAR)
    bench.spend_held(hold, 15)
    assert (bench.wallet(), bench.debt()) == ((-5 * DOLLAR, 0), 5 * DOLLAR)


def test_without_a_limit_of_debt_the_wallet_denies_nothing() -> None:
    """Postpaid without a credit limit has no limit of debt."""
    bench = opened()
    overdraft(bench, None)
    decision = bench.check("1000000")
    assert decision.reason is None
    assert decision.binding is not None
    assert decision.binding.remaining is None


def test_debt_beyond_the_overdraft_denies_even_what_is_free() -> None:
    """Debt above the overdraft denies, whatever the request would add."""
    bench = opened("1")
    bench.use(2)
    assert bench.refused("0") is Reason.CREDIT_DEPLETED
    assert bench.check(type=None, data={}).reason is Reason.CREDIT_DEPLETED
    bench.grant("more", "1")
    bench.wait()
    assert bench.refused("0") is None


def test_the_refusal_names_what_is_left() -> None:
    """The reply names the binding limit and what remains of it."""
    decision = opened().check("11")
    assert decision.binding is not None
    assert (decision.binding.kind, decision.binding.remaining) == ("wallet", 10 * DOLLAR)
    assert (decision.price, decision.retry_after_us) == (11 * DOLLAR, None)


@pytest.mark.parametrize(("model", "refused"), [("x", None), ("y", Reason.CREDIT_DEPLETED)])
def test_a_lot_counts_only_for_what_it_may_pay(model: str, refused: Reason | None) -> None:
    """Holds are allocated over the lots in scope."""
    bench = DeskBench()
    bench.open()
    bench.grant("only-x", "10", scope=["x"])
    assert bench.refused("10", model) is refused


def test_two_prices_that_share_a_lot_share_its_credit() -> None:
    """$10 for all and $10 for x only: x $10 and y $10 fit in either order, and no more of y."""
    for models in (("x", "y"), ("y", "x")):
        bench = opened()
        bench.grant("only-x", "10", scope=["x"])
        assert [bench.refused("10", model) for model in models] == [None, None]
        assert bench.refused("1", "y") is Reason.CREDIT_DEPLETED


def test_a_lot_that_expired_or_has_not_begun_pays_for_nothing_now() -> None:
    """Holds are allocated over the lots that are valid."""
    bench = DeskBench()
    bench.open()
    bench.grant("gone", "10", expires_us=bench.now + HOUR)
    bench.grant("soon", "10", effective_us=bench.now + 2 * HOUR)
    assert bench.refused("10") is None
    bench.now += HOUR
    assert bench.wallet() == (0, 0)
    assert bench.refused() is Reason.CREDIT_DEPLETED
    bench.now += HOUR
    assert bench.wallet() == (10 * DOLLAR, 0)
    assert bench.refused("10") is None


def test_what_is_held_of_an_expired_lot_takes_nothing_from_the_next() -> None:
    """Each hold is allocated at its own admission instant."""
    bench = DeskBench()
    bench.open()
    bench.grant("first", "10", expires_us=bench.now + HOUR)
    bench.grant("next", "10", effective_us=bench.now + HOUR)
    bench.now += HOUR - SECOND
    hold = bench.hold_for("10")
    bench.now += SECOND
    assert bench.wallet() == (10 * DOLLAR, 0)
    other = bench.hold_for("10")
    bench.spend_held(hold, 10)
    bench.spend_held(other, 10)
    assert (bench.wallet(), bench.debt()) == ((0, 0), 0)


def test_the_clock_of_the_owner_is_never_behind_the_log() -> None:
    """Checks use max(log time, own clock)."""
    bench = DeskBench()
    bench.open()
    bench.grant("gone", "10", expires_us=bench.now + HOUR)
    bench.wait(HOUR)
    bench.now -= HOUR
    assert bench.refused() is Reason.CREDIT_DEPLETED


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_booked_is_the_balance_whatever_is_held(seed: int) -> None:
    """Holds stand beside the balance, never inside it."""
    life = HeldLife(seed, scoped=False)
    assume(life.over <= 0)
    for _ in range(25):
        life.step()
        booked, held = life.bench.wallet()
        assert held >= 0
        if life.bench.account().woken_us == life.bench.now:
            assert booked == life.bench.balance()
