"""The outside world as shard and controller see it: seven small protocols and the facts that cross them.

Each protocol has two implementations, the real one and the simulator's, and one contract suite
(`tests/contracts/`) that both pass. Nothing here knows Kafka, SQL, HTTP or Ray.

| port | real | simulated |
|---|---|---|
| Clock | `actors/clock.py` | `tests/simulation/world.py` |
| Log, Appender | `actors/kafka.py` | `tests/simulation/sim_log.py` |
| Store | `actors/postgres.py` | `tests/simulation/sim_store.py` |
| LocalRuns | `actors/local_runs.py` | `tests/simulation/sim_store.py` |
| Membership, Roster, Directory | `actors/membership.py` | `tests/simulation/sim_store.py` |
| Receivers | `actors/receivers.py` | `tests/simulation/sim_receivers.py` |
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol, TypeVar

import xxhash
from msgspec import Struct

from engine.dedup import Place
from engine.outcomes import AccountRow, AlertRow, CommandRow, DeadLetterRow, DedupSegment, PostingRow
from engine.runs import Buffer

Result = TypeVar("Result")

# The rows of a checkpoint.
__all__ = ["AccountRow", "AlertRow", "CommandRow", "DeadLetterRow", "DedupSegment", "Place", "PostingRow"]

RUN_PART_ROWS: Final = 65_536  # rows of a sealed run that are moved at a time: a megabyte

# --------------------------------------------------------------------------------------------------------- errors


class Fenced(Exception):
    """Another owner holds the partition: stop touching it at once. Nothing of the refused call took effect."""


class StillOwned(Exception):
    """The partition's owner lives, and is to hand it over: ask again in a moment. Nothing took effect."""


class CommitUnknown(Exception):
    """The connection broke while COMMIT was in flight: ask `Store.settle_commit` before anything else."""


class StoreUnavailable(Exception):
    """Postgres could not be reached, or refused for a passing reason; nothing took effect. Try again later."""


class StoreRefused(Exception):
    """Postgres refused for a reason that will not pass by itself (a missing table or right, a value it cannot hold).

    Nothing took effect. Trying again is of no use; a person must look."""


class CatalogueTaken(Exception):
    """This catalogue version exists with another body; versions never change. Publish under the next number."""


class LogUnavailable(Exception):
    """Kafka could not be reached in time. An append that raised this may still appear in the log."""


class LogDamaged(Exception):
    """The log no longer holds what the checkpoint saw (truncated, or retention passed it). The partition halts."""

    def __init__(self, message: str, partition: int | None = None) -> None:
        super().__init__(message)
        self.partition = partition  # None: the whole log is unfit


# ----------------------------------------------------------------------------------------------------------- clock


class Clock(Protocol):
    """Time. Wall time is only compared with log time; deadlines use the clock that also runs in suspend."""

    def wall_us(self) -> int:
        """Microseconds since 1970 UTC."""

    def boot_s(self) -> float:
        """Seconds since an arbitrary start; never goes back, and counts time spent suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after at least `seconds`."""


# ------------------------------------------------------------------------------------------------------------- log


class Record(Protocol):
    """One record of the topic `usage`, as any Kafka client hands it out."""

    offset: int
    timestamp: int  # append time, milliseconds since 1970 UTC, set by the broker
    key: bytes | None
    value: bytes | None


class Outgoing(Struct, frozen=True):
    """A record to produce. `partition` None lets the key decide (murmur2)."""

    topic: str  # "usage", "rated", "dead-letters", "gpu-telemetry", "served" or "costs": the role, not the physical topic name
    value: bytes | None  # None: a record without a value, which only a test would send
    key: bytes | None = None
    partition: int | None = None


class Log(Protocol):
    """The topics. One consumer over manually assigned partitions of `usage`, one idempotent producer (acks=all)."""

    partitions: int  # of the topic `usage`; fixed for its life

    async def start(self) -> None:
        """Connect. Raises `LogDamaged` when the topic's timestamps are not LogAppendTime."""

    async def stop(self) -> None:
        """Flush what was sent, and disconnect."""

    async def bounds(self, partition: int) -> tuple[int, int]:
        """(first offset still held, next offset to be written). Raises `LogUnavailable`."""

    async def read_one(self, partition: int, offset: int) -> Record | None:
        """The record at `offset`; None when the log holds none there. Does not move the consumer's positions.

        Raises `LogUnavailable`."""

    def assign(self, positions: dict[int, int]) -> None:
        """Consume exactly these partitions, each from the given offset."""

    async def fetch(self, records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
        """What has arrived, by partition, in offset order; empty after `timeout_s` without any, or with Kafka away.

        Raises `LogDamaged` (naming the partition) when a position is outside the log, never skipping on its own, and
        again at every call until that partition is no longer assigned."""

    def position(self, partition: int) -> int:
        """The next offset the consumer will read: beyond control batches that leave no record."""

    def end(self, partition: int) -> int | None:
        """The next offset to be written, as the last fetch saw it; None when it is not known. Costs nothing."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        """Produce, and return the offsets once all are durable. Raises `LogUnavailable`; some may be in the log."""


class Appender(Protocol):
    """The durable way into the topics, for a process that reads none of them."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Flush what was sent, and disconnect."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        """As `Log.append`."""


# ------------------------------------------------------------------------------------------------- store: the facts


class LastRecord(Struct, frozen=True):
    """The last record a checkpoint has consumed, re-read at takeover to see a log that was cut and regrown."""

    offset: int
    append_ms: int
    digest: bytes  # `record_digest` of key and value


class Checkpoint(Struct, frozen=True):
    """A cut: everything a partition changed since the last one, at one offset."""

    partition: int
    epoch: int
    ckpt_seq: int  # of this checkpoint; the row in the store must carry ckpt_seq - 1
    next_offset: int
    last: LastRecord | None
    blob: bytes  # the partition's own state (engine/snapshot.py)
    accounts: list[AccountRow]
    dedup: list[DedupSegment]
    dedup_bucket_min: int  # segments of earlier buckets are forgotten
    commands: list[CommandRow]
    postings: list[PostingRow]
    alerts: list[AlertRow]
    dead_letters: list[DeadLetterRow]


class PreviousOwner(Struct, frozen=True):
    """An earlier owner that may still answer: the new one waits until its lease has run out or its death is proven."""

    incarnation: str
    host: str
    lock_path: str  # held with an exclusive flock for as long as that process lives
    lease_left_s: float  # by the store's clock, at the moment of the claim


class Head(Struct, frozen=True):
    """A partition's row: where its checkpoint stands in the log."""

    partition: int
    epoch: int
    ckpt_seq: int
    next_offset: int
    last: LastRecord | None
    blob: bytes | None  # None: never checkpointed


class Claim(Head, frozen=True):
    """What a new owner of a partition starts from: the row, under its own epoch."""

    previous: list[PreviousOwner]  # more than one when an owner died before its own predecessor's lease had run out


class RunHead(Struct, frozen=True):
    """A sealed run of the memory of rated events, without its rows (engine/runs.py)."""

    bucket: int
    generation: int
    count: int  # identities
    outline: bytes
    digest: bytes  # xxh3-128 of outline and rows: by it a copy on local disk is known to be whole


class PartitionImage(Struct, frozen=True):
    """All a partition has in the store, as it stood at one moment."""

    epoch: int  # of the partition at that moment: a replica that is behind shows an earlier one
    ckpt_seq: int  # likewise; 0 when never checkpointed
    accounts: list[AccountRow]
    dedup: list[DedupSegment]  # what is not sealed yet
    runs: list[RunHead]  # what is
    commands: list[CommandRow]  # of the last 30 days of log time
    engine_errors: list[int]  # offsets whose record broke the engine; skipped on replay
    alerts: list[AlertRow]  # neither delivered nor given up


class Delivery(Struct, frozen=True):
    """How far the telling of an alert has come."""

    alert_id: str
    attempts: int
    delivered: bool
    given_up: bool
    error: str  # of the last failed attempt; "" if none


# --------------------------------------------------------------------------------------------- store: the protocols


class Store(Protocol):
    """The checkpoints. Every write is fenced by the partition's epoch.

    Any call may raise `StoreUnavailable` or `StoreRefused`. After either a claim is simply made again."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def claim(self, partition: int, incarnation: str, *, patient: bool = False) -> Claim:
        """Raise the epoch and become the owner, if the assignment names this incarnation; else `Fenced`.

        `patient`: raises `StillOwned` while another owner lives, so that it can hand over in order; it is alive until
        it has left, was declared dead, or its lease has run out.
        The previous owner's database session is ended first, so that a transaction it left open cannot block us."""

    async def load(self, partition: int, command_log_time_min_us: int) -> PartitionImage:
        """All rows of the partition, of one snapshot; commands not older than the given log time.

        The read may be answered by a replica that is behind: whoever claimed compares epoch and ckpt_seq."""

    async def run_part(self, partition: int, bucket: int, generation: int, part: int) -> bytes | None:
        """The rows of a sealed run from `part` × RUN_PART_ROWS on, as many as that at most; None when they are gone."""

    async def run_rows(self, partition: int, places: Sequence[Place]) -> list[bytes | None]:
        """Single rows of sealed runs, 16 bytes each; None for those that are gone, with their bucket.

        The rating loop stands still meanwhile: raises `StoreUnavailable` where that would take a large part of a lease."""

    async def seal(self, partition: int, epoch: int, head: RunHead, rows: bytes) -> None:
        """Put a sealed run in the place of all segments of its generation, in one transaction of its own; if it is there
        already, nothing changes. All of the generation must be committed, and closed. Raises `Fenced`."""

    async def commit(self, checkpoint: Checkpoint) -> None:
        """One transaction. Raises `Fenced`, `CommitUnknown`, or `StoreUnavailable` (nothing took effect)."""

    async def settle_commit(self, partition: int, epoch: int, ckpt_seq: int) -> tuple[int, bool]:
        """After `CommitUnknown`: raise the epoch (which waits for the row) and say (new epoch, was it committed?).

        Raises `Fenced` when the partition is no longer ours."""

    async def release(self, partition: int, epoch: int) -> None:
        """Give the partition back; the next owner need not wait for our lease. Raises `Fenced` when it is not ours."""

    async def record_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Update outbox rows; ids without a row are ignored (their checkpoint has not come yet)."""

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        """Alerts of the partition that are neither delivered nor given up, in order of offset."""

    async def catalogue(self, version: int, *, hurried: bool = False) -> bytes | None:
        """The catalogue's JSON (engine/catalog.py); None when there is no such version. `hurried`: as `run_rows`."""

    async def answer(self, account: str, command_key: str) -> str | None:
        """The answer to a command, once a checkpoint holds it; the newest, should the key have been used again."""

    async def latest_catalogue_version(self) -> int | None:
        """The newest published version; None when there is none."""

    async def publish_catalogue(self, version: int, body: bytes) -> None:
        """Add a version; again with the same body changes nothing. Raises `CatalogueTaken` for another body."""


class LocalRuns(Protocol):
    """Copies of sealed runs near at hand, and the place for work that would hold up the loop. It may lose anything at any
    time: the store has it all. No call raises for what happens to a copy."""

    async def work(self, task: Callable[[], Result]) -> Result:
        """What the task returns or raises; others run meanwhile."""

    async def find(self, partition: int, head: RunHead) -> Buffer | None:
        """Outline and rows of a run, one behind the other; None when there is no whole copy."""

    async def keep(self, partition: int, head: RunHead, rows: AsyncIterator[Buffer]) -> Buffer | None:
        """Make a copy, of the head's outline and the rows as they come, and find it. None when there is no room, or what
        came is not the run. Raises what `rows` raises."""


class Renewal(Struct, frozen=True):
    """What a heartbeat learns: the partitions this incarnation should own, and those that it does own by now."""

    partitions: frozenset[int]
    lease_s: float  # the lease runs this long from the moment *before* the call was made
    owned: frozenset[int] = frozenset()


class Membership(Protocol):
    """Who is alive, and who should own what. Leases are judged by the store's clock only.

    Any call may raise `StoreUnavailable` or `StoreRefused`; each can simply be made again."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def register(
        self,
        incarnation: str,
        shard: str,
        host: str,
        lock_path: str,
        pid: int,
        door_host: str | None = None,
        door_port: int | None = None,
    ) -> None:
        """Join, with a lease that runs from now, and a door that is open, if any. Raises `Fenced` when this incarnation
        is dead."""

    async def renew(self, incarnation: str) -> Renewal:
        """Extend the lease. Raises `Fenced` when this incarnation is dead, has left or never registered."""

    async def assignment_changed(self, within_s: float) -> None:
        """Return when somebody's assignment may have changed since this last returned, or after `within_s` seconds.

        A hint that spares a wait: it may be missing, and never fails."""

    async def leave(self, incarnation: str) -> None:
        """End the lease at once and for good: to be called when the process has stopped answering."""


class Member(Struct, frozen=True):
    """A shard process as the controller sees it."""

    incarnation: str
    shard: str
    host: str
    lock_path: str
    lease_left_s: float  # negative: run out that long ago
    partitions: frozenset[int]  # assigned to it
    owned: frozenset[int]  # claimed by it, and not given back
    draining: bool = False  # an operator wants it empty


class Doorway(Struct, frozen=True):
    """A living shard process whose door is open, and what it owns."""

    incarnation: str
    host: str
    port: int
    epochs: dict[int, int]  # partition -> epoch of the ownership


class Directory(Protocol):
    """Where the owners of partitions are to be found, for processes that ask them.

    Any call may raise `StoreUnavailable` or `StoreRefused`; each can simply be made again."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def doorways(self) -> list[Doorway]:
        """All members with a door and a lease that has not run out; those without partitions too."""


class Deaths(Protocol):
    """Proof that a process is gone, where there is any: it spares the wait for a lease."""

    def proven(self, host: str, lock_path: str) -> bool:
        """Whether the process that held the lock is certainly gone; False when nothing is known."""


class Roster(Protocol):
    """The members as the controller sees them, and an operator. What a controller writes is fenced by its own term.

    Any call may raise `StoreUnavailable` or `StoreRefused`; each can simply be made again."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def take_office(self, controller: str, lease_s: float) -> int | None:
        """The new term, when the last controller's lease has run out or `controller` holds it already; else None."""

    async def stay_in_office(self, term: int, lease_s: float) -> None:
        """Extend the controller's lease. Raises `Fenced` when a later term has begun."""

    async def resign(self, term: int) -> None:
        """The office is free for the next controller, at once; nothing happens when the term is over already."""

    async def members(self) -> list[Member]:
        """All registered members that have neither left nor been declared dead, in order of registration."""

    async def assign(self, term: int, partitions: dict[int, str]) -> None:
        """Set the owner-to-be (an incarnation) of these partitions, in one transaction. Raises `Fenced`."""

    async def declare_dead(self, term: int, incarnation: str) -> None:
        """Its next renewal is refused; its partitions stay assigned until `assign` moves them. Raises `Fenced`."""

    async def set_draining(self, incarnation: str, draining: bool) -> bool:
        """An operator's wish, whoever is in office. False when the incarnation is not, or no more, a member."""


# ------------------------------------------------------------------------------------------------------- receivers


class Attempt(Struct, frozen=True):
    """The result of one attempt to tell one alert to everybody who hears it."""

    delivered: bool  # all have it
    error: str = ""  # what to show a person; never holds the secret
    retry_after_s: float | None = None
    final: bool = False  # the receiver asked never to be called again (410)


class Receivers(Protocol):
    """Whoever is told of alerts."""

    async def post(self, alert: AlertRow) -> Attempt:
        """One signed attempt at every receiver that hears the alert and has not taken it yet; never raises for what a
        receiver does. Alerts of one account reach each receiver one after the other, in the order of the calls."""


def record_digest(key: bytes | None, value: bytes | None) -> bytes:
    """16 bytes that tell two records apart; a missing key or value differs from an empty one."""
    digest = xxhash.xxh3_128()
    for part in (key, value):
        digest.update(b"\x00" if part is None else b"\x01" + len(part).to_bytes(8, "big") + part)
    return digest.digest()
