"""The gateway that the README shows runs as it stands there."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import uvicorn

from actors.door_wire import Check as Asked
from tallygate_served import Who, unmark
from tests.sdk.endpoint import Endpoint
from tests.sdk.serving import Served
from tests.sdk.test_middleware import HELD, STREAM

README = Path(__file__).parents[2] / "README.md"
UPSTREAM = "http://127.0.0.1:8000"


@contextmanager
def running(app: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", interface="asgi3"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


async def test_the_gateway_of_the_readme_runs(at: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text().partition("## Wire it into your gateway")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert UPSTREAM in code
    at.stage.doors.answers[Asked] = HELD
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build" / "up").mkdir(parents=True)
    (tmp_path / "build" / "up" / "access.json").write_text(json.dumps({"url": at.url, "key": at.key}))
    endpoint = Endpoint()
    with running(endpoint) as upstream:
        made: dict[str, Any] = {}
        exec(compile(code.replace(UPSTREAM, upstream), "README.md", "exec"), made)  # noqa: S102 our own page
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(made["app"]), base_url="http://gateway") as caller:
            answer = await caller.post("/v1/chat/completions", json=STREAM)
        assert answer.status_code == 200 and answer.text.count("word") == 5
        assert await asyncio.to_thread(made["reporter"].close)
    (record,) = at.stage.appender.records
    event = orjson.loads(record.value or b"")
    assert (event["subject"], event["data"]["output_tokens"]) == ("acme", 5) and "hold" in event
    (headers,) = endpoint.headers
    assert unmark(headers[b"x-request-id"].decode()) == Who(event["id"], "acme"), "what it costs finds what it earns"
