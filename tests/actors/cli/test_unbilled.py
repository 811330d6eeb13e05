"""`tallygate unbilled`, against a real broker."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.kafka import Brokers, TopicAppender
from actors.ports import Outgoing
from engine.cost.served import Served, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from tests.actors.cli.calling import call, without_settings

FROM, AT_US = "2025-11-29T00:00:00Z", 1_764_374_400_000_000


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)
    wrong = call("unbilled", "--from", "yesterday")
    assert (wrong.exit_code, "--from: time 'yesterday'" in wrong.stderr) == (WRONG_INPUT, True)
    turned = call("unbilled", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z")
    assert (turned.exit_code, "--to is not behind --from" in turned.stderr) == (WRONG_INPUT, True)
    no_brokers = call("unbilled")
    assert (no_brokers.exit_code, "KAFKA_BOOTSTRAP_SERVERS" in no_brokers.stderr) == (WRONG_INPUT, True)


async def test_a_request_without_its_event_is_found(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"unbilled-{role}")
    assert (await asyncio.to_thread(call, "topics", "create")).exit_code == 0
    names = {role: f"unbilled-{role}" for role in ("SERVED", "GPU_TELEMETRY", "RATED")}
    appender = TopicAppender(Brokers(kafka), names)
    await appender.start()
    begin = AT_US + 10_000_000
    served = [
        encode_served(Served(name, "r", "m", begin, begin + 1, begin + 20_000_000, 5, output=output))
        for name, output in (("a", 40), ("b", 7))
    ]
    counters = [
        encode_sample(Sample(SourceKind.ENGINE, "r", AT_US + at_s * 1_000_000, {Metric.GENERATED: count}))
        for at_s, count in ((0, 0), (60, 47))
    ]
    line = {"partition": 0, "offset": 3, "line": 0, "epoch": 1, "id": "a", "price": "out", "quantity": "40"}
    await appender.append(
        [
            *(Outgoing("SERVED", value, key) for key, value in served),
            *(Outgoing("GPU_TELEMETRY", value, key) for key, value in counters),
            Outgoing("RATED", json.dumps(line).encode(), None, 0),
        ]
    )
    await appender.stop()
    asked = ("unbilled", "--from", FROM, "--to", "2025-11-29T01:00:00Z")
    found = await asyncio.to_thread(call, *asked, "--json")
    assert found.exit_code == FAILED
    (row,) = [json.loads(text) for text in found.stdout.splitlines()]
    assert (row["counted"], row["rated"], row["missing"], row["unseen"]) == (47, 40, 7, 0)
    shown = await asyncio.to_thread(call, *asked)
    assert (shown.exit_code, "Tokens, generated" in shown.stdout) == (FAILED, True)
