"""What the shard knows of a partition it owns."""

import asyncio

from actors.owned import Owned, Stage
from tests.actors.shard_rig import Rig
from tests.simulation.hand_clock import settle


async def owned_partition(rig: Rig) -> Owned:
    process = rig.process()
    await process.join(1)
    owned, _ = await process.take(1)
    return owned


async def test_a_halted_partition_does_not_run_and_says_why(rig: Rig) -> None:
    owned = await owned_partition(rig)
    assert owned.number == 1
    for stage in (Stage.REPLAYING, Stage.WAITING, Stage.READY, Stage.GIVEN):
        owned.stage = stage
        assert owned.running
    owned.halt("the log was truncated")
    assert not owned.running
    assert (owned.stage, owned.halt_reason) == (Stage.HALTED, "the log was truncated")


async def test_what_is_under_way_is_every_send_and_the_commit(rig: Rig) -> None:
    owned = await owned_partition(rig)
    assert list(owned.tasks()) == []
    send, commit = (asyncio.create_task(rig.clock.sleep(1)) for _ in range(2))
    owned.sends.add(send)
    owned.committing = commit
    assert set(owned.tasks()) == {send, commit}
    await rig.clock.advance(1)


async def test_who_waits_for_an_offset_goes_on_when_it_is_folded_or_lost(rig: Rig) -> None:
    owned = await owned_partition(rig)
    owned.next_offset = 5
    await owned.folded(4)
    waiting = {offset: asyncio.create_task(owned.folded(offset)) for offset in (7, 5, 6, 5)}
    await settle()
    assert not any(task.done() for task in waiting.values())
    owned.next_offset = 7
    owned.wake_waiting()
    await settle()
    assert {offset for offset, task in waiting.items() if task.done()} == {5, 6}
    owned.let_go()
    await settle()
    assert waiting[7].done()


async def test_who_gives_up_waiting_is_not_kept(rig: Rig) -> None:
    owned = await owned_partition(rig)
    patient = asyncio.create_task(owned.folded(900))
    for _ in range(50):
        hasty = [asyncio.create_task(owned.folded(1_000)) for _ in range(10)]
        await settle()
        for task in hasty:
            task.cancel()
        await settle()
    assert len(owned.waiting) < 30
    owned.next_offset = 901
    owned.wake_waiting()
    await patient


async def test_only_the_last_owner_that_the_log_names_speaks(rig: Rig) -> None:
    owned = await owned_partition(rig)
    owned.stage = Stage.READY
    assert not owned.speaks, "our own `owner` record has not been read"
    owned.fold.epoch = owned.epoch
    assert not owned.speaks, "the desk is not open"
    owned.fold.desk.begin(owned.epoch)
    assert owned.outrun and not owned.speaks, "somebody else was named by that epoch before"
    owned.fold.epoch_offset = owned.owner_offset
    assert owned.speaks and not owned.outrun
    owned.fold.epoch += 1
    assert owned.outrun and not owned.speaks, "somebody else has become the owner"
    owned.fold.epoch -= 1
    owned.stage = Stage.WAITING
    assert not owned.speaks
