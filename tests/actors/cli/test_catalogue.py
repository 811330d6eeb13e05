"""`tallygate catalogue`: what it finds, shows and publishes."""

from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import EXAMPLE, call


def test_check_counts_what_a_good_catalogue_holds() -> None:
    result = call("catalogue", "check", str(EXAMPLE))
    assert (result.exit_code, result.stdout) == (0, f"{EXAMPLE}: 2 meters, 2 plans, 12 prices; no faults\n")


def test_check_tells_every_fault_on_a_line_of_stderr(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("meters: {}\nplans: {}\nnonsense: 1\n")
    result = call("catalogue", "check", str(file))
    assert result.exit_code == WRONG_INPUT
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"{file}:3: nonsense: there is no such key"]


def test_show_prints_every_tier() -> None:
    result = call("catalogue", "show", str(EXAMPLE))
    assert result.exit_code == 0
    for text in ("Plan growth, USD", "model = atlas-large", "20,000,000", "6.50", "1,000,000"):
        assert text in result.stdout


def test_show_takes_names_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "brackets.yaml"
    file.write_text(
        'meters:\n  "[/red]": {event_type: a, aggregation: count}\n'
        'plans:\n  p: {currency: USD, prices: {x: {meter: "[/red]", model: per_unit, amount: 1}}}\n'
    )
    result = call("catalogue", "show", str(file))
    assert result.exit_code == 0
    assert "[/red]" in result.stdout


def test_a_catalogue_is_published_to_a_real_database_and_broker(
    kafka: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "00" * 32)
    for role in ("USAGE", "RATED", "DEAD_LETTERS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"published-{role}")
    early = call("catalogue", "publish", str(EXAMPLE))
    assert early.exit_code == FAILED, "there are no tables yet"
    assert "applied 0001" in call("migrate").stdout
    assert "applied" not in call("migrate").stdout
    assert call("topics", "create").exit_code == 0

    assert call("catalogue", "publish", str(EXAMPLE)).stdout == f"{EXAMPLE}: version 1, in force for all event times\n"
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(EXAMPLE.read_text().replace("2.50", "2.75"))
    second = call("catalogue", "publish", str(dearer))
    assert (second.exit_code, second.stdout.split(", in force for event times from ")[0]) == (0, f"{dearer}: version 2")
    soon = call("catalogue", "publish", str(EXAMPLE), "--effective-us", "1")
    assert soon.exit_code == WRONG_INPUT
    assert "6 minutes" in soon.stderr

    letters = call("dead-letters")
    assert (letters.exit_code, "Dead letters" in letters.stdout) == (0, True)
