"""Who is told of an alert: every enabled endpoint that hears its account and rule, and the one of the settings.

Each endpoint stands alone. It has its own order of alerts, its own few calls at once, and a breaker that opens after
failures in a row; one that hangs or fails delays no other, and none that has answered is told again because another has
not. What an endpoint answered is remembered while its alert is being told; after a takeover an alert may be repeated,
under the same id.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct
from pydantic import SecretStr

from actors.endpoints import (
    Cause,
    Changes,
    Endpoint,
    EndpointDelivery,
    EndpointRefused,
    Listener,
    PostgresEndpoints,
    check_secret,
)
from actors.ports import AlertRow, Attempt, Clock, StoreRefused, StoreUnavailable
from actors.webhooks import Answer, WebhookCaller

SETTINGS_ENDPOINT: Final = "we_settings"
CALLS_PER_ENDPOINT: Final = 4
CALLS_MAX: Final = 512  # at all endpoints together: each holds a socket
COURIER_CALLS_MAX: Final = 16
REFRESH_S: Final = 1.0
FORGET_EVERY_S: Final = 600.0
PERMIT_POLL_S: Final = 0.25
NOBODY_AGAIN_S: Final = 3_600.0  # when an alert that nobody hears is looked at again
PROGRESS_MAX: Final = 100_000  # alerts whose answers are remembered; the oldest is forgotten, and may be repeated
RECORDS_MAX: Final = 10_000  # deliveries not yet written; the oldest is lost
RECORD_ROWS_MAX: Final = 1_000
ERRORS_SHOWN: Final = 3

_log = logging.getLogger(__name__)


class EndpointDisabled(Exception):
    """The endpoint is disabled: enable it first."""


class Book(Protocol):
    """What delivery needs of `PostgresEndpoints`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def changes(self, after: int) -> Changes: ...

    async def disable(self, endpoint_id: str, account: str | None = None, reason: str = ...) -> Endpoint: ...

    async def record(self, deliveries: Sequence[EndpointDelivery]) -> None: ...

    async def forget_old(self) -> int: ...


class Breaker:
    """Spares an endpoint that fails: after some failures in a row no call, then one probe after pauses that double."""

    FAILURES: Final = 5
    PAUSE_S: Final = 30.0
    PAUSE_MAX_S: Final = 600.0

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = self.PAUSE_S
        self._closed_until_s: float | None = None  # None: calls go through
        self._probing = False

    def wait_s(self, now_s: float) -> float:
        """How long no call may begin; 0 when one may now."""
        if self._closed_until_s is None:
            return 0.0
        if self._probing:
            return self.PAUSE_S
        return max(0.0, self._closed_until_s - now_s)

    def begin(self) -> bool:
        """A call begins; whether it is a probe. To be followed by `end`."""
        self._probing = self._closed_until_s is not None
        return self._probing

    def end(self, probe: bool, succeeded: bool | None, now_s: float) -> None:
        """The call is over; `succeeded` None: it was broken off and tells nothing."""
        if probe:
            self._probing = False
        if succeeded:
            self._failures, self._pause_s, self._closed_until_s = 0, self.PAUSE_S, None
        elif succeeded is not None:
            self._failures += 1
            if probe:
                self._pause_s = min(self._pause_s * 2, self.PAUSE_MAX_S)
            if probe or (self._closed_until_s is None and self._failures >= self.FAILURES):
                self._closed_until_s = now_s + self._pause_s


class _Line:
    """An endpoint while alerts go to it."""

    def __init__(self, listener: Listener, calls_max: int) -> None:
        self.listener = listener
        self.slots = asyncio.Semaphore(calls_max)
        self.breaker = Breaker()
        self.rests_until_s = 0.0  # it asked for time (Retry-After)
        self._orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def endpoint_id(self) -> str:
        return self.listener.endpoint.endpoint_id

    def order(self, account: str) -> asyncio.Lock:
        """Whoever waits for it first comes first; it goes when nobody holds it or waits."""
        return self._orders.setdefault(account, asyncio.Lock())


class _Progress:
    """One alert: what was tried where, and what each endpoint finally said."""

    __slots__ = ("attempts", "settled")

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.settled: dict[str, bool] = {}  # endpoint -> it took the alert (True), or wants none ever again (False)


class _AlertData(Struct):
    rule: str = ""


class _AlertBody(Struct):
    data: _AlertData = msgspec.field(default_factory=_AlertData)


_decode_body = msgspec.json.Decoder(_AlertBody).decode


def rule_of(alert: AlertRow) -> str:
    """The rule that made the alert; "" when its body names none."""
    try:
        return _decode_body(alert.body).data.rule
    except msgspec.MsgspecError:
        return ""


def settings_listener(url: str, secret: str) -> Listener:
    """The endpoint of the settings: it hears everything. Raises `ValueError` for a secret that cannot be used."""
    check_secret(secret)
    endpoint = Endpoint(endpoint_id=SETTINGS_ENDPOINT, account=None, url=url, rules=None, created_us=0)
    return Listener(endpoint=endpoint, secret=SecretStr(secret))


class EndpointReceivers:
    """The port `Receivers` over HTTP.

    An alert is delivered when every endpoint that hears it has answered 2xx once. An endpoint that answers 410 is
    disabled and no longer waited for."""

    def __init__(
        self,
        clock: Clock,
        caller: WebhookCaller,
        book: Book | None,
        *,
        settings: Listener | None = None,
        settings_calls_max: int = CALLS_PER_ENDPOINT,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`book` None: only the endpoint of the settings. No call begins while `permitted()` is false.

        Raises `EgressRefused` for the URL of the settings."""
        if settings is not None:
            caller.check(settings.endpoint.url)
        self._clock = clock
        self._caller = caller
        self._book = book
        self._permitted = permitted
        self._fixed = [] if settings is None else [_Line(settings, settings_calls_max)]
        self._lines: dict[str, _Line] = {}
        self._by_account: dict[str | None, list[_Line]] = {}  # None: those that hear all accounts
        self._change = 0
        self._gone: dict[str, str] = {}  # endpoint to be disabled -> why
        self._progress: OrderedDict[str, _Progress] = OrderedDict()
        self._records: deque[EndpointDelivery] = deque(maxlen=RECORDS_MAX)
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._following: asyncio.Task[None] | None = None
        self._forgot_s = clock.boot_s()
        self._index()

    async def start(self) -> None:
        """Read the endpoints, and keep reading. Raises `StoreUnavailable`, `StoreRefused`."""
        if self._book is None:
            return
        await self._book.start()
        try:
            await self._refresh(self._book)
        except BaseException:
            await self._book.stop()
            raise
        self._following = asyncio.create_task(self._follow(self._book))

    async def stop(self) -> None:
        """Call nobody from now on; what came of the last calls is written down if the store is there."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None
        if self._book is not None:
            await self._with_store(self._write_down(self._book))
            await self._book.stop()
        await self._caller.stop()

    # ------------------------------------------------------------------------------------------------------- telling

    async def post(self, alert: AlertRow) -> Attempt:
        """One attempt at every endpoint that has not answered this alert yet."""
        rule = rule_of(alert)
        near = (*self._by_account.get(None, ()), *self._by_account.get(alert.account, ()))
        lines = [line for line in near if line.listener.endpoint.hears(rule)]
        progress = self._progress_of(alert.alert_id)
        due = [line for line in lines if line.endpoint_id not in progress.settled]
        # Before anything else is awaited: tasks take their first step in the order in which they were made.
        attempts = await asyncio.gather(*(self._tell(line, alert, progress) for line in due))
        result = _combined(due, attempts, progress)
        if result.delivered or result.final:
            self._progress.pop(alert.alert_id, None)
        return result

    def _progress_of(self, alert_id: str) -> _Progress:
        progress = self._progress.setdefault(alert_id, _Progress())
        self._progress.move_to_end(alert_id)
        if len(self._progress) > PROGRESS_MAX:
            self._progress.popitem(last=False)
        return progress

    async def _tell(self, line: _Line, alert: AlertRow, progress: _Progress) -> Attempt:
        async with line.order(alert.account), line.slots:
            if (spared := self._spared(line)) is not None:
                return spared
            probe = line.breaker.begin()
            answer: Answer | None = None
            try:
                answer = await self._call(line, alert)
            finally:
                succeeded = None if answer is None else answer.attempt.delivered
                line.breaker.end(probe, succeeded, self._clock.boot_s())
        self._settle(line, alert, progress, answer)
        return answer.attempt

    def _spared(self, line: _Line) -> Attempt | None:
        now_s = self._clock.boot_s()
        if (wait_s := line.breaker.wait_s(now_s)) > 0.0:
            return Attempt(delivered=False, error="spared for a while after failures in a row", retry_after_s=wait_s)
        if (wait_s := line.rests_until_s - now_s) > 0.0:
            return Attempt(delivered=False, error="it asked to be called later (Retry-After)", retry_after_s=wait_s)
        return None

    async def _call(self, line: _Line, alert: AlertRow) -> Answer:
        async with self._calls:
            while not self._permitted():
                await self._clock.sleep(PERMIT_POLL_S)
            listener = line.listener  # the newest: its secret may have been rotated
            signing = listener.signing(self._clock.wall_us())
            return await self._caller.call(listener.endpoint.url, signing, alert.alert_id, alert.body)

    def _settle(self, line: _Line, alert: AlertRow, progress: _Progress, answer: Answer) -> None:
        attempt = answer.attempt
        number = progress.attempts[line.endpoint_id] = progress.attempts.get(line.endpoint_id, 0) + 1
        if attempt.retry_after_s is not None:
            line.rests_until_s = max(line.rests_until_s, self._clock.boot_s() + attempt.retry_after_s)
        if attempt.delivered or attempt.final:
            progress.settled[line.endpoint_id] = attempt.delivered
        if attempt.final and self._lines.pop(line.endpoint_id, None) is not None:
            self._gone[line.endpoint_id] = attempt.error
            self._index()
        if self._book is not None:
            self._records.append(_record(line.endpoint_id, alert.account, alert.alert_id, "alert", number, answer))

    # --------------------------------------------------------------------------------------------- beside the telling

    async def _follow(self, book: Book) -> None:
        while True:
            await self._clock.sleep(REFRESH_S)
            await self._with_store(self._refresh(book))
            await self._with_store(self._write_down(book))
            if self._clock.boot_s() - self._forgot_s >= FORGET_EVERY_S:
                self._forgot_s = self._clock.boot_s()
                await self._with_store(book.forget_old())

    async def _with_store(self, work: Awaitable[object]) -> None:
        try:
            await work
        except (StoreUnavailable, StoreRefused) as error:
            _log.warning("webhook endpoints: %s", error)
        except Exception:
            # Without this task no new endpoint would ever be told, and nobody would know.
            _log.exception("webhook endpoints: the upkeep broke")

    async def _refresh(self, book: Book) -> None:
        for endpoint_id, reason in list(self._gone.items()):
            await book.disable(endpoint_id, reason=reason)
            del self._gone[endpoint_id]
        changes = await book.changes(self._change)
        for listener in changes.listeners:
            endpoint_id = listener.endpoint.endpoint_id
            if listener.endpoint.disabled_us is not None or endpoint_id in self._gone:
                self._lines.pop(endpoint_id, None)
            elif (line := self._lines.get(endpoint_id)) is not None:
                line.listener = listener
            else:
                self._lines[endpoint_id] = _Line(listener, CALLS_PER_ENDPOINT)
        for endpoint_id, reason in changes.unreadable.items():
            self._lines.pop(endpoint_id, None)
            _log.critical("nothing is told to an endpoint: %s", reason)
        if changes.number != self._change:
            self._change = changes.number
            self._index()

    def _index(self) -> None:
        """A shard holds thousands of endpoints, and an alert concerns a handful."""
        self._by_account = {}
        for line in (*self._fixed, *self._lines.values()):
            self._by_account.setdefault(line.listener.endpoint.account, []).append(line)

    async def _write_down(self, book: Book) -> None:
        while self._records:
            batch = [self._records.popleft() for _ in range(min(RECORD_ROWS_MAX, len(self._records)))]
            try:
                await book.record(batch)
            except StoreUnavailable:
                room = RECORDS_MAX - len(self._records)
                self._records.extendleft(reversed(batch[len(batch) - min(room, len(batch)) :]))
                raise


def _combined(due: Sequence[_Line], attempts: Sequence[Attempt], progress: _Progress) -> Attempt:
    failed = [
        (line.endpoint_id, attempt)
        for line, attempt in zip(due, attempts, strict=True)
        if not attempt.delivered and not attempt.final
    ]
    if not failed:
        if any(progress.settled.values()):
            return Attempt(delivered=True)
        if gone := next((attempt for attempt in attempts if attempt.final), None):
            return gone
        return Attempt(
            delivered=False,
            error="no endpoint listens for this alert: create one, or set webhooks.url",
            retry_after_s=NOBODY_AGAIN_S,
        )
    if len(due) == 1 and not progress.settled:
        return failed[0][1]
    told = [f"{endpoint_id}: {attempt.error}" for endpoint_id, attempt in failed[:ERRORS_SHOWN]]
    if len(failed) > ERRORS_SHOWN:
        told.append(f"and {len(failed) - ERRORS_SHOWN} more")
    # The earliest: an endpoint that asked for more time must not hold up one that did not.
    waits = [attempt.retry_after_s or 0.0 for _, attempt in failed]
    return Attempt(delivered=False, error="; ".join(told), retry_after_s=min(waits))


def _record(
    endpoint_id: str, account: str | None, message_id: str, cause: Cause, number: int, answer: Answer
) -> EndpointDelivery:
    return EndpointDelivery(
        alert_id=message_id,
        endpoint_id=endpoint_id,
        account=account,
        cause=cause,
        attempt=number,
        at_us=answer.at_us,
        delivered=answer.attempt.delivered,
        status=answer.status,
        error=answer.attempt.error,
        duration_ms=answer.duration_ms,
    )


# ------------------------------------------------------------------------------------------------------- by hand


class _TestData(Struct):
    endpoint: str


class _TestBody(Struct):
    id: str
    type: str
    data: _TestData


class Courier:
    """Sends one message to one endpoint because a person asked. Needs no shard, so every API process may have one."""

    def __init__(self, clock: Clock, endpoints: PostgresEndpoints, caller: WebhookCaller) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._caller = caller
        self._calls = asyncio.Semaphore(COURIER_CALLS_MAX)

    async def resend(self, alert_id: str, endpoint_id: str, account: str | None = None) -> EndpointDelivery:
        """Send an alert again, the same id and bytes; what came of it. A failure is an outcome and not tried again.

        Raises `EndpointUnknown`, `AlertUnknown`, `EndpointDisabled`, `EndpointRefused` (the alert is of an account that
        the endpoint is not told of), `SecretUnreadable`."""
        listener = await self._enabled(endpoint_id, account)
        alert = await self._endpoints.alert(alert_id, account)
        if listener.endpoint.account not in (None, alert.account):
            raise EndpointRefused("alert_id", "belongs to an account that this endpoint is not told of")
        return await self._send(listener, alert.account, alert_id, alert.body, "resend")

    async def test(self, endpoint_id: str, account: str | None = None) -> EndpointDelivery:
        """Send a signed `webhook.test`; what came of it. Raises `EndpointUnknown`, `EndpointDisabled`,
        `SecretUnreadable`."""
        listener = await self._enabled(endpoint_id, account)
        message_id = "test_" + secrets.token_hex(16)
        body = msgspec.json.encode(_TestBody(id=message_id, type="webhook.test", data=_TestData(endpoint=endpoint_id)))
        return await self._send(listener, listener.endpoint.account, message_id, body, "test")

    async def _enabled(self, endpoint_id: str, account: str | None) -> Listener:
        listener = await self._endpoints.listener(endpoint_id, account)
        if listener.endpoint.disabled_us is not None:
            raise EndpointDisabled(
                f"endpoint {endpoint_id} is disabled ({listener.endpoint.disabled_reason}): enable it first"
            )
        return listener

    async def _send(
        self, listener: Listener, account: str | None, message_id: str, body: bytes, cause: Cause
    ) -> EndpointDelivery:
        endpoint_id = listener.endpoint.endpoint_id
        async with self._calls:
            signing = listener.signing(self._clock.wall_us())
            answer = await self._caller.call(listener.endpoint.url, signing, message_id, body)
        delivery = _record(endpoint_id, account, message_id, cause, 1, answer)
        await self._endpoints.record([delivery])
        if answer.attempt.final:
            await self._endpoints.disable(endpoint_id, reason=answer.attempt.error)
        return delivery
