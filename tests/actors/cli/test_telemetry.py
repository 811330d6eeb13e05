"""`tallygate telemetry scrape`."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.kafka import Brokers, TopicReader
from engine.cost.telemetry import parse_sample
from tests.actors.cli.calling import call, without_settings

PAGE = Path(__file__).parents[2] / "pages" / "dcgm_4_8.txt"


@pytest.fixture
def exporter() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(PAGE.read_bytes())

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()


def test_samples_are_printed_without_kafka(exporter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)
    result = call("telemetry", "scrape", "--target", f"n1={exporter}", "--once", "--print")
    assert result.exit_code == 0
    told = [msgspec.json.decode(line) for line in result.stdout.splitlines()]
    assert [row["values"]["power_mw"] for row in told] == [612_345, 71_006]


def test_a_target_that_does_not_answer_fails_the_one_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)
    result = call("telemetry", "scrape", "--target", "n1=http://127.0.0.1:1/metrics", "--once", "--print")
    assert result.exit_code == FAILED


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)
    nothing = call("telemetry", "scrape", "--target", "n1", "--once")
    assert (nothing.exit_code, "NAME=URL" in nothing.stderr) == (WRONG_INPUT, True)
    no_brokers = call("telemetry", "scrape", "--target", "n1=http://x/metrics", "--once")
    assert (no_brokers.exit_code, "KAFKA_BOOTSTRAP_SERVERS" in no_brokers.stderr) == (WRONG_INPUT, True)


async def test_samples_arrive_on_a_real_broker(kafka: str, exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    for role in ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"scraped-{role}")
    scrape = ("telemetry", "scrape", "--target", f"n1={exporter}", "--once")
    early = await asyncio.to_thread(call, *scrape)
    assert early.exit_code == FAILED
    assert "no topic scraped-GPU_TELEMETRY: create the topics first" in early.stderr
    assert (await asyncio.to_thread(call, "topics", "create")).exit_code == 0
    assert (await asyncio.to_thread(call, *scrape)).exit_code == 0
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    try:
        partitions = await reader.partitions("scraped-GPU_TELEMETRY")
        records = [
            record for number in range(partitions) for record in await reader.read_all("scraped-GPU_TELEMETRY", number)
        ]
    finally:
        await reader.stop()
    samples = sorted((parse_sample(record.value, record.key) for record in records), key=lambda sample: sample.key)
    assert [sample.host for sample in samples] == ["n1", "n1"]
