"""Telling a receiver of alerts: signed POSTs after Standard Webhooks 1.0.0, through the egress guard."""

import base64
import binascii
import logging
import socket
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version

import aiohttp
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from actors.egress import EgressRefused, GuardedResolver, check_url, guarded_socket
from actors.ports import Attempt, Clock

TIMEOUT_S = 15.0
RETRY_AFTER_MAX_S = 3600.0
RESPONSE_BYTES_MAX = 8192
SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, not a secret
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64

_GONE = 410
_SLOW_DOWN = frozenset({429, 502, 503, 504})

_log = logging.getLogger(__name__)


def check_secret(secret: str) -> None:
    """Raise `ValueError` unless this is a signing secret of Standard Webhooks; the text never shows it."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"the webhook secret must start with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the webhook secret must be base64 after {SECRET_PREFIX}") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(f"the webhook secret must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")


class WebhookReceivers:
    """The port `Receivers` over HTTP, for one endpoint.

    Every attempt opens its own connection: the name is resolved and its addresses judged anew, and no attempt fails
    because the receiver has meanwhile closed an idle connection. Redirects, proxies of the environment and cookies are
    never followed.
    """

    def __init__(
        self,
        clock: Clock,
        url: str,
        secret: str,
        *,
        allow_loopback: bool = False,
        timeout_s: float = TIMEOUT_S,
        retry_after_max_s: float = RETRY_AFTER_MAX_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Raises `EgressRefused` for a URL and `ValueError` for a secret that cannot be used.

        `resolver` None asks the operating system. `timeout_s` bounds a whole attempt, name look-up included."""
        check_secret(secret)
        self._egress = check_url(url, allow_loopback=allow_loopback)
        self._clock = clock
        self._signer = Webhook(secret)
        self._timeout_s = timeout_s
        self._retry_after_max_s = retry_after_max_s
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make ready to post. Opens no connection."""
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self._egress, self._resolver or aiohttp.ThreadedResolver()),
            use_dns_cache=False,
            force_close=True,
            limit=0,  # the outbox bounds the attempts; a queue here would eat into their time
            socket_factory=partial(guarded_socket, self._egress),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={
                "User-Agent": f"tallygate/{version('tallygate')}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def stop(self) -> None:
        """Break off what is under way, and close."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, alert_id: str, body: bytes) -> Attempt:
        """One signed attempt, over within `timeout_s`; never raises for what the receiver does.

        `body` is UTF-8. Raises `RuntimeError` before `start`."""
        if self._session is None:
            raise RuntimeError("WebhookReceivers.post before start: await start() first")
        attempted_s = self._clock.wall_us() // 1_000_000
        signature = self._signer.sign(alert_id, datetime.fromtimestamp(attempted_s, tz=UTC), body.decode())
        headers = {
            "webhook-id": alert_id,
            "webhook-timestamp": str(attempted_s),
            "webhook-signature": signature,
        }
        try:
            async with self._session.post(
                self._egress.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                attempt = self._judge(response.status, response.headers.get("Retry-After"))
                # Some receivers drop their work when the caller hangs up early. The answer counts in any case.
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await _read_some(response.content)
                return attempt
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Attempt(delivered=False, error=self._describe(error))
        except ValueError as error:
            # The HTTP client's own parsers let some of these through for a garbled answer.
            _log.warning("webhook attempt for %s ended in %s", alert_id, type(error).__name__)
            return Attempt(delivered=False, error=f"unreadable answer ({type(error).__name__})")

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
