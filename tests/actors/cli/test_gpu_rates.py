"""`tallygate gpu-rates`: checked before they are in force, and then in every partition."""

import asyncio
from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.kafka import Brokers, TopicReader
from engine.cost.attribution import Attribution, Horizons
from tests.actors.cli.calling import call, trail_of

EXAMPLE = Path(__file__).parents[3] / "config" / "gpu-rates.example.json"
KEY = "ab" * 32


def test_a_document_is_summed_up() -> None:
    result = call("gpu-rates", "check", str(EXAMPLE))
    assert result.exit_code == 0
    assert result.stdout == "version 1 in USD: rates of h100-sxm; profiles of atlas-large\n"


def test_a_mistake_is_told_by_its_field(tmp_path: Path) -> None:
    wrong = tmp_path / "rates.json"
    wrong.write_text(EXAMPLE.read_text().replace('"2.49"', '"2,49"'))
    for command in ("check", "publish"):
        result = call("gpu-rates", command, str(wrong))
        assert result.exit_code == WRONG_INPUT
        assert "h100-sxm, per_hour: '2,49'" in result.stderr


def test_without_brokers_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", KEY)
    result = call("gpu-rates", "publish", str(EXAMPLE))
    assert result.exit_code == WRONG_INPUT
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr


def test_every_partition_has_what_was_published(kafka: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", "cli_gpu_rates")
    assert call("migrate").exit_code == 0
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", KEY)
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "2")
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY", "COSTS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"gpu-rates-{role}")
    absent = call("gpu-rates", "publish", str(EXAMPLE))
    assert absent.exit_code == FAILED
    assert "gpu-rates-SERVED" in absent.stderr
    assert call("topics", "create").exit_code == 0
    result = call("gpu-rates", "publish", str(EXAMPLE))
    assert (result.exit_code, result.stdout) == (0, "version 1 is in the log of all 2 partitions\n")

    async def currencies() -> list[str | None]:
        reader = TopicReader(Brokers(kafka))
        await reader.start()
        found = []
        for number in range(2):
            fold = Attribution(number, bytes.fromhex(KEY), Horizons())
            for record in await reader.read_all("gpu-rates-SERVED", number):
                fold.apply(record.value, record.key, record.timestamp * 1_000)
            found.append(fold.currency)
        await reader.stop()
        return found

    assert asyncio.run(currencies()) == ["USD", "USD"]

    trail = [
        (row.act, row.stage, row.subject, b"h100-sxm" in (row.after or b""))
        for row in trail_of(database, "cli_gpu_rates")
    ]
    published = [("gpu_rates.publish", stage, "1", True) for stage in ("asked", "done")]
    assert trail == published, "and nothing was asked for while there was no topic"
