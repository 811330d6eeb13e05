"""The parts of the live bench of costs; all of it is run by `make bench-cost`."""

import aiohttp
from aiohttp import web

from loadtest.cost_live import LiveOptions, known_requests, report
from loadtest.cost_sight import Delays


async def test_a_prober_counts_the_requests_whose_cost_is_known() -> None:
    answers = [
        web.json_response({"items": []}),
        web.json_response({"items": [{"requests": 3, "without_cost": 1}, {"requests": 2, "without_cost": 0}]}),
        web.json_response({"title": "Unavailable"}, status=503),
    ]
    asked: list[dict[str, str]] = []

    async def margin(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return answers.pop(0)

    app = web.Application()
    app.router.add_get("/v1/margin", margin)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            assert [await known_requests(session, "probe-1") for _ in range(3)] == [0, 4, 0]
    finally:
        await runner.cleanup()
    assert asked[0] == {"by": "account", "account": "probe-1"}


def test_the_report_says_where_how_soon_and_of_how_many() -> None:
    found = report(Delays([100.0, 300.0], [200.0, 400.0], [900.0], unseen=1), LiveOptions(rate=7), 0.5)
    assert (found["requests_per_s"], found["interval_s"], found["unseen"]) == (7, 0.5, 1)
    assert found["topic_ms"] == {"p50": 200.0, "p99": 298.0, "max": 300.0, "samples": 2}
    assert found["margin_ms"]["max"] == 400.0
    assert found["http_ms"] == {"p50": 900.0, "p99": 900.0, "max": 900.0, "samples": 1}
