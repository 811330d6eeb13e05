"""Lists and single rows for the HTTP API, from Postgres: what the last checkpoints hold, at most seconds old.

A few read-only sessions with short statement timeouts, so that no list can take the database away from checkpoints.
Every list is read in pages: `cursor` is opaque, says where a page ended, and stays valid whatever is written meanwhile.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from actors.margin_store import BucketSum, bucket_sums, margin_of_run, margin_sums
from actors.ports import CommitUnknown, StoreUnavailable
from actors.postgres import Session, pico_of, session_settings
from actors.queries import read_queries
from engine.cost.margin import By, Key, Margin
from engine.events import VALUE_BYTES_MAX
from engine.money import amount_text
from engine.placement import partition_for
from engine.snapshot import decode_partition

SESSIONS: Final = 3
STATEMENT_S: Final = 2.0
PAGE_MAX: Final = 200
LETTERS_LOOKED_AT: Final = 1_000  # of a partition; a record is read whole for it
LETTERS_FOUND_MAX: Final = 20
CURSOR_CHARACTERS_MAX: Final = 512

_CURSOR_VERSION: Final = 1
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "records.sql").read_text(encoding="utf-8"))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BIGINT_MAX: Final = 2**63 - 1
_INTEGER_MAX: Final = 2**31 - 1
_INSTANT_MAX: Final = 2**57  # microseconds; far beyond any row, and Postgres can still hold it

Big = Annotated[int, Meta(ge=0, le=_BIGINT_MAX)]
Integer = Annotated[int, Meta(ge=0, le=_INTEGER_MAX)]
Instant = Annotated[int, Meta(ge=0, le=_INSTANT_MAX)]
Text = Annotated[str, Meta(max_length=256)]
Result = TypeVar("Result")


class BadCursor(ValueError):
    """The text is no cursor of this list."""


class CustomerRow(Struct, frozen=True):
    """An account as its partition's last checkpoint has it; money as decimal text."""

    partition: int
    account: str
    currency: str
    balance: str
    spend: str  # of the newest calendar month with usage


class PostingRow(Struct, frozen=True):
    """One line of the ledger."""

    partition: int
    ckpt_seq: int
    line: int
    lot: str  # "" for debt
    lot_kind: str
    kind: str
    usage_period_us: int | None
    posting_period_us: int
    amount: str


class CommandRecord(Struct, frozen=True):
    """A command and its answer."""

    partition: int
    offset: int
    log_time_us: int
    command_key: str
    kind: str
    body: bytes  # JSON
    answer: str


class AlertRecord(Struct, frozen=True):
    """An alert, and how far the telling of it has come."""

    alert_id: str
    offset: int
    body: bytes  # JSON, as it is sent
    created_us: int
    attempts: int
    delivered_us: int | None
    given_up_us: int | None
    error: str


class DeadLetterRecord(Struct, frozen=True):
    """A record that was not rated."""

    partition: int
    offset: int
    log_time_us: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    recorded_us: int


class CatalogueRow(Struct, frozen=True):
    """A published version. `effective_us` None: no checkpoint has seen its marker yet; 0: for all time."""

    version: int
    sha256: str
    published_us: int
    effective_us: int | None
    body: bytes | None = None  # JSON; not in lists


def write_cursor(kind: str, *parts: int | str) -> str:
    """The opaque text for a place in the list `kind`."""
    packed = msgspec.msgpack.encode([_CURSOR_VERSION, kind, *parts])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_cursor(kind: str, text: str | None, place: Any, start: Sequence[Any]) -> Sequence[Any]:
    """The place in the list `kind`, whose parts are of the types of the tuple `place`; `start` without a cursor.

    Raises BadCursor."""
    if text is None:
        return start
    if len(text) > CURSOR_CHARACTERS_MAX or "=" in text:
        raise BadCursor("it was not made here")
    try:
        packed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, of, *parts = msgspec.msgpack.decode(packed, type=list[int | str])
        found: Sequence[Any] = msgspec.convert(parts, place)
    except (binascii.Error, UnicodeError, ValueError, msgspec.MsgspecError) as error:
        raise BadCursor("it is no cursor") from error
    if version != _CURSOR_VERSION or of != kind or any("\x00" in part for part in found if isinstance(part, str)):
        raise BadCursor("it is no cursor of this list")
    return found


class Records:
    """Reads. Any method may raise `StoreUnavailable` or `StoreRefused`, those with a cursor `BadCursor`.

    A page is (its rows, the cursor of the next one or None); `limit` is 1 to 200."""

    def __init__(self, dsn: str, schema: str, partitions: int, *, sessions: int = SESSIONS) -> None:
        self._partitions = partitions
        settings = session_settings(schema, STATEMENT_S, STATEMENT_S, "records")
        settings["default_transaction_read_only"] = "on"
        self._sessions = [Session(dsn, settings, STATEMENT_S, STATEMENT_S) for _ in range(sessions)]
        self._idle: asyncio.Queue[Session] = asyncio.Queue()

    async def start(self) -> None:
        """Connect. Raises `StoreUnavailable` or `StoreRefused`."""
        self._idle = asyncio.Queue()
        try:
            for session in self._sessions:
                await session.start()
                self._idle.put_nowait(session)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        for session in self._sessions:
            await session.stop()

    # -------------------------------------------------------------------------------------------------------- accounts

    async def customers(self, limit: int, cursor: str | None = None) -> tuple[list[CustomerRow], str | None]:
        """Every account, in no order that means anything."""
        place = read_cursor("customers", cursor, tuple[Integer, Text], (-1, ""))
        rows = [_customer(row) for row in await self._rows("list_accounts", *place, limit + 1)]
        return _paged(rows, limit, lambda row: write_cursor("customers", row.partition, row.account))

    async def customer(self, account: str) -> CustomerRow | None:
        """One account, if a checkpoint has it already."""
        rows = await self._rows("get_account", partition_for(account.encode(), self._partitions), account)
        return _customer(rows[0]) if rows else None

    async def ledger(self, account: str, limit: int, cursor: str | None = None) -> tuple[list[PostingRow], str | None]:
        """Postings of an account, newest first."""
        place = read_cursor("ledger", cursor, tuple[Big, Integer], (_BIGINT_MAX, _INTEGER_MAX))
        rows = [
            PostingRow(
                row["partition"],
                row["ckpt_seq"],
                row["line"],
                row["lot"],
                row["lot_kind"],
                row["kind"],
                row["usage_period_us"],
                row["posting_period_us"],
                amount_text(pico_of(row["amount"])),
            )
            for row in await self._rows("list_postings", account, *place, limit + 1)
        ]
        return _paged(rows, limit, lambda row: write_cursor("ledger", row.ckpt_seq, row.line))

    async def commands(
        self, account: str, limit: int, cursor: str | None = None
    ) -> tuple[list[CommandRecord], str | None]:
        """Commands of an account with their answers, newest first."""
        place = read_cursor("commands", cursor, tuple[Big], (_BIGINT_MAX,))
        rows = [CommandRecord(*row.values()) for row in await self._rows("list_commands", account, *place, limit + 1)]
        return _paged(rows, limit, lambda row: write_cursor("commands", row.offset))

    async def alerts(self, account: str, limit: int, cursor: str | None = None) -> tuple[list[AlertRecord], str | None]:
        """Alerts of an account, newest first."""
        place = read_cursor("alerts", cursor, tuple[Big, Text], (_BIGINT_MAX, ""))
        rows = [
            AlertRecord(
                row["alert_id"],
                row["log_offset"],
                row["body"],
                _us(row["created_at"]),
                row["attempts"],
                _us_or_none(row["delivered_at"]),
                _us_or_none(row["given_up_at"]),
                row["error"],
            )
            for row in await self._rows("list_alerts", account, *place, limit + 1)
        ]
        return _paged(rows, limit, lambda row: write_cursor("alerts", row.offset, row.alert_id))

    # ---------------------------------------------------------------------------------------------------- dead letters

    async def dead_letters(
        self, limit: int, cursor: str | None = None, *, reason: str | None = None, partition: int | None = None
    ) -> tuple[list[DeadLetterRecord], str | None]:
        """Dead letters, newest first."""
        start = (_INSTANT_MAX, _INTEGER_MAX, _BIGINT_MAX)
        recorded_us, *place = read_cursor("dead-letters", cursor, tuple[Instant, Integer, Big], start)
        arguments = [_EPOCH + timedelta(microseconds=recorded_us), *place, partition, limit + 1]
        if reason is None:
            found = await self._rows("page_dead_letters", *arguments)
        else:
            found = await self._rows("page_dead_letters_of_reason", *arguments, reason)
        rows = [_dead_letter(row) for row in found]
        return _paged(rows, limit, lambda row: write_cursor("dead-letters", row.recorded_us, row.partition, row.offset))

    async def dead_letter(self, partition: int, offset: int) -> DeadLetterRecord | None:
        """The dead letter of this place in the log, if there is one."""
        if not (0 <= partition <= _INTEGER_MAX and 0 <= offset <= _BIGINT_MAX):
            return None
        rows = await self._rows("get_dead_letter", partition, offset)
        return _dead_letter(rows[0]) if rows else None

    async def dead_letters_holding(self, partition: int, part: bytes) -> list[DeadLetterRecord]:
        """Of the newest thousand of a partition, those whose record has these bytes in its value, and no more bytes than
        a usage event may have; 20 at most."""
        arguments = (partition, part, LETTERS_LOOKED_AT, LETTERS_FOUND_MAX, VALUE_BYTES_MAX)
        rows = await self._rows("find_dead_letters", *arguments)
        return [_dead_letter(row) for row in rows]

    # ------------------------------------------------------------------------------------------------------ catalogues

    async def catalogues(self, limit: int, cursor: str | None = None) -> tuple[list[CatalogueRow], str | None]:
        """Published versions, newest first, without their bodies."""
        place = read_cursor("catalogues", cursor, tuple[Big], (_BIGINT_MAX,))
        instants = await self.instants()
        rows = [_catalogue(row, instants) for row in await self._rows("list_catalogues", *place, limit + 1)]
        return _paged(rows, limit, lambda row: write_cursor("catalogues", row.version))

    async def catalogue(self, version: int) -> CatalogueRow | None:
        """One version with its body."""
        if not 0 < version <= _BIGINT_MAX:
            return None
        rows = await self._rows("get_catalogue", version)
        return _catalogue(rows[0], await self.instants(), rows[0]["body"]) if rows else None

    async def catalogue_at(self, instant_us: int) -> CatalogueRow | None:
        """The version in force at an instant, as the checkpoints know it."""
        instants = await self.instants()
        in_force = [version for version, effective_us in instants.items() if effective_us <= instant_us]
        return await self.catalogue(max(in_force)) if in_force else None

    async def instants(self) -> dict[int, int]:
        """From when each version is in force, by version, as far as checkpoints have seen the markers."""
        found: dict[int, int] = {}
        for row in await self._rows("partition_states"):
            # The first version is in force for all time, whatever its marker says.
            found |= dict(decode_partition(row["blob"]).catalogues)
        return {version: 0 if version == min(found) else instant for version, instant in found.items()}

    # ---------------------------------------------------------------------------------------------------------- margin

    async def margins(
        self,
        from_us: int,
        until_us: int,
        by: Sequence[By],
        account: str | None,
        limit: int,
        *,
        by_day: bool = False,
    ) -> list[tuple[Key, Margin]]:
        """What requests earned beside what they cost, of hours that begin in [from_us, until_us)."""
        return await self._read(
            lambda connection: margin_sums(connection, from_us, until_us, by, account, limit, by_day=by_day)
        )

    async def margin_of_run(self, account: str, run: str) -> list[tuple[Key, Margin]]:
        """What a run of the account was charged and cost, in all hours, by currency. Empty: nobody has told of it."""
        return await self._read(lambda connection: margin_of_run(connection, account, run))

    async def gpu_buckets(self, from_us: int, until_us: int) -> list[BucketSum]:
        """Where the cost of all GPUs went in those hours."""
        return await self._read(lambda connection: bucket_sums(connection, from_us, until_us))

    # -------------------------------------------------------------------------------------------------------- inwards

    async def _rows(self, query: str, *arguments: Any) -> list[Any]:
        async def fetch(connection: Any) -> list[Any]:
            return list(await connection.fetch(_QUERIES[query], *arguments))

        return await self._read(fetch)

    async def _read(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        try:
            session = await asyncio.wait_for(self._idle.get(), STATEMENT_S)
        except TimeoutError as error:
            raise StoreUnavailable("all sessions for reading are busy") from error
        try:
            return await session.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error
        finally:
            with suppress(asyncio.QueueFull):
                self._idle.put_nowait(session)


def _paged(rows: list[Result], limit: int, cursor: Callable[[Result], str]) -> tuple[list[Result], str | None]:
    """`rows` holds one more than the page when there is a next one."""
    return rows[:limit], cursor(rows[limit - 1]) if len(rows) > limit else None


def _customer(row: Any) -> CustomerRow:
    return CustomerRow(
        row["partition"],
        row["account"],
        row["currency"],
        amount_text(pico_of(row["balance"])),
        amount_text(pico_of(row["spend"])),
    )


def _dead_letter(row: Any) -> DeadLetterRecord:
    return DeadLetterRecord(
        row["partition"],
        row["log_offset"],
        row["log_time_us"],
        row["reason"],
        row["detail"],
        row["key"],
        row["value"],
        _us(row["recorded_at"]),
    )


def _catalogue(row: Any, instants: dict[int, int], body: bytes | None = None) -> CatalogueRow:
    version = row["version"]
    return CatalogueRow(version, row["sha256"].hex(), _us(row["published_at"]), instants.get(version), body)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _us_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else _us(moment)
