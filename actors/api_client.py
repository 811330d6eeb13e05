"""The HTTP API as the command line uses it: one call, one answer, or one line that says what to do.

What may safely be sent again is sent again while a replica restarts or an account changes its owner: reads, and changes,
which carry an idempotency key that stays the same over all attempts.
"""

import ipaddress
import secrets
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from msgspec import Struct
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

ATTEMPT_S: Final = 15.0  # longer than the longest deadline of a route
SILENCE_S: Final = 60.0  # a stream that says nothing for so long is dead: it sends a comment every 15 s
GIVE_UP_S: Final = 20.0  # a takeover takes a second or two, a replica's restart some more
RETRY_FIRST_S: Final = 0.1
RETRY_PAUSE_MAX_S: Final = 2.0
LINE_BYTES_MAX: Final = 1 << 20
# HAProxy turns 502, 503 and 504 of its own into 500.
_TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})


class BadAddress(ValueError):
    """The address cannot be used, or must not be."""


class ApiAway(Exception):
    """Nobody answered, or what is needed is away for now. A change may have happened."""


class ApiRefused(Exception):
    """The API said no. The message holds the field, the reason, the next step and the request's id."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        reason = str(problem.get("detail") or problem.get("title") or f"the API answered with status {status}")
        next_step = str(problem.get("next_step") or "")
        if next_step and reason[-1] not in ".!?":
            reason += "."
        parts = [f"{field}:" if (field := problem.get("field")) else "", reason, next_step]
        if instance := problem.get("instance"):
            parts.append(f"(request {instance})")
        super().__init__(" ".join(part for part in parts if part))


class StreamEvent(Struct, frozen=True):
    """One server-sent event."""

    name: str
    data: Any


def checked_url(url: str, *, plain_http: bool = False) -> str:
    """The base address without a slash at its end.

    Raises BadAddress: it is no address, or a key would cross a network in the clear and `plain_http` does not say that
    this is meant.
    """
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username:
        raise BadAddress(f"url {url!r}: use https://host, or http://127.0.0.1:port")
    if parts.scheme == "http" and not plain_http and not _is_this_machine(parts.hostname or ""):
        raise BadAddress(f"url {url!r}: the key would cross the network in the clear; use https")
    return url.rstrip("/")


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def path_of(*parts: str) -> str:
    """A path below `/v1`, of parts that may hold anything."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


class ApiClient:
    """Calls one API with one key. Use it as an async context manager."""

    def __init__(self, url: str, key: str, *, reason: str | None = None, give_up_s: float = GIVE_UP_S) -> None:
        """`url` has passed `checked_url`. `reason` goes into the audit trail with every change. `give_up_s` bounds how long
        an answer is tried for."""
        self._url = url
        self._reason = reason
        self._give_up_s = give_up_s
        self._headers = {"authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=ATTEMPT_S), read_bufsize=LINE_BYTES_MAX
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, **query: str | int | None) -> Any:
        """The parsed answer; a parameter that is None is left out. Raises ApiAway, ApiRefused, as every call does."""
        return await self._until_answered("GET", path, query=_given(query))

    async def change(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int | None
    ) -> Any:
        """A change, made once however often it had to be sent. None when the answer has no body."""
        key = f"cli-{secrets.token_hex(16)}"
        return await self._until_answered(method, path, query=_given(query), body=body, idempotency_key=key)

    async def follow(self, path: str) -> AsyncIterator[StreamEvent]:
        """Server-sent events, until the server ends the stream. Raises ApiAway when the connection breaks."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ATTEMPT_S, sock_read=SILENCE_S)
        try:
            async with self._session.get(self._url + path, timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    _raise_refusal(self._url, response.status, await response.read())
                name = ""
                async for raw in response.content:
                    line = raw.rstrip(b"\r\n")
                    if line.startswith(b"event:"):
                        name = line[6:].strip().decode()
                    elif line.startswith(b"data:"):
                        yield StreamEvent(name, orjson.loads(line[5:]))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiAway(f"{self._url}: the stream broke ({type(error).__name__})") from error

    async def _until_answered(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        if idempotency_key is not None and self._reason is not None:
            headers["x-reason"] = self._reason
        if body is not None:
            headers["content-type"] = "application/json"
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ApiAway),
            wait=wait_exponential_jitter(multiplier=RETRY_FIRST_S, max=RETRY_PAUSE_MAX_S, jitter=RETRY_FIRST_S),
            stop=stop_after_delay(self._give_up_s),
            reraise=True,
        ):
            with attempt:
                return await self._once(method, path, query, None if body is None else orjson.dumps(body), headers)
        raise AssertionError("the loop ends by an answer or an error")

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: bytes | None, headers: Mapping[str, str]
    ) -> Any:
        assert self._session is not None
        try:
            async with self._session.request(
                method, self._url + path, params=query, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiAway(f"{self._url} does not answer ({type(error).__name__}): is it up?") from error
        if not 200 <= status < 300:
            _raise_refusal(self._url, status, answer)
        return _parsed(self._url, status, answer) if answer else None


def _given(query: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _raise_refusal(url: str, status: int, answer: bytes) -> None:
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        found = None
    refused = ApiRefused(status, found if isinstance(found, dict) else {})
    if status in _TRY_AGAIN:
        raise ApiAway(f"{url}: {refused}")
    raise refused


def _parsed(url: str, status: int, answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise ApiRefused(
            status, {"detail": f"what answers at {url} is not tallygate: its answer is no JSON."}
        ) from error
