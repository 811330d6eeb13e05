"""The folder of local copies as the simulator has it: a disk that outlives its process, and loses what it will."""

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import TypeVar

import xxhash

from actors.ports import RunHead
from engine.runs import Buffer
from tests.simulation.sim_log import Gate, open_gate

Result = TypeVar("Result")


class SimDisk:
    """By partition, bucket, generation and digest. With `random`, a copy may be gone, be damaged, or find no room."""

    def __init__(self, random: Random | None = None) -> None:
        self.copies: dict[tuple[int, int, int, bytes], bytes] = {}
        self._random = random

    def unlucky(self) -> bool:
        return self._random is not None and self._random.random() < 0.25

    def damage(self, whole: bytes) -> bytes:
        """One byte is another now."""
        assert self._random is not None
        place = self._random.randrange(len(whole))
        return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


class SimLocalRuns:
    """The `LocalRuns` port of one simulated process."""

    def __init__(self, disk: SimDisk, gate: Gate = open_gate) -> None:
        self._disk = disk
        self._gate = gate

    async def work(self, task: Callable[[], Result]) -> Result:
        await self._gate("work.before")
        return task()

    async def find(self, partition: int, head: RunHead) -> Buffer | None:
        await self._gate("run_find.before")
        name = partition, head.bucket, head.generation, head.digest
        whole = self._disk.copies.get(name)
        if whole is not None and self._disk.unlucky():
            whole = self._disk.copies[name] = self._disk.damage(whole)
        if whole is None or xxhash.xxh3_128_digest(whole) != head.digest:
            self._disk.copies.pop(name, None)
            return None
        return whole

    async def keep(self, partition: int, head: RunHead, rows: AsyncIterator[Buffer]) -> Buffer | None:
        await self._gate("run_keep.before")
        whole = b"".join([head.outline, *[piece async for piece in rows]])
        if self._disk.unlucky():
            return None
        self._disk.copies[partition, head.bucket, head.generation, head.digest] = whole
        return await self.find(partition, head)
