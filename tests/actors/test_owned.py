"""What the shard knows of a partition it owns."""

import asyncio

from actors.owned import Owned, Stage
from tests.actors.shard_rig import Rig


async def owned_partition(rig: Rig) -> Owned:
    process = rig.process()
    await process.join(1)
    owned, _ = await process.take(1)
    return owned


async def test_a_halted_partition_does_not_run_and_says_why(rig: Rig) -> None:
    owned = await owned_partition(rig)
    assert owned.number == 1
    for stage in (Stage.REPLAYING, Stage.WAITING, Stage.READY):
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
