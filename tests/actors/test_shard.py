"""The shard's loop on simulated doors: whose partitions it follows, what it sends on, and what halts which partition."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import msgspec
import orjson
import pytest

from actors.door_wire import Balance, BalanceView, Recovering
from actors.kafka import RECORD_BYTES_MAX
from actors.ports import Checkpoint, CommitUnknown, LogDamaged, LogUnavailable, Outgoing, Record, StoreRefused
from actors.shard import MEND_S, Shard
from config.settings import ShardSettings
from engine.cut import Cut
from engine.events import CatalogueMarker, Grant, OpenAccount, Owner, Tick
from engine.outcomes import RatedEvent, rated_lines
from engine.partition import Foreseen, Partition, foresee
from engine.placement import partition_for
from tests.actors.shard_rig import CATALOGUE, LEASES, Process, Rig
from tests.simulation.hand_clock import settle
from tests.simulation.sim_receivers import ReceiverFaults

SECOND_US = 1_000_000


async def ready(rig: Rig, process: Process, *partitions: int) -> None:
    """The process runs, and speaks for these partitions."""
    await process.join(*partitions)
    process.run()
    await until_ready(rig, process, *partitions)


async def until_ready(rig: Rig, process: Process, *partitions: int) -> None:
    await rig.clock.until(lambda: all(process.stage(number) == "ready" for number in partitions), 20)


def caught_up(rig: Rig, process: Process, partition: int) -> Callable[[], bool]:
    def condition() -> bool:
        view = process.view(partition)
        return view is not None and view.next_offset == rig.end(partition)

    return condition


def checkpointed(rig: Rig, partition: int) -> Callable[[], bool]:
    return lambda: rig.database.partition(partition).next_offset == rig.end(partition)


# --------------------------------------------------------------------------------------------------- the assignment


async def test_a_shard_takes_what_it_is_assigned_and_gives_back_what_it_is_not(rig: Rig) -> None:
    process = rig.process()
    account = rig.open(0)
    await ready(rig, process, 0, 1)
    rig.use(account, "e1")
    process.assign(1)
    await rig.clock.until(lambda: process.view(0) is None, 10)
    row = rig.database.partition(0)
    assert row.owner is None, "the next owner need not wait for us"
    assert (row.next_offset, row.epoch) == (rig.end(0), 2)
    assert process.stage(1) == "ready"
    process.assign(0, 1)
    await until_ready(rig, process, 0, 1)
    assert process.counts(0)["rated"] == 1
    assert row.epoch == 3


async def test_an_assignment_that_names_somebody_else_is_asked_for_again_until_it_names_us(rig: Rig) -> None:
    process = rig.process()
    process.lease.extend(float("inf"), frozenset({0}))
    process.run()
    await rig.clock.advance(3)
    assert process.view(0) is None
    rig.database.assignment[0] = process.name
    await until_ready(rig, process, 0)


async def test_a_takeover_waits_for_database_and_broker(rig: Rig) -> None:
    process = rig.process()
    await process.join(0, 1)
    rig.database.down = True
    process.run()
    await rig.clock.advance(2)
    rig.database.down, rig.broker.down = False, True
    await rig.clock.advance(2)
    assert process.stage(0) == "not owned"
    rig.broker.down = False
    await until_ready(rig, process, 0, 1)


async def test_every_event_is_rated_once_whoever_owns_the_partition_meanwhile(rig: Rig) -> None:
    """The first owner falls silent in the middle; its late commit is refused, and nothing is counted twice."""
    first, second = rig.process("a"), rig.process("b")
    account = rig.open(0)
    await ready(rig, first, 0)
    for number in range(10):
        rig.use(account, f"before {number}")
    await rig.clock.until(caught_up(rig, first, 0), 5)
    await second.join(0)
    second.deaths.locks.add("/run/a.lock")
    second.run()
    await until_ready(rig, second, 0)
    for number in range(10):
        rig.use(account, f"after {number}")
    await rig.clock.until(checkpointed(rig, 0), 10)
    assert second.counts(0)["rated"] == 20
    assert sum(posting.amount for posting in rig.database.partition(0).postings) == 20 * 10**12
    await rig.clock.until(lambda: first.view(0) is None, 10)


async def test_records_fetched_for_an_earlier_ownership_are_read_again_from_the_checkpoint(rig: Rig) -> None:
    """Lost and taken over again while a fetch was under way: its records lie behind what the new fold has seen."""
    process = rig.process(settings=ShardSettings(checkpoint_interval_s=10.0))
    account = rig.open(0)
    await ready(rig, process, 0)
    rig.use(account, "e1")
    await rig.clock.until(lambda: process.counts(0).get("rated") == 1, 5)
    fetch = process.log.fetch

    async def fetch_across_a_loss(records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
        batches = await fetch(records_max, timeout_s)
        if batches.get(0) and process.log.fetch is fetch_across_a_loss:
            process.log.fetch = fetch  # type: ignore[method-assign]  # once
            await process.shard._abandon(process.shard._owned[0])
            await process.shard._take(0)
            assert process.stage(0) == "replaying"
        return batches

    process.log.fetch = fetch_across_a_loss  # type: ignore[method-assign]
    await rig.clock.advance(1)  # the fetch that was under way has ended
    rig.use(account, "e2")
    await rig.clock.until(lambda: process.stage(0) == "ready" and process.log.fetch is fetch, 10)
    await rig.clock.until(caught_up(rig, process, 0), 10)
    assert process.log.fetch is fetch
    assert process.counts(0).get("rated") == 2, "e1 was lost between the checkpoint and the records of the old fetch"


async def test_records_that_a_client_hands_out_again_are_folded_once(rig: Rig) -> None:
    process = rig.process()
    account = rig.open(0)
    await ready(rig, process, 0)
    fetch = process.log.fetch

    async def fetch_from_an_older_offset(records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
        batches = await fetch(records_max, timeout_s)
        return {partition: rig.records(partition)[:] for partition in batches}

    process.log.fetch = fetch_from_an_older_offset  # type: ignore[method-assign]
    rig.use(account, "e1")
    await rig.clock.until(caught_up(rig, process, 0), 10)
    rig.use(account, "e2")
    await rig.clock.until(caught_up(rig, process, 0), 10)
    assert process.counts(0) == {"owner": 1, "catalogue": 1, "applied": 1, "rated": 2}


SEARCH_S = 0.01


async def test_others_run_while_records_are_read_ahead(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and rating take a tenth of a millisecond a record here, searching ten for all."""
    process = rig.process()
    account = rig.open(0)
    await ready(rig, process, 0)
    spent_s, held_s = 0.0, [0.0]
    searches: list[int] = []
    expect, apply, sleep = Partition.expect, Partition.apply, rig.clock.sleep

    def spend(seconds: float) -> None:
        nonlocal spent_s
        spent_s += seconds
        held_s[-1] += seconds

    def slow_foresee(*record: Any) -> Foreseen | None:
        spend(0.0001)
        return foresee(*record)

    def slow_expect(self: Partition, foreseen: list[Foreseen]) -> None:
        searches.append(len(foreseen))
        spend(SEARCH_S)
        expect(self, foreseen)

    def slow_apply(self: Partition, *record: Any) -> str:
        spend(0.0001)
        return apply(self, *record)

    async def pause(seconds: float) -> None:
        held_s.append(0.0)
        await sleep(seconds)

    now_s = rig.clock.boot_s
    monkeypatch.setattr(rig.clock, "boot_s", lambda: now_s() + spent_s)
    monkeypatch.setattr(rig.clock, "sleep", pause)
    monkeypatch.setattr("actors.shard.foresee", slow_foresee)
    monkeypatch.setattr(Partition, "expect", slow_expect)
    monkeypatch.setattr(Partition, "apply", slow_apply)
    for number in range(95):
        rig.use(account, f"e{number}")
    await rig.clock.until(lambda: process.counts(0).get("rated") == 95, 20)
    assert sum(searches) == 95
    assert len(searches) < 4, "they were read ahead together"
    assert max(held_s) < SEARCH_S + 0.00005, "the search, and nothing beside it"
    assert max(held for held in held_s if held < SEARCH_S) < 0.00045, "a slice, and one look at the clock"


@pytest.mark.parametrize("owned", [True, False], ids=["a higher epoch in the log", "the very epoch that a claim makes"])
async def test_a_database_that_was_set_back_is_caught_up_and_its_owner_believed(rig: Rig, owned: bool) -> None:
    """A backup is restored: the log names owners that the database has forgotten."""
    process = rig.process()
    account = rig.open(0)
    await ready(rig, process, 0)
    rig.use(account, "before")
    await rig.clock.until(checkpointed(rig, 0), 10)
    backup = deepcopy(rig.database.partition(0))
    process.assign()
    await rig.clock.until(lambda: process.view(0) is None, 10)
    if not owned:
        backup = deepcopy(rig.database.partition(0))
    process.assign(0)
    await until_ready(rig, process, 0)
    rig.use(account, "since")
    await rig.clock.until(checkpointed(rig, 0), 10)
    process.assign()
    await rig.clock.until(lambda: process.view(0) is None, 10)

    rig.database.partitions[0] = backup
    process.assign(0)
    await until_ready(rig, process, 0)
    await rig.clock.until(lambda: process.shard._owned[0].speaks and not process.shard._owned[0].outrun, 20)
    rig.use(account, "then")
    await rig.clock.until(checkpointed(rig, 0), 10)
    *epochs, last = [owner.epoch for owner in rig.controls(0, Owner) if isinstance(owner, Owner)]
    assert last == backup.epoch > max(epochs)
    assert process.counts(0)["rated"] == 3
    assert sum(posting.amount for posting in backup.postings) == 3 * 10**12


async def test_a_shard_declared_dead_drops_everything_and_ends(rig: Rig) -> None:
    process = rig.process()
    account = rig.open(0)
    process.log.append_faults = [0] * 1_000
    await process.join(0)
    running = process.run()
    process.log.append_faults.clear()
    await until_ready(rig, process, 0)
    process.log.append_faults = [0] * 1_000
    rig.use(account, "e1")
    await rig.clock.advance(0.1)
    process.lease.fenced = True
    await rig.clock.until(running.done, 1)
    assert process.shard.partitions() == []
    await settle()
    assert [task for task in process.tasks if not task.done()] == [], "a line still under way is broken off"
    await rig.clock.advance(10)
    assert list(rig.lines()) == []


# ---------------------------------------------------------------------------------------- one partition halts alone


async def assert_only_0_is_halted(rig: Rig, process: Process, reason: str) -> None:
    await rig.clock.until(lambda: process.stage(0) == "halted", 10)
    view = process.view(0)
    assert view is not None and reason in view.halt_reason
    stored = rig.database.partition(0).next_offset
    for partition in (0, 1):
        rig.use(rig.account(partition), "behind the halt")
    await rig.clock.until(checkpointed(rig, 1), 10)
    assert process.stage(1) == "ready"
    assert rig.database.partition(0).next_offset == stored, "nothing is committed of a halted partition"


@pytest.fixture
async def both(rig: Rig) -> Process:
    """A process that owns both partitions, each with an account."""
    process = rig.process()
    rig.open(0), rig.open(1)
    await ready(rig, process, 0, 1)
    await rig.clock.until(lambda: checkpointed(rig, 0)() and checkpointed(rig, 1)(), 10)
    return process


async def test_a_broker_whose_clock_has_jumped_halts_the_partition(rig: Rig, both: Process) -> None:
    rig.use(rig.account(0), "still fine")
    rig.broker.append_time_jump_ms = int(LEASES.clock_jump_max_s * 1000) + 1_000
    jumped = rig.use(rig.account(0), "from the future")
    rig.broker.append_time_jump_ms = 0
    await assert_only_0_is_halted(
        rig, both, f"the append time of offset {jumped} is over 300 s ahead of this machine's clock; mend the clocks"
    )
    assert both.counts(0)["rated"] == 1, "what came before the jump is rated"
    await rig.clock.advance(LEASES.clock_jump_max_s)  # the machine's clock has come near
    await until_ready(rig, both, 0)
    await rig.clock.until(caught_up(rig, both, 0), 5)
    assert both.counts(0)["rated"] == 3, "then it goes on by itself"


async def test_a_jump_within_the_limit_is_no_reason_to_halt(rig: Rig, both: Process) -> None:
    rig.broker.append_time_jump_ms = int(LEASES.clock_jump_max_s * 1000) - 1_000
    rig.use(rig.account(0), "a little ahead")
    await rig.clock.until(caught_up(rig, both, 0), 5)
    assert both.stage(0) == "ready"


async def test_a_log_that_lost_its_head_under_us_halts_the_partition(rig: Rig, both: Process) -> None:
    for number in range(3):
        rig.use(rig.account(0), f"lost {number}")
    kept = list(rig.records(0))
    rig.broker.expire(0, rig.end(0) - 1)
    await assert_only_0_is_halted(rig, both, "outside the log")
    await rig.clock.advance(MEND_S + 1)
    await assert_only_0_is_halted(rig, both, "the log starts at")
    topic = rig.broker.topic("usage", 0)
    topic.records, topic.first = kept + topic.records[1:], 0
    await until_ready(rig, both, 0)
    await rig.clock.until(caught_up(rig, both, 0), 5)
    assert both.counts(0)["rated"] == 4, "three before the damage, one while it lasted"


async def test_a_tick_that_kafka_does_not_take_is_not_joined_by_more(rig: Rig) -> None:
    process = rig.process()
    rig.open(0)
    await ready(rig, process, 0)
    ends_us = rig.clock.wall_us() + SECOND_US
    rig.control(0, Grant(rig.account(0), "key", "lot", "paid", "1", "USD", expires_us=ends_us))
    await rig.clock.until(caught_up(rig, process, 0), 5)
    process.log.append_faults = [0] * 1_000
    await rig.clock.advance(10)
    assert len(process.shard._owned[0].sends) == 1
    process.log.append_faults.clear()
    await rig.clock.until(lambda: len(rig.controls(0, Tick)) == 1, 5)


async def test_a_log_unfit_as_a_whole_halts_every_partition(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(records_max: int, timeout_s: float) -> dict[int, list[object]]:
        await rig.clock.sleep(timeout_s)
        raise LogDamaged("the whole topic is gone")

    monkeypatch.setattr(both.log, "fetch", damaged)
    await rig.clock.until(lambda: both.stage(0) == both.stage(1) == "halted", 10)


async def test_a_log_damaged_at_the_takeover_is_left_alone_until_a_person_has_mended_it(rig: Rig) -> None:
    first = rig.process("a")
    rig.open(0), rig.open(1)
    await ready(rig, first, 0, 1)
    await rig.clock.until(lambda: checkpointed(rig, 0)() and checkpointed(rig, 1)(), 10)
    await first.shard.stop()
    kept = list(rig.records(0))
    rig.broker.truncate(0, 1)
    second = rig.process("b")
    await ready(rig, second, 1)
    second.assign(0, 1)
    await rig.clock.advance(3)
    view = second.view(0)
    assert view is not None and view.stage == "halted" and "truncated" in view.halt_reason
    assert second.stage(1) == "ready"
    rig.records(0)[:] = kept
    rig.broker.topic("usage", 0).end = len(kept)
    await until_ready(rig, second, 0)


async def test_a_record_that_breaks_the_engine_half_way_is_skipped_from_the_checkpoint_on(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_at_poison(event: RatedEvent, partition: int, epoch: int, first: int) -> list[bytes]:
        if event.id == "poison":
            raise ZeroDivisionError("no such thing")
        return rated_lines(event, partition, epoch, first)

    monkeypatch.setattr("engine.partition.rated_lines", break_at_poison)
    for name in ("before", "poison", "behind"):
        rig.use(rig.account(0), name)
    await rig.clock.until(checkpointed(rig, 0), 10)
    assert both.stage(1) == both.stage(0) == "ready"
    counts = both.counts(0)
    assert (counts["rated"], counts["dead_lettered.engine_error"]) == (2, 1)
    assert [letter.reason for letter in rig.database.partition(0).dead_letters.values()] == ["engine_error"]
    account = both.shard._owned[0].fold.account(rig.account(0))
    assert account is not None and account.rated == 2, "what it had changed is gone"


async def test_nothing_is_told_of_a_record_that_breaks_the_engine_behind_its_lines(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would tell it better: from the checkpoint on it is skipped."""
    tell_lines = Partition._tell_lines

    def tell_and_break(self: Partition, rated: RatedEvent) -> None:
        tell_lines(self, rated)
        if rated.id == "poison":
            raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(Partition, "_tell_lines", tell_and_break)
    for name in ("before", "poison", "behind"):
        rig.use(rig.account(0), name)
    await rig.clock.until(checkpointed(rig, 0), 10)
    await rig.clock.advance(1)
    assert {line["id"] for line in rig.lines()} == {"before", "behind"}
    assert both.counts(0)["dead_lettered.engine_error"] == 1


async def test_a_fault_of_the_engine_halts_the_partition_and_names_the_offset(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = Partition.apply

    def faulty(self: Partition, offset: int, append_ms: int, key: bytes | None, value: bytes | None) -> None:
        if value is not None and b"poison" in value:
            raise ZeroDivisionError("no such thing")
        apply(self, offset, append_ms, key, value)

    monkeypatch.setattr(Partition, "apply", faulty)
    rig.use(rig.account(0), "good")
    offset = rig.use(rig.account(0), "poison")
    await assert_only_0_is_halted(rig, both, f"offset {offset}: ZeroDivisionError: no such thing")
    assert both.counts(0)["rated"] == 1


async def test_a_fault_of_the_database_halts_the_partition(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = both.store.commit

    async def faulty(checkpoint: object) -> None:
        if checkpoint.partition == 0:  # type: ignore[attr-defined]
            raise ValueError("cannot be held")
        await commit(checkpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(both.store, "commit", faulty)
    rig.use(rig.account(0), "e1")
    await assert_only_0_is_halted(rig, both, "checkpoint 2: ValueError: cannot be held")


async def test_what_postgres_refuses_is_tried_again_until_it_is_mended(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore with a table missing, a right taken away: nobody else takes the partition, as its owner lives."""
    commit, refusing = both.store.commit, True

    async def without_a_table(cut: Checkpoint) -> None:
        if refusing and cut.partition == 0:
            raise StoreRefused('Postgres: UndefinedTableError: relation "posting" does not exist')
        await commit(cut)

    monkeypatch.setattr(both.store, "commit", without_a_table)
    rig.use(rig.account(0), "e1")
    await assert_only_0_is_halted(rig, both, 'checkpoint 2: StoreRefused: Postgres: UndefinedTableError: relation "p')
    await rig.clock.advance(3 * MEND_S)
    assert rig.database.partition(0).ckpt_seq == 1, "tried again, and refused again"
    refusing = False
    await rig.clock.until(checkpointed(rig, 0), 3 * MEND_S)
    assert both.stage(0) == "ready"
    assert both.counts(0)["rated"] == 2, "each of both once"
    assert sum(posting.amount for posting in rig.database.partition(0).postings) == 2 * 10**12


async def test_a_commit_of_unknown_outcome_that_cannot_be_settled_is_gone_on_from_as_it_stands(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took effect; then the database comes back without the right to say so."""
    commit, settle_commit = both.store.commit, both.store.settle_commit

    async def without_an_answer(cut: Checkpoint) -> None:
        await commit(cut)
        monkeypatch.setattr(both.store, "commit", commit)
        raise CommitUnknown("the answer was lost")

    async def refused(partition: int, epoch: int, ckpt_seq: int) -> tuple[int, bool]:
        monkeypatch.setattr(both.store, "settle_commit", settle_commit)
        raise StoreRefused("Postgres: InsufficientPrivilegeError: permission denied for table partition")

    monkeypatch.setattr(both.store, "commit", without_an_answer)
    monkeypatch.setattr(both.store, "settle_commit", refused)
    rig.use(rig.account(0), "e1")
    await rig.clock.until(lambda: both.stage(0) == "halted", 10)
    rig.use(rig.account(0), "e2")
    await until_ready(rig, both, 0)
    await rig.clock.until(checkpointed(rig, 0), 10)
    assert both.counts(0)["rated"] == 2
    assert sum(posting.amount for posting in rig.database.partition(0).postings) == 2 * 10**12


async def test_a_line_that_kafka_will_never_take_halts_the_partition(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committing behind it would lose the line for good."""
    append = both.log.append

    async def refusing(records: list[Outgoing]) -> list[int]:
        if any(record.topic == "rated" and b"too large" in (record.value or b"") for record in records):
            raise ValueError("record for rated: more than Kafka would take")
        return await append(records)

    monkeypatch.setattr(both.log, "append", refusing)
    rig.use(rig.account(0), "too large")
    await assert_only_0_is_halted(rig, both, "ValueError: record for rated: more than Kafka would take")


async def test_a_catalogue_that_the_store_has_lost_halts_the_partition(rig: Rig, both: Process) -> None:
    rig.control(0, CatalogueMarker(2, rig.clock.wall_us() + 3_600 * SECOND_US))
    await assert_only_0_is_halted(rig, both, "catalogue version 2 is in the log but not in the store")


async def test_a_catalogue_is_waited_for_while_the_database_is_away(rig: Rig, both: Process) -> None:
    rig.database.catalogues[2] = CATALOGUE
    rig.database.down = True
    rig.control(0, CatalogueMarker(2, rig.clock.wall_us() + 3_600 * SECOND_US))
    rig.use(rig.account(0), "behind the marker")
    await rig.clock.advance(2)
    assert "rated" not in both.counts(0)
    rig.database.down = False
    await rig.clock.until(lambda: both.counts(0).get("rated") == 1, 5)
    assert both.counts(0)["catalogue"] == 2


async def test_for_a_catalogue_that_rating_waits_for_the_loop_does_not_stand_still(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A takeover runs beside it, and has the time."""
    process, heir = rig.process(), rig.process("b")
    catalogue, asked = process.store.catalogue, []

    async def noted(version: int, *, hurried: bool = False) -> bytes | None:
        asked.append((version, hurried))
        return await catalogue(version, hurried=hurried)

    for each in (process, heir):
        monkeypatch.setattr(each.store, "catalogue", noted)
    rig.open(0)
    await ready(rig, process, 0)
    await rig.clock.until(checkpointed(rig, 0), 10)
    await process.shard.stop()
    await ready(rig, heir, 0)
    assert asked == [(1, True), (1, False)]


# ----------------------------------------------------------------------------------------------------- sending on


async def test_a_rated_block_carries_its_partition_epoch_and_offsets(rig: Rig, both: Process) -> None:
    account = rig.account(0)
    offsets = [rig.use(account, f"e{number}") for number in range(3)]
    await rig.clock.until(lambda: len(rig.records(0, "rated")) > 0, 5)
    (block,) = rig.records(0, "rated")
    assert block.key == f"0:1:{offsets[0]}-{offsets[-1]}".encode()
    lines = list(rig.lines())
    assert [(line["partition"], line["offset"], line["epoch"]) for line in lines] == [(0, at, 1) for at in offsets]
    assert [(line["account"], line["amount"]) for line in lines] == [(account, "1")] * 3


async def test_blocks_stay_below_what_kafka_takes(rig: Rig) -> None:
    process = rig.process(settings=ShardSettings(rating_slice_events=10_000, rating_slice_ms=50))
    account = rig.open(0)
    await ready(rig, process, 0)
    for number in range(2_000):
        rig.use(account, f"{number}-" + "\u00e9" * 250)
    await rig.clock.until(lambda: len(list(rig.lines())) == 2_000, 20)
    sizes = [len(block.value or b"") for block in rig.records(0, "rated")]
    assert max(sizes) <= 512 * 1024
    assert len(sizes) < 200, "and are blocks all the same"


async def test_an_event_in_the_wrong_partition_is_forwarded_home_and_rated_there(rig: Rig, both: Process) -> None:
    account = rig.account(0)
    value = rig.event(account, "astray")
    rig.broker.append("usage", account.encode(), value, 1)
    await rig.clock.until(lambda: both.counts(0).get("rated") == 1, 5)
    assert both.counts(1)["forwarded"] == 1
    assert (rig.records(0)[-1].key, rig.records(0)[-1].value) == (account.encode(), value)
    await rig.clock.until(lambda: bool(list(rig.lines())), 1)
    assert [line["partition"] for line in rig.lines()] == [0]


async def test_what_cannot_be_rated_stands_on_the_topic_with_its_reason(rig: Rig, both: Process) -> None:
    rig.broker.append("usage", rig.account(0).encode(), b"not json \xff", 0)
    await rig.clock.until(checkpointed(rig, 0), 5)
    letters = [letter for number in (0, 1) for letter in rig.records(number, "dead-letters")]
    (letter,) = letters
    told = orjson.loads(letter.value or b"")
    assert letter.key == rig.account(0).encode()
    assert (told["partition"], told["offset"], told["reason"]) == (0, rig.end(0) - 1, "malformed")
    assert base64.b64decode(told["value"]) == b"not json \xff"
    assert base64.b64decode(told["key"]) == rig.account(0).encode()
    assert rig.database.partition(0).dead_letters[rig.end(0) - 1].reason == "malformed"


@pytest.mark.parametrize(("key", "value"), [(b"", b"v" * 3_600_000), (b"k" * 3_000_000, b"")], ids=["value", "key"])
async def test_no_record_is_so_large_that_kafka_would_not_take_its_dead_letter(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch, key: bytes, value: bytes
) -> None:
    """As large as a compressed batch brings it."""
    append = both.log.append

    async def as_kafka_takes_it(records: list[Outgoing]) -> list[int]:
        for record in records:
            assert len(record.key or b"") + len(record.value or b"") <= RECORD_BYTES_MAX - 1024, "KafkaLog refuses it"
        return await append(records)

    monkeypatch.setattr(both.log, "append", as_kafka_takes_it)
    rig.broker.append("usage", key or rig.account(0).encode(), value, 0)
    rig.use(rig.account(0), "behind it")
    await rig.clock.until(lambda: both.stage(0) == "halted" or checkpointed(rig, 0)(), 10)
    assert both.stage(0) == "ready"
    (told,) = [orjson.loads(letter.value or b"") for number in (0, 1) for letter in rig.records(number, "dead-letters")]
    assert (told["partition"], told["offset"]) == (0, rig.end(0) - 2), "by which the log has it whole"
    assert "are kept" in told["detail"]


async def test_many_dead_letters_at_once_leave_in_portions(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka has an answer within ten seconds or none, and then all of an attempt is made again."""
    append, largest = both.log.append, 0

    async def within_ten_seconds(records: list[Outgoing]) -> list[int]:
        nonlocal largest
        size = sum(len(record.key or b"") + len(record.value or b"") for record in records)
        largest = max(largest, size)
        if size > 16 * 1024 * 1024:
            raise LogUnavailable("not within ten seconds")
        return await append(records)

    monkeypatch.setattr(both.log, "append", within_ten_seconds)
    for number in range(250):
        rig.broker.append("usage", rig.account(0).encode(), b"%d" % number + b" not json" * 7_000, 0)
    await rig.clock.until(checkpointed(rig, 0), 30)
    letters = [orjson.loads(letter.value or b"") for number in (0, 1) for letter in rig.records(number, "dead-letters")]
    assert [letter["offset"] for letter in letters] == list(range(rig.end(0) - 250, rig.end(0))), "each once, in order"
    assert largest > 4 * 1024 * 1024, "and together all the same"


async def test_the_more_accounts_have_changed_the_later_is_the_next_checkpoint(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all partitions together, as one processor encodes them all; `checkpoint_dirty_max` still ends the wait."""
    await rig.clock.until(lambda: checkpointed(rig, 0)() and checkpointed(rig, 1)(), 10)
    monkeypatch.setattr("actors.shard.CHANGED_PER_S", 0.5)
    for partition in (0, 1):
        rig.use(rig.account(partition), "e1")
    await rig.clock.advance(3.5)
    assert both.counts(0)["rated"] == both.counts(1)["rated"] == 1
    assert not checkpointed(rig, 0)()
    assert not checkpointed(rig, 1)(), "two accounts have changed: four seconds"
    await rig.clock.until(lambda: checkpointed(rig, 0)() and checkpointed(rig, 1)(), 3)


async def test_lines_wait_for_kafka_and_the_checkpoint_waits_for_the_lines(rig: Rig, both: Process) -> None:
    both.log.append_faults = [0] * 20
    rig.use(rig.account(0), "e1")
    await rig.clock.advance(3)
    assert rig.database.partition(0).next_offset < rig.end(0)
    assert list(rig.lines()) == []
    await rig.clock.until(checkpointed(rig, 0), 10)
    assert len(list(rig.lines())) == 1


async def test_lines_that_kafka_does_not_take_hold_up_their_partition_alone(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a partition of `rated` without a leader: the shard keeps its lease, and goes on with the others."""
    monkeypatch.setattr("actors.shard.SENDS_MAX", 3)
    append, led = both.log.append, False

    async def refusing(records: list[Outgoing]) -> list[int]:
        if not led and any(record.topic == "rated" and record.partition == 0 for record in records):
            raise LogUnavailable("no leader")
        return await append(records)

    monkeypatch.setattr(both.log, "append", refusing)
    for number in range(10):
        rig.use(rig.account(0), f"e{number}")
        await rig.clock.advance(0.1)
    rig.use(rig.account(1), "another")
    await rig.clock.advance(2 * LEASES.lease_s)
    assert both.lease.silent_s() < LEASES.lease_s, "or the shard would be declared dead"
    assert both.counts(1)["rated"] == 1
    assert 0 < both.counts(0)["rated"] < 10
    assert len(both.shard._owned[0].sends) <= 5
    led = True
    await rig.clock.until(checkpointed(rig, 0), 20)
    assert both.counts(0)["rated"] == 10
    assert sorted(line["id"] for line in rig.lines()) == ["another", *(f"e{number}" for number in range(10))]


async def test_a_gap_in_the_offsets_is_passed_and_checkpointed(rig: Rig, both: Process) -> None:
    rig.broker.skip_offsets(0, 3)
    await rig.clock.until(checkpointed(rig, 0), 10)


# ------------------------------------------------------------------------------------------------- ticks and alerts


def ticks(rig: Rig, partition: int = 0) -> list[Tick]:
    return [control for control in rig.controls(partition, Tick) if isinstance(control, Tick)]


def expiring_grant(rig: Rig, seconds: float) -> None:
    expires_us = rig.clock.wall_us() + round(seconds * SECOND_US)
    account = rig.account(0)
    rig.control(0, Grant(account, "grant", "gift", "promo", "5", "USD", expires_us=expires_us))


async def test_a_tick_is_appended_when_a_wake_up_is_due_and_once(rig: Rig, both: Process) -> None:
    expiring_grant(rig, 5)
    await rig.clock.advance(4.9)
    assert ticks(rig) == []
    await rig.clock.advance(0.2)
    assert ticks(rig) == [Tick(1)]
    await rig.clock.until(checkpointed(rig, 0), 5)
    assert [posting.kind for posting in rig.database.partition(0).postings] == ["grant", "expire"]
    await rig.clock.advance(30)
    assert ticks(rig) == [Tick(1)]
    assert ticks(rig, 1) == []


async def test_whoever_may_not_speak_yet_appends_no_tick(rig: Rig) -> None:
    first, second = rig.process("a"), rig.process("b")
    rig.open(0)
    await ready(rig, first, 0)
    expiring_grant(rig, 2)
    await rig.clock.until(checkpointed(rig, 0), 5)
    rig.database.members["a"].lease_until_s = rig.clock.boot_s() + 6
    first.declare_dead()
    await second.join(0)
    second.run()
    await rig.clock.advance(5)
    assert (second.stage(0), ticks(rig)) == ("waiting", [])
    await until_ready(rig, second, 0)
    await rig.clock.advance(0.1)
    assert ticks(rig) == [Tick(2)]


async def test_an_alert_is_told_when_it_is_made_and_its_delivery_written_down(rig: Rig, both: Process) -> None:
    rig.alarm(0)
    await rig.clock.until(lambda: len(both.receivers.taken) == 1, 5)
    ((alert_id, bodies),) = both.receivers.taken.items()
    assert len(bodies) == 1
    await rig.clock.until(lambda: alert_id in rig.database.outbox and rig.database.outbox[alert_id].delivered, 5)
    assert both.shard.alerts().told == 1


async def test_alerts_are_held_until_no_earlier_owner_can_speak(rig: Rig) -> None:
    """One that waits in the store, and one that is made while waiting: both told, once, when the old lease is over."""
    first = rig.process("a", faults=ReceiverFaults(busy=1.0, retry_after_max_s=0))
    rig.open(0)
    await ready(rig, first, 0)
    rig.alarm(0, "stored")
    await rig.clock.until(lambda: checkpointed(rig, 0)() and len(rig.database.outbox) == 1, 5)
    first.declare_dead()
    await rig.clock.advance(0.1)
    rig.database.members["a"].lease_until_s = rig.clock.boot_s() + 3
    second = rig.process("b")
    await second.join(0)
    second.run()
    await rig.clock.until(lambda: second.stage(0) == "waiting", 5)
    rig.alarm(0, "made meanwhile")
    await rig.clock.until(caught_up(rig, second, 0), 1)
    await rig.clock.advance(0.5)
    assert (second.stage(0), second.receivers.taken) == ("waiting", {})
    await until_ready(rig, second, 0)
    assert rig.database.lease_left_s("a") < 0
    await rig.clock.until(lambda: len(second.receivers.taken) == 2, 5)
    assert set(second.receivers.taken) == set(rig.database.outbox)
    assert all(len(bodies) == 1 for bodies in second.receivers.taken.values())


async def test_proof_of_death_spares_the_wait(rig: Rig) -> None:
    first, second = rig.process("a"), rig.process("b")
    await ready(rig, first, 0)
    first.declare_dead()
    await second.join(0)
    second.deaths.locks.add("/run/a.lock")
    second.run()
    started_s = rig.clock.boot_s()
    await until_ready(rig, second, 0)
    assert rig.clock.boot_s() - started_s < 1
    assert rig.database.lease_left_s("a") == float("inf")


async def test_without_a_valid_lease_nothing_becomes_ready_and_nothing_is_told(rig: Rig) -> None:
    process = rig.process()
    rig.open(0)
    rig.alarm(0)
    await process.join(0, lease_s=0.0)
    process.run()
    await rig.clock.advance(5)
    assert (process.stage(0), process.shard.may_speak(), process.receivers.taken) == ("waiting", False, {})
    process.assign(0)
    await until_ready(rig, process, 0)
    await rig.clock.until(lambda: len(process.receivers.taken) == 1, 5)


# ---------------------------------------------------------------------------------------------------- handing over


async def drained(rig: Rig, shard: Shard) -> None:
    stopping = asyncio.create_task(shard.stop())
    await rig.clock.until(stopping.done, 60)
    await stopping


async def test_a_drain_leaves_released_partitions_and_a_last_checkpoint(rig: Rig, both: Process) -> None:
    account = rig.account(0)
    rig.use(account, "the last one")
    await rig.clock.until(caught_up(rig, both, 0), 1)
    assert not checkpointed(rig, 0)(), "no checkpoint is due yet"
    await drained(rig, both.shard)
    for partition in (0, 1):
        row = rig.database.partition(partition)
        assert (row.owner, row.next_offset) == (None, rig.end(partition))
    assert both.shard.partitions() == []
    assert len(list(rig.lines())) == 1
    await rig.clock.advance(0.1)
    assert [task for task in both.tasks if not task.done()] == []


async def test_a_drain_during_a_checkpoint_ends_in_order(rig: Rig, both: Process) -> None:
    """Postgres comes back in the middle of the drain, longer than a checkpoint's interval after it began."""
    rig.use(rig.account(0), "e1")
    rig.database.down = True
    await rig.clock.advance(1.5)
    stopping = asyncio.create_task(both.shard.stop())
    await rig.clock.advance(3)
    rig.database.down = False
    await rig.clock.until(stopping.done, 20)
    await stopping
    assert rig.database.partition(0).owner is None
    assert rig.database.partition(0).next_offset == rig.end(0)


async def test_a_drain_is_not_crossed_by_a_checkpoint_of_a_loop_that_has_not_ended(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop hangs in a fetch beyond the interval of checkpoints, while the last checkpoint waits for Postgres."""
    rig.use(rig.account(0), "e1")
    await rig.clock.until(caught_up(rig, both, 0), 1)

    async def hanging(records_max: int, timeout_s: float) -> dict[int, list[object]]:
        await rig.clock.sleep(3)
        return {}

    monkeypatch.setattr(both.log, "fetch", hanging)
    await rig.clock.advance(0.1)
    rig.database.down = True
    stopping = asyncio.create_task(both.shard.stop())
    await rig.clock.advance(3.1)
    rig.database.down = False
    await rig.clock.until(stopping.done, 20)
    await stopping
    assert rig.database.partition(0).owner is None
    assert rig.database.partition(0).ckpt_seq == 2
    assert "another owner" not in caplog.text and "not handed over" not in caplog.text


async def test_a_takeover_that_breaks_is_not_repeated_at_once(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt raises the epoch and loads everything anew."""
    second = rig.process("b")

    async def faulty(partition: int, log_time_us: int) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(second.store, "load", faulty)
    await second.join(0)
    second.run()
    before = rig.database.partition(0).epoch
    await rig.clock.advance(9)
    assert rig.database.partition(0).epoch == before + 1
    view = second.view(0)
    assert view is not None and "a fault of ours" in view.halt_reason


async def test_a_drain_while_a_partition_is_given_back_gives_it_back(rig: Rig, both: Process) -> None:
    rig.use(rig.account(0), "e1")
    await rig.clock.until(caught_up(rig, both, 0), 1)
    rig.database.down = True
    both.assign(1)
    await rig.clock.advance(0.5)
    stopping = asyncio.create_task(both.shard.stop())
    await rig.clock.advance(0.5)
    rig.database.down = False
    await rig.clock.until(stopping.done, 20)
    await stopping
    for partition in (0, 1):
        assert rig.database.partition(partition).owner is None
    assert rig.database.partition(0).next_offset == rig.end(0)


async def test_a_drain_in_the_middle_of_the_cut_of_a_partition_given_back_lets_it_end(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name in (f"many-{number}" for number in range(200)) if partition_for(name.encode(), 2) == 0]
    for name in names:
        rig.control(0, OpenAccount(name, "open", "basic"))
    await rig.clock.until(caught_up(rig, both, 0), 1)
    encode, calls, stopping = Cut.encode, 0, asyncio.Event()

    def stop_at_the_second(cut: Cut, accounts_max: int) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            stopping.set()
        return encode(cut, accounts_max)

    async def stop() -> None:
        await stopping.wait()
        await both.shard.stop()

    monkeypatch.setattr(Cut, "encode", stop_at_the_second)
    ended = both.spawn(stop())
    both.assign(1)
    await rig.clock.until(ended.done, 20)
    await ended
    assert rig.database.partition(0).owner is None
    assert rig.database.partition(0).next_offset == rig.end(0)
    assert len(rig.database.partition(0).accounts) == len(names) + 1


async def test_a_partition_that_cannot_be_handed_over_keeps_no_other_from_it(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = both.store.release

    async def faulty(partition: int, epoch: int) -> None:
        if partition == 0:
            raise RuntimeError("a fault of ours")
        await release(partition, epoch)

    monkeypatch.setattr(both.store, "release", faulty)
    await drained(rig, both.shard)
    assert rig.database.partition(0).owner == both.name
    assert rig.database.partition(1).owner is None
    assert both.shard.partitions() == []


async def test_who_gives_a_partition_back_is_silent_before_another_may_own_it(
    rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release has taken effect, and its answer is long under way."""
    account = rig.account(0)
    release, question = both.store.release, Balance(account)
    released = asyncio.Event()

    async def slowly_answered(partition: int, epoch: int) -> None:
        await release(partition, epoch)
        released.set()
        await rig.clock.sleep(0.5)

    assert isinstance(both.shard.answer_now(question), BalanceView)
    monkeypatch.setattr(both.store, "release", slowly_answered)
    both.assign(1)
    await rig.clock.until(released.is_set, 20)
    assert rig.database.partition(0).owner is None
    rig.alarm(0)
    await rig.clock.advance(0.2)
    assert both.stage(0) == "given"
    assert isinstance(both.shard.answer_now(question), Recovering)
    assert both.receivers.taken == {}, "the next owner tells it"
    await rig.clock.until(lambda: both.view(0) is None, 5)
    assert both.stage(1) == "ready"


async def test_kafka_that_is_away_ends_nothing(rig: Rig, both: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = both.log.fetch
    away = True

    async def failing(records_max: int, timeout_s: float) -> object:
        if away:
            raise LogUnavailable("away")
        return await fetch(records_max, timeout_s)

    monkeypatch.setattr(both.log, "fetch", failing)
    rig.use(rig.account(0), "e1")
    await rig.clock.advance(2)
    away = False
    await rig.clock.until(checkpointed(rig, 0), 10)
    assert both.counts(0)["rated"] == 1


def test_an_owner_record_reads_as_one(rig: Rig) -> None:
    """The rig's own reading of the log, on which the tests above rest."""
    rig.control(0, Owner(7))
    assert rig.controls(0, Owner) == [Owner(7)]
    assert rig.controls(0, Tick) == []
    assert msgspec.json.decode(msgspec.json.encode(Owner(7)), type=Owner) == Owner(7)
