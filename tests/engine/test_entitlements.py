"""What is granted, and which cap meters a feature. The laws stand in tests/laws/test_l6_entitlements.py."""

from engine.catalog import Plan
from engine.entitlements import ceilings_on, granted
from tests.engine.desk_bench import DeskBench


def opened() -> DeskBench:
    bench = DeskBench()
    bench.open()
    bench.scope("red")
    return bench


def test_the_plans_word_stands_before_a_cap_of_the_same_name() -> None:
    bench = opened()
    bench.cap("5", "batch")
    plan = Plan("plan", "USD", [], {}, {"batch": "large", "off": False})
    assert granted(plan, bench.account(), "", "batch") == "large"
    assert granted(plan, bench.account(), "", "off") is None
    assert granted(None, bench.account(), "", "batch") == bench.account().caps["batch"]


def test_a_feature_that_the_plan_denies_is_metered_by_no_cap() -> None:
    bench = opened()
    bench.cap("5", "off")
    assert granted(Plan("plan", "USD", [], {}, {"off": False}), bench.account(), "", "off") is None


def test_a_ceiling_meters_nothing() -> None:
    bench = opened()
    bench.cap("5", "each", window="request")
    assert granted(None, bench.account(), "", "each") is None


def test_ceilings_are_those_on_the_path_by_scope_then_name() -> None:
    bench = opened()
    bench.cap("5", "monthly")
    for name, scope in (("b", ""), ("a", "red"), ("a-root", "")):
        bench.cap("5", name, window="request", scope=scope)
    assert [cap.cap for cap in ceilings_on(bench.account(), "red")] == ["a-root", "b", "a"]
    assert [cap.cap for cap in ceilings_on(bench.account(), "")] == ["a-root", "b"]
