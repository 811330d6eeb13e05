"""A partition in the hands of this shard: its fold, its place in the log, and what is still under way for it."""

import asyncio
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct, field

from actors.ports import AlertRow, Checkpoint, LastRecord, PreviousOwner
from engine.partition import Partition


class Stage(StrEnum):
    """How far the ownership has come. Only `ready` speaks for the partition."""

    REPLAYING = "replaying"  # reading what came after the checkpoint, up to our own `owner` record
    WAITING = "waiting"  # caught up; a previous owner's lease may still be running
    READY = "ready"
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
    ready_s: float | None = None  # boot clock, when it became ready
    alerts_held: list[AlertRow] = field(default_factory=list)  # made before we may speak
    sends: set["asyncio.Task[None]"] = field(default_factory=set)  # records under way to Kafka
    checkpoint: Checkpoint | None = None  # cut, not yet known to be committed
    committing: "asyncio.Task[None] | None" = None
    tick_asked_us: int = 0  # the wake-up for which a tick was appended last
    tick_asked_s: float = 0.0  # boot clock, when that was

    @property
    def number(self) -> int:
        return self.fold.number

    @property
    def running(self) -> bool:
        return self.stage is not Stage.HALTED

    def halt(self, reason: str) -> None:
        self.stage = Stage.HALTED
        self.halt_reason = reason

    def tasks(self) -> Iterable["asyncio.Task[None]"]:
        """Everything under way, to be broken off when the partition is no longer ours."""
        return [*self.sends, *([self.committing] if self.committing else [])]
