"""Reasons and bindings. Their order and names are law: tests/laws/test_l6_entitlements.py."""

from engine.reasons import TRANSIENT, Binding, Reason


def test_a_reason_is_its_wire_name() -> None:
    assert Reason("over_ceiling") is Reason.OVER_CEILING
    assert all(reason.value == reason.name.lower() for reason in Reason)


def test_what_passes_by_itself_is_marked_and_what_takes_someone_to_act_is_not() -> None:
    assert Reason.RATE_LIMITED in TRANSIENT
    assert not TRANSIENT & {Reason.OVER_CEILING, Reason.MODEL_NOT_ENTITLED, Reason.SUSPENDED, Reason.CREDIT_DEPLETED}


def test_a_limit_without_a_unit_counts_money_or_requests() -> None:
    assert Binding("cap", "", "c", 1, None).unit == ""
