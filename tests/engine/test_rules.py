"""Rules as commands set them: every measure comes back as it was stated, and what cannot be is refused for its reason."""

from typing import Any

import pytest
from msgspec.structs import replace

from engine.events import On
from engine.money import NANO
from engine.rules import RULES_MAX, stated
from tests.engine.bench import DAY, DOLLAR, START, Bench, document, per_unit

SPEND: dict[str, Any] = {"measure": "spend", "threshold": "5"}
UNITS: dict[str, Any] = {"measure": "quantity", "threshold": "5", "meter": "units"}
SPIKE: dict[str, Any] = {"measure": "spike", "percent": 300, "minimum": "2", "bucket_s": 3600}
EXPIRING: dict[str, Any] = {"measure": "expiring", "threshold": "5", "within_s": 86_400}
LOT: dict[str, Any] = {"measure": "lot_percent", "lot": "l", "percent": 20}
INCLUDED: dict[str, Any] = {"measure": "included_percent", "price": "x", "percent": 80}
COMMITTED: dict[str, Any] = {"measure": "commitment_percent", "commitment": "y", "percent": 80}
BALANCE: dict[str, Any] = {"measure": "balance", "threshold": "5"}
CAP: dict[str, Any] = {"measure": "cap_percent", "cap": "monthly", "percent": 80}


def opened() -> Bench:
    bench = Bench(document(y=replace(per_unit("1", model="y"), commitment="50")))
    bench.open()
    bench.cap("10")
    bench.scope("team:red")
    bench.grant("l", "10", expires_us=START + 30 * DAY)
    return bench


def set_rule(bench: Bench, on: dict[str, Any], rule: str = "r", **more: Any) -> str:
    return bench.command("set_rule", rule=rule, on=on, **more)


@pytest.mark.parametrize(
    "on",
    [
        CAP | {"clear_percent": 40},
        BALANCE | {"clear": "6", "direction": "down"},
        BALANCE | {"clear": "4", "direction": "up"},
        SPEND | {"clear": "4", "scope": "team:red", "window": "rolling", "length_s": 3600, "direction": "up"},
        SPEND | {"clear": "6", "scope": "", "window": "rolling", "length_s": 60, "direction": "down"},
        UNITS | {"price": None, "clear": "4", "scope": "", "window": "day", "length_s": None, "direction": "up"},
        INCLUDED | {"clear_percent": 70},
        COMMITTED | {"clear_percent": 70},
        LOT | {"clear_percent": 50},
        EXPIRING | {"clear": "1"},
        SPIKE | {"clear_percent": 150, "meter": "units", "price": None, "scope": "team:red"},
    ],
)
def test_a_rule_is_told_as_it_was_stated(on: dict[str, Any]) -> None:
    bench = opened()
    assert set_rule(bench, on) == "applied"
    account = bench.account()
    said = stated("r", account.rules["r"], account.caps)
    assert set_rule(bench, on | {"measure": said.__struct_config__.tag}) == "applied"
    found = {name: getattr(said, name) for name in on if name != "measure"}
    for name, value in found.items():
        text = value.rstrip("0").rstrip(".") if isinstance(value, str) and "." in value else value
        assert text == on[name], name
    assert isinstance(said, On)


@pytest.mark.parametrize(
    ("reason", "on"),
    [
        ("bad_amount", SPEND | {"threshold": "0"}),
        ("bad_amount", SPEND | {"clear": "x"}),
        ("bad_amount", UNITS | {"threshold": "0.0000000001"}),
        ("bad_amount", EXPIRING | {"threshold": "-1"}),
        ("bad_amount", SPIKE | {"minimum": "0"}),
        ("unknown_lot", LOT | {"lot": "none"}),
        ("unknown_price", INCLUDED | {"price": "none"}),
        ("unknown_price", UNITS | {"meter": None, "price": "none"}),
        ("unknown_cap", CAP | {"cap": "none"}),
        ("bad_rule", SPEND | {"clear": "6"}),
        ("bad_rule", SPEND | {"window": "year"}),
        ("bad_rule", SPEND | {"window": "bucket", "length_s": 60}),
        ("bad_rule", SPEND | {"window": "day", "direction": "down"}),
        ("bad_rule", SPEND | {"direction": "sideways"}),
        ("bad_rule", UNITS | {"meter": None}),
        ("bad_rule", UNITS | {"price": "x"}),
        ("bad_rule", LOT | {"percent": 101}),
        ("bad_rule", LOT | {"clear_percent": 10}),
        ("bad_rule", INCLUDED | {"percent": 0}),
        ("bad_rule", EXPIRING | {"within_s": 0}),
        ("bad_rule", SPIKE | {"bucket_s": 61}),
        ("bad_rule", SPIKE | {"bucket_s": 86_460}),
        ("bad_rule", SPIKE | {"clear_percent": 301}),
        ("bad_rule", BALANCE | {"clear": "6", "direction": "up"}),
        ("unknown_scope", SPEND | {"scope": "team:blue"}),
        ("unknown_meter", UNITS | {"meter": "none"}),
    ],
)
def test_what_no_rule_can_look_at_is_refused_and_changes_nothing(reason: str, on: dict[str, Any]) -> None:
    bench = opened()
    assert set_rule(bench, SPEND) == "applied"
    before = bench.partition.account("acme")
    assert before is not None
    rules, caps, tallies = dict(before.rules), dict(before.caps), dict(before.tallies)
    assert set_rule(bench, on) == f"refused.{reason}"
    account = bench.account()
    assert (account.rules, account.caps, account.tallies) == (rules, caps, tallies)


def test_a_level_that_there_is_not_is_refused() -> None:
    assert set_rule(opened(), SPEND, level="loud") == "refused.bad_rule"


def test_no_rule_and_no_command_can_name_another_rules_count() -> None:
    bench = opened()
    set_rule(bench, SPEND | {"window": "day"})
    assert set_rule(bench, CAP | {"cap": "\0r"}, "other") == "refused.unknown_cap"
    assert bench.command("remove_cap", cap="\0r") == "dead_lettered.bad_control"
    assert bench.cap("5", cap="\0r") == "dead_lettered.bad_control"


def test_a_rule_that_is_removed_takes_its_count_along_and_one_that_is_not_there_is_refused() -> None:
    bench = opened()
    set_rule(bench, SPEND | {"window": "day"})
    assert bench.account().tallies
    assert bench.command("remove_rule", rule="r") == "applied"
    assert not bench.account().rules
    assert not bench.account().tallies
    assert set(bench.account().caps) == {"monthly"}
    assert bench.command("remove_rule", rule="r") == "refused.unknown_rule"


def test_a_cap_is_removed_only_when_no_rule_looks_at_it() -> None:
    bench = opened()
    bench.cap("5", cap="hourly", window="hour")
    set_rule(bench, CAP | {"cap": "hourly"})
    assert bench.command("remove_cap", cap="hourly") == "refused.cap_in_use"
    bench.command("remove_rule", rule="r")
    assert bench.command("remove_cap", cap="hourly") == "applied"
    assert set(bench.account().caps) == {"monthly"}
    assert not bench.account().tallies
    assert bench.command("remove_cap", cap="hourly") == "refused.unknown_cap"


def test_a_rule_set_again_with_another_threshold_goes_on_counting() -> None:
    bench = opened()
    set_rule(bench, UNITS | {"window": "day"})
    bench.use(3)
    set_rule(bench, UNITS | {"window": "day", "threshold": "9"})
    assert list(bench.account().tallies["\0r"].values()) == [3 * NANO]
    set_rule(bench, SPEND | {"window": "day"})
    assert not bench.account().tallies["\0r"]
    bench.use(2)
    assert list(bench.account().tallies["\0r"].values()) == [2 * DOLLAR]


def test_there_are_at_most_a_thousand_rules() -> None:
    bench = opened()
    account = bench.account()
    set_rule(bench, BALANCE, "first")
    account.rules |= {f"r{number}": account.rules["first"] for number in range(RULES_MAX - 1)}
    assert set_rule(bench, BALANCE, "more") == "refused.too_many_rules"
    assert set_rule(bench, BALANCE | {"threshold": "1"}, "first") == "applied"


def test_rules_that_count_for_themselves_are_counted_among_the_caps_that_do() -> None:
    bench = opened()
    for number in range(100):
        assert bench.cap("5", cap=f"c{number}", window="hour") == "applied"
    assert set_rule(bench, SPEND | {"window": "hour"}) == "refused.too_many_caps"
    assert set_rule(bench, SPEND) == "applied"  # a month's spend is known without counting
