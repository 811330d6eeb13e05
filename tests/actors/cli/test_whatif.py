"""`tallygate whatif`: what it is asked, and what it says of topics and a database."""

import asyncio
from pathlib import Path

import msgspec
import orjson
import pytest

from actors.assembly import cost_store
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.clock import SystemClock
from actors.cost_store import CostCheckpoint
from actors.kafka import Brokers, TopicAppender
from actors.migrations import migrate
from actors.ports import Outgoing
from actors.web.times import instant
from config.settings import load_settings
from engine.cost.attribution import TOPIC, Attribution
from engine.cost.gpu_rates import HOUR_US
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.events import seal
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.actors.cli.calling import call
from tests.actors.test_margin import rated
from tests.engine.cost.histories import HORIZONS, S, rates_document

HOUR = ["--from", "2025-11-24T16:00:00Z", "--to", "2025-11-24T17:00:00Z"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpu-rate", "h100"], "say NAME=VALUE"),
        (["--gpu-rate", "h100=much"], "gpu_rates"),
        (["--utilisation", "101"], "utilisation_percent"),
        (["--target-margin", "100"], "target_margin_percent"),
        (["--from", "2025-11-24T17:00:00Z", "--to", "2025-11-24T16:00:00Z"], "no hour begins"),
        (["--from", "noon"], "--from: time 'noon'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], told: str) -> None:
    refused = call("whatif", *HOUR, *arguments)
    assert refused.exit_code == WRONG_INPUT
    assert told in refused.stderr


def test_a_change_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    change = tmp_path / "change.json"
    change.write_text('{"rates": 1}')
    refused = call("whatif", *HOUR, "--change", str(change))
    assert (refused.exit_code, "rates" in refused.stderr) == (WRONG_INPUT, True)


def test_a_deployment_says_what_its_hours_cost_and_would_have(
    kafka: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("DATABASE_URL", engine_dsn(database))
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", "whatif")
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "6b" * 32)
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "1")
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY", "COSTS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"whatif-{role}")
    asyncio.run(migrate(database, "whatif", ENGINE_PASSWORD))
    assert call("whatif", *HOUR).exit_code == FAILED  # no topics yet
    assert call("topics", "create").exit_code == 0
    now_us = SystemClock().wall_us()
    asyncio.run(fill(kafka, now_us))
    this_hour_us = now_us - now_us % HOUR_US
    hour = ["--from", instant(this_hour_us - HOUR_US), "--to", instant(this_hour_us + HOUR_US)]
    shown = call("whatif", *hour, "--json", "--gpu-rate", "h100=7200", "--no-spread-idle")
    assert shown.exit_code == 0, shown.stderr
    answer = orjson.loads(shown.stdout)
    (model,) = answer["projection"]["models"]
    assert (model["model"], model["direct"], model["loaded"]) == ("llama", "20", "20")  # ten seconds at $2 each
    assert answer["actual"]["customers"][0]["account"] == "acme"
    change = tmp_path / "change.json"
    change.write_text('{"gpu_rates": {"h100": "3600"}, "utilisation_percent": "50"}')
    told = call("whatif", *hour, "--change", str(change), "--utilisation", "100")  # an option goes before the file
    assert told.exit_code == 0
    assert "Projection: customers, USD" in told.stdout
    assert "requests took 100 % of what the GPUs cost" in told.stdout
    assert "differs by" in told.stderr  # no cost actor has told of it
    assert "Projection" not in call("whatif", *hour).stdout


async def fill(kafka: str, now_us: int) -> None:
    """A replica has been up for a minute and served ten seconds of it, charged $4; only the checkpoint knows of the rates."""
    up = ReplicaUp("r", "llama", (GpuPart("GPU-1", "h100"),), now_us - 60 * S, now_us - 60 * S)
    ran = Served("a", "r", "llama", now_us - 40 * S, now_us - 39 * S, now_us - 30 * S, 900, 0, 50, account="acme")
    line = rated(1, "a", "4", time_us=now_us - 30 * S, cell={"model": "llama"})
    topics = {"served": "whatif-SERVED", "rated": "whatif-RATED"}
    appender = TopicAppender(Brokers(kafka), topics)
    await appender.start()
    records = [Outgoing("served", value, key) for key, value in (encode_served(up), encode_served(ran))]
    await appender.append([*records, Outgoing("rated", line, b"acme")])
    await appender.stop()
    settings = load_settings()
    fold = Attribution(0, settings.control_key_bytes(), HORIZONS)
    document = rates_document() | {"rates": [{"kind": "h100", "from_us": 0, "per_hour": "36"}]}
    fold.apply(seal(settings.control_key_bytes(), TOPIC, 0, msgspec.json.encode(document)), b"rates", now_us)
    store = cost_store(settings)
    await store.start()
    claim = await store.claim(0, "a")
    await store.commit([CostCheckpoint(0, claim.epoch, 1, 0, None, fold.blob(), 0, 0, 0, 0, "USD", [], [])])
    await store.stop()
