"""The wire forms of what the core says."""

import json
import re
from enum import StrEnum
from pathlib import Path

from engine.money import NANO
from engine.outcomes import DeadLetterReason, Line, RatedEvent, Refusal, rated_lines
from engine.reasons import Reason

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


def provoked(folder: str) -> str:
    """What is said in the tests of a folder, but for this file."""
    files = sorted((Path(__file__).parents[1] / folder).rglob("*"))
    return "\n".join(path.read_text() for path in files if path.suffix in (".py", ".txt") and path != Path(__file__))


def test_every_reason_to_refuse_or_set_aside_is_provoked_by_a_test() -> None:
    """By its outcome, its name, or in a scenario; `recovering` is the shard's, which has not loaded its accounts yet."""
    said = provoked("engine") + provoked("laws")
    tables = provoked("scenarios")
    ways: dict[type[StrEnum], str] = {
        Refusal: r"refused[. ]{value}\b|Refusal\.{name}\b|\(\"{value}\", |, \"{value}\"\)",
        DeadLetterReason: r"dead_lettered\.{value}\b|DeadLetterReason\.{name}\b",
        Reason: r"Reason\.{name}\b",
    }
    never = [
        reason.value
        for kind, way in ways.items()
        for reason in kind
        if not re.search(way.format(value=reason.value, name=reason.name), said)
        and not re.search(rf"\b{reason.value}\b", tables)
    ]
    assert never == [Reason.RECOVERING.value]


def test_every_reason_of_a_dead_letter_stands_in_the_law() -> None:
    """But for the one that says the engine itself failed."""
    named = set(re.findall(r"dead letter `([a-z_]+)`", README)) | set(re.findall(r"dead letter\s+`([a-z_]+)`", README))
    assert named == {reason.value for reason in DeadLetterReason} - {DeadLetterReason.ENGINE_ERROR.value}
