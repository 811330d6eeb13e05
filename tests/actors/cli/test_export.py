"""`tallygate export focus` of rated lines in a file; of a deployment: tests/integration/test_proofs.py."""

import asyncio
import csv
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow.parquet
import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.kafka import Brokers, TopicAppender
from actors.ports import Outgoing
from tests.actors.cli.calling import call, without_settings
from tests.actors.focus.focus_lines import LINES
from tests.actors.focus.test_cost_rows import LINES as COST_LINES


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, LINES)))
    return file


def test_lines_of_a_file_become_rows(lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done = call(
        "export", "focus", "--lines", str(lines), "--out", str(out), "--provider", "P", "--unit", "tokens_out=Tokens"
    )
    assert (done.exit_code, done.stdout) == (0, f"{out}: 7 rows of 8 rated lines\n")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(Decimal(line.amount) for line in LINES)
    assert {row["PricingUnit"] for row in rows} == {"Tokens", "Units", ""}
    again = call("export", "focus", "--lines", str(lines), "--out", str(out), "--provider", "P")
    assert (again.exit_code, "is there already" in again.stderr) == (WRONG_INPUT, True)


def test_ranges_that_adjoin_have_each_line_once(lines: Path, tmp_path: Path) -> None:
    told = []
    for number, span in enumerate((("--to", "2025-12-01T00:00:00Z"), ("--from", "2025-12-01T00:00:00Z"))):
        out = tmp_path / f"{number}.parquet"
        done = call(
            "export", "focus", "--lines", str(lines), "--out", str(out), "--provider", "P", "--format", "parquet", *span
        )
        told.append(done.stdout.split(": ")[1])
    assert told == ["5 rows of 6 rated lines\n", "2 rows of 2 rated lines\n"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--unit", "Tokens"), "PRICE=Unit"),
        (("--from", "May"), "--from: time 'May'"),
        (("--zone", "Mars/Olympus"), "--zone: there is no IANA zone Mars"),
    ],
)
def test_what_is_wrong_is_told(lines: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    out = tmp_path / "x.csv"
    done = call("export", "focus", "--lines", str(lines), "--out", str(out), "--provider", "P", *arguments)
    assert (done.exit_code, told in done.stderr, out.exists()) == (WRONG_INPUT, True, False)


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n{}\n")
    done = call("export", "focus", "--lines", str(bad), "--out", str(tmp_path / "x.csv"), "--provider", "P")
    assert (done.exit_code, "line 2" in done.stderr) == (WRONG_INPUT, True)


def test_without_a_deployment_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)
    done = call("export", "focus", "--out", str(tmp_path / "x.csv"), "--provider", "P")
    assert (done.exit_code, "DATABASE_URL" in done.stderr) == (WRONG_INPUT, True)


def test_costs_of_a_file_become_rows_unless_lines_are_missing(tmp_path: Path) -> None:
    file, out = tmp_path / "costs.jsonl", tmp_path / "costs.csv"
    asked = ("export", "focus-costs", "--lines", str(file), "--out", str(out), "--provider", "P", "--payer", "fleet")
    file.write_bytes(b"\n".join(map(msgspec.json.encode, COST_LINES[1:])))
    missing = call(*asked)
    assert (missing.exit_code, "differ by 0.003" in missing.stderr, out.exists()) == (FAILED, True, False)
    file.write_bytes(b"\n".join(map(msgspec.json.encode, COST_LINES)))
    done = call(*asked)
    assert (done.exit_code, done.stdout) == (0, f"{out}: 4 rows\n")
    with out.open(newline="") as rows:
        assert sum(Decimal(row["BilledCost"]) for row in csv.DictReader(rows)) == Decimal("0.02")


def test_costs_of_a_deployment_are_those_of_its_topic(
    kafka: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY", "COSTS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"focus-{role}")
    assert call("topics", "create").exit_code == 0

    async def fill() -> None:
        appender = TopicAppender(Brokers(kafka), {"costs": "focus-COSTS"})
        await appender.start()
        blocks = [b"\n".join(map(msgspec.json.encode, some)) for some in (COST_LINES[:2], [*COST_LINES[2:], "none"])]
        await appender.append([Outgoing("costs", block, b"llama-0") for block in blocks])
        await appender.stop()

    asyncio.run(fill())
    out = tmp_path / "costs.parquet"
    asked = ("export", "focus-costs", "--provider", "P", "--payer", "fleet", "--format", "parquet")
    done = call(*asked, "--out", str(out))
    assert (done.exit_code, done.stdout) == (0, f"{out}: 4 rows\n"), done.stderr
    assert "1 lines could not be read" in done.stderr
    assert sum(pyarrow.parquet.read_table(out)["BilledCost"].to_pylist()) == Decimal("0.02")
    before = call(*asked, "--out", str(tmp_path / "none.parquet"), "--to", "2025-11-29T00:00:00Z")
    assert (before.exit_code, before.stdout.endswith(": 0 rows\n")) == (0, True)
    wrong = call(*asked, "--out", str(tmp_path / "x"), "--from", "May")
    assert (wrong.exit_code, "May" in wrong.stderr) == (WRONG_INPUT, True)
