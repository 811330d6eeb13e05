"""Checkpoints in Postgres: the real `Store`. Only this file, membership and migrations speak to the database.

One connection commits. Its transactions are spelled out (BEGIN, work, COMMIT), because the difference between an error
before COMMIT was sent (nothing took effect) and one after it (nobody knows) is what `CommitUnknown` rests on.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, TypeVar

import asyncpg
from msgspec import Struct

from actors.ports import (
    RUN_PART_ROWS,
    AccountRow,
    AlertRow,
    CatalogueTaken,
    Checkpoint,
    Claim,
    CommandRow,
    CommitUnknown,
    DeadLetterRow,
    DedupSegment,
    Delivery,
    Fenced,
    LastRecord,
    PartitionImage,
    Place,
    PreviousOwner,
    RunHead,
    StillOwned,
    StoreRefused,
    StoreUnavailable,
)
from actors.queries import QUERIES
from engine.runs import ROW_BYTES

Result = TypeVar("Result")

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
# Exact or an error: 26 digits before the point and 12 behind it are all a money column holds.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_PICO_DIGITS = 12
# A joined segment beyond this stays as it is: what a checkpoint rewrites delays it, and sealing takes it over anyway.
_SEGMENT_BYTES_MAX = 2 * 1024 * 1024
_SWEEP_PARTS = 4  # of forgotten buckets, per checkpoint
_LETTERS_MAX = 200  # dead letters in one statement: 25 MiB of the longest; a statement takes a gigabyte at most
LATE_MAX = 1024  # reads that are late; of each partition there is hardly more than one
HURRIED_TIMEOUT_S = 5.0  # of a read that somebody asks for again and again: by then a session that was cut is noticed

_PASSING: tuple[type[BaseException], ...] = (
    OSError,  # includes TimeoutError
    EOFError,
    asyncpg.InterfaceError,  # closed, or busy with what was cut off
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,  # shutdown, restart, statement_timeout
    asyncpg.TransactionRollbackError,  # deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # an old primary after a failover
    asyncpg.InternalClientError,
)


# ------------------------------------------------------------------------------------------------------------ sessions


def translated(error: Exception) -> Exception:
    """What the port calls this error of asyncpg; the port's own errors stay as they are."""
    text = f"Postgres: {type(error).__name__}: {error}"
    if isinstance(error, _PASSING):
        return StoreUnavailable(text)
    if isinstance(error, asyncpg.PostgresError):
        return StoreRefused(text)
    return error


@contextmanager
def translation() -> Iterator[None]:
    """Errors of asyncpg leave this block as errors of the port."""
    try:
        yield
    except Exception as error:
        raise translated(error) from error


def checked_schema(schema: str) -> str:
    """The name, if it needs no quoting anywhere; else ValueError."""
    if not _SCHEMA.match(schema):
        raise ValueError(f"schema {schema!r}: use 1 to 63 of a-z, 0-9 and _, not starting with a digit")
    return schema


def session_settings(schema: str, lease_s: float, statement_timeout_s: float, name: str) -> dict[str, str]:
    """Settings of an engine session: whoever falls silent must not block its successor for longer than a lease."""
    lease_ms = str(max(1, int(lease_s * 1000)))
    return {
        "application_name": f"tallygate {name}",
        "search_path": checked_schema(schema),
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": lease_ms,
        "lock_timeout": lease_ms,
        "statement_timeout": str(int(statement_timeout_s * 1000)),
        "tcp_user_timeout": lease_ms,
        "tcp_keepalives_idle": "1",
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "3",
    }


class Session:
    """One connection, used by one task at a time, and opened anew after it was lost."""

    def __init__(
        self,
        dsn: str,
        settings: dict[str, str],
        statement_timeout_s: float,
        connect_timeout_s: float,
        opened: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        # The server gives up first, so that a client-side timeout means a silent network.
        self._command_timeout_s = statement_timeout_s + 1.0
        self._connect_timeout_s = connect_timeout_s
        self._opened = opened
        self._connection: asyncpg.Connection | None = None
        self._lock: asyncio.Lock | None = None

    async def start(self) -> None:
        """Connect. Raises `StoreUnavailable` or `StoreRefused`."""
        self.start_idle()
        async with self._exclusive():
            pass

    def start_idle(self) -> None:
        """Connect only when it is first used."""
        self._lock = asyncio.Lock()

    async def stop(self) -> None:
        """Let what is under way end, then disconnect."""
        if self._lock is None:
            return
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and not connection.is_closed():
                with suppress(Exception):
                    await connection.close(timeout=self._connect_timeout_s)
        self._lock = None

    async def transaction(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """Run `work` in one transaction. Raises `CommitUnknown` if and only if the answer to COMMIT did not come."""
        async with self._exclusive() as connection:
            try:
                with translation():
                    await connection.execute("BEGIN")
                    result = await work(connection)
                if connection.is_closed():
                    raise StoreUnavailable("Postgres: the connection was lost before COMMIT")
            except BaseException as error:
                await self._roll_back(connection, error)
                raise
            await self._commit(connection)
            return result

    async def repeatable(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """The same, of what may simply be run again, so that a lost answer to COMMIT is no case of its own. Raises
        `StoreUnavailable` then."""
        try:
            return await self.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error

    async def read(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """Run `work`, a single statement that changes nothing, without a transaction around it."""
        async with self._exclusive() as connection:
            try:
                with translation():
                    return await work(connection)
            except BaseException as error:
                if not isinstance(error, Exception) or isinstance(error.__cause__, TimeoutError):
                    connection.terminate()  # nobody waits for the end of what was cut off
                raise

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[asyncpg.Connection]:
        if self._lock is None:
            raise StoreUnavailable("Postgres: not started, or stopped")
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._open()
            yield self._connection

    async def _open(self) -> asyncpg.Connection:
        with translation():
            connection = await asyncpg.connect(
                self._dsn,
                timeout=self._connect_timeout_s,
                command_timeout=self._command_timeout_s,
                server_settings=self._settings,
            )
            try:
                if self._opened is not None:
                    await self._opened(connection)
            except BaseException:
                connection.terminate()
                raise
            return connection

    async def _roll_back(self, connection: asyncpg.Connection, error: BaseException) -> None:
        """Leave a usable connection or none. Who was cancelled or timed out does not wait: cutting rolls back too."""
        waits = isinstance(error, Exception) and not isinstance(error.__cause__, TimeoutError)
        if waits and not connection.is_closed():
            with suppress(Exception):
                await connection.execute("ROLLBACK")
                return
        connection.terminate()

    async def _commit(self, connection: asyncpg.Connection) -> None:
        try:
            tag = await connection.execute("COMMIT")
        except BaseException as error:
            connection.terminate()
            if isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", "") == "ERROR":
                raise translated(error) from error
            if isinstance(error, Exception):
                raise CommitUnknown(f"Postgres: {type(error).__name__}: {error}") from error
            raise
        if tag != "COMMIT":
            raise StoreUnavailable(f"Postgres answered COMMIT with {tag}: rolled back")


class Hurried:
    """Reads by those who must not stand still for long, as a rating loop, on whose showing life its lease depends.

    What takes longer goes on, and is there when the same is asked for again: so a slow read is told apart from one that
    never ends by whoever asks, and both hold up nobody. While one is that late, no other is waited for: one behind the other
    they would hold up for as long as all of them together."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._late: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, what: Hashable, begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What `begin` returns or raises. Raises `StoreUnavailable` when that takes too long."""
        task: asyncio.Task[Result] | None = self._late.pop(what, None)
        if task is None:
            task = asyncio.create_task(begin())
        waits = all(late.done() for late in self._late.values())
        try:
            await asyncio.wait({task}, timeout=self._within_s if waits else 0)
        except BaseException:
            task.cancel()
            raise
        if task.cancelled():
            raise StoreUnavailable("Postgres: stopped")
        if task.done():
            return task.result()
        task.add_done_callback(_look_at)
        self._late[what] = task
        if len(self._late) > LATE_MAX:  # of what nobody has asked for again
            self._late.pop(next(iter(self._late))).cancel()
        raise StoreUnavailable(f"Postgres: no answer to a read within {self._within_s:.1f} s; it goes on meanwhile")

    async def stop(self) -> None:
        """Break off what is late."""
        late = list(self._late.values())
        self._late.clear()
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _look_at(task: "asyncio.Task[Any]") -> None:
    """An error of what nobody asks for again is nobody's."""
    if not task.cancelled():
        task.exception()


# --------------------------------------------------------------------------------------------------------------- money


class OnSession:
    """What keeps to one session of its own. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    _session: Session

    async def start(self) -> None:
        await self._session.start()

    async def stop(self) -> None:
        await self._session.stop()


def units_of(pico: int) -> Decimal:
    """Pico-units as units of the currency, exactly."""
    return Decimal(pico).scaleb(-_PICO_DIGITS, _EXACT)


def pico_of(units: Decimal) -> int:
    """Units of the currency as pico-units, exactly."""
    return int(units.scaleb(_PICO_DIGITS, _EXACT))


def account_row(row: asyncpg.Record) -> AccountRow:
    """A row of the query `load_accounts`."""
    return AccountRow(
        row["account"], row["blob"], row["wake_us"], pico_of(row["balance"]), pico_of(row["spend"]), row["currency"]
    )


def dedup_segment(row: asyncpg.Record) -> DedupSegment:
    """A row of the query `load_dedup`."""
    return DedupSegment(*row.values())


def storable(text: str) -> str:
    """Text for people: what Postgres cannot hold (NUL, half a surrogate pair) is replaced and stops no checkpoint."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


# ----------------------------------------------------------------------------------------------------- rows for people


class PartitionStatus(Struct, frozen=True):
    """Ownership and progress of a partition, for people."""

    partition: int
    epoch: int
    ckpt_seq: int
    next_offset: int
    owner: str | None
    age_s: float  # since the row was last written


class Balance(Struct, frozen=True):
    """An account as its last checkpoint shows it; money in pico."""

    partition: int
    account: str
    balance: int
    spend: int
    currency: str


class StoredDeadLetter(Struct, frozen=True):
    """A dead letter and the partition it came from."""

    partition: int
    letter: DeadLetterRow


class OutboxCounts(Struct, frozen=True):
    """Alerts by state."""

    waiting: int
    delivered: int
    given_up: int


class _Owned(Struct, frozen=True):
    incarnation: str
    epoch: int


class _Backend(Struct, frozen=True):
    pid: int
    start: datetime


# --------------------------------------------------------------------------------------------------------------- store


class PostgresStore:
    """The `Store` port on Postgres. `lease_s` bounds how long a silent session of ours can block a successor."""

    def __init__(
        self,
        dsn: str,
        schema: str = "tallygate",
        lease_s: float = 1.2,
        statement_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        dedup_merge_at: int = 64,
        hurry_s: float | None = None,
    ) -> None:
        """`hurry_s`: how long a rating loop waits for a read; unless stated a third of the lease, so that it is renewed."""
        self._dsn = dsn
        self._schema = schema
        self._lease_s = lease_s
        self._read_timeout_s = read_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._dedup_merge_at = dedup_merge_at
        settings = session_settings(schema, lease_s, statement_timeout_s, "commit")
        self._commits = Session(dsn, settings, statement_timeout_s, connect_timeout_s, self._introduce)
        self._reads: asyncpg.Pool | None = None
        # Takeovers that load fill the pool, for as long as they take. What the rating loop asks for waits behind none.
        settings = session_settings(schema, lease_s, HURRIED_TIMEOUT_S, "rating")
        self._rating = Session(dsn, settings, HURRIED_TIMEOUT_S, connect_timeout_s)
        self._hurried = Hurried(lease_s / 3 if hurry_s is None else hurry_s)
        self._owned: dict[int, _Owned] = {}
        self._backend: _Backend | None = None

    async def start(self) -> None:
        await self._commits.start()
        try:
            with translation():
                self._reads = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,  # the pool would log a traceback for each connection it cannot restore in an outage
                    max_size=3,
                    timeout=self._connect_timeout_s,
                    command_timeout=self._read_timeout_s + 1.0,
                    server_settings=session_settings(self._schema, self._lease_s, self._read_timeout_s, "read"),
                )
        except BaseException:
            await self._commits.stop()
            raise
        self._rating.start_idle()

    async def stop(self) -> None:
        await self._hurried.stop()
        await self._rating.stop()
        reads, self._reads = self._reads, None
        if reads is not None:
            try:
                await asyncio.wait_for(reads.close(), self._connect_timeout_s)
            except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                reads.terminate()
        await self._commits.stop()

    # ------------------------------------------------------------------------------------------------------- ownership

    async def claim(self, partition: int, incarnation: str, *, patient: bool = False) -> Claim:
        claim = await self._settled(lambda connection: self._claim(connection, partition, incarnation, patient))
        self._owned[partition] = _Owned(incarnation, claim.epoch)
        return claim

    async def _claim(self, connection: asyncpg.Connection, partition: int, incarnation: str, patient: bool) -> Claim:
        if await connection.fetchval(QUERIES["assignment_names"], partition, incarnation) is None:
            raise Fenced(f"partition {partition} is not assigned to {incarnation}")
        if (
            patient
            and (owner := await connection.fetchval(QUERIES["living_owner"], partition, incarnation)) is not None
        ):
            raise StillOwned(f"partition {partition} is still in the hands of {owner}")
        old = await connection.fetchrow(QUERIES["partition_backend"], partition)
        if old is not None and old["backend_pid"] is not None:
            await self._end_backend(connection, _Backend(old["backend_pid"], old["backend_start"]))
        # Not before: even ON CONFLICT DO NOTHING waits for whoever is changing the row.
        await connection.execute(QUERIES["ensure_partition"], partition)
        row = await connection.fetchrow(QUERIES["lock_partition"], partition)
        earlier = {*row["previous_owners"], row["owner"]} - {incarnation, None}
        speaking = [
            PreviousOwner(found["incarnation"], found["host"], found["lock_path"], found["lease_left_s"])
            for found in await connection.fetch(QUERIES["speaking_members"], sorted(earlier))
            if found["lease_left_s"] > 0
        ]
        backend = self._backend
        assert backend is not None
        epoch = await connection.fetchval(
            QUERIES["claim_partition"],
            partition,
            incarnation,
            [previous.incarnation for previous in speaking],
            backend.pid,
            backend.start,
        )
        last = None
        if row["last_offset"] is not None:
            last = LastRecord(row["last_offset"], row["last_append_ms"], row["last_digest"])
        return Claim(partition, epoch, row["ckpt_seq"], row["next_offset"], last, row["blob"], speaking)

    async def settle_commit(self, partition: int, epoch: int, ckpt_seq: int) -> tuple[int, bool]:
        owned = self._owned.get(partition)
        if owned is None:
            raise Fenced(f"partition {partition} is not owned here")
        incarnation = owned.incarnation

        async def settle(connection: asyncpg.Connection) -> tuple[int, int]:
            backend = self._backend
            assert backend is not None
            # Written here too: a settlement whose own COMMIT was lost has raised the epoch behind our back, and the
            # new session could not introduce itself under the old one.
            row = await connection.fetchrow(
                QUERIES["settle_commit"], partition, epoch, incarnation, backend.pid, backend.start
            )
            if row is None:
                raise Fenced(f"partition {partition}: epoch {epoch} of {incarnation} is over")
            return row["epoch"], row["ckpt_seq"]

        new_epoch, stored_seq = await self._settled(settle, partition)
        if stored_seq not in (ckpt_seq - 1, ckpt_seq):
            self._owned.pop(partition, None)
            raise Fenced(f"partition {partition}: the store holds checkpoint {stored_seq}, ours was {ckpt_seq}")
        self._owned[partition] = _Owned(incarnation, new_epoch)
        return new_epoch, stored_seq == ckpt_seq

    async def release(self, partition: int, epoch: int) -> None:
        async def give_back(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(QUERIES["release_partition"], partition, epoch) is None:
                raise Fenced(f"partition {partition}: epoch {epoch} is over")

        await self._settled(give_back, partition)
        self._owned.pop(partition, None)

    async def _settled(
        self, work: Callable[[asyncpg.Connection], Awaitable[Result]], partition: int | None = None
    ) -> Result:
        """A transaction that may be tried again: whether its COMMIT was lost makes no difference to the caller."""
        try:
            return await self._commits.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error
        except Fenced:
            if partition is not None:
                self._owned.pop(partition, None)
            raise

    async def _introduce(self, connection: asyncpg.Connection) -> None:
        """End our own lost session, which may still hold rows, and write the new one into the partitions we own."""
        if self._backend is not None:
            await self._end_backend(connection, self._backend)
        row = await connection.fetchrow(QUERIES["own_backend"])
        self._backend = _Backend(row["pid"], row["backend_start"])
        if self._owned:
            epochs = [owned.epoch for owned in self._owned.values()]
            await connection.execute(
                QUERIES["introduce_backend"], list(self._owned), epochs, self._backend.pid, self._backend.start
            )

    async def _end_backend(self, connection: asyncpg.Connection, backend: _Backend) -> None:
        await connection.execute(QUERIES["end_backend"], backend.pid, backend.start, int(self._lease_s * 1000))

    # ---------------------------------------------------------------------------------------------------------- commit

    async def commit(self, checkpoint: Checkpoint) -> None:
        try:
            await self._commits.transaction(lambda connection: self._write(connection, checkpoint))
        except Fenced:
            self._owned.pop(checkpoint.partition, None)
            raise

    async def _write(self, connection: asyncpg.Connection, cut: Checkpoint) -> None:
        last = cut.last
        ours = await connection.fetchval(
            QUERIES["commit_partition"],
            cut.partition,
            cut.epoch,
            cut.ckpt_seq,
            cut.next_offset,
            last and last.offset,
            last and last.append_ms,
            last and last.digest,
            cut.blob,
        )
        if ours is None:
            raise Fenced(f"partition {cut.partition}: no longer at epoch {cut.epoch}, checkpoint {cut.ckpt_seq - 1}")
        await self._write_accounts(connection, cut)
        await self._write_dedup(connection, cut)
        await self._write_history(connection, cut)

    async def _write_accounts(self, connection: asyncpg.Connection, cut: Checkpoint) -> None:
        if not cut.accounts:
            return
        await connection.execute(
            QUERIES["commit_accounts"],
            cut.partition,
            [row.account for row in cut.accounts],
            [row.blob for row in cut.accounts],
            [row.wake_us for row in cut.accounts],
            [units_of(row.balance) for row in cut.accounts],
            [units_of(row.spend) for row in cut.accounts],
            [row.currency for row in cut.accounts],
        )

    async def _write_dedup(self, connection: asyncpg.Connection, cut: Checkpoint) -> None:
        if cut.dedup:
            await connection.execute(
                QUERIES["commit_dedup"],
                cut.partition,
                cut.ckpt_seq,
                [segment.bucket for segment in cut.dedup],
                [segment.generation for segment in cut.dedup],
                [segment.entries for segment in cut.dedup],
            )
        for query in ("forget_buckets", "forget_runs"):
            await connection.execute(QUERIES[query], cut.partition, cut.dedup_bucket_min)
        await connection.execute(QUERIES["sweep_rows"], cut.partition, cut.dedup_bucket_min, _SWEEP_PARTS)
        if cut.ckpt_seq % self._dedup_merge_at == 0:
            await self._merge_segments(connection, cut.partition)

    async def _merge_segments(self, connection: asyncpg.Connection, partition: int) -> None:
        """Join full levels until none is left, so that a takeover reads few rows and an entry is rewritten rarely."""
        while crowded := await connection.fetch(
            QUERIES["crowded_levels"], partition, self._dedup_merge_at, _SEGMENT_BYTES_MAX
        ):
            for row in crowded:
                await connection.execute(QUERIES["merge_level"], partition, *row.values())

    async def _write_history(self, connection: asyncpg.Connection, cut: Checkpoint) -> None:
        if cut.commands:
            await connection.execute(
                QUERIES["commit_commands"],
                cut.partition,
                [row.offset for row in cut.commands],
                [row.log_time_us for row in cut.commands],
                [row.account for row in cut.commands],
                [row.command_key for row in cut.commands],
                [row.digest for row in cut.commands],
                [row.kind for row in cut.commands],
                [row.body for row in cut.commands],
                [row.answer for row in cut.commands],
            )
        if cut.postings:
            await connection.execute(
                QUERIES["commit_postings"],
                cut.partition,
                cut.ckpt_seq,
                [row.account for row in cut.postings],
                [row.lot for row in cut.postings],
                [row.lot_kind for row in cut.postings],
                [row.kind for row in cut.postings],
                [row.usage_period_us for row in cut.postings],
                [row.posting_period_us for row in cut.postings],
                [units_of(row.amount) for row in cut.postings],
            )
        if cut.alerts:
            await connection.execute(
                QUERIES["commit_alerts"],
                cut.partition,
                [row.alert_id for row in cut.alerts],
                [row.account for row in cut.alerts],
                [row.offset for row in cut.alerts],
                [row.body for row in cut.alerts],
            )
        for start in range(0, len(cut.dead_letters), _LETTERS_MAX):
            letters = cut.dead_letters[start : start + _LETTERS_MAX]
            await connection.execute(
                QUERIES["commit_dead_letters"],
                cut.partition,
                [row.offset for row in letters],
                [row.log_time_us for row in letters],
                [row.reason for row in letters],
                [storable(row.detail) for row in letters],
                [row.key for row in letters],
                [row.value for row in letters],
            )

    # ------------------------------------------------------------------------------------------------------------ seal

    async def seal(self, partition: int, epoch: int, head: RunHead, rows: bytes) -> None:
        where = partition, head.bucket, head.generation

        async def write(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(QUERIES["seal_owned"], partition, epoch) is None:
                raise Fenced(f"partition {partition}: no longer at epoch {epoch}")
            new = await connection.fetchval(QUERIES["seal_run"], *where, head.count, head.outline, head.digest)
            if new is None:
                return
            size = RUN_PART_ROWS * ROW_BYTES
            for part, start in enumerate(range(0, len(rows), size)):
                await connection.execute(QUERIES["seal_rows"], *where, part, rows[start : start + size])
            await connection.execute(QUERIES["drop_loose"], *where)

        await self._settled(write)

    # ----------------------------------------------------------------------------------------------------------- reads

    async def load(self, partition: int, command_log_time_min_us: int) -> PartitionImage:
        async with self._reader() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            standing = await connection.fetchrow(QUERIES["load_standing"], partition)
            accounts = await connection.fetch(QUERIES["load_accounts"], partition)
            dedup = await connection.fetch(QUERIES["load_dedup"], partition)
            runs = await connection.fetch(QUERIES["load_runs"], partition)
            commands = await connection.fetch(QUERIES["load_commands"], partition, command_log_time_min_us)
            errors = await connection.fetch(QUERIES["load_engine_errors"], partition)
            alerts = await connection.fetch(QUERIES["load_alerts"], partition)
        epoch, ckpt_seq = standing or (0, 0)
        return PartitionImage(
            epoch=epoch,
            ckpt_seq=ckpt_seq,
            accounts=[account_row(row) for row in accounts],
            dedup=[dedup_segment(row) for row in dedup],
            runs=[RunHead(*row.values()) for row in runs],
            commands=[CommandRow(*row.values()) for row in commands],
            engine_errors=[row["log_offset"] for row in errors],
            alerts=[AlertRow(*row.values()) for row in alerts],
        )

    async def run_part(self, partition: int, bucket: int, generation: int, part: int) -> bytes | None:
        entries: bytes | None = await self._value("run_part", partition, bucket, generation, part)
        return entries

    async def run_rows(self, partition: int, places: Sequence[Place]) -> list[bytes | None]:
        async def fetch(connection: asyncpg.Connection) -> list[bytes | None]:
            rows = await connection.fetch(
                QUERIES["run_rows"],
                partition,
                [place.bucket for place in places],
                [place.generation for place in places],
                [place.row for place in places],
                RUN_PART_ROWS,
            )
            return [row["entry"] for row in rows]

        return await self._hurried.read(("rows", partition, *places), lambda: self._rating.read(fetch))

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        return [AlertRow(*row.values()) for row in await self._rows("load_alerts", partition)]

    async def record_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        latest = {delivery.alert_id: delivery for delivery in deliveries}.values()
        async with self._reader() as connection:
            await connection.execute(
                QUERIES["record_deliveries"],
                [delivery.alert_id for delivery in latest],
                [delivery.attempts for delivery in latest],
                [delivery.delivered for delivery in latest],
                [delivery.given_up for delivery in latest],
                [storable(delivery.error) for delivery in latest],
            )

    async def catalogue(self, version: int, *, hurried: bool = False) -> bytes | None:
        async def fetch(connection: asyncpg.Connection) -> bytes | None:
            body: bytes | None = await connection.fetchval(QUERIES["catalogue"], version)
            return body

        if hurried:
            return await self._hurried.read(("catalogue", version), lambda: self._rating.read(fetch))
        async with self._reader() as connection:
            return await fetch(connection)

    async def answer(self, account: str, command_key: str) -> str | None:
        answer: str | None = await self._value("answer", account, command_key)
        return answer

    async def latest_catalogue_version(self) -> int | None:
        version: int | None = await self._value("latest_catalogue")
        return version

    async def publish_catalogue(self, version: int, body: bytes) -> None:
        if await self._value("publish_catalogue", version, body) is not None:
            return
        if await self.catalogue(version) != body:
            raise CatalogueTaken(f"catalogue version {version} exists with another body: publish under a new number")

    # ------------------------------------------------------------------------------------------------------ for people

    async def partitions(self) -> list[PartitionStatus]:
        """All partitions that were ever claimed."""
        return [PartitionStatus(*row.values()) for row in await self._rows("list_partitions")]

    async def checkpoint(self, partition: int) -> tuple[bytes | None, int]:
        """A partition's own state as the last checkpoint holds it, and that checkpoint's next offset."""
        row = (await self._rows("checkpoint", partition))[0]
        return row["blob"], row["next_offset"]

    async def ledger(self) -> dict[tuple[str, str, str], int]:
        """The sum of all postings, in pico, by (account, lot, kind); lot is empty for debt."""
        rows = await self._rows("sum_postings")
        return {(row["account"], row["lot"], row["kind"]): pico_of(row["amount"]) for row in rows}

    async def depleted(self) -> int:
        """How many accounts have nothing left."""
        count: int = await self._value("count_depleted")
        return count

    async def nearest_depletion(self, limit: int) -> list[Balance]:
        """The accounts with the lowest balances above zero."""
        return [
            Balance(row["partition"], row["account"], pico_of(row["balance"]), pico_of(row["spend"]), row["currency"])
            for row in await self._rows("nearest_depletion", limit)
        ]

    async def dead_letters(self, limit: int) -> list[StoredDeadLetter]:
        """The newest dead letters."""
        rows = await self._rows("list_dead_letters", limit)
        return [StoredDeadLetter(partition, DeadLetterRow(*letter)) for partition, *letter in map(tuple, rows)]

    async def dead_letter_counts(self) -> dict[str, int]:
        """Dead letters by reason."""
        return {row["reason"]: row["letters"] for row in await self._rows("count_dead_letters")}

    async def outbox_counts(self) -> OutboxCounts:
        """Alerts by state."""
        (row,) = await self._rows("count_outbox")
        return OutboxCounts(row["waiting"], row["delivered"], row["given_up"])

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[asyncpg.Connection]:
        if self._reads is None:
            raise StoreUnavailable("Postgres: not started, or stopped")
        with translation():
            async with self._reads.acquire(timeout=self._connect_timeout_s) as connection:
                yield connection

    async def _value(self, query: str, *arguments: Any) -> Any:
        async with self._reader() as connection:
            return await connection.fetchval(QUERIES[query], *arguments)

    async def _rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._reader() as connection:
            return list(await connection.fetch(QUERIES[query], *arguments))
