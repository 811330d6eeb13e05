"""A partition folded anew from the log, by the engine that runs, beside the deployment. Nothing is written.

It starts from a sealed base, or from nothing while the log still begins at its first record, and ends where the newest
checkpoint ends. Law D4 says that both are then the same bytes.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from actors.account_view import account_view
from actors.checkpoints import StoredCheckpoint
from actors.door_wire import AccountView, AsOf
from actors.drift import Drift, account_drifts, state_drifts
from actors.ports import AccountRow, CommandRow, DedupSegment, Head, LastRecord, LogDamaged, Record, record_digest
from actors.sealed_base import BadBase, Base, base_path, read_base, tzdata_version
from actors.takeover import CatalogueLost
from engine.catalog import Catalogue, load_catalogue
from engine.cut import Cut
from engine.partition import COMMAND_KEY_US, CatalogueMissing, Partition, foresee
from engine.snapshot import decode_partition, encode_account

SETTLE_EVERY: Final = 20_000  # records between two moments at which outputs are dropped and idle accounts become bytes
BATCH: Final = 500  # records whose identities are searched for together
IDLE_US: Final = 60_000_000

LoadCatalogue = Callable[[int], Awaitable[bytes | None]]


class LogTooShort(Exception):
    """The log no longer reaches back to where the fold must start; the message names the offsets that are missing."""


class Reader(Protocol):
    """The log as `actors/kafka.py` reads it at any place; the tests have one in memory."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int: ...

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None: ...

    def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]: ...


class Stored(Struct):
    """A checkpoint in memory."""

    head: Head
    accounts: list[AccountRow]
    dedup: list[DedupSegment]
    commands: list[CommandRow]
    engine_errors: list[int]
    catalogues: dict[int, bytes]


async def read_stored(checkpoint: StoredCheckpoint) -> Stored:
    """All that a fold needs of a checkpoint. Raises CatalogueLost."""
    head = checkpoint.head
    state = decode_partition(head.blob) if head.blob else None
    catalogues = {}
    for version, _ in state.catalogues if state else ():
        body = await checkpoint.catalogue(version)
        if body is None:
            raise CatalogueLost(f"catalogue version {version} is in the log but not in the store; restore its row")
        catalogues[version] = body
    oldest_us = (state.log_time_us if state else 0) - COMMAND_KEY_US
    return Stored(
        head,
        [row async for rows in checkpoint.accounts() for row in rows],
        [segment async for segment in checkpoint.dedup()],
        [row async for rows in checkpoint.remembered_commands(oldest_us) for row in rows],
        await checkpoint.engine_errors(),
        catalogues,
    )


class Fold:
    """One partition's way from its start to the end of its newest checkpoint."""

    def __init__(
        self,
        reader: Reader,
        stored: Stored,
        base: Base | None,
        *,
        topic: str,
        partitions: int,
        control_key: bytes,
        load: LoadCatalogue,
    ) -> None:
        """`load` gives a catalogue version's JSON. Raises BadBase when the base is not of this deployment, or lies behind
        the checkpoint."""
        head = stored.head
        self._reader = reader
        self._stored = stored
        self._topic = topic
        self._load = load
        self.library: dict[int, Catalogue] = {  # what was published, as far as it was needed
            version: load_catalogue(version, body) for version, body in stored.catalogues.items()
        }
        self._partitions = partitions
        self._control_key = control_key
        self.partition = self._new()
        self.partition.skips = frozenset(stored.engine_errors)
        self.start = 0
        self.folded = 0  # records, by `run`
        self.last: LastRecord | None = None
        self.note = ""
        if base is not None:
            _check_fit(base, head, topic, partitions)
            for version, body in base.catalogues.items():
                self.library.setdefault(version, load_catalogue(version, body))
            self.partition.load(base.head.blob, base.accounts, base.dedup, base.commands)
            self.start, self.last = base.head.next_offset, base.head.last
            if base.head.tzdata != tzdata_version():
                self.note = f"sealed under tzdata {base.head.tzdata}, rebuilt under {tzdata_version()}"

    @property
    def number(self) -> int:
        return self._stored.head.partition

    def _new(self) -> Partition:
        return Partition(self.number, self._partitions, self._topic, self._control_key, self.library)

    @property
    def end(self) -> int:
        return self._stored.head.next_offset

    @property
    def skipped(self) -> int:
        """How many records are passed over because the store says that they broke the engine. Nothing of them is billed;
        that it was right to pass them over is believed, not proven."""
        return sum(self.start <= offset < self.end for offset in self.partition.skips)

    async def check_log(self, *, further: bool = False) -> int:
        """The log must reach back to the start, if anything is to be folded: up to the end, or `further` than that. Where the
        log ends. Raises LogTooShort, LogDamaged, LogUnavailable."""
        number = self.number
        first, end = await self._reader.bounds(self._topic, number)
        if first > self.start and (further or self.start < self.end):
            raise LogTooShort(
                f"partition {number}: offsets {self.start} to {first - 1} are no longer in the log: give --base with a "
                f"base whose next offset is {first} or more, or restore the records"
            )
        if self.last is not None and self.last.offset >= first:
            record = await self._reader.read_one(self._topic, number, self.last.offset)
            if record is None or last_record(record) != self.last:
                raise LogDamaged(
                    f"partition {number}: the record at {self.last.offset} is not the one that the base saw: the log "
                    "was replaced, or the base is another deployment's",
                    number,
                )
        return end

    async def records(self, start: int, end: int) -> AsyncIterator[tuple[Record, str]]:
        """Fold the records of [start, end), giving each with its outcome, once it is folded."""
        upcoming = start
        async for batch in _batches(self._reader.read(self._topic, self.number, start, end)):
            fresh = [record for record in batch if record.offset >= upcoming]  # not handed out twice, after a reconnect
            foreseen = (foresee(record.offset, record.key, record.value) for record in fresh)
            self.partition.expect(each for each in foreseen if each is not None)
            for record in fresh:
                if record.offset < upcoming:
                    continue
                upcoming = record.offset + 1
                outcome = await self._apply(record)
                self.last = last_record(record)
                yield record, outcome

    async def _apply(self, record: Record) -> str:
        apply = self.partition.apply
        try:
            return apply(record.offset, record.timestamp, record.key, record.value)
        except CatalogueMissing as missing:  # a marker that was refused: no checkpoint names its version
            await self._load_version(missing.version)
            return apply(record.offset, record.timestamp, record.key, record.value)

    async def _load_version(self, version: int) -> None:
        body = await self._load(version)
        if body is None:
            raise CatalogueLost(f"catalogue version {version} is in the log but not in the store; restore its row")
        self.library[version] = load_catalogue(version, body)

    async def run(self, say: Callable[[int], None], seen: Callable[[Record, str], None] | None = None) -> Partition:
        """Fold everything; `say` hears now and then up to which offset, `seen` of each record and its outcome."""
        log_end = await self.check_log()
        if log_end < self.end:
            raise LogDamaged(
                f"partition {self.number}: the log ends at {log_end}, the checkpoint at {self.end}", self.number
            )
        async for record, outcome in self.records(self.start, self.end):
            self.folded += 1
            if seen is not None:
                seen(record, outcome)
            if self.folded % SETTLE_EVERY == 0:
                settle(self.partition)
                say(record.offset)
        settle(self.partition)
        return self.partition

    def stored_partition(self) -> Partition:
        """The checkpoint that the fold is held against."""
        partition = self._new()
        stored = self._stored
        partition.load(stored.head.blob, stored.accounts, stored.dedup, stored.commands)
        return partition

    def views(self, account: str | None = None) -> list[AccountView]:
        """The accounts rebuilt, or the one asked for, as the API shows an account; none is open that is not here."""
        at = AsOf(self.number, self.partition.epoch, self.end, self.partition.log_time_us, 0)
        names = sorted(self.partition.account_ids()) if account is None else [account]
        found = []
        for name in names:
            held, wallet = self.partition.account(name), self.partition.wallet(name, 0)
            if held is not None and wallet is not None:
                found.append(account_view(held, wallet, 0, self.partition.log_time_us, at))
        return found

    def drifts(self, check: str, account: str | None = None) -> list[Drift]:
        """Where the checkpoint differs from the fold, byte for byte; of one account, or of everything."""
        stored, number = self.stored_partition(), self.number

        def anew(name: str) -> tuple[bytes | None, bytes | None]:
            return self._bytes_of(self.partition, name), self._bytes_of(stored, name)

        if account is None:
            return list(state_drifts(check, number, self.partition.state_bytes(), stored.state_bytes(), anew))
        blobs = {row.account: row.blob for row in self._stored.accounts}
        alone = self._bytes_of(self.partition, account), blobs.get(account)
        return list(account_drifts(check, number, account, *alone, anew))

    @staticmethod
    def _bytes_of(partition: Partition, name: str) -> bytes | None:
        account = partition.account(name)
        return None if account is None else encode_account(account)


def settle(partition: Partition) -> Cut:
    """Let go of what a shard would have sent on and written by now; the cut has no accounts in it."""
    cut = partition.begin_cut()
    partition.end_cut()
    partition.freeze_idle(IDLE_US, SETTLE_EVERY)
    outputs = partition.outputs
    for each in (outputs.lines, outputs.forwards, outputs.alerts, outputs.dead_letters):
        each.clear()
    return cut


async def _batches(records: AsyncIterator[Record]) -> AsyncIterator[list[Record]]:
    batch: list[Record] = []
    async for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def last_record(record: Record) -> LastRecord:
    return LastRecord(record.offset, record.timestamp, record_digest(record.key, record.value))


def find_base(folder: Path | None, partition: int, control_key: bytes) -> Base | None:
    """The folder's base of the partition; None without a folder. Raises BadBase."""
    return None if folder is None else read_base(base_path(folder, partition), control_key)


def _check_fit(base: Base, head: Head, topic: str, partitions: int) -> None:
    sealed = base.head
    where = f"the base of partition {sealed.partition}"
    if (sealed.topic, sealed.partitions, sealed.partition) != (topic, partitions, head.partition):
        raise BadBase(
            f"{where} is of topic {sealed.topic} with {sealed.partitions} partitions; wanted is partition "
            f"{head.partition} of topic {topic} with {partitions}"
        )
    if sealed.next_offset > head.next_offset:
        raise BadBase(
            f"{where} ends at offset {sealed.next_offset}, the live checkpoint at {head.next_offset}: take an older "
            "base, or see that the settings name the right database"
        )
