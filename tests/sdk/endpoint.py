"""An endpoint that speaks the OpenAI protocol: an ASGI application whose model says the words it is told to say."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

Message = MutableMapping[str, Any]


class Endpoint:
    """It obeys `max_tokens`, `stream` and `stream_options`; a word is a token, and so is each byte of the prompt.
    `breaks_after` words it fails; `pause_s` lies between two words; `cut` bytes go out at a time."""

    def __init__(self, words: int = 5) -> None:
        self.words = words
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.admitted: list[Any] = []  # what a middleware before it says of the request
        self.status = 200
        self.breaks_after: int | None = None
        self.pause_s = 0.0
        self.cut = 1 << 20
        self.states_usage = True
        self.begun = asyncio.Event()

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = msgspec.json.decode(body)
        headers = dict(scope["headers"])
        assert int(headers[b"content-length"]) == len(body)
        self.seen.append(asked)
        self.headers.append(headers)
        self.admitted.append(scope.get("tallygate"))
        if self.status != 200:
            await self._whole(send, self.status, {"error": {"message": "no"}})
        elif asked.get("stream"):
            await self._stream(send, asked)
        else:
            if self.breaks_after == 0:
                raise RuntimeError("the model broke")
            answer: dict[str, Any] = {"id": "c", "model": asked["model"]}
            if "input" in asked:
                answer |= {
                    "data": [],
                    "usage": {"prompt_tokens": len(asked["input"]), "total_tokens": len(asked["input"])},
                }
            else:
                said = "word " * self._length(asked)
                answer |= {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]}
                if self.states_usage:
                    answer["usage"] = self._usage(asked, self._length(asked))
            await self._whole(send, 200, answer)

    def _length(self, asked: Mapping[str, Any]) -> int:
        return min(self.words, int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 10**6))

    def _usage(self, asked: Mapping[str, Any], written: int) -> dict[str, int]:
        prompt = sum(len(message["content"].encode()) for message in asked.get("messages", ()))
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    async def _whole(self, send: Callable[[Message], Awaitable[None]], status: int, answer: dict[str, Any]) -> None:
        body = msgspec.json.encode(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Callable[[Message], Awaitable[None]], asked: dict[str, Any]) -> None:
        if self.breaks_after == 0:
            raise RuntimeError("the model broke")
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def say(document: Any) -> None:
            data = document if isinstance(document, bytes) else msgspec.json.encode(document)
            event = b"data: " + data + b"\n\n"
            for start in range(0, len(event), self.cut):
                piece = event[start : start + self.cut]
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        written = 0
        options = asked.get("stream_options") or {}
        for number in range(self._length(asked)):
            if self.breaks_after == number:
                raise RuntimeError("the model broke")
            written += 1
            usage = self._usage(asked, written) if options.get("continuous_usage_stats") else None
            await say({"id": "c", "choices": [{"index": 0, "delta": {"content": f"word{number} "}}], "usage": usage})
            self.begun.set()
            await asyncio.sleep(self.pause_s)
        if options.get("include_usage") and self.states_usage:
            await say({"id": "c", "choices": [], "usage": self._usage(asked, written)})
        await say(b"[DONE]")
        await send({"type": "http.response.body", "body": b""})
