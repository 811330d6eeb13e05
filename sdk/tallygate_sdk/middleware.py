"""In front of an OpenAI-compatible endpoint: ask before a request runs, settle what it has used, streams too.

It wraps an ASGI application, which may be the endpoint itself or a proxy of one. What the application is given differs from
what the caller sent only in a limit where there was none and in the wish to be told the usage of a stream.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from tallygate_sdk.answers import Decision, Hold, Running
from tallygate_sdk.async_client import AsyncClient
from tallygate_sdk.errors import Refused, SpoolBusy, SpoolFull, TallygateError, Unavailable
from tallygate_sdk.openai_protocol import (
    BadRequest,
    EventReader,
    LimitName,
    Meaning,
    Observed,
    Request,
    TokenFields,
    cut_short,
    event_data,
    read_request,
)
from tallygate_sdk.policy import FailurePolicy
from tallygate_sdk.questions import HOLD_S, Check, Usage, new_id
from tallygate_sdk.reporter import Reporter

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OUTPUT_DEFAULT: Final = 4_096
BODY_BYTES_MAX: Final = 8 << 20  # of a request
ANSWER_BYTES_MAX: Final = 16 << 20  # of an answer that is not streamed, looked at for its usage
_CHAT: Final = "/chat/completions"
_ANSWERING: Final = (_CHAT, "/completions")
_SILENT: Final = ("/embeddings",)

SOON_S: Final = 1.0  # what keeps a hold from being extended is looked at again after this, or an eighth of its time
_FOR_GOOD: Final = ("hold_not_open", "boundary_passed")  # why no later extension is granted either

# What a caller is told, by the reason of a denial: OpenAI's clients try 429 again, unless they are told not to.
_STATUS: Final = {
    "credit_depleted": (402, "insufficient_quota"),
    "cap_reached": (402, "insufficient_quota"),
    "over_ceiling": (402, "insufficient_quota"),
    "past_due": (402, "billing_not_active"),
    "suspended": (403, "permission_error"),
    "paused": (403, "permission_error"),
    "unknown_account": (403, "permission_error"),
    "unknown_scope": (403, "permission_error"),
    "feature_not_entitled": (403, "permission_error"),
    "model_not_entitled": (403, "permission_error"),
    "no_meter": (403, "permission_error"),
    "unbounded": (400, "invalid_request_error"),
    "rate_limited": (429, "rate_limit_error"),
    "unavailable": (503, "service_unavailable"),
    "recovering": (503, "service_unavailable"),
}


class Payer(Struct, frozen=True):
    """Who pays for a request."""

    account: str
    scope: str = ""  # a path inside the account


class Admitted(Struct, frozen=True):
    """What the application finds in its ASGI scope, as `scope["tallygate"]`: who pays, and the id of the usage event to come.
    Sent to the inference server as the request's id (tallygate-served, `mark`), it joins what the request cost with what it
    earned."""

    event: str
    payer: Payer


class TallygateMiddleware:
    """`payer` says who pays for a request, from its ASGI scope (its headers, what an earlier middleware put into `state`);
    None: nobody, and the request is refused with 401.

    Each request is checked with a hold of what it can use at most, which is kept open while it runs; then `reporter` is given
    one usage event that settles the hold, also when the caller hung up or the application broke: with what the endpoint
    stated, else with an estimate of what was written, marked `estimated`. An answer of status 400 or above costs nothing.
    Paths other than those of chat, completions and embeddings pass untouched."""

    def __init__(
        self,
        app: Application,
        *,
        client: AsyncClient,
        reporter: Reporter,
        payer: Callable[[Scope], Payer | None],
        source: str = "tallygate-middleware",
        meaning: Meaning | None = None,
        count_prompt: Callable[[Mapping[str, Any]], int] | None = None,
        output_default: int = OUTPUT_DEFAULT,
        chat_limit: LimitName = "max_tokens",
        output_step: int | None = None,
        hold_s: float = HOLD_S,
        on_away: FailurePolicy | None = None,
    ) -> None:
        """`count_prompt`: the most tokens that a request's prompt can come to; without it, its bytes, and requests with
        images or audio are refused. `chat_limit`: the name under which the endpoint reads the limit of a chat; it is
        forwarded under that one. `output_step`: a stream's hold is of so many output tokens at first, and is extended as
        they are written; where that is refused, the stream ends with the finish reason `length`. `on_away`: see
        `AsyncClient.check`; None is the client's."""
        if output_step is not None and output_step < 1:
            raise ValueError("output_step is at least 1")
        self._app = app
        self._client = client
        self._reporter = reporter
        self._payer = payer
        self._source = source
        self._meaning: Meaning = meaning or TokenFields()
        self._count_prompt = count_prompt
        self._output_default = output_default
        self._chat_limit: LimitName = chat_limit
        self._output_step = output_step
        self._hold_s = hold_s
        self._on_away = on_away
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").rstrip("/")  # as lenient as whoever may answer it
        answers = path.endswith(_ANSWERING)
        if scope["type"] != "http" or scope["method"] != "POST" or not (answers or path.endswith(_SILENT)):
            await self._app(scope, receive, send)
            return
        try:
            body = await _body(receive)
        except _TooLarge:
            await _refuse(send, 413, "invalid_request_error", "body_too_large", f"{BODY_BYTES_MAX} bytes are the limit")
            return
        if body is None:
            return
        payer = self._payer(scope)
        if payer is None:
            await _refuse(
                send, 401, "authentication_error", "unauthenticated", "nobody is known who would pay for this"
            )
            return
        try:
            request = read_request(
                body,
                answers=answers,
                output_default=self._output_default,
                limit=self._chat_limit if path.endswith(_CHAT) else "max_tokens",
                count_prompt=self._count_prompt,
            )
        except BadRequest as error:
            await _refuse(send, 400, "invalid_request_error", "invalid_value", str(error), param=error.param)
            return
        first = request.output_max
        if request.stream and self._output_step is not None:
            first = min(first, self._output_step)
        check = Check(
            payer.account,
            payer.scope,
            self._meaning.type,
            {"model": request.model},
            bounds=self._meaning.bounds(request.input_max, first),
            hold_s=self._hold_s,
        )
        try:
            decision = await self._client.check(check, on_away=self._on_away)
        except Refused as error:
            _log.error("a request of %s could not be checked: %s", payer.account, error)
            await _refuse(send, 500, "api_error", "check_failed", "the request could not be checked")
            return
        if not decision.allowed:
            await _deny(send, decision)
            return
        await self._forward(scope, receive, send, request, _Running(self, payer, request, decision, first))

    async def _forward(self, scope: Scope, receive: Receive, send: Send, request: Request, running: "_Running") -> None:
        waiting: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        gone = asyncio.Event()

        async def replay() -> Message:
            if waiting:
                return waiting.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def listen() -> None:
            if (await receive())["type"] == "http.disconnect":
                gone.set()

        # What is compressed could not be looked at.
        own = (b"accept-encoding", b"content-length", b"transfer-encoding")
        headers = [(name, value) for name, value in scope["headers"] if name not in own]
        headers.append((b"content-length", str(len(request.body)).encode()))
        beside = [
            asyncio.create_task(running.keep_open()),
            asyncio.create_task(listen()),
        ]
        try:
            admitted = Admitted(running.event, running.payer)
            given = {**scope, "headers": headers, "tallygate": admitted}
            await self._app(given, replay, running.watched(send, gone))
        except CallerGone as error:
            _log.info("a stream of %s was ended: %s", running.payer.account, error)
        finally:
            for task in beside:
                task.cancel()
            running.settle()

    # ------------------------------------------------------------------------------------------------------- settling

    def report(self, usage: Usage) -> None:
        try:
            self._reporter.report(usage)
        except (SpoolFull, SpoolBusy) as error:
            _log.error("%s; usage %s goes to the service directly", error, usage.id)
            self._later(self._report_now(usage))

    def usage(self, event: str, payer: Payer, data: dict[str, Any], hold: Hold | None) -> Usage:
        return Usage(
            id=event,
            account=payer.account,
            type=self._meaning.type,
            data=data,
            source=self._source,
            scope=payer.scope,
            hold=None if hold is None else hold.token,
        )

    async def extended(self, hold: Hold) -> Decision:
        return await self._client.extend(hold, hold_s=self._hold_s)

    async def carry_on(self, usage: Usage) -> tuple[Running, int]:
        """Whether a stream that has used so much may write on, and how many tokens more."""
        assert self._output_step is not None
        ahead = self._meaning.bounds(0, self._output_step)
        told = await self._client.carry_on(usage, ahead, hold_s=self._hold_s, on_away=self._on_away)
        written = {field for bound in ahead if bound.up_to for field in bound.fields}
        left = [int(each.left) for each in told.covered if not written.isdisjoint(each.fields)]
        return told, min(left, default=self._output_step if told.action == "continue" else 0)

    @property
    def hold_s(self) -> float:
        return self._hold_s

    @property
    def step(self) -> int:
        return self._output_step or 0

    def release(self, hold: Hold) -> None:
        self._later(self._release_now(hold))

    def data(self, model: str, observed: Observed) -> dict[str, Any]:
        return {"model": model} | self._meaning.data(observed.used())

    async def close(self) -> None:
        """Wait for what is still being settled. The client and the reporter are the caller's to close."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _report_now(self, usage: Usage) -> None:
        try:
            refused = (await self._client.report([usage])).refused
        except TallygateError as error:
            _log.error("usage %s of %s is lost: %s", usage.id, usage.account, error)
            return
        if refused:
            _log.error("usage %s of %s is refused: %s", usage.id, usage.account, refused[0].detail)

    async def _release_now(self, hold: Hold) -> None:
        try:
            await self._client.release(hold)
        except TallygateError as error:
            _log.warning("a hold was not released, and expires by itself: %s", error)


class CallerGone(OSError):
    """What an application meets that goes on sending a stream to a caller who hung up, or who cannot pay for more of it: so
    it stops, whoever it is."""


class _Running:
    """One admitted request, until it is settled."""

    def __init__(
        self, owner: TallygateMiddleware, payer: Payer, request: Request, decision: Decision, covered: int
    ) -> None:
        """`covered`: output tokens that the hold is for."""
        self._owner = owner
        self.event = new_id()
        self.payer = payer
        self._request = request
        self._hold = decision.hold
        self._covered = covered
        self._ends = covered >= request.output_max  # it is for all that there can be
        self._asking: asyncio.Task[None] | None = None  # to go on
        self._turn = asyncio.Lock()  # one extension at a time: each answers with the hold that replaces the last
        self._over = False  # the stream was ended here
        self._observed = Observed(request)
        self._status: int | None = None
        self._events: EventReader | None = None  # of an answer that is streamed
        self._body = bytearray()  # of one that is not

    async def keep_open(self) -> None:
        """Extend the hold for as long as the request runs. Whatever keeps it from being extended may pass: it is tried again
        while the hold's time lasts. What comes after it has expired is charged all the same."""
        half_s = self._owner.hold_s / 2
        soon_s = min(SOON_S, half_s / 4)
        pause_s, left_s, told = half_s, self._owner.hold_s, False
        while self._hold is not None:
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            decision: Decision | None = None
            try:
                async with self._turn:
                    decision = await self._owner.extended(self._hold)
                    self._hold = decision.hold or self._hold
            except (Unavailable, Refused) as error:
                why, pause_s = str(error), soon_s
            else:
                why = str(decision.reason)
                pause_s = max(soon_s if decision.transient else half_s / 4, decision.retry_after_s or 0.0)
            if decision is not None and decision.hold is not None:
                pause_s, left_s, told = half_s, self._owner.hold_s, False
                continue
            if not told:
                _log.warning("a hold of %s is not extended: %s", self.payer.account, why)
                told = True
            if decision is not None and decision.reason in _FOR_GOOD:
                return
            if left_s <= 0:  # it is over, unless the stream's next step has extended it
                pause_s = half_s

    def watched(self, send: Send, gone: asyncio.Event) -> Send:
        """Looks at what is sent. An answer that is not streamed is let come to its end, which says what it has used: also
        where the server fails for a caller who hung up."""

        async def watch(message: Message) -> None:
            if self._over or (gone.is_set() and self._events is not None):
                raise CallerGone("the caller hung up" if not self._over else "its hold covers no more of it")
            if message["type"] == "http.response.start":
                self._status = message["status"]
                headers = dict(message.get("headers", ()))
                if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                    self._events = EventReader()
                    kept = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                    message = {**message, "headers": kept}
            elif message["type"] == "http.response.body":
                message = self._seen(message)
            try:
                await send(message)
            except OSError as error:
                gone.set()
                if self._events is not None:
                    raise CallerGone("the caller hung up") from error
            streams_on = self._events is not None and message.get("more_body", False)
            if streams_on and not self._ends and not await self._may_go_on():
                used = None if self._request.hides_usage else self._observed.used()
                end = cut_short(self._observed.last, used)
                self._over = True
                await send({"type": "http.response.body", "body": end, "more_body": False})
                raise CallerGone("its hold covers no more of it")

        return watch

    async def _may_go_on(self) -> bool:
        """Asks ahead, when half of a step is left, and waits for the answer where nothing is."""
        if self._observed.ended or self._hold is None:  # nothing more comes; nobody was asked in the first place
            return True
        used = self._observed.used()
        left = self._covered - used.output
        if left <= self._owner.step // 2 and self._asking is None:
            self._asking = asyncio.create_task(self._carry_on(used.output))
        if left > 0:
            return True
        if self._asking is not None:
            await self._asking
        return self._ends or self._covered > used.output

    async def _carry_on(self, written: int) -> None:
        """Once it was told to stop it is not asked again: `_asking` stays."""
        async with self._turn:
            data = self._owner.data(self._request.model, self._observed)
            usage = self._owner.usage(self.event, self.payer, data, self._hold)
            try:
                told, left = await self._owner.carry_on(msgspec.structs.replace(usage, final=False))
            except Refused as error:
                _log.error("a stream of %s could not be asked about: %s", self.payer.account, error)
                return
            if told.check is not None and told.check.hold is not None:
                self._hold = told.check.hold
        self._covered = max(self._covered, written + left)
        self._ends = self._covered >= self._request.output_max
        if told.action == "continue":
            self._asking = None
        else:
            reason = None if told.check is None else told.check.reason
            _log.info("a stream of %s ends within %d tokens: %s", self.payer.account, left, reason)

    def _seen(self, message: Message) -> Message:
        data, more = message.get("body", b""), message.get("more_body", False)
        if self._events is None:
            if len(self._body) <= ANSWER_BYTES_MAX:
                self._body += data
            return message
        events = self._events.feed(data)
        if not more and (rest := self._events.rest()):
            events.append(rest)
        return {**message, "body": b"".join(event for event in events if self._shown(event))}

    def _shown(self, event: bytes) -> bool:
        data = event_data(event)
        only_usage = bool(data) and self._observed.note(data)
        return not (only_usage and self._request.hides_usage)

    def settle(self) -> None:
        """Nothing is waited for here: it also runs while the request is being cancelled."""
        if self._asking is not None:
            self._asking.cancel()
        if self._status is None or self._status >= 400:
            if self._hold is not None:
                self._owner.release(self._hold)
            return
        if self._events is None:
            self._observed.note(bytes(self._body), whole=True)
        data = self._owner.data(self._request.model, self._observed)
        self._owner.report(self._owner.usage(self.event, self.payer, data, self._hold))


# ------------------------------------------------------------------------------------------------------ ASGI, in parts


class _TooLarge(Exception):
    pass


async def _body(receive: Receive) -> bytes | None:
    """None: the caller hung up."""
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts += message.get("body", b"")
        if len(parts) > BODY_BYTES_MAX:
            raise _TooLarge
        if not message.get("more_body"):
            return bytes(parts)


async def _deny(send: Send, decision: Decision) -> None:
    reason = decision.reason or "denied"
    status, kind = _STATUS.get(reason, (429, "rate_limit_error") if decision.transient else (402, "insufficient_quota"))
    binding = decision.binding
    where = f" ({binding.kind} {binding.name} {binding.scope})".replace("  ", " ") if binding is not None else ""
    headers = []
    if decision.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(decision.retry_after_s))).encode()))
    if not decision.transient:
        headers.append((b"x-should-retry", b"false"))
    await _refuse(send, status, kind, reason, f"the request is not admitted: {reason}{where}", headers=headers)


async def _refuse(
    send: Send,
    status: int,
    kind: str,
    code: str,
    message: str,
    *,
    param: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
    with suppress(OSError):  # the caller hung up
        own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
        await send({"type": "http.response.body", "body": body})
