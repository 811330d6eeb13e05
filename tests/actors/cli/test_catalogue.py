"""`tallygate catalogue`: what it finds, shows and publishes."""

from pathlib import Path

import orjson
import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import EXAMPLE, call, trail_of


def test_check_counts_what_a_good_catalogue_holds() -> None:
    result = call("catalogue", "check", str(EXAMPLE))
    assert (result.exit_code, result.stdout) == (0, f"{EXAMPLE}: 16 meters, 3 plans, 44 prices; no faults\n")


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
    for text in (
        "Plan growth, USD",
        "model = atlas-large",
        "20,000,000",
        "6.50",
        "1,000,000",
        "fee of a month",
        "500.00",
        "shared by",
    ):
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
    nothing = call("catalogue", "diff", str(EXAMPLE))
    assert (nothing.exit_code, "no catalogue is published yet" in nothing.stderr) == (WRONG_INPUT, True)

    assert call("catalogue", "publish", str(EXAMPLE)).stdout == f"{EXAMPLE}: version 1, in force for all event times\n"
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(EXAMPLE.read_text().replace("2.50", "2.75"))
    second = call("catalogue", "publish", str(dearer))
    assert (second.exit_code, second.stdout.split(", in force for event times from ")[0]) == (0, f"{dearer}: version 2")
    unpublished = call("catalogue", "diff", str(EXAMPLE))
    assert unpublished.stdout.splitlines()[0] == "plan starter, USD: changed, for no account"
    assert call("catalogue", "diff", str(dearer)).stdout == "nothing changes\n"
    soon = call("catalogue", "publish", str(EXAMPLE), "--effective", "2026-01-01T00:00:00Z")
    assert soon.exit_code == WRONG_INPUT
    assert "effective: must be 20" in soon.stderr and "6 minutes" in soon.stderr

    act = "catalogue.publish"
    assert [(row.act, row.stage, row.subject) for row in trail_of(database)] == [
        *((act, "asked", ""), (act, "done", "1")),
        *((act, "asked", ""), (act, "done", "2")),
        *((act, "asked", ""), (act, "refused", "")),
    ]

    letters = call("dead-letters")
    assert (letters.exit_code, "Dead letters" in letters.stdout) == (0, True)


def test_a_diff_of_two_files_needs_nobody(tmp_path: Path) -> None:
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(EXAMPLE.read_text().replace("amount: 2.50", "amount: 2.75"))
    same = call("catalogue", "diff", str(EXAMPLE), str(EXAMPLE))
    assert (same.exit_code, same.stdout) == (0, "nothing changes\n")
    result = call("catalogue", "diff", str(EXAMPLE), str(dearer))
    assert (result.exit_code, result.stdout.splitlines()) == (
        FAILED,
        ["plan starter, USD: changed", "  price large-input: 2.50 per 1000000 -> 2.75 per 1000000 (+10%)"],
    )
    shown = orjson.loads(call("catalogue", "diff", str(EXAMPLE), str(dearer), "--json").stdout)
    assert (shown["plans"][0]["plan"], shown["plans"][0]["accounts"]) == ("starter", None)


def test_a_diff_says_what_publication_would_refuse(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(EXAMPLE.read_text().replace("  growth:", "  enterprise:"))
    lines = call("catalogue", "diff", str(EXAMPLE), str(other)).stdout.splitlines()
    assert "plan enterprise, USD: new" in lines
    assert "plan growth, USD: gone" in lines
    assert lines[-1].startswith("publication would refuse it: plans: plan growth is gone")


@pytest.mark.parametrize("files", [(), ("a.yaml", "b.yaml", "c.yaml"), ("gone.yaml", "gone.yaml")])
def test_a_diff_takes_one_file_or_two_that_exist(files: tuple[str, ...]) -> None:
    assert call("catalogue", "diff", *files).exit_code == WRONG_INPUT


def test_a_diff_of_one_file_asks_the_database() -> None:
    result = call("catalogue", "diff", str(EXAMPLE))
    assert (result.exit_code, "DATABASE_URL" in result.stderr) == (WRONG_INPUT, True)
