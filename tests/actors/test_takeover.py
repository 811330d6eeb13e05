"""Becoming an owner: the order of the steps, a log that is not what it was, and the wait for whoever may still speak."""

import pytest

from actors.ports import Fenced, LogDamaged, PartitionImage, PreviousOwner, StoreUnavailable
from actors.takeover import HAND_OVER_S, CatalogueLost, may_speak
from engine.events import Owner
from tests.actors.shard_rig import CATALOGUE, KnownDeaths, Process, Rig

INTERVAL_S = 1.5  # beyond the interval of checkpoints


async def rated(rig: Rig, process: Process, events: int = 3) -> str:
    """Partition 0 with that many rated events, all in a checkpoint, and its owner declared dead; its account."""
    await process.join(0)
    account = rig.open(0)
    for number in range(events):
        rig.use(account, f"e{number}")
    process.run()
    await rig.clock.until(lambda: rig.database.partition(0).next_offset == rig.end(0), 10)
    process.declare_dead()
    await rig.clock.advance(1)
    return account


async def moving(rig: Rig) -> tuple[Process, Process]:
    """An owner of partition 0 that lives and rates, and a second process that the partition is to go to."""
    owner, heir = rig.process("a"), rig.process("b")
    await owner.join(0)
    rig.open(0)
    owner.run()
    await rig.clock.until(lambda: owner.stage(0) == "ready", 10)
    await heir.join(0)
    heir.run()
    return owner, heir


async def test_an_owner_that_lives_is_left_the_time_to_hand_over(rig: Rig) -> None:
    owner, heir = await moving(rig)
    await rig.clock.advance(1)
    assert (owner.stage(0), heir.stage(0)) == ("ready", "not owned"), "it has not heard of the move, and goes on"
    account = rig.account(0)
    rig.use(account, "behind the last checkpoint but one")
    owner.lease.extend(float("inf"), frozenset())
    moved_s = rig.clock.boot_s()
    await rig.clock.until(lambda: heir.stage(0) == "ready", 10)
    assert rig.clock.boot_s() - moved_s < 0.5, "no lease is waited out"
    assert owner.stage(0) == "not owned"
    assert heir.counts(0)["rated"] == 1
    assert rig.database.partition(0).previous_owners == [], "given back in order, it has no successor to wait"


async def test_an_owner_that_lives_and_does_not_hand_over_is_fenced(rig: Rig) -> None:
    owner, heir = await moving(rig)
    rig.database.members["a"].lease_until_s = rig.clock.boot_s() + HAND_OVER_S + 1.0
    moved_s = rig.clock.boot_s()
    await rig.clock.until(lambda: heir.stage(0) == "ready", 60)
    assert rig.clock.boot_s() - moved_s > HAND_OVER_S, "it has had its time"
    assert rig.clock.boot_s() >= rig.database.members["a"].lease_until_s, "and its lease is waited out"
    await rig.clock.advance(INTERVAL_S)
    assert owner.stage(0) == "not owned", "its next checkpoint is refused"


async def successor(rig: Rig, partition: int = 0) -> Process:
    process = rig.process("b")
    await process.join(partition)
    return process


async def test_the_steps_of_a_takeover_come_in_their_order(rig: Rig) -> None:
    await rated(rig, rig.process("a"))
    steps: list[str] = []

    async def gate(site: str) -> None:
        if site.endswith(".before"):
            steps.append(site.removesuffix(".before"))

    process = rig.process("b", gate)
    await process.join(0)
    steps.clear()
    await process.take(0)
    assert steps == ["claim", "load", "catalogue", "bounds", "read_one", "append"]


async def test_the_new_owner_announces_its_epoch_and_starts_at_the_checkpoint(rig: Rig) -> None:
    account = await rated(rig, rig.process("a"))
    rig.use(account, "behind the checkpoint")
    stored = rig.database.partition(0)
    next_offset = stored.next_offset
    owned, image = await (await successor(rig)).take(0)
    assert (owned.epoch, owned.fold.line_epoch, stored.epoch) == (2, 2, 2)
    assert rig.controls(0, Owner) == [Owner(1), Owner(2)]
    assert owned.owner_offset == rig.end(0) - 1
    assert (owned.next_offset, owned.checkpointed_offset, owned.ckpt_seq) == (next_offset, next_offset, stored.ckpt_seq)
    assert owned.last == stored.last
    assert list(owned.fold.account_ids()) == [account]
    assert owned.fold.counts["rated"] == 3
    assert [row.account for row in image.accounts] == [account]


async def test_a_partition_that_was_never_checkpointed_starts_at_nothing(rig: Rig) -> None:
    owned, image = await (await successor(rig)).take(0)
    assert (owned.epoch, owned.next_offset, owned.last, owned.ckpt_seq) == (1, 0, None, 0)
    assert not image.accounts


async def test_whoever_the_assignment_does_not_name_takes_nothing(rig: Rig) -> None:
    process = rig.process("b")
    await process.join(1)
    with pytest.raises(Fenced):
        await process.take(0)
    assert rig.end(0) == 0


async def test_an_outage_on_the_way_leaves_no_half_takeover_behind(rig: Rig) -> None:
    await rated(rig, rig.process("a"))

    async def gate(site: str) -> None:
        if site == "load.before" and rig.database.partition(0).epoch == 2:
            raise StoreUnavailable("gone in the middle")

    process = rig.process("b", gate)
    await process.join(0)
    with pytest.raises(StoreUnavailable):
        await process.take(0)
    owned, _ = await process.take(0)
    assert owned.epoch == 3
    assert rig.controls(0, Owner) == [Owner(1), Owner(3)]


async def test_an_image_of_a_replica_that_is_behind_is_not_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rated(rig, rig.process("a"))
    process = await successor(rig)
    before = await process.store.load(0, 0)

    async def behind(_partition: int, _command_log_time_min_us: int) -> PartitionImage:
        return before

    with monkeypatch.context() as patched:
        patched.setattr(process.store, "load", behind)
        with pytest.raises(StoreUnavailable, match="the database read from shows 1 of 1"):
            await process.take(0)
    assert rig.controls(0, Owner) == [Owner(1)], "nothing is announced on the strength of an old image"
    owned, _ = await process.take(0)
    assert owned.epoch == 3


# -------------------------------------------------------------------------------------------------- the log's damage


async def refused(rig: Rig) -> LogDamaged:
    process = await successor(rig)
    with pytest.raises(LogDamaged) as caught:
        await process.take(0)
    assert caught.value.partition == 0
    return caught.value


async def test_a_truncated_log_is_not_rated_from(rig: Rig) -> None:
    await rated(rig, rig.process("a"))
    rig.broker.truncate(0, 3)
    message = str(await refused(rig))
    assert "partition 0: the log ends at 3, before the checkpoint at 6" in message
    assert "truncated" in message and "restore" in message


async def test_a_log_that_was_cut_and_has_grown_again_is_not_rated_from(rig: Rig) -> None:
    account = await rated(rig, rig.process("a"))
    rig.broker.truncate(0, 4)
    for number in range(5):
        rig.use(account, f"other {number}")
    message = str(await refused(rig))
    assert "partition 0: the record at 5 is not the one that the checkpoint saw" in message
    assert "restore" in message


async def test_the_same_record_at_another_time_is_another_record(rig: Rig) -> None:
    """A producer that sends again what a cut log has lost gets the same offsets, but not the same append times."""
    await rated(rig, rig.process("a"))
    kept = rig.records(0)[-1]
    rig.broker.truncate(0, 5)
    await rig.clock.advance(1)
    rig.broker.append("usage", kept.key, kept.value, 0)
    assert "not the one that the checkpoint saw" in str(await refused(rig))


async def test_retention_that_passed_the_checkpoint_is_told_with_what_to_do(rig: Rig) -> None:
    account = await rated(rig, rig.process("a"))
    for number in range(5):
        rig.use(account, f"late {number}")
    rig.broker.expire(0, rig.database.partition(0).next_offset + 2)
    message = str(await refused(rig))
    assert "partition 0: the log starts at 8, the checkpoint ends at 6" in message
    assert "never rated; restore them, or accept the loss by hand" in message


async def test_retention_up_to_the_checkpoint_is_no_damage(rig: Rig) -> None:
    account = await rated(rig, rig.process("a"))
    rig.use(account, "behind the checkpoint")
    rig.broker.expire(0, rig.database.partition(0).next_offset)
    owned, _ = await (await successor(rig)).take(0)
    assert owned.next_offset == rig.database.partition(0).next_offset


async def test_a_lost_catalogue_names_its_version_and_what_to_do(rig: Rig) -> None:
    await rated(rig, rig.process("a"))
    del rig.database.catalogues[1]
    process = await successor(rig)
    with pytest.raises(CatalogueLost, match="version 1 is in the log but not in the store; restore its row"):
        await process.take(0)
    rig.database.catalogues[1] = CATALOGUE
    await process.take(0)


# ----------------------------------------------------------------------------------------------------- may it speak?


def previous(name: str, lease_left_s: float) -> PreviousOwner:
    return PreviousOwner(name, "host", f"/run/{name}.lock", lease_left_s)


@pytest.mark.parametrize(
    ("before", "dead", "waited_s", "may"),
    [
        ([], [], 0.0, True),
        ([previous("a", 1.0)], [], 0.0, False),
        ([previous("a", 1.0)], [], 0.9, False),
        ([previous("a", 1.0)], [], 1.1, True),
        ([previous("a", 1.0)], ["/run/a.lock"], 0.0, True),
        ([previous("a", 1.0), previous("b", 0.5)], ["/run/a.lock"], 0.4, False),
        ([previous("a", 1.0), previous("b", 0.5)], ["/run/a.lock"], 0.6, True),
        ([previous("a", 1.0), previous("b", 0.5)], ["/run/b.lock"], 0.6, False),
    ],
)
async def test_a_new_owner_speaks_once_nobody_else_can(
    rig: Rig, before: list[PreviousOwner], dead: list[str], waited_s: float, may: bool
) -> None:
    owned, _ = await (await successor(rig)).take(0)
    owned.previous = before
    deaths = KnownDeaths()
    deaths.locks.update(dead)
    await rig.clock.advance(waited_s)
    assert may_speak(owned, deaths, rig.clock) is may
