"""API keys: who may call, for what, and for which account.

A key is `tg_<environment>_<public id>_<secret>_<crc>`. The checksum is tested before anything is looked up, so that a
mistyped key costs nothing; the secret has 256 random bits and is kept as its SHA-256 only.

Each replica verifies from memory (`Keys`), which follows the table by its change counter every 0.3 s. Memory older than
a second is not trusted: then every request asks Postgres, and is refused when that is away too. So a revoked key is dead
everywhere after a second.
"""

import asyncio
import binascii
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from actors.ports import Clock, CommitUnknown, StoreRefused, StoreUnavailable
from actors.postgres import Session, session_settings
from actors.queries import read_queries

REFRESH_EVERY_S: Final = 0.3
TRUSTED_FOR_S: Final = 1.0  # how old the memory may be; also how long a revocation may take
STATEMENT_S: Final = 1.0
KEYS_MAX: Final = 10_000  # live ones of a deployment: every replica holds them all
NAME_CHARACTERS_MAX: Final = 128

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_CHARACTERS: Final = 12
_SECRET_CHARACTERS: Final = 43  # 62^43 > 2^256
_FORMAT: Final = re.compile(r"tg_[a-z0-9]{1,12}_([0-9a-z]{12})_([0-9A-Za-z]{43})_([0-9a-f]{8})\Z")
_ENVIRONMENT: Final = re.compile(r"[a-z0-9]{1,12}\Z")
_NOBODY: Final = bytes(32)  # compared with when there is no such key: as long an answer as a wrong secret
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "keys.sql").read_text(encoding="utf-8"))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class KeyScope(StrEnum):
    """What a key may do. None implies another: a key has a set of them."""

    INGEST = "ingest"  # send usage events
    CHECK = "check"  # ask before spending, and settle holds
    READ = "read"  # see accounts, alerts, charges, metrics
    CREDIT = "credit"  # grant credit
    ADMIN = "admin"  # accounts, limits, prices, keys, webhook endpoints


class Key(Struct, frozen=True):
    """A key as the rest of the program sees it: without its secret. Times are microseconds since 1970 UTC."""

    public_id: str
    name: str
    scopes: frozenset[KeyScope]
    account: str | None = None  # the only account it may touch; None: all
    expires_us: int | None = None


class KeyRecord(Struct, frozen=True):
    """A key with its history, for people."""

    key: Key
    created_us: int
    created_by: str
    revoked_us: int | None


class KeysUnavailable(Exception):
    """Whether a key is valid cannot be known now: the memory is too old, and Postgres is away."""


class KeyRefused(ValueError):
    """A key that is not made. `field` names what must change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class KeyUnknown(LookupError):
    """There is no such key."""


class _Held(Struct, frozen=True):
    digest: bytes
    key: Key


def new_key_text(environment: str, public_id: str, secret: str) -> str:
    """What the user is given, once."""
    body = f"tg_{environment}_{public_id}_{secret}"
    return f"{body}_{binascii.crc32(body.encode()):08x}"


def read_key_text(text: str) -> tuple[str, bytes] | None:
    """(public id, SHA-256 of the secret) of a well-formed key; None when it is none, or mistyped."""
    match = _FORMAT.match(text)
    if match is None or binascii.crc32(text[:-9].encode()) != int(match[3], 16):
        return None
    return match[1], hashlib.sha256(match[2].encode()).digest()


class Keys:
    """The keys of a deployment, as one replica (or the command line) sees them."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        clock: Clock,
        *,
        environment: str = "live",
        refresh_every_s: float = REFRESH_EVERY_S,
        trusted_for_s: float = TRUSTED_FOR_S,
    ) -> None:
        if not _ENVIRONMENT.match(environment):
            raise ValueError(f"environment {environment!r}: use 1 to 12 of a-z and 0-9")
        self._clock = clock
        self._environment = environment
        self._refresh_every_s = refresh_every_s
        self._trusted_for_s = trusted_for_s
        # Two connections: a request that has to ask Postgres itself must not queue behind a refresh that hangs.
        self._following = _session(dsn, schema, "keys")
        self._asking = _session(dsn, schema, "keys, direct")
        self._held: Mapping[str, _Held] = {}
        self._counter: int | None = None
        self._as_of_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the keys and follow them from then on. Raises StoreUnavailable or StoreRefused."""
        await self._following.start()
        try:
            await self._asking.start()
            await self._refresh()
        except BaseException:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._following.stop()
        await self._asking.stop()

    # ------------------------------------------------------------------------------------------------------ verifying

    @property
    def fresh(self) -> bool:
        """Whether the memory is young enough to be trusted."""
        return self._clock.boot_s() - self._as_of_s <= self._trusted_for_s

    async def verify(self, text: str) -> Key | None:
        """The key with this text, if it may be used now. Raises KeysUnavailable."""
        stated = read_key_text(text)
        if stated is None:
            return None
        public_id, digest = stated
        held = self._held.get(public_id) if self.fresh else await self._asked(public_id)
        same = hmac.compare_digest(digest, _NOBODY if held is None else held.digest)
        return held.key if held is not None and same and self._unexpired(held.key) else None

    async def usable(self, public_id: str) -> bool:
        """Whether a key that was verified before may still be used: for answers that go on. Raises KeysUnavailable."""
        held = self._held.get(public_id) if self.fresh else await self._asked(public_id)
        return held is not None and self._unexpired(held.key)

    def _unexpired(self, key: Key) -> bool:
        return key.expires_us is None or self._clock.wall_us() < key.expires_us

    async def _asked(self, public_id: str) -> _Held | None:
        async def look(connection: Any) -> Any:
            return await connection.fetchrow(_QUERIES["live_key"], public_id)

        try:
            async with asyncio.timeout(self._trusted_for_s):
                row = await _run(self._asking, look)
        except (StoreUnavailable, StoreRefused, TimeoutError) as error:
            raise KeysUnavailable(type(error).__name__) from error
        return None if row is None else _held_of(row)

    async def _follow(self) -> None:
        told = False
        while True:
            await self._clock.sleep(self._refresh_every_s)
            try:
                async with asyncio.timeout(STATEMENT_S + self._trusted_for_s):
                    await self._refresh()
                told = False
            except (StoreUnavailable, StoreRefused, TimeoutError) as error:
                if not told:
                    logger.warning("keys cannot be refreshed (%s): requests ask Postgres itself", type(error).__name__)
                told = True

    async def _refresh(self) -> None:
        asked_s = self._clock.boot_s()

        async def look(connection: Any) -> tuple[int, Iterable[Any] | None]:
            counter = await connection.fetchval(_QUERIES["key_counter"])
            return counter, None if counter == self._counter else await connection.fetch(_QUERIES["live_keys"])

        counter, rows = await _run(self._following, look)
        if rows is not None:
            self._held = {row["public_id"]: _held_of(row) for row in rows}
            self._counter = counter
        self._as_of_s = asked_s

    # ------------------------------------------------------------------------------------------------------- changing

    async def create(
        self,
        name: str,
        scopes: Iterable[KeyScope],
        account: str | None = None,
        expires_us: int | None = None,
        *,
        created_by: str,
    ) -> tuple[Key, str]:
        """Make a key; (the key, its text), which is shown this once and kept nowhere.

        Raises KeyRefused, StoreUnavailable, StoreRefused."""
        if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
            raise KeyRefused("name", f"has 1 to {NAME_CHARACTERS_MAX} printable characters")
        wanted = frozenset(scopes)
        if not wanted:
            raise KeyRefused("scopes", f"names at least one of {', '.join(KeyScope)}")
        if account is not None and (not 0 < len(account.encode()) <= 256 or not account.isprintable()):
            raise KeyRefused("account", "has 1 to 256 bytes of printable characters")
        if expires_us is not None and not self._clock.wall_us() < expires_us < 2**52:
            raise KeyRefused("expires", "lies in the future, before the year 2112")
        public_id = _random(_ID_ALPHABET, _ID_CHARACTERS)
        secret = _random(_ALPHABET, _SECRET_CHARACTERS)
        key = Key(public_id, name, wanted, account, expires_us)
        digest = hashlib.sha256(secret.encode()).digest()

        async def insert(connection: Any) -> None:
            await connection.execute(_QUERIES["count_key_change"])
            if await connection.fetchval(_QUERIES["count_live_keys"]) >= KEYS_MAX:
                raise KeyRefused("name", f"there are {KEYS_MAX} live keys: revoke some first")
            row = (public_id, name, digest, sorted(wanted), account, created_by, _instant(expires_us))
            await connection.execute(_QUERIES["insert_key"], *row)

        await _run(self._asking, insert)
        return key, new_key_text(self._environment, public_id, secret)

    async def revoke(self, public_id: str) -> None:
        """End a key for good; again changes nothing. Raises KeyUnknown, StoreUnavailable, StoreRefused."""

        async def end(connection: Any) -> None:
            await connection.execute(_QUERIES["count_key_change"])
            if await connection.fetchval(_QUERIES["revoke_key"], public_id) is None:
                raise KeyUnknown(public_id)

        await _run(self._asking, end)

    async def page(self, limit: int, after: tuple[int, str] | None = None) -> list[KeyRecord]:
        """Keys, newest first, revoked ones too; `after` is (created_us, public_id) of the last one seen."""
        created, public_id = (None, "") if after is None else (_instant(after[0]), after[1])

        async def look(connection: Any) -> Any:
            return await connection.fetch(_QUERIES["list_keys"], created, public_id, limit)

        return [
            KeyRecord(_key_of(row), _us(row["created_at"]), row["created_by"], _us_or_none(row["revoked_at"]))
            for row in await _run(self._asking, look)
        ]


def _session(dsn: str, schema: str, name: str) -> Session:
    return Session(dsn, session_settings(schema, STATEMENT_S, STATEMENT_S, name), STATEMENT_S, STATEMENT_S)


async def _run(session: Session, work: Callable[[Any], Awaitable[Result]]) -> Result:
    try:
        return await session.transaction(work)
    except CommitUnknown as error:
        # Made again, a revocation changes nothing; a key whose text nobody was given is of no use to anybody.
        raise StoreUnavailable(str(error)) from error


def _random(alphabet: str, characters: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(characters))


def _held_of(row: Any) -> _Held:
    return _Held(bytes(row["digest"]), _key_of(row))


def _key_of(row: Any) -> Key:
    # A scope that only a newer version knows gives no right here.
    scopes = frozenset(KeyScope(scope) for scope in row["scopes"] if scope in KeyScope._value2member_map_)
    return Key(row["public_id"], row["name"], scopes, row["account"], _us_or_none(row["expires_at"]))


def _instant(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _us_or_none(instant: datetime | None) -> int | None:
    return None if instant is None else _us(instant)
