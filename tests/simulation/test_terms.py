"""Terms of every kind are drawn, and each is a command that can be read: what refuses one is a rule, not its form."""

from random import Random

import orjson
import pytest

from engine.events import SetPrice, parse_control, unseal
from tests.simulation.catalogues import DRAWN, oracle_library
from tests.simulation.terms import Body, Terms
from tests.simulation.traffic import CONTROL_KEY, MARKER_AHEAD_US, TOPIC, Traffic

MEASURES = {"balance", "spend", "quantity", "included_percent", "lot_percent", "expiring", "spike", "cap_percent"}


@pytest.fixture(scope="module")
def drawn() -> list[Body]:
    found = []
    for seed in range(300):
        terms = Terms(Random(seed), ["acme"], ["asking"], oracle_library(seed % (DRAWN + 1))[1])
        found += [terms.command() for _ in range(10)]
    return found


def test_every_draw_is_a_command_that_can_be_read(drawn: list[Body]) -> None:
    for number, body in enumerate(drawn):
        parse_control(orjson.dumps(body | {"command_key": f"term-{number}"}))


def test_every_kind_measure_and_window_is_drawn(drawn: list[Body]) -> None:
    kinds = {"set_rule", "remove_rule", "set_cap", "remove_cap", "set_rate_limit", "set_allowed", "set_scope"}
    assert {body["kind"] for body in drawn} == kinds | {"set_price", "set_overdraft", "adjust"}
    rules = [body for body in drawn if body["kind"] == "set_rule"]
    assert {body["on"]["measure"] for body in rules} == MEASURES
    assert {body["level"] for body in rules} == {"info", "warning", "critical"}
    assert any(body["on"].get("direction") == "down" for body in rules if body["on"]["measure"] == "spend")
    caps = [body for body in drawn if body["kind"] == "set_cap"]
    assert {body["window"] for body in caps} == {"month", "week", "day", "hour", "rolling", "first_use", "request"}
    assert any("meter" in body for body in drawn if body["kind"] == "set_rate_limit")
    assert any(body["terms"] is None for body in drawn if body["kind"] == "set_price")


def test_nothing_is_set_that_lets_the_wallet_of_an_asking_account_fall_below_zero(drawn: list[Body]) -> None:
    kinds = {body["kind"] for body in drawn if body["account"] == "asking"}
    assert kinds and not kinds & {"adjust", "set_overdraft"}


def test_a_price_is_agreed_ahead_with_an_account_that_asks() -> None:
    ahead = []
    for seed in range(40):
        traffic = Traffic(Random(seed), partitions=1, events=5, accounts=2, seconds=4.0, pace=1.0, asking=["asking"])
        sealed = [write.make(0) for write in traffic.writes if write.key == b"asking"]
        terms = [parse_control(unseal(CONTROL_KEY, TOPIC, 0, value)) for value in sealed]
        ahead += [body.from_us for body in terms if isinstance(body, SetPrice)]
    assert ahead and all(from_us == MARKER_AHEAD_US for from_us in ahead)
