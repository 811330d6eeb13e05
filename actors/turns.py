"""What owns without a lease goes on by turns: read what has come, work out what changed, tell it. A claim raises an epoch, and
whoever owned before is refused at its next write; nobody waits for any of it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from actors.ports import Clock, Fenced, LogDamaged


class OwnedCut(Protocol):
    """What is written of a partition at one epoch, behind the checkpoint before it."""

    @property
    def partition(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def ckpt_seq(self) -> int: ...


def require_ownership(what: str, cuts: Iterable[OwnedCut], kept: Iterable[Mapping[str, Any]]) -> None:
    """Raise `Fenced` where the fence has let through no row, of those in `kept`, for the partition of a cut."""
    ours = {row["partition"] for row in kept}
    for cut in cuts:
        if cut.partition not in ours:
            where = f"epoch {cut.epoch}, checkpoint {cut.ckpt_seq - 1}"
            raise Fenced(f"{what} of partition {cut.partition}: no longer at {where}")


def require_whole(topic: str, partition: int, end: int, offset: int, known: str = "and was read to") -> None:
    """Raise `LogDamaged` where a partition ends before an offset from which it is read on. Grown again behind our back,
    it would be read on from the middle, and nobody tells again what is missing. `known`: how the offset is known."""
    if end < offset:
        raise LogDamaged(
            f"topic {topic} partition {partition}: it ends at {end}, {known} {offset}: it was cut", partition
        )


class Turns:
    """One turn behind the other, until `stop` or until somebody else owns. The doors are the caller's to start and stop."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        """`interval_s` lies between the begins of two turns, if there is nothing to be done sooner."""
        self.fenced = False
        self._clock = clock
        self._interval_s = interval_s
        self._stopping = asyncio.Event()

    async def turn(self) -> bool:
        """All that there is to do now. True: there is more at once."""
        raise NotImplementedError

    async def run(self) -> None:
        """Until `stop`, or until somebody else owns in our place."""
        while not self._stopping.is_set() and not self.fenced:
            began_s = self._clock.boot_s()
            more = await self.turn()
            pause_s = 0.0 if more else self._interval_s - (self._clock.boot_s() - began_s)
            await self._clock.sleep(max(0.0, pause_s))

    def stop(self) -> None:
        """End behind the turn under way. What is not written is worked out again by the next owner."""
        self._stopping.set()


class OneBehindTheOther(Turns):
    """Several, each as often as all: what one has told is there when the next has its turn."""

    def __init__(self, clock: Clock, interval_s: float, of: Sequence[Turns]) -> None:
        super().__init__(clock, interval_s)
        self._of = tuple(of)

    async def turn(self) -> bool:
        """One of each."""
        more = [await each.turn() for each in self._of]
        self.fenced = any(each.fenced for each in self._of)
        return any(more)
