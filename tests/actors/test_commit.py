"""The commit contract, number by number: what waits for what, what is repeated, and what an unknown outcome leads to."""

import asyncio

import pytest

from actors.commit import Committer
from actors.owned import Owned
from actors.ports import Checkpoint, CommitUnknown, Fenced
from engine.catalog import load_catalogue
from engine.cut import Cut
from engine.events import OpenAccount, Owner
from engine.placement import partition_for
from tests.actors.shard_rig import CONTROL_KEY, TOPIC, Process, Rig
from tests.simulation.hand_clock import settle
from tests.simulation.sim_store import SimStore


class RecordingStore(SimStore):
    """Remembers every checkpoint it was asked to commit."""

    asked: list[Checkpoint]

    async def commit(self, checkpoint: Checkpoint) -> None:
        self.asked.append(checkpoint)
        await super().commit(checkpoint)


class Bench:
    """One owned partition with a few rated events, and its committer."""

    def __init__(self, rig: Rig, process: Process, store: RecordingStore, owned: Owned, account: str) -> None:
        self.rig = rig
        self.process = process
        self.store = store
        self.owned = owned
        self.account = account
        self.committer = Committer(store, process.log, rig.clock, TOPIC, CONTROL_KEY)

    def fold(self) -> None:
        """Everything that is in the log and not yet applied."""
        for record in self.rig.records(0)[self.owned.next_offset :]:
            self.owned.fold.apply(record.offset, record.timestamp, record.key, record.value)
            self.owned.next_offset = record.offset + 1

    def use(self, event_id: str) -> None:
        self.rig.use(self.account, event_id)
        self.fold()

    def commit(self) -> asyncio.Task[None]:
        return self.process.spawn(self.committer.checkpoint(self.owned))

    async def committed(self) -> None:
        task = self.commit()
        await self.rig.clock.until(task.done, 60)
        await task


@pytest.fixture
async def bench(rig: Rig) -> Bench:
    process = rig.process()
    await process.join(0)
    account = rig.open(0)
    store = RecordingStore(rig.database)
    store.asked = []
    process.store = store
    owned, _ = await process.take(0)
    process.library[1] = load_catalogue(1, rig.database.catalogues[1])
    made = Bench(rig, process, store, owned, account)
    made.fold()
    made.use("e1")
    return made


async def test_a_commit_writes_the_cut_and_says_how_far_it_reached(bench: Bench) -> None:
    await bench.committed()
    row = bench.rig.database.partition(0)
    assert (row.ckpt_seq, row.next_offset) == (1, bench.rig.end(0))
    assert (bench.owned.ckpt_seq, bench.owned.checkpointed_offset) == (1, bench.rig.end(0))
    assert bench.owned.checkpoint is None
    assert list(row.accounts) == [bench.account]
    await bench.committed()
    assert row.ckpt_seq == 2


async def test_3_the_commit_waits_until_what_was_sent_before_the_cut_is_durable(bench: Bench) -> None:
    sent = asyncio.create_task(bench.rig.clock.sleep(5))
    bench.owned.sends.add(sent)
    committing = bench.commit()
    await bench.rig.clock.advance(4.9)
    assert not bench.store.asked
    await bench.rig.clock.advance(0.2)
    await committing
    assert [checkpoint.ckpt_seq for checkpoint in bench.store.asked] == [1]


async def test_3_what_is_sent_behind_the_cut_is_not_waited_for(bench: Bench) -> None:
    before = asyncio.create_task(bench.rig.clock.sleep(1))
    bench.owned.sends.add(before)
    committing = bench.commit()
    await settle()
    behind = asyncio.create_task(bench.rig.clock.sleep(100))
    bench.owned.sends.add(behind)
    await bench.rig.clock.until(committing.done, 2)
    assert bench.store.asked and not behind.done()
    behind.cancel()


async def test_3_a_partition_halted_while_its_lines_were_under_way_commits_nothing(bench: Bench) -> None:
    sent = asyncio.create_task(bench.rig.clock.sleep(1))
    bench.owned.sends.add(sent)
    committing = bench.commit()
    await settle()
    bench.owned.halt("a line could not be sent")
    await bench.rig.clock.until(committing.done, 2)
    await committing
    assert not bench.store.asked
    assert bench.owned.checkpointed_offset == 0


async def test_3_what_was_broken_off_on_its_way_is_never_behind_a_checkpoint(bench: Bench) -> None:
    """Whoever gives the partition up at once breaks it off, also beside a hand-over that goes on."""
    sent = asyncio.create_task(bench.rig.clock.sleep(5))
    bench.owned.sends.add(sent)
    committing = bench.commit()
    await settle()
    sent.cancel()
    await bench.rig.clock.until(committing.done, 2)
    await committing
    assert not bench.store.asked
    assert bench.owned.checkpointed_offset == 0


async def test_3_a_commit_broken_off_still_waits_when_it_is_taken_up_again(bench: Bench) -> None:
    sent = asyncio.create_task(bench.rig.clock.sleep(5))
    bench.owned.sends.add(sent)
    committing = bench.commit()
    await settle()
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    again = bench.commit()
    await bench.rig.clock.advance(4.9)
    assert not bench.store.asked
    await bench.rig.clock.advance(0.2)
    await again
    assert bench.store.asked


async def test_1_events_rated_while_the_cut_is_under_way_are_not_in_it(bench: Bench) -> None:
    cut_end = bench.owned.next_offset
    sent = asyncio.create_task(bench.rig.clock.sleep(1))
    bench.owned.sends.add(sent)
    committing = bench.commit()
    await settle()
    bench.use("e2")
    await bench.rig.clock.until(committing.done, 2)
    row = bench.rig.database.partition(0)
    assert row.next_offset == cut_end == bench.rig.end(0) - 1
    assert [posting.amount for posting in row.postings if posting.kind == "debt"] == [10**12]
    await bench.committed()
    assert sum(posting.amount for posting in row.postings if posting.kind == "debt") == 2 * 10**12


async def test_1_partitions_that_are_due_together_encode_in_turns_with_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account takes a tenth of a millisecond here, and what others do in between as long."""
    process, rig = bench.process, bench.rig
    await process.join(1)
    second, _ = await process.take(1)
    names = [f"many-{number}" for number in range(80)]
    rig.open(1)
    for name in names:
        home = partition_for(name.encode(), rig.partitions)
        if home in (0, 1):
            rig.control(home, OpenAccount(name, f"open-{name}", "basic"))
    for owned in (bench.owned, second):
        for record in rig.records(owned.number)[owned.next_offset :]:
            owned.fold.apply(record.offset, record.timestamp, record.key, record.value)
            owned.next_offset = record.offset + 1
    spent_s, order = 0.0, []
    boot_s, sleep, encode = rig.clock.boot_s, rig.clock.sleep, Cut.encode

    def slow_encode(self: Cut, accounts_max: int) -> bool:
        nonlocal spent_s
        spent_s += 0.0001
        order.append("e")
        return encode(self, accounts_max)

    async def pause(seconds: float) -> None:
        nonlocal spent_s
        await sleep(seconds)
        spent_s += 0.0001
        order.append(".")

    monkeypatch.setattr(rig.clock, "boot_s", lambda: boot_s() + spent_s)
    monkeypatch.setattr(rig.clock, "sleep", pause)
    monkeypatch.setattr(Cut, "encode", slow_encode)
    tasks = [process.spawn(bench.committer.checkpoint(owned)) for owned in (bench.owned, second)]
    await rig.clock.until(lambda: all(task.done() for task in tasks), 60)
    runs = [len(run) for run in "".join(order).split(".")]
    assert sum(runs) > 30
    assert max(runs) <= 4, "three tenths of a millisecond, whichever partition it is"


async def test_4_an_outage_is_waited_out_with_the_very_same_rows(bench: Bench) -> None:
    bench.store.commit_faults = ["unavailable"] * 3
    committing = bench.commit()
    await settle()
    bench.use("e2")
    await bench.rig.clock.until(committing.done, 5)
    assert len(bench.store.asked) == 4
    assert all(asked is bench.store.asked[0] for asked in bench.store.asked)
    assert bench.rig.database.partition(0).next_offset == bench.rig.end(0) - 1


async def test_4_a_commit_broken_off_is_taken_up_with_the_very_same_rows(bench: Bench) -> None:
    bench.store.commit_faults = ["unavailable"]
    committing = bench.commit()
    await settle()
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    bench.use("e2")
    await bench.committed()
    assert bench.store.asked[1] is bench.store.asked[0]


@pytest.mark.parametrize("fault", ["unknown_done", "unknown_not_done"])
async def test_4_an_unknown_outcome_is_settled_by_raising_the_epoch(bench: Bench, fault: str) -> None:
    bench.store.commit_faults = [fault]  # type: ignore[list-item]  # the parameter is one of the literals
    await bench.committed()
    row = bench.rig.database.partition(0)
    assert (row.ckpt_seq, row.epoch) == (1, 2)
    assert (bench.owned.ckpt_seq, bench.owned.epoch, bench.owned.fold.line_epoch) == (1, 2, 2)
    assert bench.rig.controls(0, Owner) == [Owner(1), Owner(2)]
    assert sum(posting.amount for posting in row.postings if posting.kind == "debt") == 10**12, "posted once"
    epochs = [asked.epoch for asked in bench.store.asked]
    assert epochs == ([1] if fault == "unknown_done" else [1, 2])
    bench.fold()
    await bench.committed()
    assert row.ckpt_seq == 2, "and the next one follows on"


@pytest.mark.parametrize("down", [False, True], ids=["Kafka is there", "Kafka is away"])
async def test_4_a_database_that_was_set_back_is_gone_beyond(bench: Bench, down: bool) -> None:
    """The log names owners that a restored backup has forgotten: without a higher epoch nobody would believe this one."""
    row = bench.rig.database.partition(0)
    bench.owned.fold.epoch, bench.owned.fold.epoch_offset = 7, 0
    bench.rig.broker.down = down
    await bench.committed()
    assert (row.ckpt_seq, row.epoch, bench.owned.epoch, bench.owned.fold.line_epoch) == (1, 8, 8, 8)
    assert bench.owned.unannounced is down
    if not down:
        assert bench.rig.controls(0, Owner) == [Owner(1), Owner(8)]
        bench.fold()
        assert bench.owned.fold.epoch == 8
    await bench.committed()
    assert (row.ckpt_seq, row.epoch) == (2, 8), "and the next one follows on"


async def test_4_settling_waits_for_the_database(bench: Bench) -> None:
    down_until_s = 3.0

    class Outage(RecordingStore):
        async def commit(self, checkpoint: Checkpoint) -> None:
            try:
                await super().commit(checkpoint)
            except CommitUnknown:
                bench.rig.database.down = True
                raise

    bench.store.__class__ = Outage
    bench.store.commit_faults = ["unknown_not_done"]
    committing = bench.commit()
    await bench.rig.clock.advance(down_until_s)
    assert not committing.done()
    bench.rig.database.down = False
    await bench.rig.clock.until(committing.done, 2)
    await committing
    assert bench.rig.database.partition(0).ckpt_seq == 1


async def test_4_an_epoch_that_cannot_be_announced_stops_no_commit(bench: Bench) -> None:
    bench.store.commit_faults = ["unknown_not_done"]
    bench.rig.broker.down = True
    await bench.committed()
    assert bench.rig.database.partition(0).ckpt_seq == 1
    assert bench.rig.controls(0, Owner) == [Owner(1)]


async def test_4_another_owner_stops_us(bench: Bench) -> None:
    bench.rig.database.partition(0).epoch += 1
    with pytest.raises(Fenced):
        await bench.committed()
    row = bench.rig.database.partition(0)
    assert (row.ckpt_seq, row.next_offset) == (0, 0)
    assert bench.owned.checkpointed_offset == 0


async def test_4_another_owner_found_while_settling_stops_us(bench: Bench) -> None:
    bench.store.commit_faults = ["unknown_not_done"]
    bench.rig.database.partition(0).owner = "b"
    with pytest.raises(Fenced):
        await bench.committed()
    assert bench.owned.ckpt_seq == 0
