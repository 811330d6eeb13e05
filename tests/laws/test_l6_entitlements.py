"""Law L6: features, model allow-lists and standing are answered by the same check; reasons have a fixed precedence."""

from collections.abc import Callable
from itertools import combinations

import pytest

from engine.admission import HOLDS_MAX, TRANSIENT, FieldBound, Question, Reason
from engine.catalog import CatalogueDocument, PlanDefinition
from tests.engine.bench import MINUTE, document
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
        "feature_not_entitled",
        "no_meter",
        "model_not_entitled",
        "unbounded",
        "rate_limited",
        "too_many_holds",
        "cap_reached",
        "credit_depleted",
        "withheld",
        "hold_not_open",
        "boundary_passed",
    ]
    assert {reason.value for reason in TRANSIENT} == {
        "recovering",
        "rate_limited",
        "too_many_holds",
        "cap_reached",
        "withheld",
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
    (Reason.FEATURE_NOT_ENTITLED, lambda asking: asking.question.update(feature="unheard")),
    (Reason.NO_METER, lambda asking: asking.question.update(type="unheard")),
    (Reason.MODEL_NOT_ENTITLED, lambda asking: asking.data.update(model="unheard")),
    (Reason.UNBOUNDED, lambda asking: asking.bounds.clear()),
    (Reason.RATE_LIMITED, _rate),
    (Reason.TOO_MANY_HOLDS, _holds),
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
