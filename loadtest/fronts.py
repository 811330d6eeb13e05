"""The ways in, as a gateway uses them: the HTTP API, or a shard's own door and the log.

Both answer the same four calls. What is lost on the way is tried again with back-off and jitter, because a replica or
a shard may just have died; a check whose answer was lost may have left a hold behind, which expires by itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol, TypeVar

import aiohttp
import orjson
from msgspec import Struct
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from actors.door_wire import Answer, BadQuestion, Check, Checked, Extend, FieldLimit, Question, Release, Released
from actors.ports import Log, LogUnavailable, Outgoing
from engine.holds import read_token
from loadtest.journal import CheckAnswer

RETRY_FIRST_S: Final = 0.05
RETRY_PAUSE_MAX_S: Final = 0.5
GIVE_UP_S: Final = 20.0  # a takeover takes a second or two, a replica's restart some more
ATTEMPT_TIMEOUT_S: Final = 5.0
TRY_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
PICO: Final = 10**12

_Answer = TypeVar("_Answer")


class Unanswered(Exception):
    """Nobody answered, or asked to come back later: what was asked may or may not have happened."""


class Refused(Exception):
    """The request itself was refused: asking again would not help."""


class Bound(Struct, frozen=True):
    """The sum of these fields will be at most `up_to` whole units."""

    fields: tuple[str, ...]
    up_to: int


class Ask(Struct, frozen=True):
    """A check with a hold."""

    account: str
    type: str
    data: Mapping[str, str]
    bounds: tuple[Bound, ...]
    ttl_s: float


class Usage(Struct, frozen=True):
    """One usage event that settles a hold; sent again unchanged, it is the same event."""

    account: str
    source: str
    id: str
    type: str
    time: str  # RFC 3339
    data: Mapping[str, Any]
    token: str
    final: bool


class Front(Protocol):
    """Every call raises Unanswered when nobody answered for GIVE_UP_S, Refused when the request was wrong."""

    async def check(self, ask: Ask) -> CheckAnswer: ...

    async def extend(self, token: str, bounds: tuple[Bound, ...], ttl_s: float) -> CheckAnswer: ...

    async def capture(self, usage: Usage) -> None:
        """Returns once the event is durable."""

    async def release(self, token: str) -> None: ...


async def until_answered(attempt: Callable[[], Awaitable[_Answer]], give_up_s: float = GIVE_UP_S) -> _Answer:
    """Again, while it raises Unanswered."""
    try:
        async for trial in AsyncRetrying(
            retry=retry_if_exception_type(Unanswered),
            wait=wait_exponential_jitter(multiplier=RETRY_FIRST_S, max=RETRY_PAUSE_MAX_S, jitter=RETRY_FIRST_S),
            stop=stop_after_delay(give_up_s),
        ):
            with trial:
                return await attempt()
    except RetryError as error:
        cause = error.last_attempt.exception()
        raise Unanswered(f"no answer for {give_up_s:.0f} s: {cause}") from cause
    raise AssertionError("the loop ends by an answer or an error")


class HttpFront:
    """The public API behind Serve."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self.retries = 0
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        self._timeout = aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S)

    async def check(self, ask: Ask) -> CheckAnswer:
        body = {
            "account": ask.account,
            "type": ask.type,
            "data": ask.data,
            "bounds": _bounds(ask.bounds),
            "hold": {"ttl_s": ask.ttl_s},
        }
        return http_answer(await self._post("/v1/check", body))

    async def extend(self, token: str, bounds: tuple[Bound, ...], ttl_s: float) -> CheckAnswer:
        body = {"token": token, "bounds": _bounds(bounds), "ttl_s": ttl_s}
        return http_answer(await self._post("/v1/holds/extend", body))

    async def capture(self, usage: Usage) -> None:
        event = {
            "id": usage.id,
            "source": usage.source,
            "type": usage.type,
            "time": usage.time,
            "data": usage.data,
        }
        await self._post("/v1/holds/capture", {"token": usage.token, "event": event, "final": usage.final})

    async def release(self, token: str) -> None:
        await self._post("/v1/holds/release", {"token": token})

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        data = orjson.dumps(body)

        async def attempt() -> Any:
            try:
                return await self._post_once(path, data)
            except Unanswered:
                self.retries += 1
                raise

        return await until_answered(attempt)

    async def _post_once(self, path: str, data: bytes) -> Any:
        try:
            async with self._session.post(
                self._base_url + path, data=data, headers=self._headers, timeout=self._timeout
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unanswered(f"{path}: {type(error).__name__}") from error
        if response.status in TRY_AGAIN:
            raise Unanswered(f"{path}: {response.status} {text[:200]!r}")
        if not 200 <= response.status < 300:
            raise Refused(f"{path}: {response.status} {text[:300]!r}")
        return orjson.loads(text) if text else {}


class DoorFront:
    """The shards' own doors for what is asked, and the log for what was used."""

    def __init__(self, ask: Callable[[str, Question], Awaitable[Answer]], log: Log, control_key: bytes) -> None:
        """`ask` puts a question about an account to its owner; it raises OSError or TimeoutError when that is away."""
        self.retries = 0
        self._ask = ask
        self._log = log
        self._control_key = control_key

    async def check(self, ask: Ask) -> CheckAnswer:
        bounds = _limits(ask.bounds)
        check = Check(ask.account, type=ask.type, data=dict(ask.data), bounds=bounds, ttl_ms=round(ask.ttl_s * 1000))
        return door_answer(await self._put(ask.account, check, Checked))

    async def extend(self, token: str, bounds: tuple[Bound, ...], ttl_s: float) -> CheckAnswer:
        extend = Extend(token, round(ttl_s * 1000), _limits(bounds))
        return door_answer(await self._put(self._account(token), extend, Checked))

    async def release(self, token: str) -> None:
        await self._put(self._account(token), Release(token), Released)

    async def capture(self, usage: Usage) -> None:
        event = {
            "specversion": "1.0",
            "id": usage.id,
            "source": usage.source,
            "type": usage.type,
            "subject": usage.account,
            "time": usage.time,
            "data": usage.data,
            "hold": usage.token,
            "holdfinal": usage.final,
        }
        record = Outgoing("usage", orjson.dumps(event), usage.account.encode(), None)

        async def attempt() -> None:
            try:
                await self._log.append([record])
            except LogUnavailable as error:
                self.retries += 1
                raise Unanswered(str(error)) from error

        await until_answered(attempt)

    def _account(self, token: str) -> str:
        return read_token(self._control_key, token).account

    async def _put(self, account: str, question: Question, wanted: type[_Answer]) -> _Answer:
        async def attempt() -> _Answer:
            try:
                answer = await self._ask(account, question)
            except (OSError, TimeoutError) as error:
                self.retries += 1
                raise Unanswered(f"{type(error).__name__}: {error}") from error
            if isinstance(answer, wanted):
                return answer
            if isinstance(answer, BadQuestion):
                raise Refused(f"{answer.field}: {answer.detail}")
            self.retries += 1
            raise Unanswered(repr(answer))

        return await until_answered(attempt)


def _limits(bounds: tuple[Bound, ...]) -> tuple[FieldLimit, ...]:
    return tuple(FieldLimit(bound.fields, str(bound.up_to)) for bound in bounds)


def _bounds(bounds: tuple[Bound, ...]) -> list[dict[str, Any]]:
    return [{"fields": list(bound.fields), "up_to": bound.up_to} for bound in bounds]


def pico(text: str | None) -> int | None:
    """Decimal text of whole units as pico; None stays None."""
    return None if text is None else int(Decimal(text) * PICO)


def http_answer(document: Mapping[str, Any]) -> CheckAnswer:
    """The body of an answer to a check or an extension."""
    price, balance = document.get("price") or {}, document.get("balance") or {}
    as_of, hold = document.get("as_of") or {}, document.get("hold") or {}
    return CheckAnswer(
        allowed=document["allowed"],
        reason=document.get("reason"),
        transient=bool(document.get("transient")),
        retry_after_s=document.get("retry_after_s"),
        price=pico(price.get("amount")),
        booked=pico(balance.get("booked")),
        held=pico(balance.get("held")),
        available=pico(balance.get("available")),
        overdraft=pico(balance.get("overdraft")),
        partition=as_of.get("partition"),
        epoch=as_of.get("epoch"),
        offset=as_of.get("offset"),
        hold=hold.get("id"),
        token=hold.get("token"),
        valid_for_s=hold.get("valid_for_s"),
    )


def door_answer(checked: Checked) -> CheckAnswer:
    """A door's answer to a check or an extension."""
    wallet, hold, retry_ms = checked.wallet, checked.hold, checked.retry_after_ms
    return CheckAnswer(
        allowed=checked.allowed,
        reason=checked.reason,
        transient=checked.transient,
        retry_after_s=None if retry_ms is None else retry_ms / 1000,
        price=pico(checked.price),
        booked=pico(wallet.booked) if wallet else None,
        held=pico(wallet.held) if wallet else None,
        available=pico(wallet.available) if wallet else None,
        overdraft=pico(wallet.overdraft) if wallet else None,
        partition=checked.as_of.partition,
        epoch=checked.as_of.epoch,
        offset=checked.as_of.offset,
        hold=hold.id if hold else None,
        token=hold.token if hold else None,
        valid_for_s=hold.valid_for_ms / 1000 if hold else None,
    )
