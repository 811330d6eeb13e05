"""Real doors on real sockets, answered by a script, and a routing table that a test moves."""

import asyncio
from collections.abc import Callable

from actors.door import Door
from actors.door_wire import Answer, AsOf, Balance, BalanceView, Check, Checked, Question, WalletView
from tallygate_sdk.answers import DoorRoute, RoutingTable

TOKEN = "the-token-of-the-deployment"
WALLET = WalletView("USD", "12.5", "0.03", "12.47", "0")


def as_of(epoch: int, partition: int = 0) -> AsOf:
    return AsOf(partition, epoch, 10, 1_795_341_600_000_000, 0)


class Shard:
    """One door. `says` answers each question, None: not at once, and then never."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.heard: list[Question] = []
        self.says: Callable[[Question], Answer | None] = self.usual
        self.door = Door(self, f"shard.{epoch}", TOKEN)
        self.port = 0

    def usual(self, question: Question) -> Answer:
        if isinstance(question, Balance):
            return BalanceView(WALLET, as_of(self.epoch))
        feature = question.feature if isinstance(question, Check) else None
        return Checked(True, as_of(self.epoch), feature=feature)

    def answer_now(self, question: Question) -> Answer | None:
        self.heard.append(question)
        return self.says(question)

    async def answer(self, question: Question, within_s: float) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError("never")


class Rig:
    """Some shards, and who owns what."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        self.table = RoutingTable(1, ())
        self.read = 0

    async def shard(self, epoch: int) -> Shard:
        made = Shard(epoch)
        made.port = await made.door.start("127.0.0.1")
        self.shards.append(made)
        return made

    def owns(self, shard: Shard, partitions: int = 1) -> None:
        routes = (DoorRoute(number, "127.0.0.1", shard.port, shard.epoch) for number in range(partitions))
        self.table = RoutingTable(partitions, tuple(routes))

    async def read_table(self) -> RoutingTable:
        self.read += 1
        return self.table

    async def stop(self) -> None:
        for shard in self.shards:
            await shard.door.stop()
