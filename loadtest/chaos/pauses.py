"""A shard that is stopped for longer than its lease, and wakes up believing everything that it believed.

While it sleeps another one must speak for its partitions. When it wakes, whatever it does must come to nothing: what it
was about to commit is refused, what it is asked it does not answer, and it leaves.
"""

import asyncio
import signal
from enum import StrEnum
from typing import Final

import psutil
from msgspec import Struct

from actors.assembly import doors
from actors.clock import SystemClock
from actors.deployment import until
from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Answer, Balance, BalanceView, Check, Checked, Question, door_token
from actors.ports import Doorway
from engine.placement import partition_for
from loadtest.chaos.commits import CommitFault, CommitStrike
from loadtest.chaos.links import WAIT_S, LinkedShards

ASK_WITHIN_S: Final = 2.0
LAST_WORDS_S: Final = 10.0  # for what was asked of a sleeper to be answered, or not, once it wakes


class Moment(StrEnum):
    """When the shard is stopped."""

    ANY = "any"
    COMMIT = "commit"  # its COMMIT is on the way, and arrives once others have taken over
    ANSWER = "answer"  # its COMMIT has taken effect, and it has not yet heard so


class Pause(Struct, frozen=True):
    """What came of one."""

    moment: Moment
    seconds: float
    takeover_s: float  # from the stop to the successor's answer to a check of an account that was the sleeper's
    sleeper_answered: int  # what it answered of its own once it woke; anything but 0 is wrong
    late_commit_took_effect: bool  # of Moment.COMMIT; anything but False is wrong

    @property
    def sentences(self) -> list[str]:
        """What may not be."""
        found = []
        if self.sleeper_answered:
            found.append(f"a shard that was stopped beyond its lease gave {self.sleeper_answered} answers as it woke")
        if self.late_commit_took_effect:
            found.append("a COMMIT of a shard that had been replaced took effect")
        return found


class _OneDoor:
    """The `Directory` of somebody who knows one shard and hears of no other."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Likewise."""

    async def doorways(self) -> list[Doorway]:
        return [self._doorway]


async def pause(run: LinkedShards, number: int, seconds: float, moment: Moment) -> Pause:
    """Stop shard `number`, which owns partitions, for `seconds` and for as long as others need to take over; wake it.

    Returns when it has left and a new one has joined in its place."""
    clock = SystemClock()
    sleeper = run.shards[number]
    everyone = doors(run.at.settings)
    await everyone.start()
    try:

        async def speaks() -> bool:
            return any(route.incarnation == sleeper.incarnation for route in everyone.routes())

        await until(speaks, "the shard to speak for what it has claimed", WAIT_S)  # it may have done so just now
        route = next(route for route in everyone.routes() if route.incarnation == sleeper.incarnation)
        account = next(name for name in run.customers if _home(run, name) == route.partition)
        doorway = Doorway(sleeper.incarnation, route.host, route.port, {route.partition: route.epoch})
        sleepers_door = Doors(
            _OneDoor(doorway), door_token(run.at.settings.control_key_bytes()), run.at.settings.kafka.partitions
        )
        await sleepers_door.start()
        try:
            await _answered(sleepers_door, account, "the shard to answer before it is stopped")
            strike = await _stop(run, number, moment)
            slept_s = clock.boot_s()
            try:
                if strike is not None and moment is Moment.ANSWER:
                    strike.delivered.set()
                await run.taken_over(number)
                await _answered(everyone, account, "the successor to answer")
                takeover_s = clock.boot_s() - slept_s
                asked = [
                    asyncio.create_task(_own_words(sleepers_door, account, question))
                    for question in (_check(account), Balance(account))
                ]
                await clock.sleep(max(0.0, slept_s + seconds - clock.boot_s()))
            finally:
                sleeper.signal(signal.SIGCONT)
            if strike is not None:
                strike.delivered.set()
            last_words = sum(await asyncio.gather(*asked))
            took_effect = strike is not None and await strike.outcome
        finally:
            await sleepers_door.stop()
    finally:
        await everyone.stop()
    slept = clock.boot_s() - slept_s
    await run.replaced(number)
    return Pause(moment, slept, takeover_s, last_words, moment is Moment.COMMIT and took_effect)


async def _stop(run: LinkedShards, number: int, moment: Moment) -> CommitStrike | None:
    sleeper = run.shards[number]
    strike = None
    if moment is not Moment.ANY:
        strike = run.links[number].postgres.strike(CommitFault.HELD)
        async with asyncio.timeout(WAIT_S):
            await strike.seen
    sleeper.signal(signal.SIGSTOP)
    process = psutil.Process(sleeper.process.pid)

    async def stopped() -> bool:
        return bool(process.status() == psutil.STATUS_STOPPED)

    await until(stopped, "the shard to stop", WAIT_S)
    return strike


def _home(run: LinkedShards, account: str) -> int:
    return partition_for(account.encode(), run.at.settings.kafka.partitions)


def _check(account: str) -> Check:
    return Check(account, type="llm.request", data={"model": "atlas-small"})


async def _answered(shards: Doors, account: str, what: str) -> None:
    """Return once a check has been decided, either way."""

    async def decided() -> bool:
        try:
            return isinstance(await shards.ask(account, _check(account), ASK_WITHIN_S), Checked)
        except DoorUnavailable:
            return False

    await until(decided, what, WAIT_S)


async def _own_words(sleepers_door: Doors, account: str, question: Question) -> bool:
    """Whether it answered out of what it holds, instead of refusing or leaving."""
    try:
        answer: Answer = await sleepers_door.ask(account, question, LAST_WORDS_S)
    except DoorUnavailable:
        return False
    return isinstance(answer, Checked | BalanceView)
