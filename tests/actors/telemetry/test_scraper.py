"""Asking exporters: deadlines, refusals, and what is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web

from actors.clock import SystemClock
from actors.ports import LogUnavailable, Outgoing
from actors.telemetry import scraper
from actors.telemetry.nvml import NvmlAbsent
from actors.telemetry.scraper import BadTarget, Pass, Scraper, Target, log_pass, parse_target
from engine.cost.telemetry import Metric, parse_sample

PAGE = 'DCGM_FI_DEV_POWER_USAGE{UUID="GPU-1"} 70\n'
ENGINE = 'vllm:generation_tokens_total{model_name="m"} 4\n'


class Topic:
    """Takes records, or does not."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self.records: list[Outgoing] = []

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        if self.away:
            raise LogUnavailable("Kafka, appending: away")
        self.records += records
        return list(range(len(records)))


@pytest.fixture
async def base() -> AsyncIterator[str]:
    """A server with an exporter, an engine, and some that misbehave."""

    async def text(request: web.Request) -> web.Response:
        return web.Response(text={"/gpu": PAGE, "/engine": ENGINE, "/none": "up 1\n", "/html": "<html>"}[request.path])

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response(text=PAGE)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"# " + b"x" * 65_536 + b"\n")

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound("/gpu")

    app = web.Application()
    for path in ("/gpu", "/engine", "/none", "/html"):
        app.router.add_get(path, text)
    app.router.add_get("/slow", slow)
    app.router.add_get("/endless", endless)
    app.router.add_get("/moved", moved)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


def targets(base: str, *paths: str) -> list[Target]:
    return [Target(path, f"{base}/{path}") for path in paths]


async def test_what_pages_say_goes_into_the_topic_under_its_own_key(base: str) -> None:
    topic = Topic()
    done = await Scraper(targets(base, "gpu", "engine"), topic, SystemClock()).once()
    assert (done.appended, done.lost) == (2, 0)
    samples = [parse_sample(record.value, record.key) for record in topic.records]
    assert [(sample.key, sample.values) for sample in samples] == [
        ("GPU-1", {Metric.POWER: 70_000}),
        ("engine", {Metric.GENERATED: 4}),
    ]
    assert {record.topic for record in topic.records} == {"gpu-telemetry"}
    now_us = SystemClock().wall_us()
    assert all(now_us - 60_000_000 < sample.time_us <= now_us for sample in samples)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing", "HTTP 404"),
        ("moved", "HTTP 302"),
        ("slow", "no answer within 0.3 s"),
        ("endless", "more than 1000000 bytes"),
        ("html", "no metrics page"),
    ],
)
async def test_one_that_misbehaves_costs_the_others_nothing(
    base: str, path: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraper, "PAGE_BYTES_MAX", 1_000_000)
    topic = Topic()
    timeout_s = 0.3 if path == "slow" else 10.0
    done = await Scraper(targets(base, path, "gpu"), topic, SystemClock(), timeout_s).once()
    bad, good = done.answered
    assert bad.page is None and bad.problem is not None and problem in bad.problem
    assert good.problem is None and done.appended == 1


async def test_one_that_is_not_there(base: str, caplog: pytest.LogCaptureFixture) -> None:
    done = await Scraper([Target("gone", "http://127.0.0.1:1/metrics")], Topic(), SystemClock()).once()
    log_pass(done)
    assert "target gone (http://127.0.0.1:1/metrics): ClientConnectorError" in caplog.text


async def test_what_kafka_does_not_take_is_counted_as_lost(base: str, caplog: pytest.LogCaptureFixture) -> None:
    done = await Scraper(targets(base, "gpu", "none"), Topic(away=True), SystemClock()).once()
    assert (done.appended, done.lost) == (0, 1)
    log_pass(done)
    assert "1 samples are lost" in caplog.text
    assert "its page says nothing known" in caplog.text


async def test_without_a_topic_the_samples_are_only_returned(base: str) -> None:
    done = await Scraper(targets(base, "gpu"), None, SystemClock()).once()
    assert [sample.key for sample in done.samples] == ["GPU-1"]


async def test_passes_follow_each_other_until_it_is_cancelled(base: str) -> None:
    passes: list[Pass] = []
    enough = asyncio.Event()

    def tell(done: Pass) -> None:
        passes.append(done)
        if len(passes) == 3:
            enough.set()

    running = asyncio.create_task(Scraper(targets(base, "gpu"), Topic(), SystemClock()).run(0.01, tell))
    await enough.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(done.appended == 1 for done in passes)


async def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NvmlAbsent("no NVIDIA driver answers on this machine")

    monkeypatch.setattr(scraper, "load_nvml", absent)
    (answer,) = (await Scraper([parse_target("n1=nvml")], None, SystemClock()).once()).answered
    assert answer.problem == "no NVIDIA driver answers on this machine"


@pytest.mark.parametrize(
    ("text", "told"),
    [("http://x", "NAME=URL"), ("=http://x", "NAME=URL"), ("a=ftp://x", "no http://"), ("a=", "a: ''")],
)
def test_what_is_no_target(text: str, told: str) -> None:
    with pytest.raises(BadTarget, match=told):
        parse_target(text)


def test_targets_are_bounded_and_told_apart() -> None:
    assert parse_target("a=http://x?y=z") == Target("a", "http://x?y=z")
    with pytest.raises(BadTarget, match="1 to 1000"):
        Scraper([], None, SystemClock())
    with pytest.raises(BadTarget, match="target a is named twice"):
        Scraper([Target("a", "http://x"), Target("a", "http://y")], None, SystemClock())
