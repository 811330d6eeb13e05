"""A partition in the hands of this shard: its fold, its place in the log, and what is still under way for it."""

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct, field

from actors.ports import AlertRow, Checkpoint, LastRecord, PreviousOwner
from engine.partition import Partition

RECENT_ALERTS_MAX: Final = 1_000  # of a partition; whoever was away for longer asks Postgres


class Stage(StrEnum):
    """How far the ownership has come. Only `ready` speaks for the partition."""

    REPLAYING = "replaying"  # reading what came after the checkpoint, up to our own `owner` record
    WAITING = "waiting"  # caught up; a previous owner's lease may still be running
    READY = "ready"
    GIVEN = "given"  # given back, or about to be: whoever takes it may speak before we hear that it is
    HALTED = "halted"  # something is wrong that only a person can mend; `halt_reason` says what


class Owned(Struct, eq=False):
    """Mutable; everything the shard knows about one partition it owns."""

    fold: Partition
    epoch: int
    ckpt_seq: int  # of the last committed checkpoint
    next_offset: int  # the first offset not yet applied
    last: LastRecord | None  # the last record applied
    owner_offset: int  # of our `owner` record: replay ends behind it
    previous: list[PreviousOwner]
    claimed_s: float  # boot clock, at the claim
    checkpointed_s: float  # boot clock, when the last checkpoint was begun
    checkpointed_offset: int  # next_offset of the last committed checkpoint
    stage: Stage = Stage.REPLAYING
    halt_reason: str = ""
    again_s: float | None = None  # boot clock: when it is taken over anew, halted for what can be mended outside
    ready_s: float | None = None  # boot clock, when it became ready
    alerts_held: list[AlertRow] = field(default_factory=list)  # made before we may speak
    sends: set["asyncio.Task[None]"] = field(default_factory=set)  # records under way to Kafka
    checkpoint: Checkpoint | None = None  # cut, not yet known to be committed
    committing: "asyncio.Task[None] | None" = None
    tick_asked_us: int = 0  # the wake-up for which a tick was appended last
    tick_asked_s: float = 0.0  # boot clock, when that was
    ticking: "asyncio.Task[None] | None" = None  # the tick under way to Kafka: while it is away, no second one waits
    unannounced: bool = False  # our epoch was raised, and its `owner` record is still to be written
    giving: bool = False  # being given back: what is approved now would be unknown to the next owner's checkpoint
    wished_s: float = 0.0  # boot clock, when the desk was last asked which slices it wishes
    recent_alerts: deque[AlertRow] = field(default_factory=lambda: deque(maxlen=RECENT_ALERTS_MAX))
    waiting: list[tuple[int, int, "asyncio.Future[None]"]] = field(default_factory=list)  # heap: offset, number, whom
    waited: int = 0  # how many have ever waited: their numbers
    gone: int = 0  # how many have given up since those were last cleared away
    slicing: "asyncio.Task[None] | None" = None  # what puts slices into the log
    sealable: frozenset[tuple[int, int]] = frozenset()  # (bucket, generation): closed, and all of it committed
    sealing: "asyncio.Task[None] | None" = None  # what is done for the memory of rated events, beside rating
    sealing_again_s: float = 0.0  # boot clock: not before then
    waits_until_s: float = 0.0  # boot clock: nothing is consumed before then
    digests: dict[tuple[int, int], bytes] = field(default_factory=dict)  # of the sealed runs

    @property
    def number(self) -> int:
        return self.fold.number

    @property
    def running(self) -> bool:
        return self.stage is not Stage.HALTED

    @property
    def speaks(self) -> bool:
        """Whether what we hold is the partition's state, and our epoch the one in the log: no higher `owner` record has
        been read, and none of our own is still to be."""
        ours = self.fold.epoch == self.epoch == self.fold.desk.epoch
        return self.stage is Stage.READY and ours and not self.outrun

    @property
    def outrun(self) -> bool:
        """Whether the log names another owner by a higher epoch, or by our own: then before the record that names us. Either
        that one has come behind us, or the database has forgotten it."""
        named_before = self.fold.epoch == self.epoch and self.fold.epoch_offset < self.owner_offset
        return named_before or self.fold.epoch > self.epoch

    async def folded(self, offset: int) -> None:
        """Return once the record at the offset is folded, or the partition is no longer ours."""
        if self.next_offset > offset:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waited += 1
        heappush(self.waiting, (offset, self.waited, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            self.gone += 1
            if 2 * self.gone > len(self.waiting):  # a stalled log must not collect everyone who ever gave up
                self.waiting = [waits for waits in self.waiting if not waits[2].done()]
                heapify(self.waiting)
                self.gone = 0
            raise

    def wake_waiting(self) -> None:
        """Tell those whose offset is folded by now."""
        while self.waiting and self.waiting[0][0] < self.next_offset:
            _, _, waiter = heappop(self.waiting)
            if not waiter.done():
                waiter.set_result(None)

    def halt(self, reason: str) -> None:
        self.stage = Stage.HALTED
        self.halt_reason = reason

    def fall_silent(self) -> None:
        """Before the partition is given back."""
        self.stage = Stage.GIVEN

    def let_go(self) -> None:
        """It is no longer ours: whoever waits for it is sent on."""
        for _, _, waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)
        self.waiting.clear()

    def tasks(self) -> Iterable["asyncio.Task[None]"]:
        """Everything under way, to be broken off when the partition is no longer ours."""
        return [*self.sends, *(task for task in (self.committing, self.slicing, self.sealing) if task is not None)]
