"""Deals of every kind are drawn, and each is a command that can be read: what refuses one is a rule, not its form."""

from random import Random

import orjson
import pytest

from engine.events import parse_control
from tests.simulation.catalogues import DRAWN, oracle_library
from tests.simulation.deals import Ahead, Body, Deals

GIVEN = {"set_cap", "remove_cap", "set_recurring_grant", "remove_recurring_grant"}
GIVEN |= {"grant_quantity", "void_quantity_grant", "set_pause"}
OWED = {"set_billing", "set_top_up", "remove_top_up", "set_plan", "set_seats"}


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Body, Ahead]]:
    found = []
    for seed in range(300):
        deals = Deals(Random(seed), ["acme"], ["asking"], oracle_library(seed % (DRAWN + 1))[1])
        found += [deals.command() for _ in range(10)]
    return found


def test_every_draw_is_a_command_that_can_be_read(drawn: list[tuple[Body, Ahead]]) -> None:
    for number, (body, ahead) in enumerate(drawn):
        instants = {name: round(share * 1_000_000) for name, share in ahead.items()}
        parse_control(orjson.dumps(body | instants | {"command_key": f"deal-{number}"}))


def test_every_kind_is_drawn_at_once_and_ahead(drawn: list[tuple[Body, Ahead]]) -> None:
    assert {body["kind"] for body, _ in drawn} == GIVEN | OWED
    assert {body["kind"] for body, ahead in drawn if ahead} == {"set_pause", "set_plan", "set_seats", "grant_quantity"}
    assert {body["billing"] for body, _ in drawn if body["kind"] == "set_billing"} == {"prepaid", "postpaid"}
    assert any(body.get("rollover") for body, _ in drawn if body["kind"] == "set_recurring_grant")


def test_nothing_is_set_that_lets_the_wallet_of_an_asking_account_fall_below_zero(
    drawn: list[tuple[Body, Ahead]],
) -> None:
    asking = [body for body, _ in drawn if body["account"] == "asking"]
    assert {body["kind"] for body in asking} == GIVEN - {"remove_cap"}
    assert {body["amount"] for body in asking if body["kind"] == "set_cap"} == {"0.003"}
