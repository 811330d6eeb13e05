"""The door's bench asks a door that answers, and counts what is left without the echo."""

from actors.door_wire import Check, Checked, FieldLimit, Release, Released
from engine.money import amount_text
from loadtest.door_bench import CUSTOMERS, EVENTS_EACH, Figures, Shard, run
from loadtest.probes import COST_PICO, MODEL, PLENTY_PICO, TOKENS
from loadtest.workload import EVENT_TYPE


def test_its_customers_are_given_holds_at_once_and_have_spent_what_they_used() -> None:
    shard = Shard()
    answers = shard.answers()
    for customer in shard.customers:
        bounds = (FieldLimit(("input_tokens",), str(TOKENS)), FieldLimit(("output_tokens",), "0"))
        question = Check(customer.account, type=EVENT_TYPE, data={"model": MODEL}, bounds=bounds, ttl_ms=1_000)
        answer = answers.answer_now(question)
        assert isinstance(answer, Checked) and answer.hold is not None and answer.wallet is not None
        assert (
            answer.wallet.booked == amount_text(PLENTY_PICO - EVENTS_EACH * COST_PICO) == amount_text(customer.booked)
        )
        released = answers.answer_now(Release(answer.hold.token))
        assert isinstance(released, Released) and released.was_open


def test_a_short_run_has_figures_of_both_ways_to_ask() -> None:
    found = run(pairs=CUSTOMERS, rounds=1)
    for name in ("one", "many"):
        assert found[name]["check_and_release_us"] > 0 and found[name]["echo_us"] > 0


def test_the_doors_share_is_what_is_left_without_the_echo() -> None:
    assert Figures(250.0, 90.5).door_us == 159.5
