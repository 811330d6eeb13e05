"""Conditions: which events count, which cannot be told, and which may still come to count."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters.conditions import Condition
from engine.meters.dimensions import BadDimension, Dimension
from engine.meters.fields import keys_of
from engine.money import NANO


def one_of(*texts: str, **more: Any) -> Condition:
    return Condition("f", one_of=frozenset(keys_of(texts)), **more)


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        (one_of("a", "5"), "a", True),
        (one_of("a", "5"), "b", False),
        (one_of("a", "5"), 5, True),
        (one_of("a", "5"), "5.0", False),  # a text is compared as it stands
        (one_of("true"), True, True),
        (one_of("true"), False, False),
        (Condition("f", none_of=frozenset(keys_of(["a"]))), "a", False),
        (Condition("f", none_of=frozenset(keys_of(["a"]))), "b", True),
        (Condition("f", least=3 * NANO, most=5 * NANO), 3, True),
        (Condition("f", least=3 * NANO, most=5 * NANO), "5", True),
        (Condition("f", least=3 * NANO, most=5 * NANO), 6, False),
        (Condition("f", least=3 * NANO), 2, False),
        (Condition("f", exists=True), [], True),
        (Condition("f", exists=True), None, False),
        (Condition("f", exists=False), None, True),
        (Condition("f", exists=False), 0, False),
        (one_of("a", exists=True), None, False),
    ],
)
def test_whether_an_event_counts(condition: Condition, value: Any, holds: bool) -> None:
    assert condition.holds({"f": value}) is holds


@pytest.mark.parametrize(
    ("condition", "data"),
    [
        (one_of("a"), {}),
        (one_of("a"), {"f": None}),
        (one_of("a"), {"f": []}),
        (one_of("a"), {"f": 10**18}),
        (Condition("f", least=0), {"f": "much"}),
        (Condition("f", least=0), {"f": True}),
        (Condition("f", least=0, exists=True), {"f": "much"}),
    ],
)
def test_what_cannot_be_told_is_not_guessed(condition: Condition, data: dict[str, Any]) -> None:
    with pytest.raises(BadDimension, match=r"data\.f"):
        condition.holds(data)


def test_a_condition_on_a_declared_dimension_sees_its_value() -> None:
    kind = Dimension("kind", "code", values={"1": "good", NANO: "good"}, otherwise="bad", default="none")
    condition = Condition("kind", kind, one_of=frozenset(keys_of(["good", "none"])))
    assert [condition.holds({"code": code}) for code in (1, "1", 2, None)] == [True, True, False, True]
    assert [condition.may_hold(texts) for texts in (("1",), ("2",), ("1", "2"), None)] == [True, False, True, True]


CONDITIONS = [
    one_of("a", "5"),
    one_of("true", exists=True),
    Condition("f", none_of=frozenset(keys_of(["a", "5"]))),
    Condition("f", least=3 * NANO),
    Condition("f", exists=True),
    Condition("f", exists=False),
]


@given(st.sampled_from(CONDITIONS), st.sampled_from(["a", "b", "5", "5.0", "7", 5, 2, True, None]))
def test_an_event_that_counts_was_never_ruled_out(condition: Condition, sent: Any) -> None:
    try:
        holds = condition.holds({"f": sent})
    except BadDimension:
        return
    text = str(sent).lower() if isinstance(sent, bool) else str(sent)
    if holds:
        assert condition.may_hold(None)
        assert sent is None or condition.may_hold((text,))


def test_what_is_known_rules_out() -> None:
    assert not one_of("a").may_hold(("b", "c"))
    assert not Condition("f", exists=False).may_hold(("b",))
    assert not Condition("f", least=3 * NANO).may_hold(("1", "2"))
    assert Condition("f", least=3 * NANO).may_hold(("no number",))
