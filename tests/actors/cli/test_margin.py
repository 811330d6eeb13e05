"""`tallygate margin`: what it says of the topics, and of what is missing."""

import asyncio
from datetime import date
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.kafka import Brokers, TopicAppender
from actors.margin_rates import PostgresRates
from actors.margin_store import MarginCheckpoint, MarginStore
from actors.migrations import migrate
from actors.ports import Outgoing
from engine.cost.exchange import Rate, day_of
from engine.cost.margin import Key, Margin, RowChange
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.actors.cli.calling import call
from tests.actors.test_margin import rated, request, window

HOUR = ["--from", "2025-11-24T16:00:00Z", "--to", "2025-11-24T17:00:00Z"]  # that of the lines


def test_a_stretch_that_makes_no_sense_is_refused() -> None:
    assert "is not behind" in call("margin", "--from", HOUR[3], "--to", HOUR[1]).stderr
    wrong = call("margin", "--from", "yesterday")
    assert wrong.exit_code == WRONG_INPUT and "RFC 3339" in wrong.stderr


def test_live_margin_is_read_from_postgres(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = "margin_cli"
    dsn = engine_dsn(database)
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", schema)
    key = Key(1_764_000_000_000_000, "acme", "m", "chat", "growth", "USD")
    rows = [RowChange(key, Margin(4 * 10**12, 10**12, 1))]
    rows.append(RowChange(replace(key, run="talk-1"), Margin(3 * 10**12, 10**12, 1, charges=1, costs=1)))

    async def fill() -> None:
        await migrate(database, schema, ENGINE_PASSWORD)
        store = MarginStore(dsn, schema, 1.2, 5.0)
        await store.start()
        claim = await store.claim(0, "a")
        await store.commit([MarginCheckpoint(0, claim.epoch, 1, 1, (), 0, 0, 0, rows)])
        await store.stop()

    asyncio.run(fill())
    shown = call("margin", "--live", "--json", "--by", "plan", *HOUR)
    told = [orjson.loads(line) for line in shown.stdout.splitlines()]
    assert (told[0]["plan"], told[0]["revenue"], told[0]["cost"], told[0]["percent"]) == ("growth", "4", "1", "75.0")
    assert told[1] == {"gpus": [], "windows_without_cost": 0}
    (run, _) = [
        orjson.loads(line) for line in call("margin", "--live", "--json", "--by", "run", *HOUR).stdout.splitlines()
    ]
    assert (run["run"], run["revenue"], run["cost"], run["requests"]) == ("talk-1", "3", "1", 1)
    wrong = call("margin", "--live", "--currency", "eur", *HOUR)
    assert wrong.exit_code == WRONG_INPUT and "'eur' is no currency" in wrong.stderr
    missing = call("margin", "--live", "--currency", "EUR", *HOUR)
    assert missing.exit_code == WRONG_INPUT and "2025-11-24: no rate from USD to EUR is recorded" in missing.stderr

    async def record() -> None:
        rates = PostgresRates(dsn, schema, 1.2, 5.0)
        await rates.start()
        await rates.put(Rate(day_of(date(2025, 11, 21)), "USD", "EUR", 9 * 10**11))
        await rates.stop()

    asyncio.run(record())
    euros = call("margin", "--live", "--json", "--currency", "EUR", "--by", "plan", *HOUR)
    row, said = [orjson.loads(line) for line in euros.stdout.splitlines()]
    assert (row["currency"], row["revenue"], row["cost"]) == ("EUR", "3.600000000000", "0.900000000000")
    assert [(each["day"], each["of"]) for each in said["rates"]] == [("2025-11-24", "2025-11-21")]
    assert "Converted at" in call("margin", "--live", "--currency", "EUR", *HOUR).stdout
    refused = call("margin", "--live", "--by", "request", *HOUR)
    assert refused.exit_code == WRONG_INPUT and "single requests" in refused.stderr


def test_a_report_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "margin.html"
    for span, told in ((["--from", HOUR[3], "--to", HOUR[1]], "no hour begins"), (["--from", "May"], "--from: time")):
        refused = call("margin", "report", "--out", str(out), *span)
        assert (refused.exit_code, told in refused.stderr, out.exists()) == (WRONG_INPUT, True, False)
    out.write_text("mine")
    assert "is there already" in call("margin", "report", "--out", str(out), *HOUR).stderr
    assert out.read_text() == "mine"


def test_revenue_and_cost_stand_side_by_side(
    kafka: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "1")
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY", "COSTS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"margin-{role}")
    assert call("margin", *HOUR).exit_code == FAILED  # no topics yet
    assert call("topics", "create").exit_code == 0

    async def fill() -> None:
        appender = TopicAppender(Brokers(kafka), {"rated": "margin-RATED", "costs": "margin-COSTS"})
        await appender.start()
        lines = [request("a", 10**12, 1), window(4 * 10**12, 10**12, 1), request("b", 10**12 // 2, 1, "talk-1")]
        outcome = rated(2, "done", "9", tags={"run": "talk-1"})
        charges = [Outgoing("rated", line, b"acme") for line in (rated(1, "a", "4"), outcome)]
        await appender.append([*charges, Outgoing("costs", b"\n".join(lines), b"r")])
        await appender.stop()

    asyncio.run(fill())
    shown = call("margin", *HOUR)
    assert shown.exit_code == 0
    row = next(line for line in shown.stdout.splitlines() if "acme" in line)
    cells = [part.strip() for part in row.split("│") if part.strip()]
    assert cells == ["acme", "m", "USD", "3", "13", "1.500000000000", "11.500000000000", "88.4", "0", "0"]
    assert "hard_idle" in shown.stdout
    inside = ["--from", "2025-11-24T16:20:00Z", "--to", "2025-11-24T16:40:00Z"]
    assert call("margin", *inside).stdout == shown.stdout, "of an hour there are its charges where its costs are"
    told = [orjson.loads(line) for line in call("margin", "--json", "--by", "request", *HOUR).stdout.splitlines()]
    assert (told[0]["request"], told[0]["revenue"], told[0]["cost"], told[0]["margin"]) == ("a", "4", "1", "3")
    runs = [orjson.loads(line) for line in call("margin", "--json", "--by", "run", *HOUR).stdout.splitlines()][:-1]
    assert [(row["run"], row["revenue"], row["cost"]) for row in runs] == [
        ("", "4", "1"),
        ("talk-1", "9", "0.500000000000"),
    ]
    assert {each["bucket"]: each["cost"] for each in told[-1]["gpus"]}["direct"] == "1"

    monkeypatch.setenv("DATABASE_URL", engine_dsn(database))
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", "margin")
    asyncio.run(migrate(database, "margin", ENGINE_PASSWORD))
    out = tmp_path / "margin.html"
    drawn = call("margin", "report", "--out", str(out), *HOUR)
    assert (drawn.exit_code, drawn.stdout) == (0, f"{out}: 1 hours\n"), drawn.stderr
    assert "<td>acme</td>" in out.read_text()
    euros = ("margin", "report", "--out", str(tmp_path / "euros.html"), "--currency", "EUR", *HOUR)
    assert "no rate from USD to EUR" in call(*euros).stderr

    async def record() -> None:
        rates = PostgresRates(engine_dsn(database), "margin", 1.2, 5.0)
        await rates.start()
        await rates.put(Rate(day_of(date(2025, 11, 24)), "USD", "EUR", 9 * 10**11))
        await rates.stop()

    asyncio.run(record())
    assert call(*euros).exit_code == 0
    text = (tmp_path / "euros.html").read_text()
    assert "2025-11-24: 1 USD is 0.900000000000 EUR, recorded for 2025-11-24" in text and "<h2>EUR</h2>" in text
