"""What the ports `Membership`, `Roster` and `Directory` promise, held against Postgres and the simulator's database."""

import asyncio

import pytest

from actors.ports import Doorway, Fenced, Membership, Roster
from tests.contracts.benches import Bench

LEASE_S = 1.5


@pytest.fixture
async def membership(bench: Bench) -> Membership:
    return await bench.membership(LEASE_S)


@pytest.fixture
async def roster(bench: Bench) -> Roster:
    return await bench.roster()


async def join(membership: Membership, incarnation: str) -> None:
    await membership.register(incarnation, "shard", "host", f"/run/{incarnation}.lock", 4711)


async def office(roster: Roster, controller: str = "controller", lease_s: float = 60.0) -> int:
    term = await roster.take_office(controller, lease_s)
    assert term is not None
    return term


async def test_a_registered_member_is_seen_with_its_lease(membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    (member,) = await roster.members()
    assert (member.incarnation, member.shard, member.host) == ("a", "shard", "host")
    assert (member.lock_path, member.partitions) == ("/run/a.lock", frozenset())
    assert 0 < member.lease_left_s <= LEASE_S


async def test_members_come_in_order_of_registration(membership: Membership, roster: Roster) -> None:
    for incarnation in ("b", "a"):
        await join(membership, incarnation)
    assert [member.incarnation for member in await roster.members()] == ["b", "a"]


async def test_a_lease_runs_out_and_is_renewed(bench: Bench, membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    await bench.pass_time(LEASE_S + 0.1)
    assert (await roster.members())[0].lease_left_s < 0
    assert (await membership.renew("a")).lease_s == LEASE_S
    assert (await roster.members())[0].lease_left_s > 0


async def test_a_renewal_tells_what_to_own(membership: Membership, roster: Roster) -> None:
    for incarnation in ("a", "b"):
        await join(membership, incarnation)
    term = await office(roster)
    assert (await membership.renew("a")).partitions == frozenset()
    await roster.assign(term, {0: "a", 1: "a", 2: "b"})
    await roster.assign(term, {1: "b"})
    assert (await membership.renew("a")).partitions == {0}
    assert (await membership.renew("b")).partitions == {1, 2}
    assert {member.incarnation: member.partitions for member in await roster.members()} == {"a": {0}, "b": {1, 2}}


async def test_the_dead_are_not_renewed(membership: Membership, roster: Roster) -> None:
    for incarnation in ("a", "b"):
        await join(membership, incarnation)
    term = await office(roster)
    await roster.assign(term, {0: "a"})
    await roster.declare_dead(term, "a")
    with pytest.raises(Fenced):
        await membership.renew("a")
    with pytest.raises(Fenced):
        await join(membership, "a")
    assert [member.incarnation for member in await roster.members()] == ["b"]
    await membership.renew("b")


async def test_the_unknown_are_not_renewed(membership: Membership) -> None:
    with pytest.raises(Fenced):
        await membership.renew("nobody")


async def test_registering_again_changes_nothing_but_the_lease(membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    await join(membership, "a")
    assert len(await roster.members()) == 1


async def test_who_left_is_gone_for_good(membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    await membership.leave("a")
    assert await roster.members() == []
    with pytest.raises(Fenced):
        await membership.renew("a")
    await membership.leave("a")
    await membership.leave("nobody")


async def test_one_controller_at_a_time(bench: Bench, roster: Roster) -> None:
    first = await office(roster, "first", LEASE_S)
    other = await bench.roster()
    assert await other.take_office("second", LEASE_S) is None
    await bench.pass_time(LEASE_S + 0.1)
    second = await other.take_office("second", LEASE_S)
    assert second is not None
    assert second > first
    assert await roster.take_office("first", LEASE_S) is None


async def test_the_controller_in_office_may_begin_a_new_term(roster: Roster) -> None:
    first = await office(roster)
    assert await office(roster) > first


async def test_staying_in_office_extends_the_lease(bench: Bench, roster: Roster) -> None:
    term = await office(roster, "first", LEASE_S)
    await roster.stay_in_office(term, 60.0)
    await bench.pass_time(LEASE_S + 0.1)
    assert await roster.take_office("second", LEASE_S) is None


async def test_whoever_waits_for_a_change_of_the_assignment_is_woken_by_it(
    bench: Bench, membership: Membership, roster: Roster
) -> None:
    await join(membership, "a")
    term = await office(roster)
    await membership.renew("a")
    waiting = asyncio.create_task(membership.assignment_changed(60.0))
    await bench.pass_time(0.1)
    assert not waiting.done()
    await roster.assign(term, {0: "a"})
    for _ in range(100):
        await bench.pass_time(0.1)
        if waiting.done():
            break
    assert waiting.done(), "long before its time"
    await roster.assign(term, {1: "a"})
    await membership.assignment_changed(60.0)  # a change that came before the wait is not missed
    waiting = asyncio.create_task(membership.assignment_changed(60.0))
    await bench.pass_time(0.3)
    assert not waiting.done(), "nobody is told twice, whether or not a renewal has followed"
    waiting.cancel()
    assert (await membership.renew("a")).partitions == frozenset({0, 1})


async def test_without_a_change_the_wait_ends_by_itself(bench: Bench, membership: Membership) -> None:
    await join(membership, "a")
    await membership.renew("a")
    waiting = asyncio.create_task(membership.assignment_changed(0.2))
    await bench.pass_time(0.1)
    assert not waiting.done()
    for _ in range(100):
        await bench.pass_time(0.1)
        if waiting.done():
            break
    await asyncio.wait_for(waiting, 0)


async def test_an_office_given_up_is_free_at_once(roster: Roster) -> None:
    first = await office(roster, "first")
    await roster.resign(first)
    second = await office(roster, "second")
    assert second > first
    await roster.resign(first)
    assert await roster.take_office("third", 60.0) is None, "whoever is out of office gives nothing up"


async def test_what_a_member_owns_is_told_beside_what_it_should_own(
    bench: Bench, membership: Membership, roster: Roster
) -> None:
    await join(membership, "a")
    await roster.assign(await office(roster), {0: "a", 1: "a"})
    store = await bench.store()
    claim = await store.claim(0, "a")
    (member,) = await roster.members()
    assert (member.partitions, member.owned) == (frozenset({0, 1}), frozenset({0}))
    await store.release(0, claim.epoch)
    assert (await roster.members())[0].owned == frozenset()


async def test_a_renewal_tells_what_is_owned_beside_what_should_be(
    bench: Bench, membership: Membership, roster: Roster
) -> None:
    await join(membership, "a")
    await join(membership, "b")
    term = await office(roster)
    await roster.assign(term, {0: "a", 1: "a", 2: "b"})
    store = await bench.store()
    for partition, incarnation in ((0, "a"), (2, "b")):
        await store.claim(partition, incarnation)
    assert (await membership.renew("a")).owned == frozenset({0}), "nobody owns 1 yet"
    await roster.assign(term, {0: "b", 1: "a", 2: "a"})
    renewal = await membership.renew("a")
    assert (renewal.partitions, renewal.owned) == (frozenset({1, 2}), frozenset({0})), "it is still to be handed over"
    await store.claim(0, "b")
    assert (await membership.renew("a")).owned == frozenset()
    await roster.assign(term, {0: "a", 1: "a", 2: "a"})
    renewal = await membership.renew("a")
    assert (renewal.partitions, renewal.owned) == (frozenset({0, 1, 2}), frozenset()), "and 2 is in the hands of b"


async def test_a_term_that_is_over_writes_nothing(membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    old = await office(roster)
    new = await office(roster)
    with pytest.raises(Fenced):
        await roster.stay_in_office(old, 60.0)
    with pytest.raises(Fenced):
        await roster.assign(old, {0: "a"})
    with pytest.raises(Fenced):
        await roster.declare_dead(old, "a")
    assert (await membership.renew("a")).partitions == frozenset()
    await roster.assign(new, {0: "a"})


async def test_whoever_lives_and_has_a_door_can_be_found_with_what_it_owns(
    bench: Bench, membership: Membership, roster: Roster
) -> None:
    await membership.register("a", "shard", "host", "/run/a.lock", 4711, "10.0.0.1", 4000)
    await membership.register("b", "shard", "host", "/run/b.lock", 4712, "10.0.0.2", 4001)
    await join(membership, "doorless")
    await roster.assign(await office(roster), {0: "a", 1: "a", 2: "doorless"})
    store = await bench.store()
    for _ in range(2):
        await store.claim(1, "a")
    await store.claim(2, "doorless")
    directory = await bench.directory()
    assert await directory.doorways() == [Doorway("a", "10.0.0.1", 4000, {1: 2}), Doorway("b", "10.0.0.2", 4001, {})]


async def test_a_door_is_gone_with_its_lease(bench: Bench, membership: Membership, roster: Roster) -> None:
    for incarnation, port in (("a", 4000), ("b", 4001), ("c", 4002)):
        await membership.register(incarnation, "shard", "host", "/run/lock", 4711, "10.0.0.1", port)
    directory = await bench.directory()
    await roster.declare_dead(await office(roster), "b")
    await membership.leave("c")
    assert [doorway.incarnation for doorway in await directory.doorways()] == ["a"]
    await bench.pass_time(LEASE_S + 0.1)
    assert await directory.doorways() == []
    await membership.renew("a")
    assert [doorway.incarnation for doorway in await directory.doorways()] == ["a"]


async def test_a_partition_given_back_is_nobodys(bench: Bench, membership: Membership, roster: Roster) -> None:
    await membership.register("a", "shard", "host", "/run/a.lock", 4711, "10.0.0.1", 4000)
    await roster.assign(await office(roster), {0: "a"})
    store = await bench.store()
    claim = await store.claim(0, "a")
    await store.release(0, claim.epoch)
    directory = await bench.directory()
    assert await directory.doorways() == [Doorway("a", "10.0.0.1", 4000, {})]


async def test_an_operator_says_who_is_to_be_emptied(membership: Membership, roster: Roster) -> None:
    await join(membership, "a")
    await join(membership, "b")
    assert [member.draining for member in await roster.members()] == [False, False]
    assert await roster.set_draining("a", True)
    assert [member.draining for member in await roster.members()] == [True, False]
    await membership.renew("a")
    await join(membership, "a")
    assert [member.draining for member in await roster.members()] == [True, False], "until the operator says otherwise"
    assert await roster.set_draining("a", False)
    assert [member.draining for member in await roster.members()] == [False, False]
    assert not await roster.set_draining("nobody", True)
    await membership.leave("a")
    assert not await roster.set_draining("a", True)
