"""Law L6: features, model allow-lists and standing are answered by the same check; reasons have a fixed precedence."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from engine.admission import HOLDS_MAX, FieldBound, Question
from engine.catalog import CatalogueDocument, PlanDefinition
from engine.money import NANO
from engine.reasons import TRANSIENT, Binding, Reason
from tests.engine.bench import HOUR, MINUTE, document
from tests.engine.desk_bench import DeskBench


def featured(**features: bool | str) -> DeskBench:
    body = document()
    plan = body.plans["plan"]
    bench = DeskBench(
        CatalogueDocument(body.meters, {**body.plans, "plan": PlanDefinition("USD", plan.prices, features)})
    )
    bench.open()
    bench.grant("l", "10")
    return bench


@pytest.mark.parametrize("value", [True, "128000"])
def test_a_feature_of_the_plan_is_answered_with_its_value(value: bool | str) -> None:
    """Entitlements are boolean or static; one check answers with the value."""
    decision = featured(batch=value).ask(Question("acme", feature="batch"))
    assert (decision.reason, decision.feature) == (None, value)


@pytest.mark.parametrize("feature", ["batch", "unheard"])
def test_a_feature_that_is_false_or_absent_is_refused(feature: str) -> None:
    """What the plan does not grant is refused."""
    decision = featured(batch=False).ask(Question("acme", feature=feature))
    assert decision.reason is Reason.FEATURE_NOT_ENTITLED
    assert decision.binding is not None
    assert (decision.binding.kind, decision.binding.name) == ("feature", feature)


def test_a_model_without_a_price_is_not_entitled_nor_is_a_choice_that_has_one() -> None:
    """The model allow-list is what the plan has a price for, over all a request may reach."""
    bench = featured()
    assert bench.refused("1", "unheard") is Reason.MODEL_NOT_ENTITLED
    assert bench.refused("1", "x", reach={"model": ("y", "unheard")}) is Reason.MODEL_NOT_ENTITLED


@pytest.mark.parametrize("standing", ["suspended", "past_due"])
@pytest.mark.parametrize("scope", ["", "red"])
def test_the_standing_of_the_account_or_of_a_scope_denies_what_lies_below(standing: str, scope: str) -> None:
    """Standing is an entitlement of the account and of every scope."""
    bench = featured()
    bench.scope("red")
    bench.scope("red/ann")
    bench.scope(scope, standing=standing)
    decision = bench.check("1", scope="red/ann")
    assert decision.reason == standing
    assert decision.binding is not None
    assert (decision.binding.kind, decision.binding.scope) == ("standing", scope)
    assert bench.refused("1") == (None if scope else standing)
    bench.scope(scope)
    assert bench.refused("1", scope="red/ann") is None


@pytest.mark.parametrize("standing", ["suspended", "past_due"])
def test_a_standing_denies_from_the_next_check_on_and_is_taken_back_as_fast(standing: str) -> None:
    """An outside event flips the check: once its command is read, with nothing else in between, and back again."""
    bench = featured()
    assert bench.refused("1") is None
    bench.scope("", standing=standing)
    assert bench.refused("1") == standing
    assert bench.use(1) == "rated"  # limits bind checks, never rating
    bench.scope("", standing="active")
    assert bench.refused("1") is None


def test_a_metered_feature_is_answered_with_what_is_left_and_when_it_frees() -> None:
    """One check answers boolean, static and metered: allowed, reason, remaining, reset time."""
    bench = featured(batch=True)
    bench.cap("100", "units", currency=None, meter="units", window="first_use", length_s=18_000)
    fresh = bench.ask(Question("acme", feature="units"))
    assert (fresh.allowed, fresh.feature) == (True, True)
    assert fresh.entitlement == Binding("cap", "", "units", 100 * NANO, None, "units")
    bench.use(5)
    bench.hold_for("2")
    some = bench.ask(Question("acme", feature="units"))
    assert some.entitlement == Binding("cap", "", "units", 93 * NANO, 5 * HOUR, "units")
    bench.use(93)
    spent = bench.ask(Question("acme", feature="units"))
    assert (spent.reason, spent.feature, spent.retry_after_us) == (Reason.CAP_REACHED, False, 5 * HOUR)
    assert spent.entitlement == Binding("cap", "", "units", 0, 5 * HOUR, "units")
    assert bench.ask(Question("acme", feature="batch")).entitlement is None


def test_a_request_that_names_its_metered_feature_is_told_what_it_leaves() -> None:
    """With a hold, what is left is told behind it."""
    bench = featured()
    bench.cap("4", "units", currency=None, meter="units", window="day")
    decision = bench.check("3", feature="units")
    assert decision.allowed and decision.entitlement is not None
    assert decision.entitlement.remaining == NANO
    assert bench.check("2", feature="units").reason is Reason.CAP_REACHED
    assert bench.check("1", feature="units").allowed


def test_a_soft_metered_feature_goes_on_as_overage() -> None:
    """Hard or soft, by the owner's choice: soft usage is allowed and charged."""
    bench = featured()
    bench.cap("4", "units", currency=None, meter="units", window="day", hard=False)
    bench.use(5)
    decision = bench.ask(Question("acme", feature="units"))
    assert decision.allowed and decision.entitlement is not None
    assert decision.entitlement.remaining == 0


def test_a_metered_feature_of_a_scope_is_none_elsewhere() -> None:
    """What meters a team is nobody else's entitlement."""
    bench = featured()
    bench.scope("red")
    bench.cap("4", "units", currency=None, meter="units", window="day", scope="red")
    assert bench.ask(Question("acme", "red", feature="units")).allowed
    assert bench.ask(Question("acme", feature="units")).reason is Reason.FEATURE_NOT_ENTITLED


def test_an_allow_list_of_a_scope_admits_only_what_stands_on_it() -> None:
    """Over all that a request may reach, in the scope and below, and nowhere else."""
    bench = featured()
    bench.scope("red")
    bench.scope("red/ann")
    assert bench.command("set_allowed", scope="red", field="model", values=["x", "third"]) == "applied"
    for model, scope, reach, told in [
        ("x", "red", {}, None),
        ("y", "red", {}, Reason.MODEL_NOT_ENTITLED),
        ("y", "red/ann", {}, Reason.MODEL_NOT_ENTITLED),
        ("y", "", {}, None),
        ("x", "red", {"model": ("third",)}, None),
        ("x", "red", {"model": ("y",)}, Reason.MODEL_NOT_ENTITLED),
    ]:
        decision = bench.check("1", model, scope=scope, reach=reach)
        assert decision.reason is told, (model, scope, reach)
        if told:
            assert decision.binding == Binding("list", "red", "model", None, None)
    assert bench.check("1", data={}, scope="red").reason is Reason.MODEL_NOT_ENTITLED  # nobody says which
    bench.command("set_allowed", scope="red/ann", field="model", values=["third"])
    assert bench.refused("1", "x", scope="red/ann") is Reason.MODEL_NOT_ENTITLED  # both lists must have it
    assert bench.refused("1", "third", scope="red/ann") is None
    bench.take_over()
    assert bench.refused("1", "y", scope="red") is Reason.MODEL_NOT_ENTITLED
    bench.command("set_allowed", scope="red", field="model", values=None)
    assert bench.refused("1", "y", scope="red", hold_us=None) is not Reason.MODEL_NOT_ENTITLED


def test_an_empty_list_admits_nothing_and_usage_is_rated_all_the_same() -> None:
    """A list binds checks; what happened is charged."""
    bench = featured()
    bench.command("set_allowed", field="model", values=[])
    assert bench.refused("1", "x") is Reason.MODEL_NOT_ENTITLED
    assert bench.use(1) == "rated"


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("unknown_scope", {"scope": "none", "values": ["x"]}),
        ("bad_list", {"values": ["x", "x"]}),
        ("bad_list", {"values": [str(number) for number in range(1001)]}),
    ],
)
def test_what_is_no_list_is_refused(reason: str, fields: dict[str, Any]) -> None:
    """A failed command changes nothing."""
    bench = featured()
    assert bench.command("set_allowed", field="model", **fields) == f"refused.{reason}"
    assert not bench.account().scopes[""].allowed


def test_a_scope_has_a_few_lists_only() -> None:
    """Each is looked at by every check."""
    bench = featured()
    for number in range(16):
        assert bench.command("set_allowed", field=f"f{number}", values=["x"]) == "applied"
    assert bench.command("set_allowed", field="more", values=["x"]) == "refused.bad_list"
    assert bench.command("set_allowed", field="f3", values=["y"]) == "applied"


def test_suspension_is_told_before_past_due_wherever_it_stands() -> None:
    """Reasons have a fixed precedence."""
    bench = featured()
    bench.scope("", standing="past_due")
    bench.scope("red", standing="suspended")
    assert bench.refused("1", scope="red") is Reason.SUSPENDED


def test_the_wire_names_are_stable() -> None:
    """Reasons have stable wire names, transient ones marked."""
    assert [reason.value for reason in Reason] == [
        "recovering",
        "unknown_account",
        "unknown_scope",
        "suspended",
        "past_due",
        "paused",
        "feature_not_entitled",
        "no_meter",
        "model_not_entitled",
        "unbounded",
        "rate_limited",
        "too_many_holds",
        "too_many_leases",
        "over_ceiling",
        "cap_reached",
        "credit_depleted",
        "withheld",
        "strict",
        "hold_not_open",
        "boundary_passed",
    ]
    assert {reason.value for reason in TRANSIENT} == {
        "recovering",
        "rate_limited",
        "too_many_holds",
        "cap_reached",
        "withheld",
        "too_many_leases",
        "strict",
    }


# ---------------------------------------------------------------------------------------------------------- precedence


class Asking:
    """A bench, and a question that would be admitted: each fault spoils it in one way."""

    def __init__(self) -> None:
        self.bench = featured()
        self.bench.scope("red")
        self.question: dict[str, object] = {"account": "acme", "scope": "red", "type": "use", "hold_us": MINUTE}
        self.data = {"model": "x"}
        self.bounds = [FieldBound(("units",), 10**9)]

    def ask(self) -> Reason | None:
        fields = self.question | {"data": self.data, "bounds": tuple(self.bounds)}
        return self.bench.ask(Question(**fields)).reason  # type: ignore[arg-type]


def _holds(asking: Asking) -> None:
    """As many as there may be; they hold nothing."""
    empty = Question("acme", type="use", data={"model": "x"}, bounds=(FieldBound(("units",), 0),), hold_us=MINUTE)
    for _ in range(HOLDS_MAX):
        asking.bench.ask(empty)


def _rate(asking: Asking) -> None:
    asking.bench.command("set_rate_limit", limit="one", scope="red", per_minute=1)
    asking.bench.ask(Question("acme", "red", feature=None))


FAULTS: list[tuple[Reason, Callable[[Asking], object]]] = [
    (Reason.UNKNOWN_ACCOUNT, lambda asking: asking.question.update(account="nobody")),
    (Reason.UNKNOWN_SCOPE, lambda asking: asking.question.update(scope="red/nobody")),
    (Reason.SUSPENDED, lambda asking: asking.bench.scope("", standing="suspended")),
    (Reason.PAST_DUE, lambda asking: asking.bench.scope("red", standing="past_due")),
    (Reason.PAUSED, lambda asking: asking.bench.pause()),
    (Reason.FEATURE_NOT_ENTITLED, lambda asking: asking.question.update(feature="unheard")),
    (Reason.NO_METER, lambda asking: asking.question.update(type="unheard")),
    (Reason.MODEL_NOT_ENTITLED, lambda asking: asking.data.update(model="unheard")),
    (Reason.UNBOUNDED, lambda asking: asking.bounds.clear()),
    (Reason.RATE_LIMITED, _rate),
    (Reason.TOO_MANY_HOLDS, _holds),
    (Reason.OVER_CEILING, lambda asking: asking.bench.cap("0.5", "each", scope="red", window="request")),
    (Reason.CAP_REACHED, lambda asking: asking.bench.cap("0.5", "team", scope="red")),
    (Reason.CREDIT_DEPLETED, lambda asking: asking.bench.use(10)),
]
NEEDS_ADMISSIONS = (Reason.TOO_MANY_HOLDS, Reason.RATE_LIMITED)
ORDER = {reason: place for place, (reason, _) in enumerate(FAULTS)}


def spoil(asking: Asking, reason: Reason) -> None:
    dict(FAULTS)[reason](asking)


@pytest.mark.parametrize("reason", ORDER)
def test_each_fault_is_told_by_its_reason(reason: Reason) -> None:
    """Reasons are an enum: each fault has its own."""
    asking = Asking()
    assert asking.ask() is None
    spoil(asking, reason)
    assert asking.ask() is reason


@pytest.mark.parametrize(
    ("first", "second"),
    list(combinations(ORDER, 2)),
)
def test_of_two_faults_the_one_that_stands_first_is_told(first: Reason, second: Reason) -> None:
    """The precedence of reasons, pair by pair."""
    asking = Asking()
    # What takes admissions to come about comes about while there still are any.
    for reason in sorted((first, second), key=lambda reason: reason not in NEEDS_ADMISSIONS):
        spoil(asking, reason)
    assert asking.ask() is first


def test_withheld_is_told_only_if_nothing_else_stands_in_the_way() -> None:
    """`withheld` comes last: only a dead owner's slices stand in the way."""
    for cap, credit, told in [
        ("100", "11", Reason.WITHHELD),
        ("11", "100", Reason.WITHHELD),
        ("11", "9", Reason.CREDIT_DEPLETED),
        ("9", "11", Reason.CAP_REACHED),
        ("9", "9", Reason.CAP_REACHED),
    ]:
        bench = featured()
        bench.wait(20 * MINUTE)
        bench.hold_for("2")
        bench.take_over()
        bench.command("set_overdraft", amount=str(int(credit) - 10 if int(credit) > 10 else 0), currency="USD")
        bench.use(1 if credit == "9" else 0)
        bench.cap(str(int(cap) + (1 if credit == "9" else 0)))
        assert bench.refused("10") is told, (cap, credit)
