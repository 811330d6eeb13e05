"""Callers at a door: that each asks at its time, gives back what it held, and that an answer that holds nothing is none."""

from actors.clock import SystemClock
from actors.door import Door
from actors.door_client import Doors
from actors.door_wire import door_token
from actors.ports import Doorway
from loadtest.bench.callers import Asker
from loadtest.bench.latency import Latencies
from loadtest.door_bench import EPOCH, KEY, Shard


class OneShard:
    """A routing table of one door."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def doorways(self) -> list[Doorway]:
        return [Doorway("bench", "127.0.0.1", self.port, {0: EPOCH})]


async def test_every_check_is_answered_and_what_it_held_is_given_back() -> None:
    shard = Shard()
    answers = shard.answers()
    door = Door(answers, "bench", door_token(KEY))
    opened = Doors(OneShard(await door.start("127.0.0.1")), door_token(KEY), 1)
    await opened.start()
    try:
        accounts = [customer.account for customer in shard.customers[:3]]
        asker, durations = Asker(SystemClock(), opened, accounts), Latencies()
        await asker.warm()
        offered = await asker.ask([0.0, 0.001, 0.002, 0.003], durations)
        assert (offered.scheduled, offered.failed, len(durations)) == (4, 0, 4)
        assert answers.checks["allowed"] == 3 + 4
        assert shard.open_holds == 0
        nobody = Asker(SystemClock(), opened, ["nobody"])
        refused = await nobody.ask([0.0, 0.001], durations)
        assert (refused.scheduled, refused.failed, len(durations)) == (2, 2, 4)
    finally:
        await opened.stop()
        await door.stop()
