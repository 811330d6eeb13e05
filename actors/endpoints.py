"""Webhook endpoints as data: who is told of which alerts, with which secret, and what came of it.

Signing secrets are at rest only sealed, under a key derived from the deployment's control key. What this file hands
out about an endpoint shows none; a secret leaves it only wrapped (`SecretStr`), so that no log or error can print it.
"""

import asyncio
import base64
import binascii
import hashlib
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from aiohttp.abc import AbstractResolver
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct
from pydantic import SecretStr

from actors.egress import EgressRefused, GuardedResolver, SpareThreadsResolver, check_url
from actors.ports import AlertRow, CommitUnknown, StoreUnavailable
from actors.postgres import Session, session_settings
from actors.queries import read_queries

Cause = Literal["alert", "resend", "test"]

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins, not a secret
SECRET_BYTES: Final = 32
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64  # of one that an operator brings
ROTATION_S: Final = 86_400  # how long the old secret still signs
PAGE_MAX: Final = 200
ENDPOINTS_MAX: Final = 10_000  # enabled ones of a deployment: every shard holds them all in memory
ACCOUNT_ENDPOINTS_MAX: Final = 20  # enabled ones of an account, and of those for all accounts
RULES_MAX: Final = 100
NAME_CHARACTERS_MAX: Final = 128
REASON_CHARACTERS_MAX: Final = 200
RETENTION_DAYS: Final = 30  # of deliveries
FORGET_ROWS_MAX: Final = 5_000  # deleted in one transaction

_ID = re.compile(r"we_[a-z0-9]{1,40}\Z")
_QUERIES = read_queries((Path(__file__).parent / "sql" / "endpoints.sql").read_text(encoding="utf-8"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BIGINT_MAX: Final = 2**63 - 1

Result = TypeVar("Result")


class EndpointRefused(ValueError):
    """An endpoint that is not taken in. `field` names the part of the request that must change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class EndpointUnknown(LookupError):
    """There is no such endpoint, or it belongs to another account: the two are told apart for nobody."""


class AlertUnknown(LookupError):
    """There is no such alert in the outbox, or it belongs to another account."""


class SecretUnreadable(Exception):
    """A secret was sealed under another control key. Rotate the endpoint's secret, or restore the key."""


class Endpoint(Struct, frozen=True):
    """One endpoint, without its secrets. Times are microseconds since 1970 UTC."""

    endpoint_id: str
    account: str | None  # None: told of all accounts
    url: str
    rules: list[str] | None  # None: told of all rules
    created_us: int
    previous_until_us: int | None = None  # until then messages carry a signature of the previous secret too
    disabled_us: int | None = None
    disabled_reason: str = ""

    def hears(self, rule: str) -> bool:
        """Whether alerts of this rule go here, those of its account or of all."""
        return self.rules is None or rule in self.rules


class Listener(Struct, frozen=True):
    """An endpoint and what signs its messages."""

    endpoint: Endpoint
    secret: SecretStr
    previous: SecretStr | None = None

    def signing(self, now_us: int) -> list[str]:
        """The secrets that sign now, the newest first. In the clear: to be given to the signature and nothing else."""
        until_us = self.endpoint.previous_until_us
        old = [self.previous] if self.previous is not None and until_us is not None and now_us < until_us else []
        return [secret.get_secret_value() for secret in (self.secret, *old)]


class Changes(Struct, frozen=True):
    """What has changed among the endpoints. `number` is for the next question."""

    number: int
    listeners: list[Listener]  # disabled ones too: they are to be left out from now on
    unreadable: dict[str, str]  # endpoint -> why its secret cannot be opened


class EndpointDelivery(Struct, frozen=True):
    """One attempt at one endpoint, for people."""

    alert_id: str
    endpoint_id: str
    account: str | None
    cause: Cause
    attempt: int  # from 1, per alert and endpoint
    at_us: int
    delivered: bool
    status: int | None  # HTTP; None when no answer came
    error: str  # "" when delivered
    duration_ms: int
    delivery_id: int = 0  # given by the database; larger is newer


class EndpointPage(Struct, frozen=True):
    """Endpoints in order of id. `cursor` asks for the next page; None: this is the last."""

    endpoints: list[Endpoint]
    cursor: str | None


class DeliveryPage(Struct, frozen=True):
    """Deliveries, the newest first. `cursor` asks for the next page; None: this is the last."""

    deliveries: list[EndpointDelivery]
    cursor: str | None


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


def new_secret() -> SecretStr:
    """A signing secret of Standard Webhooks: `whsec_` and 32 random bytes in base64."""
    return SecretStr(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())


class Vault:
    """Seals signing secrets: AES-256-GCM under a key derived (HKDF-SHA256) from the control key.

    A sealed secret is one version byte, 8 bytes that name the key, a random nonce of 12, the ciphertext. It opens only
    for the endpoint it was sealed for, so a row copied to another endpoint is useless."""

    _VERSION = b"\x01"

    def __init__(self, control_key: bytes) -> None:
        """`control_key`: at least 32 bytes."""
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tallygate webhook secrets v1").derive(control_key)
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"tallygate key id\x00" + key).digest()[:8]

    def seal(self, endpoint_id: str, secret: SecretStr) -> bytes:
        """The secret as it is stored."""
        nonce = secrets.token_bytes(12)
        head = self._VERSION + self.key_id
        sealed = self._cipher.encrypt(nonce, secret.get_secret_value().encode(), head + endpoint_id.encode())
        return head + nonce + sealed

    def open(self, endpoint_id: str, sealed: bytes) -> SecretStr:
        """The secret. Raises `SecretUnreadable`, which shows key ids and the endpoint, nothing else."""
        head, nonce, ciphertext = sealed[:9], sealed[9:21], sealed[21:]
        if head != self._VERSION + self.key_id:
            raise SecretUnreadable(
                f"the secret of {endpoint_id} was sealed under key {head[1:].hex()}, this process has {self.key_id.hex()}: "
                "restore the control key, or rotate the endpoint's secret"
            )
        try:
            return SecretStr(self._cipher.decrypt(nonce, ciphertext, head + endpoint_id.encode()).decode())
        except (InvalidTag, ValueError):
            raise SecretUnreadable(f"the secret of {endpoint_id} is damaged: rotate it") from None

    def __repr__(self) -> str:
        return f"Vault(key_id={self.key_id.hex()})"


class PostgresEndpoints:
    """The endpoints of a deployment. One connection, opened anew after it was lost.

    `account` given to a method confines it to that account: what belongs to another is as if it were not there. Any
    method may raise `StoreUnavailable` or `StoreRefused`; a change that raised the first may have taken effect."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        control_key: bytes,
        *,
        allow_loopback: bool = False,
        resolver: AbstractResolver | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """`resolver` None asks the operating system; `timeout_s` bounds a statement, a connection, a name look-up."""
        settings = session_settings(schema, timeout_s, timeout_s, "endpoints")
        self._session = Session(dsn, settings, timeout_s, timeout_s)
        self._vault = Vault(control_key)
        self._allow_loopback = allow_loopback
        self._timeout_s = timeout_s
        self._resolver = resolver or SpareThreadsResolver()

    async def start(self) -> None:
        await self._session.start()

    async def stop(self) -> None:
        await self._session.stop()
        await self._resolver.close()

    # ----------------------------------------------------------------------------------------------------- management

    async def create(self, url: str, account: str | None, rules: list[str] | None) -> tuple[Endpoint, SecretStr]:
        """A new endpoint and its secret, which is shown this once. Raises `EndpointRefused`.

        The URL must be https on port 443 or 8443, and every address of its name public; a deployment under development
        may allow loopback. `account` None: told of all accounts; `rules` None: of all rules."""
        _check_name("account", account)
        rules = _checked_rules(rules)
        await self._vet(url)
        endpoint_id = "we_" + secrets.token_hex(10)
        secret = new_secret()
        sealed = self._vault.seal(endpoint_id, secret)

        async def add(connection: Any) -> Endpoint:
            change = await connection.fetchval(_QUERIES["raise_change"])
            await _leave_room(connection, account)
            row = await connection.fetchrow(_QUERIES["add_endpoint"], endpoint_id, account, url, rules, sealed, change)
            return _endpoint(row)

        return await self._transaction(add), secret

    async def endpoints(self, account: str | None = None, cursor: str | None = None, limit: int = 50) -> EndpointPage:
        """A page of endpoints: those of one account, or all. `limit` is 1 to 200; a `cursor` comes from a page."""
        limit = _checked_limit(limit)
        rows = await self._fetch("list_endpoints", account, _checked_id_cursor(cursor), limit + 1)
        found = [_endpoint(row) for row in rows]
        return EndpointPage(found[:limit], found[limit - 1].endpoint_id if len(found) > limit else None)

    async def get(self, endpoint_id: str, account: str | None = None) -> Endpoint:
        """Raises `EndpointUnknown`."""
        return _endpoint(_found(endpoint_id, await self._fetch("get_endpoint", endpoint_id, account)))

    async def disable(self, endpoint_id: str, account: str | None = None, reason: str = "by request") -> Endpoint:
        """It is told of nothing more, from about a second later. Raises `EndpointUnknown`."""
        return await self._change("disable_endpoint", endpoint_id, account, reason[:REASON_CHARACTERS_MAX])

    async def enable(self, endpoint_id: str, account: str | None = None) -> Endpoint:
        """It is told again; its URL is vetted anew. Raises `EndpointUnknown`, `EndpointRefused`."""
        await self._vet((await self.get(endpoint_id, account)).url)

        async def enable(connection: Any) -> Endpoint:
            change = await connection.fetchval(_QUERIES["raise_change"])
            before = _endpoint(
                _found(endpoint_id, await connection.fetch(_QUERIES["get_endpoint"], endpoint_id, account))
            )
            if before.disabled_us is not None:
                await _leave_room(connection, before.account)
            return _endpoint(await connection.fetchrow(_QUERIES["enable_endpoint"], endpoint_id, account, change))

        return await self._transaction(enable)

    async def rotate_secret(self, endpoint_id: str, account: str | None = None) -> tuple[Endpoint, SecretStr]:
        """A new secret, shown this once. For 24 hours messages are signed with both, the new one first.

        A second rotation within that time ends the oldest one. Raises `EndpointUnknown`."""
        secret = new_secret()
        sealed = self._vault.seal(endpoint_id, secret)
        return await self._change("rotate_secret", endpoint_id, account, sealed, float(ROTATION_S)), secret

    # --------------------------------------------------------------------------------------------------- for delivery

    async def listener(self, endpoint_id: str, account: str | None = None) -> Listener:
        """An endpoint with its secrets, disabled ones too. Raises `EndpointUnknown`, `SecretUnreadable`."""
        return self._listener(_found(endpoint_id, await self._fetch("get_listener", endpoint_id, account)))

    async def changes(self, after: int) -> Changes:
        """What has changed since an earlier answer's `number`; 0 asks for every enabled endpoint."""
        opened: list[Listener] = []
        closed: dict[str, str] = {}
        number = after
        for row in await self._fetch("changed_listeners", after):
            number = row["change"]
            try:
                opened.append(self._listener(row))
            except SecretUnreadable as error:
                closed[row["endpoint_id"]] = str(error)
        return Changes(number=number, listeners=opened, unreadable=closed)

    async def record(self, deliveries: Sequence[EndpointDelivery]) -> None:
        """Add what came of some attempts."""
        if not deliveries:
            return
        columns = [
            [each.alert_id for each in deliveries],
            [each.endpoint_id for each in deliveries],
            [each.account for each in deliveries],
            [each.cause for each in deliveries],
            [each.attempt for each in deliveries],
            [_EPOCH + timedelta(microseconds=each.at_us) for each in deliveries],
            [each.delivered for each in deliveries],
            [each.status for each in deliveries],
            [each.error for each in deliveries],
            [each.duration_ms for each in deliveries],
        ]

        async def add(connection: Any) -> None:
            await connection.execute(_QUERIES["add_deliveries"], *columns)

        await self._transaction(add)

    async def forget_old(self) -> int:
        """Delete some of the deliveries older than 30 days; how many."""

        async def forget(connection: Any) -> int:
            tag = await connection.execute(_QUERIES["forget_deliveries"], RETENTION_DAYS, FORGET_ROWS_MAX)
            return int(tag.split()[-1])

        return await self._transaction(forget)

    async def deliveries(
        self,
        *,
        endpoint_id: str | None = None,
        account: str | None = None,
        alert_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> DeliveryPage:
        """A page of attempts of the last 30 days, the newest first, narrowed by whatever is given."""
        limit = _checked_limit(limit)
        before = _checked_number_cursor(cursor)
        rows = await self._fetch("list_deliveries", endpoint_id, account, alert_id, before, limit + 1)
        found = [_delivery(row) for row in rows]
        return DeliveryPage(found[:limit], str(found[limit - 1].delivery_id) if len(found) > limit else None)

    async def alert(self, alert_id: str, account: str | None = None) -> AlertRow:
        """An alert as a checkpoint stored it. Raises `AlertUnknown`."""
        rows = await self._fetch("get_alert", alert_id, account)
        if not rows:
            raise AlertUnknown(f"there is no alert {alert_id!r}")
        return AlertRow(*rows[0].values())

    # -------------------------------------------------------------------------------------------------------- inwards

    async def _vet(self, url: str) -> None:
        try:
            egress = check_url(url, allow_loopback=self._allow_loopback)
            if not egress.literal:
                async with asyncio.timeout(self._timeout_s):
                    await GuardedResolver(egress, self._resolver).resolve(egress.host, egress.port, socket.AF_UNSPEC)
        except EgressRefused as error:
            raise EndpointRefused("url", str(error)) from error
        except (OSError, UnicodeError, TimeoutError) as error:
            raise EndpointRefused(
                "url", "the receiver's name did not resolve; check it, or try again once it is in the DNS"
            ) from error

    def _listener(self, row: Any) -> Listener:
        endpoint = _endpoint(row)
        previous = row["previous_secret"]
        return Listener(
            endpoint=endpoint,
            secret=self._vault.open(endpoint.endpoint_id, row["secret"]),
            previous=None if previous is None else self._open_previous(endpoint.endpoint_id, previous),
        )

    def _open_previous(self, endpoint_id: str, sealed: bytes) -> SecretStr | None:
        """None after the control key was changed: rotating the secret is how one recovers from that."""
        try:
            return self._vault.open(endpoint_id, sealed)
        except SecretUnreadable:
            return None

    async def _change(self, query: str, endpoint_id: str, account: str | None, *arguments: Any) -> Endpoint:
        async def change(connection: Any) -> Endpoint:
            number = await connection.fetchval(_QUERIES["raise_change"])
            rows = await connection.fetch(_QUERIES[query], endpoint_id, account, number, *arguments)
            return _endpoint(_found(endpoint_id, rows))

        return await self._transaction(change)

    async def _fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        async def fetch(connection: Any) -> Sequence[Any]:
            rows: Sequence[Any] = await connection.fetch(_QUERIES[query], *arguments)
            return rows

        return await self._transaction(fetch)

    async def _transaction(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        try:
            return await self._session.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(f"{error}; look whether it took effect before trying again") from error


async def _leave_room(connection: Any, account: str | None) -> None:
    row = await connection.fetchrow(_QUERIES["count_endpoints"], account)
    if row["here"] >= ACCOUNT_ENDPOINTS_MAX:
        raise EndpointRefused(
            "account", f"has {row['here']} enabled endpoints, the most there may be: disable one first"
        )
    if row["everywhere"] >= ENDPOINTS_MAX:
        raise EndpointRefused("url", f"the deployment has {ENDPOINTS_MAX} enabled endpoints, the most there may be")


def _check_name(field: str, name: str | None) -> None:
    if name is not None and not (0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()):
        raise EndpointRefused(field, f"must be 1 to {NAME_CHARACTERS_MAX} printable characters")


def _checked_rules(rules: Sequence[str] | None) -> list[str] | None:
    if rules is None:
        return None
    if not 0 < len(rules) <= RULES_MAX:
        raise EndpointRefused("rules", f"must name 1 to {RULES_MAX} rules; leave it out to be told of all")
    for rule in rules:
        _check_name("rules", rule)
    return sorted(set(rules))


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= PAGE_MAX:
        raise EndpointRefused("limit", f"must be 1 to {PAGE_MAX}")
    return limit


def _checked_id_cursor(cursor: str | None) -> str:
    if cursor is not None and not _ID.match(cursor):
        raise EndpointRefused("cursor", "is not one of a page of endpoints")
    return cursor or ""


def _checked_number_cursor(cursor: str | None) -> int:
    if cursor is None:
        return _BIGINT_MAX
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise EndpointRefused("cursor", "is not one of a page of deliveries")
    return int(cursor)


def _found(endpoint_id: str, rows: Sequence[Any]) -> Any:
    if not rows:
        raise EndpointUnknown(f"there is no endpoint {endpoint_id!r}")
    return rows[0]


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        endpoint_id=row["endpoint_id"],
        account=row["account"],
        url=row["url"],
        rules=None if row["rules"] is None else [*row["rules"]],
        created_us=_us(row["created_at"]),
        previous_until_us=None if row["previous_until"] is None else _us(row["previous_until"]),
        disabled_us=None if row["disabled_at"] is None else _us(row["disabled_at"]),
        disabled_reason=row["disabled_reason"],
    )


def _delivery(row: Any) -> EndpointDelivery:
    return EndpointDelivery(
        alert_id=row["alert_id"],
        endpoint_id=row["endpoint_id"],
        account=row["account"],
        cause=row["cause"],
        attempt=row["attempt"],
        at_us=_us(row["at"]),
        delivered=row["delivered"],
        status=row["status"],
        error=row["error"],
        duration_ms=row["duration_ms"],
        delivery_id=row["delivery_id"],
    )


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
