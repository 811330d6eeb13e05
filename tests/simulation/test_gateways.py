"""What gateways were told is held against the log."""

from msgspec.structs import replace

from actors.door_wire import AsOf
from tests.engine.bench import DOLLAR, SECOND
from tests.engine.desk_bench import DeskBench
from tests.simulation.gateways import Given, _inconsistent


def test_an_answer_is_of_the_instant_at_which_it_was_given() -> None:
    """A lot has begun by the clock of whoever answers, and not by log time: what is booked has it."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "1")
    bench.grant("soon", "6", effective_us=bench.now + SECOND)
    fold, now_us = bench.partition, bench.now + 2 * SECOND
    wallet = fold.wallet("acme", now_us)
    assert wallet is not None
    as_of = AsOf(0, fold.epoch, len(bench.log), fold.log_time_us, 0)
    given = Given("acme", as_of, now_us, True, None, wallet.booked, wallet.booked - wallet.held, 0, None)
    assert wallet.booked == 7 * DOLLAR
    assert list(_inconsistent(given, fold)) == []
    (sentence,) = _inconsistent(replace(given, now_us=fold.log_time_us), fold)
    assert sentence.endswith(f"says {7 * DOLLAR} is booked, it is {DOLLAR}")
    account = fold.account("acme")
    assert account is not None
    assert account.derive().allocation.balance == DOLLAR, "looking has changed nothing"
