"""How long a partition was silent is what its askers saw."""

import asyncio
from typing import cast

from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Answer, AsOf, Balance, NotFound, Question
from engine.placement import partition_for
from loadtest.chaos.voices import Voices
from tests.simulation.hand_clock import HandClock

PARTITIONS = 3


class Owners:
    """Doors behind which some partitions have nobody."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.away: set[int] = set()
        self.slow: dict[int, float] = {}  # how long the answer takes

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        assert isinstance(question, Balance)
        partition = partition_for(account.encode(), PARTITIONS)
        await self._clock.sleep(self.slow.pop(partition, 0.0))
        if partition in self.away:
            raise DoorUnavailable("nobody", 0.1)
        return NotFound(AsOf(partition, 1, 1, 0, None))


async def test_a_silence_lasts_until_its_partition_is_heard_again() -> None:
    clock = HandClock()
    owners = Owners(clock)
    voices = Voices(cast(Doors, owners), clock, PARTITIONS)
    assert voices.silent == [0, 1, 2], "nobody has been heard yet"
    voices.start()
    try:
        await clock.advance(1.0)
        assert voices.silent == []
        struck_s = clock.boot_s()
        assert voices.silence_s(struck_s) == 0.0
        owners.away = {1}
        await clock.advance(2.0)
        assert voices.silent == [1]
        owners.away = set()
        await clock.advance(1.0)
        assert voices.silent == []
        assert 2.0 <= voices.silence_s(struck_s) <= 2.2
        assert voices.silence_s(clock.boot_s()) == 0.0
        later_s = clock.boot_s()
        await clock.advance(30.0)
        owners.away = {2}
        await clock.advance(0.5)
        owners.away = set()
        await clock.advance(1.0)
        assert 0.4 <= voices.silence_s(later_s) <= 0.7, "a short silence long behind the fault is a short one"
        quick_s = clock.boot_s()
        owners.slow = {0: 0.3}
        await clock.advance(1.0)
        assert 0.3 <= voices.silence_s(quick_s) <= 0.4, "a successor that answers what its predecessor left open"
    finally:
        await voices.stop()
    await asyncio.sleep(0)
