"""An operator empties a shard: refused where nobody would be left, awaited until nothing is owned, taken back."""

import asyncio

import pytest

from actors.draining import DrainRefused, NotDrained, drain, resume, state_of
from actors.ports import Member
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_store import SimDatabase, SimMembership, SimRoster


class Members:
    """shard-0 on host-0 owns partitions 0 and 1, shard-1 on host-1 owns partition 2."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.database = SimDatabase(self.clock)
        self.roster = SimRoster(self.database)
        self.said: list[str] = []

    async def join(self) -> None:
        for number in range(2):
            membership = SimMembership(self.database, 1_000.0)
            await membership.register(f"shard-{number}.x", f"shard-{number}", f"host-{number}", "/run/lock", 1)
        self.move({0: "shard-0.x", 1: "shard-0.x", 2: "shard-1.x"})

    def move(self, partitions: dict[int, str]) -> None:
        """As controller and owners do."""
        self.database.assignment.update(partitions)
        for partition, incarnation in partitions.items():
            self.database.partition(partition).owner = incarnation

    def drained(self, *shards: str, host: str | None = None) -> "asyncio.Task[list[str]]":
        return asyncio.create_task(drain(self.roster, self.clock, shards, host, 60, self.said.append))

    async def states(self) -> dict[str, str]:
        return {member.shard: state_of(member) for member in await self.roster.members()}


@pytest.fixture
async def members() -> Members:
    made = Members()
    await made.join()
    return made


async def test_it_is_waited_for_until_nothing_is_owned(members: Members) -> None:
    draining = members.drained("shard-0")
    await members.clock.advance(1)
    assert await members.states() == {"shard-0": "draining", "shard-1": "owner"}
    assert members.said[-1] == "still to be handed over: shard-0.x: partitions 0 1"
    members.move({0: "shard-1.x"})
    await members.clock.advance(1)
    assert members.said[-1] == "still to be handed over: shard-0.x: partitions 1"
    members.move({1: "shard-1.x"})
    await members.clock.advance(1)
    assert await draining == ["shard-0.x"]
    assert await members.states() == {"shard-0": "drained", "shard-1": "owner"}
    assert await resume(members.roster, ("shard-0.x",), None) == ["shard-0.x"]
    assert await members.states() == {"shard-0": "spare", "shard-1": "owner"}


async def test_all_shards_of_a_host(members: Members) -> None:
    draining = members.drained(host="host-1")
    await members.clock.advance(1)
    members.move({2: "shard-0.x"})
    await members.clock.advance(1)
    assert await draining == ["shard-1.x"]


async def test_what_is_left_is_told_when_time_is_up_and_the_wish_stays(members: Members) -> None:
    draining = members.drained("shard-0")
    await members.clock.advance(62)
    with pytest.raises(NotDrained, match=r"within 60 s: shard-0\.x: partitions 0 1;"):
        await draining
    assert (await members.states())["shard-0"] == "draining"


async def test_nobody_would_be_left(members: Members) -> None:
    with pytest.raises(DrainRefused, match="no other shard lives"):
        await members.drained("shard-0", "shard-1")
    await members.roster.set_draining("shard-1.x", True)
    with pytest.raises(DrainRefused, match="no other shard lives"):
        await members.drained("shard-0")
    assert await members.states() == {"shard-0": "owner", "shard-1": "draining"}, "nothing has been asked for"


async def test_names_that_nobody_has(members: Members) -> None:
    with pytest.raises(DrainRefused, match="there is no shard shard-7"):
        await members.drained("shard-0", "shard-7")
    with pytest.raises(DrainRefused, match="no shard lives on host nowhere"):
        await members.drained(host="nowhere")
    with pytest.raises(DrainRefused, match="there is no shard shard-7"):
        await resume(members.roster, ("shard-7",), None)


def test_the_states() -> None:
    def state(assigned: set[int], owned: set[int]) -> str:
        return state_of(Member("i", "s", "h", "l", 1.0, frozenset(assigned), frozenset(owned)))

    assert [state(set(), set()), state({1}, {1}), state({1}, set()), state(set(), {1})] == [
        "spare",
        "owner",
        "moving",
        "moving",
    ]
