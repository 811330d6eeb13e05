"""Why an agreed price is refused, in the order of precedence, and that a refusal changes nothing."""

from typing import Any

import pytest

from engine.contract import AGREED_MAX, PHASES_MAX, Agreement, Contract, Phase
from engine.outcomes import Refusal
from tests.engine.bench import DOLLAR, HOUR, MINUTE, Bench, document, per_unit, us

CHEAP = {"model": "per_unit", "amount": "0.5"}
APRIL = us("2026-04-01T00:00:00+00:00")
GOOD: dict[str, Any] = {"price": "x", "terms": CHEAP, "currency": "USD"}
WRONG: list[tuple[Refusal, dict[str, Any]]] = [
    (Refusal.KEY_REUSED, {"command_key": "used"}),
    (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
    (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
    (Refusal.UNKNOWN_PRICE, {"price": "unheard"}),
    (Refusal.BAD_START, {"from_us": us("2026-03-10T11:00:00+00:00")}),
    (Refusal.BAD_PRICE, {"terms": {"model": "package", "amount": "-1"}}),
    (Refusal.MID_PERIOD, {"terms": {"model": "package", "amount": "1"}}),
]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    bench.grant("old", "5", command_key="used")
    bench.grant("old", "5", account="nobody", command_key="used")
    bench.use(3, at=bench.now + MINUTE)
    return bench


@pytest.mark.parametrize("top", range(len(WRONG)), ids=[reason.value for reason, _ in WRONG])
def test_the_first_reason_that_applies_is_given_and_nothing_changes(bench: Bench, top: int) -> None:
    body = dict(GOOD)
    for _, wrong in reversed(WRONG[top:]):
        body |= wrong
    before = bench.account()
    contract, woken = before.contract, before.woken_us
    account = body.pop("account", "acme")
    assert bench.command("set_price", account, **body) == f"refused.{WRONG[top][0].value}"
    assert (bench.account().contract, bench.account().woken_us) == (contract, woken)


@pytest.mark.parametrize(
    "terms",
    [
        {"model": "per_unit"},
        {"model": "per_unit", "amount": "1", "meter": "calls"},
        {"model": "per_unit", "amount": 1},
        {"model": "percentage", "percent": "1", "per_event": "0.30"},  # counts fees, the plan's counts units
        {"model": "graduated", "tiers": []},
        {"model": "per_unit", "amount": "1", "surprise": "1"},
    ],
)
def test_terms_that_cannot_be_published_or_cannot_follow_are_refused(bench: Bench, terms: dict[str, Any]) -> None:
    assert bench.agree("x", terms) == "refused.bad_price"


def test_an_estimate_needs_a_field_that_may_be_missing(bench: Bench) -> None:
    terms = {"model": "dynamic", "factor": "1", "estimate": "4"}
    assert bench.agree("calls", terms) == "refused.bad_price"
    assert bench.agree("x", terms) == "applied"


def test_it_begins_behind_the_newest_usage_when_nothing_else_is_said(bench: Bench) -> None:
    assert bench.agree("x", CHEAP) == "applied"
    (agreed,) = bench.account().contract.agreed
    assert agreed.from_us == bench.account().newest_event_us + 1
    assert bench.agree("x", CHEAP, from_us=agreed.from_us - 1) == "refused.bad_start"
    assert bench.agree("x", CHEAP, from_us=(1 << 55) + 1) == "refused.bad_start"


def test_nothing_is_sold_from_where_no_calendar_reaches(bench: Bench) -> None:
    """The end of the year 9999 has no month behind it."""
    for from_us in (us("9999-12-31T00:00:00+00:00"), 1 << 60):
        assert bench.agree("x", CHEAP, from_us=from_us) == "refused.bad_start"
        assert bench.sell("pro", from_us=from_us) == "refused.bad_start"
        assert bench.grant_units("g", "x", "1", effective_us=from_us) == "refused.bad_quantity_grant"
    assert bench.grant_units("g", "x", "1", effective_us=-(1 << 55) - 1) == "refused.bad_quantity_grant"
    assert bench.agree("x", CHEAP, from_us=1 << 55) == "applied"
    assert bench.sell("pro", from_us=1 << 55) == "applied"
    assert bench.grant_units("g", "x", "1", effective_us=1 << 55) == "applied"


def test_before_any_usage_it_begins_at_once() -> None:
    bench = Bench()
    bench.open()
    assert bench.agree("x", CHEAP) == "applied"
    bench.use(2)
    assert bench.charges() == [DOLLAR]


def test_a_package_may_be_agreed_from_a_periods_start_on_and_only_there_ended(bench: Bench) -> None:
    package = {"model": "package", "amount": "9", "per": "10"}
    assert bench.agree("x", package, from_us=APRIL) == "applied"
    bench.now = APRIL + HOUR
    bench.use(1)
    assert bench.charges()[-1] == 9 * DOLLAR
    assert bench.agree("x", None) == "refused.mid_period"
    assert bench.agree("x", CHEAP, from_us=us("2026-05-01T00:00:00+00:00")) == "applied"


def test_an_agreement_that_would_keep_a_later_one_from_beginning_is_refused(bench: Bench) -> None:
    assert bench.agree("x", CHEAP, from_us=APRIL + HOUR) == "applied"
    assert bench.agree("x", {"model": "flat", "amount": "9"}, from_us=APRIL) == "refused.mid_period"


def test_an_account_has_at_most_a_thousand_agreed_prices(bench: Bench) -> None:
    account = bench.account()
    many = [Agreement(APRIL + number, "plan", "x") for number in range(AGREED_MAX)]
    account.set_contract(Contract("UTC", 1, "plan", (), many), bench.now)
    assert bench.agree("x", CHEAP, from_us=APRIL + AGREED_MAX) == "refused.too_many_prices"
    assert bench.agree("x", CHEAP, from_us=APRIL + AGREED_MAX - 1) == "applied"


def test_a_version_that_drops_the_price_leaves_what_was_agreed_without_effect() -> None:
    bench = Bench(document(), document(x=None))
    bench.open()
    bench.agree("x", CHEAP)
    bench.publish(2, bench.now + HOUR)
    bench.now += 2 * HOUR
    assert bench.use(2) == "dead_lettered.no_price"


# --------------------------------------------------------------------------------------------------------------- phases

PLAN_WRONG: list[tuple[Refusal, dict[str, Any]]] = [
    (Refusal.KEY_REUSED, {"command_key": "used"}),
    (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
    (Refusal.UNKNOWN_PLAN, {"plan": "unheard"}),
    (Refusal.CURRENCY_MISMATCH, {"plan": "calls"}),
    (Refusal.BAD_START, {"from_us": us("2026-03-10T11:00:00+00:00")}),
    (Refusal.WOULD_REPRICE, {"plan": "plan"}),
]


@pytest.mark.parametrize("top", range(len(PLAN_WRONG)), ids=[reason.value for reason, _ in PLAN_WRONG])
def test_a_plan_that_cannot_be_sold_is_refused_and_nothing_changes(top: int) -> None:
    bench = Bench()
    bench.open(plan="pro")
    bench.grant("old", "5", command_key="used")
    bench.grant("old", "5", account="nobody", command_key="used")
    bench.use(18)  # of 20 included, and less than two thirds of the month are past
    body: dict[str, Any] = {}
    for _, wrong in reversed(PLAN_WRONG[top:]):
        body |= wrong
    contract, woken = bench.account().contract, bench.account().woken_us
    bench.now += HOUR
    assert bench.command("set_plan", body.pop("account", "acme"), **body) == f"refused.{PLAN_WRONG[top][0].value}"
    assert (bench.account().contract, bench.account().woken_us) == (contract, woken)


def test_what_is_free_may_not_fall_into_another_tier_either() -> None:
    """A line that was told would else say something else than the account."""
    bench = Bench(document(x=per_unit("0", model="x")))
    bench.open()
    free = {"model": "per_unit", "amount": "0", "included": "20"}
    bench.agree("x", free)
    bench.use(18)
    assert bench.sell("pro") == "refused.would_reprice"
    assert bench.sell("pro", APRIL) == "applied"


def test_an_account_has_at_most_a_hundred_phases(bench: Bench) -> None:
    many = [Phase(APRIL + number * HOUR, ("pro", "plan")[number % 2]) for number in range(PHASES_MAX)]
    bench.account().set_contract(Contract("UTC", 1, "plan", many), bench.now)
    assert bench.sell("pro", APRIL + PHASES_MAX * HOUR) == "refused.too_many_phases"
    assert bench.sell("plan", APRIL + PHASES_MAX * HOUR) == "applied"  # it is the plan of then: no phase


def test_a_phase_wakes_its_account_and_is_the_plan_from_then_on(bench: Bench) -> None:
    assert bench.sell("pro", APRIL) == "applied"
    assert bench.account().plan == "plan"
    assert bench.partition.next_wake_us() == APRIL
    bench.tick(APRIL)
    assert (bench.account().plan, bench.account().woken_us) == ("pro", APRIL)
    assert bench.partition.next_wake_us() is None


def test_prices_and_lots_are_looked_up_in_the_plan_of_the_moment(bench: Bench) -> None:
    bench = Bench(document(), document())
    bench.open(plan="pro")
    bench.agree("x", CHEAP, from_us=APRIL)
    assert [each.plan for each in bench.account().contract.agreed] == ["pro"]
    assert bench.sell("plan", APRIL + HOUR) == "applied"
    assert bench.agree("x", CHEAP, from_us=APRIL + 2 * HOUR) == "applied"
    assert [each.plan for each in bench.account().contract.agreed] == ["pro", "plan"]
