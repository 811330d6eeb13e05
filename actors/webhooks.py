"""Telling a receiver something: one signed POST after Standard Webhooks 1.0.0, through the egress guard."""

import logging
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec import Struct
from standardwebhooks import Webhook

from actors.egress import Egress, EgressRefused, GuardedResolver, SpareThreadsResolver, check_url, guarded_socket
from actors.ports import Attempt, Clock

TIMEOUT_S = 15.0
RETRY_AFTER_MAX_S = 3600.0
RESPONSE_BYTES_MAX = 8192

_GONE = 410
_SLOW_DOWN = frozenset({429, 502, 503, 504})

_log = logging.getLogger(__name__)


class Answer(Struct, frozen=True):
    """What came of one call."""

    attempt: Attempt
    at_us: int  # wall time at which it began
    duration_ms: int
    status: int | None = None  # HTTP; None when no answer came


class WebhookCaller:
    """Makes signed calls.

    Every call opens its own connection: the name is resolved and its addresses judged anew, and no call fails because
    the receiver has meanwhile closed an idle connection. Redirects, proxies of the environment and cookies are never
    followed.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        allow_loopback: bool = False,
        timeout_s: float = TIMEOUT_S,
        retry_after_max_s: float = RETRY_AFTER_MAX_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`resolver` None asks the operating system. `timeout_s` bounds a whole call, name look-up included."""
        self._clock = clock
        self._allow_loopback = allow_loopback
        self._timeout_s = timeout_s
        self._retry_after_max_s = retry_after_max_s
        self._resolver = resolver or SpareThreadsResolver()
        self._headers = {
            "User-Agent": f"tallygate/{version('tallygate')}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }

    def check(self, url: str) -> None:
        """Judge a URL by its form; raises `EgressRefused`."""
        check_url(url, allow_loopback=self._allow_loopback)

    async def stop(self) -> None:
        """No call is made after this."""
        await self._resolver.close()

    async def call(self, url: str, secrets: Sequence[str], message_id: str, body: bytes) -> Answer:
        """One call, over within `timeout_s`; never raises for what the receiver does, nor for its URL.

        `body` is UTF-8. It carries one signature per secret, in their order."""
        return await self.send("POST", url, self._signed(secrets, message_id, self._clock.wall_us(), body), body)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The same, with headers of the caller's own in place of signatures."""
        at_us, began_s = self._clock.wall_us(), self._clock.boot_s()
        status, attempt = await self._attempt(method, url, {**self._headers, **headers}, body)
        duration_ms = max(0, round((self._clock.boot_s() - began_s) * 1000))
        return Answer(attempt=attempt, at_us=at_us, duration_ms=duration_ms, status=status)

    def _signed(self, secrets: Sequence[str], message_id: str, at_us: int, body: bytes) -> dict[str, str]:
        at_s = at_us // 1_000_000
        moment, text = datetime.fromtimestamp(at_s, tz=UTC), body.decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(Webhook(secret).sign(message_id, moment, text) for secret in secrets),
        }

    async def _attempt(self, method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int | None, Attempt]:
        try:
            egress = check_url(url, allow_loopback=self._allow_loopback)
            async with (
                self._session(egress) as session,
                session.request(method, egress.url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                attempt = self._judge(response.status, response.headers.get("Retry-After"))
                # Some receivers drop their work when the caller hangs up early. The answer counts in any case.
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await _read_some(response.content)
                return response.status, attempt
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, Attempt(delivered=False, error=self._describe(error))
        except ValueError as error:
            # The HTTP client's own parsers let some of these through for a garbled answer.
            _log.warning("a webhook call ended in %s", type(error).__name__)
            return None, Attempt(delivered=False, error=f"unreadable answer ({type(error).__name__})")

    def _session(self, egress: Egress) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(egress, self._resolver),
            use_dns_cache=False,
            force_close=True,
            socket_factory=partial(guarded_socket, egress),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    def _judge(self, status: int, retry_after: str | None) -> Attempt:
        if 200 <= status < 300:
            return Attempt(delivered=True)
        if status == _GONE:
            return Attempt(delivered=False, error="HTTP 410: the receiver is gone for good", final=True)
        if 300 <= status < 400:
            return Attempt(delivered=False, error=f"HTTP {status}: redirects are not followed; configure the final URL")
        asked_s = None
        if status in _SLOW_DOWN and retry_after is not None:
            asked_s = retry_after_s(retry_after, self._clock.wall_us(), self._retry_after_max_s)
        return Attempt(delivered=False, error=f"HTTP {status}", retry_after_s=asked_s)

    def _describe(self, error: Exception) -> str:
        """Our own words for a failed attempt: those of the libraries may quote the URL, which may hold a token."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_s:g} s"
        if isinstance(error, aiohttp.ClientSSLError):
            return f"TLS failed ({type(error).__name__})"
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, EgressRefused):
            return f"refused by the egress guard: {cause}"
        if isinstance(cause, socket.gaierror) or isinstance(error, aiohttp.ClientConnectorDNSError):
            return "the receiver's name did not resolve"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"could not connect ({type(cause).__name__})"
        return f"the connection or the answer broke off ({type(error).__name__})"


async def _read_some(content: aiohttp.StreamReader) -> None:
    left = RESPONSE_BYTES_MAX
    while left > 0:
        chunk = await content.read(left)
        if not chunk:
            return
        left -= len(chunk)


def retry_after_s(header: str, now_us: int, max_s: float) -> float | None:
    """A `Retry-After` header (seconds, or an HTTP date) as seconds from now, 0 to `max_s`; None if unreadable."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return max_s if len(text) > 9 else min(float(text), max_s)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000" in the header: UTC, of unknown place
            moment = moment.replace(tzinfo=UTC)
        wait_s = moment.timestamp() - now_us / 1_000_000
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), max_s)
