"""Calls an ASGI application in this process, as a server would: chunk by chunk, and it may hang up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from msgspec import Struct

from actors.web.app import App, Message


class Response(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def without_request_id(self) -> tuple[int, dict[str, str], bytes]:
        """All that two answers may be compared by: ids are of different lengths where one more digit begins."""
        request_id = self.headers["x-request-id"]
        headers = {name: value for name, value in self.headers.items() if name != "x-request-id"}
        body = self.body.replace(request_id.encode(), b"<id>")
        if "content-length" in headers:
            headers["content-length"] = str(int(headers["content-length"]) - len(self.body) + len(body))
        return self.status, headers, body


def scope_of(method: str, target: str, headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }


class Client:
    """One caller. `key` is sent as its bearer token."""

    def __init__(self, app: App, key: str | None = None) -> None:
        self.app = app
        self.key = key

    def headers(self, extra: Mapping[str, str]) -> list[tuple[str, str]]:
        own = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        return list((own | dict(extra)).items())

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        raw_headers: Sequence[tuple[str, str]] | None = None,
        chunk: int = 1 << 30,
    ) -> Response:
        """One request with this body, sent in pieces of `chunk` bytes."""
        sent = self.headers(headers or {}) if raw_headers is None else list(raw_headers)
        pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]
        waiting = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        answered: list[Message] = []

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def take(message: Message) -> None:
            answered.append(message)

        await self.app(scope_of(method, target, sent), receive, take)
        start = answered[0]
        assert start["type"] == "http.response.start"
        headers_back = {name.decode(): value.decode() for name, value in start["headers"]}
        return Response(start["status"], headers_back, b"".join(message.get("body", b"") for message in answered[1:]))

    async def post(self, path: str, document: Any, headers: Mapping[str, str] | None = None) -> Response:
        extra = {"content-type": "application/json"} | dict(headers or {})
        return await self.send("POST", path, orjson.dumps(document), headers=extra)

    async def get(self, target: str) -> Response:
        return await self.send("GET", target)

    @asynccontextmanager
    async def stream(self, target: str) -> AsyncIterator["asyncio.Queue[bytes | None]"]:
        """The pieces of an answer as they come; None at its end. Leaving hangs up."""
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        hung_up = asyncio.Event()
        begun = False

        async def receive() -> Message:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def take(message: Message) -> None:
            if message["type"] == "http.response.body":
                await pieces.put(message["body"] if message.get("more_body") else None)

        task = asyncio.ensure_future(self.app(scope_of("GET", target, self.headers({})), receive, take))
        try:
            yield pieces
        finally:
            hung_up.set()
            await task
