"""The wire forms of what the core says."""

import json
import re
from enum import StrEnum
from pathlib import Path

from engine.money import NANO
from engine.outcomes import DeadLetterReason, Line, RatedEvent, Refusal, rated_lines
from engine.reasons import Reason
from tests.scenario_reader import Scenario, reason_said

README = (Path(__file__).parents[2] / "engine" / "README.md").read_text()


def event(*lines: Line, dimensions: tuple[tuple[str, ...], ...]) -> RatedEvent:
    return RatedEvent(7, 20, "acme", "gateway", "e1", 10, 3, "USD", lines, dimensions)


def test_a_rated_line_explains_its_charge() -> None:
    line = Line("tokens", ("atlas", "eu"), 12 * NANO // 10, 150_000, ((1, NANO), (2, NANO // 5)))
    (raw,) = rated_lines(event(line, dimensions=(("model", "region"),)), partition=4, epoch=2)
    assert json.loads(raw) == {
        "partition": 4,
        "offset": 7,
        "line": 0,
        "epoch": 2,
        "account": "acme",
        "source": "gateway",
        "id": "e1",
        "time_us": 10,
        "log_time_us": 20,
        "price": "tokens",
        "version": 3,
        "cell": {"model": "atlas", "region": "eu"},
        "quantity": "1.200000000",
        "amount": "0.000000150000",
        "currency": "USD",
        "tiers": [[1, "1"], [2, "0.200000000"]],
    }


def test_each_price_has_a_line_and_lines_are_numbered() -> None:
    rated = event(Line("a", (), NANO, 1, ()), Line("b", ("x",), NANO, 2, ()), dimensions=((), ("model",)))
    found = [json.loads(raw) for raw in rated_lines(rated, partition=0, epoch=0)]
    assert [(line["line"], line["price"], line["cell"]) for line in found] == [(0, "a", {}), (1, "b", {"model": "x"})]


def test_an_amount_beyond_any_machine_word_is_written_out() -> None:
    (raw,) = rated_lines(event(Line("a", (), 10**30, -(10**40), ()), dimensions=((),)), partition=0, epoch=0)
    assert json.loads(raw)["amount"] == "-1" + "0" * 28
    assert json.loads(raw)["quantity"] == "1" + "0" * 21


def test_refusals_are_declared_in_the_order_in_which_the_law_tests_them() -> None:
    (sentence,) = re.findall(r"Refusals, first match wins: (.*)\.\n", README)
    named = re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", sentence))
    assert named == [refusal.value for refusal in Refusal]


# Nothing that stands in a table could provoke them.
BEYOND_TABLES = {
    (Reason, Reason.RECOVERING.value),  # the shard says it, before it has loaded the accounts that a table is about
    (
        DeadLetterReason,
        DeadLetterReason.ENGINE_ERROR.value,
    ),  # a fault of the engine: what is known to break it is mended
}


def test_every_reason_to_refuse_or_set_aside_has_a_scenario() -> None:
    """A table in which a command, a record or a question comes to it: what is only written there counts for nothing."""
    said: set[tuple[type[StrEnum], str]] = set()
    for path in (Path(__file__).parents[1] / "scenarios").glob("*.txt"):
        for _, (_, what, charge, *_) in Scenario(path.name, path.read_text()).sections["EVENTS"]:
            reason = reason_said(what, charge)
            if reason is not None:
                said.add((type(reason), reason.value))
    every = {(kind, reason.value) for kind in (Refusal, DeadLetterReason, Reason) for reason in kind}
    assert every - said == BEYOND_TABLES, sorted(f"{kind.__name__} {name}" for kind, name in every - said)


def test_every_reason_of_a_dead_letter_stands_in_the_law() -> None:
    """But for the one that says the engine itself failed."""
    named = set(re.findall(r"dead letter `([a-z_]+)`", README)) | set(re.findall(r"dead letter\s+`([a-z_]+)`", README))
    assert named == {reason.value for reason in DeadLetterReason} - {DeadLetterReason.ENGINE_ERROR.value}
