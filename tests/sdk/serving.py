"""The real app of the API, on fakes, behind a real socket: a server in a thread, that can be away for a while."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from actors.keys import KeyScope
from actors.web.app import Message
from tests.actors.web.fakes import Stage


class Served:
    """`stage` is what it says; `script` what happens to the next requests instead, one entry for each: a status, or
    "cut" to close the connection without a word."""

    def __init__(self, stage: Stage, port: int) -> None:
        self.stage = stage
        self.url = f"http://127.0.0.1:{port}"
        self.key = stage.keys.add(*KeyScope)
        self.script: list[int | str] = []
        self.paths: list[str] = []

    async def app(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
        if scope["type"] != "http":
            await self.stage.app(scope, receive, send)
            return
        self.paths.append(scope["path"])
        step = self.script.pop(0) if self.script else None
        if step is None:
            await self.stage.app(scope, receive, send)
        elif step == "cut":
            raise ConnectionError("cut")
        elif step == "silent":
            await asyncio.sleep(30)
        else:
            headers = [(b"retry-after", b"0"), (b"x-request-id", b"r-1")]
            await send({"type": "http.response.start", "status": step, "headers": headers})
            await send({"type": "http.response.body", "body": b"away"})


@contextmanager
def served(stage: Stage | None = None) -> Iterator[Served]:
    """Runs until left."""
    listener = socket.create_server(("127.0.0.1", 0))
    at = Served(stage or Stage(), listener.getsockname()[1])
    server = uvicorn.Server(
        uvicorn.Config(at.app, log_level="critical", lifespan="off", interface="asgi3", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield at
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
