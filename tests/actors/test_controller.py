"""Who gets which partition, and what the controller does about the dead, about rivals and about a database that is away."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.controller import GRACE_S, LOOK_EVERY_S, Controller, empty, even_out, place
from actors.ports import Member, StoreRefused
from config.settings import LeaseSettings
from tests.actors.shard_rig import KnownDeaths
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_store import SimDatabase, SimMembership, SimRoster

SETTINGS = LeaseSettings()
A_LOOK_S = LOOK_EVERY_S + 0.2


def member(name: str, *partitions: int) -> Member:
    return Member(name, f"shard-{name}", "host", f"/run/{name}.lock", 1.0, frozenset(partitions), frozenset(partitions))


def drained(name: str, *partitions: int) -> Member:
    return msgspec.structs.replace(member(name, *partitions), draining=True)


@pytest.mark.parametrize(
    ("members", "moves"),
    [
        # Nobody is there: nothing is placed.
        ([], {}),
        # A start: evenly, ties to the name that sorts first, in the order of the partitions.
        ([member("a")], {0: "a", 1: "a", 2: "a", 3: "a"}),
        ([member("a"), member("b")], {0: "a", 1: "b", 2: "a", 3: "b"}),
        ([member("b"), member("a")], {0: "a", 1: "b", 2: "a", 3: "b"}),
        ([member("c"), member("a"), member("b")], {0: "a", 1: "b", 2: "c", 3: "a"}),
        # Everything has a living owner: nothing moves, however uneven, and a spare gets nothing.
        ([member("a", 0, 1), member("b", 2, 3)], {}),
        ([member("a", 0, 1, 2, 3), member("b")], {}),
        ([member("a", 0, 1), member("b", 2, 3), member("spare")], {}),
        # What the dead left goes to the living, fewest first; what the living hold stays.
        ([member("b", 2, 3)], {0: "b", 1: "b"}),
        ([member("b", 2, 3), member("spare")], {0: "spare", 1: "spare"}),
        ([member("b", 3), member("c", 1, 2)], {0: "b"}),
        ([member("a", 0), member("b", 1), member("c")], {2: "c", 3: "a"}),
        # Who is drained gets nothing, unless nobody else is there.
        ([member("b", 2, 3), drained("a")], {0: "b", 1: "b"}),
        ([drained("a", 2, 3), drained("b")], {0: "b", 1: "b"}),
        # A partition beyond the number of partitions (a topic of another name) is nobody's business.
        ([member("a", 0, 1, 2, 3, 9)], {}),
    ],
)
def test_place(members: list[Member], moves: dict[int, str]) -> None:
    assert place(4, members) == moves


@pytest.mark.parametrize(
    ("members", "moves"),
    [
        ([], {}),
        ([member("a", 0, 1, 2, 3)], {}),
        # One more than another is even: the move would only call for the next one.
        ([member("a", 0, 1), member("b", 2)], {}),
        ([member("a", 0, 1), member("b")], {1: "b"}),
        ([member("a", 0, 1, 2, 3), member("b")], {3: "b", 2: "b"}),
        # Few at a time, however uneven.
        ([member("a", 0, 1, 2, 3, 4, 5, 6, 7), member("b")], {7: "b", 6: "b"}),
        ([member("a", 0, 1, 2), member("b", 3, 4, 5), member("c")], {2: "c", 5: "c"}),
        ([member("b"), member("c"), member("a", 0, 1, 2)], {2: "b", 1: "c"}),
    ],
)
def test_even_out(members: list[Member], moves: dict[int, str]) -> None:
    assert even_out(members, 2) == moves


@pytest.mark.parametrize(
    ("members", "moves"),
    [
        ([], {}),
        ([member("a", 0, 1), member("b", 2, 3)], {}),
        ([drained("a"), member("b", 0, 1)], {}),
        # Each to whoever has fewest, few at a time.
        ([drained("a", 0, 1, 2), member("b", 3)], {0: "b", 1: "b"}),
        ([drained("a", 0, 1, 2), member("b", 3), member("c")], {0: "c", 1: "b"}),
        ([drained("a", 0), drained("b", 1), member("c", 2, 3)], {0: "c", 1: "c"}),
        # Nobody is left who could take over: they stay where they are.
        ([drained("a", 0, 1), drained("b", 2, 3)], {}),
    ],
)
def test_empty(members: list[Member], moves: dict[int, str]) -> None:
    assert empty(members, 2) == moves


def test_what_is_being_handed_over_counts_among_the_few_at_a_time() -> None:
    claiming = msgspec.structs.replace(member("b", 3, 4), owned=frozenset({3}))
    assert empty([drained("a", 0, 1, 2), claiming], 2) == {0: "b"}
    assert empty([drained("a", 0, 1, 2), claiming], 1) == {}


class Stage:
    """A database, its members, and any number of controllers."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.database = SimDatabase(self.clock)
        self.deaths = KnownDeaths()
        self.tasks: list[asyncio.Task[None]] = []
        self.controllers: list[Controller] = []

    def controller(self, name: str = "one", members_min: int = 2) -> Controller:
        made = Controller(
            name,
            partitions=4,
            members_min=members_min,
            roster=SimRoster(self.database),
            deaths=self.deaths,
            clock=self.clock,
            settings=SETTINGS,
        )
        self.controllers.append(made)
        self.tasks.append(asyncio.create_task(made.run()))
        return made

    async def join(self, name: str, lease_s: float = 1_000.0) -> None:
        await SimMembership(self.database, lease_s).register(name, f"shard-{name}", "host", f"/run/{name}.lock", 1)

    def claimed(self) -> None:
        """Everybody owns what is assigned to it."""
        for partition, incarnation in self.database.assignment.items():
            self.database.partition(partition).owner = incarnation

    def owners(self) -> dict[int, str]:
        return dict(sorted(self.database.assignment.items()))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


EVEN = {0: "a", 1: "b", 2: "a", 3: "b"}


async def test_nothing_is_placed_before_the_members_have_gathered(stage: Stage) -> None:
    stage.controller()
    await stage.clock.advance(1)
    assert stage.owners() == {}
    await stage.join("a")
    await stage.clock.advance(5)
    assert stage.owners() == {}, "alone, the first one would get everything"
    await stage.join("b")
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == EVEN


async def test_a_controller_that_follows_another_does_not_wait_for_the_members_to_gather(stage: Stage) -> None:
    await stage.join("a")
    stage.database.assignment[0] = "a"
    stage.controller(members_min=3)
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "a")


async def gathered(stage: Stage) -> None:
    """Two members with two partitions each, and a controller that has watched them for longer than a lease."""
    await stage.join("a")
    await stage.join("b")
    stage.controller()
    await stage.clock.advance(SETTINGS.lease_s + GRACE_S + A_LOOK_S)
    assert stage.owners() == EVEN


async def test_the_partitions_of_one_proven_dead_go_to_the_living(stage: Stage) -> None:
    await gathered(stage)
    stage.deaths.locks.add("/run/a.lock")
    await stage.clock.advance(0.2)
    assert stage.owners() == dict.fromkeys(range(4), "b"), "proof is looked for more often than the database is asked"
    assert stage.database.members["a"].dead, "its next renewal is refused"


async def test_a_lease_long_over_counts_as_death_and_one_just_over_does_not(stage: Stage) -> None:
    await gathered(stage)
    stage.database.members["a"].lease_until_s = stage.clock.boot_s()
    await stage.clock.advance(GRACE_S - 0.1)
    assert stage.owners() == EVEN, "a slow renewal may still come"
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "b")


async def test_leases_that_ran_out_while_the_controller_was_away_are_not_judged(stage: Stage) -> None:
    """Postgres was away for everybody: whoever renews in time afterwards has lost nothing."""
    await gathered(stage)
    stage.database.down = True
    for row in stage.database.members.values():
        row.lease_until_s = stage.clock.boot_s() + 1
    await stage.clock.advance(5)
    stage.database.down = False
    await stage.clock.advance(SETTINGS.lease_s)
    assert not stage.database.members["a"].dead
    stage.database.members["a"].lease_until_s = stage.clock.boot_s() + 1_000
    await stage.clock.advance(GRACE_S + A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "a"), "and whoever does not is dead all the same"


async def test_whoever_comes_back_is_a_spare_until_somebody_dies(stage: Stage) -> None:
    await gathered(stage)
    stage.deaths.locks.add("/run/a.lock")
    await stage.clock.advance(A_LOOK_S)
    await stage.join("a2")
    await stage.clock.advance(5)
    assert stage.owners() == dict.fromkeys(range(4), "b")
    stage.deaths.locks.add("/run/b.lock")
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "a2")


async def back(stage: Stage) -> None:
    """One of two has died, the other has claimed everything, and a new life of the first has just joined."""
    await gathered(stage)
    stage.deaths.locks.add("/run/a.lock")
    await stage.clock.advance(A_LOOK_S)
    stage.claimed()
    await stage.join("a2")


async def test_a_spare_gets_its_part_a_few_partitions_at_a_time_once_all_is_quiet(stage: Stage) -> None:
    await back(stage)
    await stage.clock.advance(SETTINGS.rebalance_after_s - A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "b"), "it may crash again"
    await stage.clock.advance(3 * A_LOOK_S)
    assert stage.owners() == {0: "b", 1: "b", 2: "a2", 3: "a2"}
    await stage.join("c")
    await stage.clock.advance(2 * SETTINGS.rebalance_after_s)
    assert list(stage.owners().values()).count("c") == 0, "not before the last move is done"
    stage.claimed()
    await stage.clock.advance(SETTINGS.rebalance_after_s + 3 * A_LOOK_S)
    even = {0: "b", 1: "b", 2: "a2", 3: "c"}
    assert stage.owners() == even
    stage.claimed()
    await stage.clock.advance(3 * SETTINGS.rebalance_after_s)
    assert stage.owners() == even, "what is even stays"


async def test_nothing_is_evened_out_while_shards_come_and_go(stage: Stage) -> None:
    """A shard that crashes again and again would drag partitions with it."""
    await back(stage)
    for life in range(3, 6):
        await stage.clock.advance(SETTINGS.rebalance_after_s * 0.8)
        stage.deaths.locks.add(f"/run/a{life - 1}.lock")
        await stage.join(f"a{life}")
        assert stage.owners() == dict.fromkeys(range(4), "b")


async def test_nothing_is_evened_out_while_a_takeover_is_under_way(stage: Stage) -> None:
    await back(stage)
    stage.database.partition(3).owner = "a"
    await stage.clock.advance(2 * SETTINGS.rebalance_after_s)
    assert stage.owners() == dict.fromkeys(range(4), "b")
    stage.claimed()
    await stage.clock.advance(SETTINGS.rebalance_after_s / 2)
    assert stage.owners() == dict.fromkeys(range(4), "b"), "and its end is followed by the same wait"
    await stage.clock.advance(SETTINGS.rebalance_after_s)
    assert stage.owners() != dict.fromkeys(range(4), "b")


async def test_when_all_are_dead_the_partitions_wait_for_the_next_to_join(stage: Stage) -> None:
    await gathered(stage)
    stage.deaths.locks |= {"/run/a.lock", "/run/b.lock"}
    await stage.clock.advance(1)
    assert stage.owners() == EVEN
    await stage.join("c")
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "c"), "without waiting for a second one"


async def test_a_second_controller_does_nothing_while_the_first_holds_office(stage: Stage) -> None:
    await gathered(stage)
    stage.controller("two")
    await stage.clock.advance(10)
    assert (stage.database.controller, stage.database.term) == ("one", 1)


async def test_another_takes_over_when_the_first_is_gone_and_fences_it(stage: Stage) -> None:
    """The first wakes up later, in the middle of its work, with what it knew: it may not write any more."""
    await stage.join("a")
    await stage.join("b")
    first = stage.controller("one")
    await stage.clock.advance(A_LOOK_S)
    stage.tasks[0].cancel()
    stage.controller("two")
    await stage.clock.advance(SETTINGS.controller_lease_s + 0.5)
    assert (stage.database.controller, stage.database.term) == ("two", 2)
    stage.deaths.locks.add("/run/a.lock")
    stage.tasks.append(asyncio.create_task(first.run()))
    await stage.clock.advance(1)
    assert (stage.database.controller, stage.database.term) == ("two", 2)
    assert stage.owners() == dict.fromkeys(range(4), "b")
    stage.tasks[1].cancel()
    await stage.clock.advance(SETTINGS.controller_lease_s + 0.5)
    assert (stage.database.controller, stage.database.term) == ("one", 3), "fenced, it asks for office like anybody"


async def test_an_outage_of_the_database_is_waited_out(stage: Stage) -> None:
    await gathered(stage)
    stage.database.down = True
    stage.deaths.locks.add("/run/a.lock")
    await stage.clock.advance(2)
    assert stage.owners() == EVEN
    stage.database.down = False
    await stage.clock.advance(SETTINGS.controller_lease_s)
    assert stage.owners() == dict.fromkeys(range(4), "b")


async def test_a_refusal_of_the_database_is_waited_out_until_a_person_has_mended_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = SimRoster.members

    async def refusing(roster: SimRoster) -> list[Member]:
        if stage.clock.boot_s() < 3:
            raise StoreRefused("permission denied for table member")
        return await members(roster)

    monkeypatch.setattr(SimRoster, "members", refusing)
    await stage.join("a")
    await stage.join("b")
    stage.controller()
    await stage.clock.advance(2)
    assert stage.owners() == {}
    await stage.clock.advance(2)
    assert stage.owners() == EVEN


async def test_a_controller_that_is_stopped_ends(stage: Stage) -> None:
    controller = stage.controller()
    await stage.clock.advance(A_LOOK_S)
    controller.stop()
    await stage.clock.advance(A_LOOK_S)
    assert stage.tasks[0].done()
    await stage.tasks[0]


async def test_a_controller_that_is_stopped_gives_up_its_office_at_once(stage: Stage) -> None:
    await gathered(stage)
    first = stage.controller("two")
    await stage.clock.advance(1)
    assert stage.database.controller == "one"
    stage.controllers[0].stop()
    await stage.clock.advance(A_LOOK_S)
    assert stage.database.controller == "two", "without waiting for the lease of the first to run out"
    first.stop()
    stage.database.down = True
    await stage.clock.advance(A_LOOK_S)
    assert stage.tasks[1].done(), "with the database away it ends all the same"
    await stage.tasks[1]


async def test_who_is_drained_hands_over_at_once_and_gets_nothing_back_until_it_may(stage: Stage) -> None:
    await gathered(stage)
    stage.claimed()
    assert await SimRoster(stage.database).set_draining("a", True)
    await stage.clock.advance(A_LOOK_S)
    assert stage.owners() == dict.fromkeys(range(4), "b")
    stage.claimed()
    await stage.clock.advance(2 * SETTINGS.rebalance_after_s)
    assert stage.owners() == dict.fromkeys(range(4), "b"), "however uneven"
    await SimRoster(stage.database).set_draining("a", False)
    await stage.clock.advance(SETTINGS.rebalance_after_s + A_LOOK_S)
    assert list(stage.owners().values()).count("a") == 2
