"""The HTTP face: one raw ASGI callable over a table of routes.

What every request passes, in this order: limits of URL and headers; the route (404, 405); the key (401), before a byte
of the body is read; its scope (403) and account (404); the replica's own load (503); content type (415) and size (413) of
the body, within a deadline (408); what its JSON may hold (400); the handler, within a deadline (504).
An account-bound key is answered the same about an account that is absent and one that is another's.
"""

import asyncio
import logging
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import msgspec

from actors.deadlines import Deadlines
from actors.keys import Key, KeysUnavailable
from actors.ports import LogUnavailable, StoreUnavailable
from actors.web.limits import (
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    PARAM_CHARACTERS_MAX,
    QUERY_PARAMETERS_MAX,
    URL_BYTES_MAX,
    JsonRefused,
    check_json,
    clean,
)
from actors.web.problems import MEDIA_TYPE, problem_json, refused_text
from actors.web.wire import (
    IDEMPOTENCY_KEY_MAX,
    Call,
    Problem,
    QueryParameter,
    Reply,
    Route,
    Services,
    Stream,
    absent,
    invalid,
    unavailable,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KEY_IN_FLIGHT_MAX: Final = 64  # of one key in one replica: its own callers wait, not everybody's
IN_FLIGHT_MAX: Final = 1_000
STRANGERS_MAX: Final = 100  # without a key, who ask whether a replica lives and is ready
BODY_DEADLINE_S: Final = 5.0
JSON_TYPE: Final = b"application/json"
_IDEMPOTENCY_KEY: Final = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_MAX}}}\Z")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")  # controls, bidi included
_JSON_REPLY: Final = JSON_TYPE
_FIXED_HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

logger = logging.getLogger(__name__)


class _Gone(Exception):
    """The caller hung up while sending: nobody is left to answer."""


class _Compiled:
    """A route with what is worth preparing once."""

    __slots__ = ("decoder", "encoder", "media_types", "names", "query", "route", "takes_body")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.names = [part[1:-1] if part.startswith("{") else None for part in route.path.split("/")]
        self.takes_body = route.request is not None or bool(route.raw_body)
        self.decoder = None if route.request is None else msgspec.json.Decoder(route.request)
        self.encoder = msgspec.json.Encoder()
        self.media_types = frozenset(media.encode() for media in (route.raw_body or ("application/json",)))
        self.query = {item.name: item for item in route.parameters}


class App:
    """The ASGI application of one replica. `opened` and `closed` run with the server's lifespan, where it has one."""

    def __init__(
        self,
        routes: Iterable[Route],
        services: Services,
        *,
        observe: Callable[[Route, int, float], None] | None = None,
        key_in_flight_max: int = KEY_IN_FLIGHT_MAX,
        in_flight_max: int = IN_FLIGHT_MAX,
        body_deadline_s: float = BODY_DEADLINE_S,
    ) -> None:
        self.routes: Sequence[Route] = tuple(routes)
        self.services = services
        self._observe = observe
        self._key_in_flight_max = key_in_flight_max
        self._in_flight_max = in_flight_max
        self._body_deadline_s = body_deadline_s
        self._exact: dict[str, dict[str, _Compiled]] = {}
        self._templates: dict[int, list[tuple[list[str], dict[str, _Compiled]]]] = {}
        self._in_flight = 0  # of those who have a key
        self._strangers = 0
        self._by_key: dict[str, int] = {}
        self._deadlines = Deadlines()
        self._run = secrets.token_hex(6)
        self._numbers = count(1)
        for route in self.routes:
            self._add(_Compiled(route))

    def _add(self, compiled: _Compiled) -> None:
        path, method = compiled.route.path, compiled.route.method
        if "{" not in path:
            methods = self._exact.setdefault(path, {})
        else:
            parts = path.split("/")
            templates = self._templates.setdefault(len(parts), [])
            shape = ["{}" if part.startswith("{") else part for part in parts]
            found = next((methods for known, methods in templates if known == shape), None)
            methods = {} if found is None else found
            if found is None:
                templates.append((shape, methods))
        if method in methods:
            raise ValueError(f"{method} {path} is declared twice")
        methods[method] = compiled

    # ------------------------------------------------------------------------------------------------- the protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = f"{self._run}-{next(self._numbers):x}"
        clock = self.services.clock
        began_s = clock.boot_s()
        compiled: _Compiled | None = None
        outcome: Reply | Stream | Problem
        status = 500
        try:
            try:
                headers = _headers(scope)
                method = "GET" if scope["method"] == "HEAD" else scope["method"]
                path = _path(scope)
                compiled, params = self._match(method, path)
                outcome = await self._serve(compiled, params, scope, headers, receive, request_id)
            except Problem as problem:
                outcome = problem
            except (LogUnavailable, StoreUnavailable) as error:
                logger.warning("request %s: %s", request_id, type(error).__name__)
                outcome = unavailable("A part this answer needs is away for now.")
            except _Gone:
                return
            except Exception as error:
                _log_unexpected(request_id, error)
                outcome = Problem(
                    500,
                    "internal",
                    "Internal error",
                    "The request met a fault on our side; it has been logged.",
                    next_step=f"Ask for help with the request id {request_id}.",
                )
            if isinstance(outcome, Stream):
                status = 200
                await _stream(outcome, request_id, receive, send)
            else:
                status = await _answer(outcome, compiled, request_id, send, scope["method"] == "HEAD")
        finally:
            if self._observe is not None and compiled is not None:
                self._observe(compiled.route, status, clock.boot_s() - began_s)

    def _match(self, method: str, path: str) -> tuple[_Compiled, dict[str, str]]:
        methods = self._exact.get(path)
        params: dict[str, str] = {}
        if methods is None:
            parts = path.split("/")
            for shape, candidates in self._templates.get(len(parts), ()):
                if all(wanted in ("{}", part) for wanted, part in zip(shape, parts, strict=True)):
                    methods = candidates
                    break
        if methods is None:
            raise Problem(
                404,
                "no-such-path",
                "No such path",
                "Nothing is served at this path.",
                next_step="Compare the path with GET /openapi.json.",
            )
        compiled = methods.get(method)
        if compiled is None:
            allow = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))
            if method == "OPTIONS":
                raise _Allowed(allow)
            raise Problem(
                405,
                "method-not-allowed",
                "Method not allowed",
                f"This path takes {allow}.",
                next_step="Use one of these methods.",
                headers={"Allow": allow},
            )
        if "{" in compiled.route.path:
            for name, part in zip(compiled.names, path.split("/"), strict=True):
                if name is not None:
                    params[name] = _param(name, part)
        return compiled, params

    # -------------------------------------------------------------------------------------------------- one request

    async def _serve(
        self,
        compiled: _Compiled,
        params: dict[str, str],
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        request_id: str,
    ) -> Reply | Stream:
        route = compiled.route
        key = None
        if route.scope is not None:
            key = await self._authenticate(headers)
            _authorize(route, key, params)
        self._enter(key)
        deadline = self._deadlines.within(self._body_deadline_s if compiled.takes_body else route.deadline_s)
        reading = compiled.takes_body
        try:
            query = _query(compiled, scope.get("query_string", b""))
            idempotency_key = _idempotency_key(route, headers)
            body: Any = None
            with deadline:
                if reading:
                    raw = await self._body(compiled, headers, receive)
                    if key is not None:
                        await self._still_usable(key)  # it may have been revoked while the body was under way
                    reading = False
                    deadline.begin_anew(route.deadline_s)
                    body = raw if route.raw_body else _decoded(compiled, raw)
                    if key is not None and key.account is not None and route.account_from == "body":
                        _same_account(key, body.account)
                call = Call(key, params, query, body, headers, request_id, idempotency_key, self.services)
                return await route.handler(call)
        except TimeoutError:
            raise (_slow_body(self._body_deadline_s) if reading else _too_late(route.deadline_s)) from None
        finally:
            self._leave(key)

    async def _authenticate(self, headers: Mapping[bytes, bytes]) -> Key:
        scheme, _, text = headers.get(b"authorization", b"").partition(b" ")
        try:
            key: Key | None = None
            if scheme.lower() == b"bearer":
                key = await self.services.keys.verify(text.strip().decode("latin-1"))
        except KeysUnavailable:
            raise _unverified() from None
        if key is None:
            raise _unauthenticated()
        return key

    async def _still_usable(self, key: Key) -> None:
        try:
            usable = await self.services.keys.usable(key.public_id)
        except KeysUnavailable:
            raise _unverified() from None
        if not usable:
            raise _unauthenticated()

    def _enter(self, key: Key | None) -> None:
        """Strangers have places of their own: they take none from those who have a key."""
        if key is None:
            if self._strangers >= STRANGERS_MAX:
                raise unavailable("This replica has as many requests without a key in flight as it takes.")
            self._strangers += 1
            return
        if self._in_flight >= self._in_flight_max:
            raise unavailable("This replica has as many requests in flight as it takes.")
        own = self._by_key.get(key.public_id, 0)
        if own >= self._key_in_flight_max:
            raise unavailable(f"This key has {own} requests in flight, as many as one key may have here.")
        self._by_key[key.public_id] = own + 1
        self._in_flight += 1

    def _leave(self, key: Key | None) -> None:
        if key is None:
            self._strangers -= 1
            return
        self._in_flight -= 1
        own = self._by_key[key.public_id] - 1
        if own:
            self._by_key[key.public_id] = own
        else:
            del self._by_key[key.public_id]

    async def _body(self, compiled: _Compiled, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        media, _, parameters = headers.get(b"content-type", b"").partition(b";")
        charset = parameters.strip().lower().replace(b'"', b"")
        if media.strip().lower() not in compiled.media_types or charset not in (b"", b"charset=utf-8"):
            taken = ", ".join(sorted(name.decode() for name in compiled.media_types))
            raise Problem(
                415,
                "unsupported-media-type",
                "Unsupported media type",
                f"This operation takes {taken}, in UTF-8.",
                next_step="Set the header Content-Type.",
                field="Content-Type",
            )
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Problem(
                415,
                "unsupported-encoding",
                "Unsupported encoding",
                "Compressed bodies are not taken.",
                next_step="Send the body as it is, without Content-Encoding.",
                field="Content-Encoding",
            )
        limit = compiled.route.body_bytes_max
        stated = headers.get(b"content-length", b"")
        if stated.isdigit() and (len(stated) > 12 or int(stated) > limit):
            raise _too_large(limit)
        return await _read(receive, limit)


class _Allowed(Problem):
    """The answer to OPTIONS: no refusal, but it leaves the same way."""

    def __init__(self, allow: str) -> None:
        super().__init__(204, "", "", "", next_step="", headers={"Allow": allow})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


# ------------------------------------------------------------------------------------------------- parts of a request


def _headers(scope: Scope) -> Mapping[bytes, bytes]:
    raw = scope["headers"]
    headers: dict[bytes, bytes] = dict(raw)
    size = sum(map(len, headers)) + sum(map(len, headers.values()))
    if len(headers) != len(raw):
        size = sum(len(name) + len(value) for name, value in raw)
    if len(raw) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise Problem(
            431,
            "headers-too-large",
            "Headers too large",
            f"At most {HEADERS_MAX} headers and {HEADER_BYTES_MAX} bytes of them are taken.",
            next_step="Send fewer headers.",
            headers={"Connection": "close"},
        )
    if len(headers) != len(raw):
        for name in (b"authorization", b"content-type", b"content-length", b"idempotency-key"):
            if sum(other == name for other, _ in raw) > 1:
                raise invalid(name.decode().title(), "This header may be sent once.")
    return headers


def _path(scope: Scope) -> str:
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path: bytes = bytes(raw).partition(b"?")[0]
    if len(path) + len(scope.get("query_string", b"")) > URL_BYTES_MAX:
        raise Problem(
            414,
            "url-too-long",
            "URL too long",
            f"Path and query may have {URL_BYTES_MAX} bytes together.",
            next_step="Shorten the URL.",
        )
    return path.decode("latin-1")


def _param(name: str, part: str) -> str:
    """A part of the path, decoded. One that nothing can be called by is simply not there."""
    try:
        value = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise absent(name) from None
    if not 0 < len(value) <= PARAM_CHARACTERS_MAX or _UNSAFE.search(value):
        raise absent(name)
    return value


def _authorize(route: Route, key: Key, params: Mapping[str, str]) -> None:
    if route.scope not in key.scopes:
        raise Problem(
            403,
            "scope-missing",
            "Scope missing",
            f"This operation needs a key with the scope `{route.scope}`.",
            next_step="Use another key, or ask an administrator for one.",
        )
    if key.account is None:
        return
    if route.account_from == "path":
        _same_account(key, params["account"])
    elif route.account_from is None and not route.confines:
        raise Problem(
            403,
            "key-bound",
            "Key is bound to an account",
            "This operation reaches beyond one account, and this key is bound to one.",
            next_step="Use a key that is not bound to an account.",
        )


def _same_account(key: Key, account: str) -> None:
    if account != key.account:
        raise absent("account")


def _idempotency_key(route: Route, headers: Mapping[bytes, bytes]) -> str | None:
    raw = headers.get(b"idempotency-key")
    if raw is None:
        if route.idempotent:
            raise invalid(
                "Idempotency-Key",
                "This operation needs the header Idempotency-Key.",
                "Send a value of your own choice, and the same one with every repetition of this request.",
            )
        return None
    text = raw.decode("latin-1")
    if not _IDEMPOTENCY_KEY.match(text):
        raise invalid("Idempotency-Key", f"It has 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters, no spaces.")
    return text


def _query(compiled: _Compiled, raw: bytes) -> dict[str, Any]:
    if not raw and not compiled.query:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_PARAMETERS_MAX, errors="strict"
        )
    except ValueError:
        raise invalid("query", f"It is percent-encoded UTF-8 of at most {QUERY_PARAMETERS_MAX} parameters.") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in compiled.query:
            raise invalid(name[:64], "This operation has no such query parameter.", "Compare with GET /openapi.json.")
        if name in given:
            raise invalid(name, "This query parameter may be sent once.")
        given[name] = value
    return {name: _query_value(declared, given.get(name)) for name, declared in compiled.query.items()}


def _query_value(declared: QueryParameter, text: str | None) -> str | int | bool | None:
    if text is None:
        if declared.required:
            raise invalid(declared.name, "This query parameter is required.")
        return declared.default
    if declared.kind == "boolean":
        if text not in ("true", "false"):
            raise invalid(declared.name, "It is `true` or `false`.")
        return text == "true"
    if declared.kind == "integer":
        low, high = declared.minimum or 0, declared.maximum if declared.maximum is not None else 2**63 - 1
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and low <= int(text) <= high):
            raise invalid(declared.name, f"It is a whole number from {low} to {high}.")
        return int(text)
    low, high = declared.minimum or 0, PARAM_CHARACTERS_MAX if declared.maximum is None else declared.maximum
    if not low <= len(text) <= high or not clean(text):
        raise invalid(declared.name, f"It has {low} to {high} characters, no NUL.")
    if declared.choices and text not in declared.choices:
        raise invalid(declared.name, f"It is one of {', '.join(declared.choices)}.")
    return text


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body") and size <= limit:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise _Gone
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _unverified() -> Problem:
    return unavailable("The key could not be verified: the database is away.")


def _unauthenticated() -> Problem:
    return Problem(
        401,
        "unauthenticated",
        "No valid key",
        "The request carries no valid API key.",
        next_step="Send the header `Authorization: Bearer tg_...` with a key that is neither expired nor revoked.",
        headers={"WWW-Authenticate": 'Bearer realm="tallygate"'},
    )


def _slow_body(deadline_s: float) -> Problem:
    return Problem(
        408,
        "slow-body",
        "Request timeout",
        f"The body did not arrive within {deadline_s:g} s.",
        next_step="Send the request again, in one go.",
        headers={"Connection": "close"},
    )


def _too_late(deadline_s: float) -> Problem:
    return Problem(
        504,
        "deadline",
        "Deadline passed",
        f"There was no answer within {deadline_s:g} s; what was asked may still happen.",
        next_step="Send the same request again, with the same idempotency key, event id or token.",
    )


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "body-too-large",
        "Body too large",
        f"The body may have {limit} bytes.",
        next_step="Send less in one request.",
        headers={"Connection": "close"},
    )


def _decoded(compiled: _Compiled, raw: bytes) -> Any:
    assert compiled.decoder is not None
    try:
        check_json(raw)
        return compiled.decoder.decode(raw)
    except JsonRefused as error:
        raise invalid("body", str(error), "Correct the body and send the request again.") from None
    except msgspec.MsgspecError as error:
        field, detail = refused_text(str(error))
        raise invalid(field, detail) from None


# ------------------------------------------------------------------------------------------------------------ answers


async def _answer(outcome: Reply | Problem, compiled: _Compiled | None, request_id: str, send: Send, head: bool) -> int:
    if isinstance(outcome, Problem):
        status, media = outcome.status, MEDIA_TYPE
        body = b"" if status == 204 else problem_json(outcome, request_id)
    else:
        assert compiled is not None
        status, media = outcome.status or compiled.route.status, outcome.media_type.encode()
        body = outcome.body if isinstance(outcome.body, bytes) else b""
        if isinstance(outcome.body, msgspec.Struct):
            body = compiled.encoder.encode(outcome.body)
    headers = [(b"x-request-id", request_id.encode()), *_FIXED_HEADERS]
    if outcome.headers:
        headers += [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in outcome.headers.items()
        ]
    if body:
        headers.append((b"content-type", media))
    if status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
    return status


async def _stream(stream: Stream, request_id: str, receive: Receive, send: Send) -> None:
    headers = [
        (b"x-request-id", request_id.encode()),
        *_FIXED_HEADERS,
        (b"content-type", b"text/event-stream"),
        (b"x-accel-buffering", b"no"),
    ]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in stream.headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def pump() -> None:
        async for event in stream.events:
            await send({"type": "http.response.body", "body": event, "more_body": True})

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(pump()), asyncio.ensure_future(hung_up())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await stream.events.aclose()
    if isinstance(results[0], Exception):
        _log_unexpected(request_id, results[0])
    await send({"type": "http.response.body", "body": b""})


def _log_unexpected(request_id: str, error: BaseException) -> None:
    """Type and place, never the message: it may quote the request."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    logger.error("request %s failed: %s at %s", request_id, type(error).__name__, " < ".join(reversed(places[-8:])))
