"""The memory of rated events beside rating: it is sealed, brought and waited for, and no answer ever depends on it."""

import orjson
import pytest

from actors import sealing
from actors.door_wire import FindRated, RatedAt, Recovering
from actors.ports import PartitionImage, RunHead, StoreRefused
from actors.sealing import RowsLost, runs_without_rows, whole_runs
from actors.shard import MEND_S, RETRY_S
from engine import dedup as dedup_module
from engine.dedup import Dedup
from engine.runs import ENTRY_BYTES
from tests.actors.shard_rig import Process, Rig
from tests.contracts.checkpoints import run as sealed_run


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_module, "RUN_MIN", 3)
    monkeypatch.setattr(sealing, "AGAIN_S", 0.2)


def sealed(rig: Rig) -> list[RunHead]:
    return [head for head, _ in rig.database.partition(0).runs.values()]


def memory(process: Process) -> Dedup:
    return process.shard._owned[0].fold.dedup


async def owner(rig: Rig, name: str) -> Process:
    process = rig.process(name)
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    return process


async def sealed_by_a(rig: Rig) -> str:
    """Five events rated, sealed in the store, and their owner gone; the account."""
    account = rig.open(0)
    process = await owner(rig, "a")
    for number in range(5):
        rig.use(account, f"e{number}")
    await rig.clock.until(lambda: sum(head.count for head in sealed(rig)) == 5, 20)
    await rig.clock.until(lambda: not memory(process).closed(), 20)
    await process.shard.stop()
    return account


def rated(process: Process) -> tuple[int, int]:
    """How many were rated, and how many had an id that was."""
    counts = process.counts(0)
    return counts.get("rated", 0), counts.get("duplicate", 0) + counts.get("dead_lettered.id_conflict", 0)


async def test_a_closed_generation_is_sealed_and_its_segments_are_gone(rig: Rig) -> None:
    await sealed_by_a(rig)
    assert rig.database.partition(0).dedup == []
    assert len(rig.disk.copies) == len(sealed(rig))


async def test_nothing_is_sealed_before_its_checkpoint_is_committed(rig: Rig) -> None:
    account = rig.open(0)
    process = await owner(rig, "a")
    process.store.commit_faults = ["unavailable"] * 1_000
    for number in range(5):
        rig.use(account, f"e{number}")
    await rig.clock.until(lambda: rated(process) == (5, 0), 20)
    await rig.clock.until(lambda: len(process.store.commit_faults) < 995, 20)
    assert sealed(rig) == []
    process.store.commit_faults.clear()
    await rig.clock.until(lambda: sum(head.count for head in sealed(rig)) == 5, 20)


async def test_a_successor_answers_before_rows_are_here_and_rates_nothing_that_may_be_known(rig: Rig) -> None:
    account = await sealed_by_a(rig)
    rig.disk.copies.clear()
    process = rig.process("b")
    process.store.flaky = lambda: True  # neither rows nor runs can be had
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    rig.use(account, "quite new")
    await rig.clock.until(lambda: rated(process) == (6, 0), 20)
    assert memory(process).away(), "what the outlines clear needs no row"
    for name in ("e3", "new too"):
        rig.use(account, name)
    for _ in range(20):
        await rig.clock.advance(RETRY_S)
    assert process.stage(0) == "ready"
    assert rated(process) == (6, 0)
    assert rig.database.partition(0).next_offset < rig.end(0), "no checkpoint passes what is not rated"
    process.store.flaky = lambda: False
    await rig.clock.until(lambda: rated(process) == (7, 1), 20)


async def test_another_partition_does_not_wait_with_it(rig: Rig) -> None:
    account = await sealed_by_a(rig)
    other = rig.open(1)
    rig.disk.copies.clear()
    process = rig.process("b")
    process.store.flaky = lambda: True
    await process.join(0, 1)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == process.stage(1) == "ready", 20)
    rig.use(account, "e0")
    rig.use(other, "e0")
    await rig.clock.until(lambda: process.counts(1).get("rated") == 1, 20)
    assert rated(process) == (5, 0)


async def test_who_asks_for_an_event_waits_for_its_row_and_is_told_no_guess(rig: Rig) -> None:
    account = await sealed_by_a(rig)
    rig.disk.copies.clear()
    process = rig.process("b")
    process.store.flaky = lambda: True
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    known, unknown = FindRated(account, "test", "e3"), FindRated(account, "test", "never sent")
    assert process.shard.answer_now(known) is None, "it takes waiting"
    assert isinstance(await process.shard.answer(known, 5.0), Recovering)
    cleared = process.shard.answer_now(unknown)
    assert isinstance(cleared, RatedAt) and cleared.offset is None, "what the outlines clear needs no row"
    process.store.flaky = lambda: False
    answer = await process.shard.answer(known, 5.0)
    assert isinstance(answer, RatedAt) and answer.offset is not None
    record = rig.records(0)[answer.offset]
    assert orjson.loads(record.value or b"")["id"] == "e3"
    assert rated(process) == (5, 0)


async def test_rows_that_the_store_has_lost_halt_the_partition(rig: Rig) -> None:
    account = await sealed_by_a(rig)
    rig.disk.copies.clear()
    process = rig.process("b")
    process.store.flaky = lambda: True
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    rig.database.partition(0).runs.clear()
    process.store.flaky = lambda: False
    rig.use(account, "e0")
    await rig.clock.until(lambda: process.stage(0) == "halted", 20)
    view = process.view(0)
    assert view is not None and "restore dedup_rows" in view.halt_reason
    await rig.clock.advance(3 * MEND_S)
    assert process.stage(0) == "halted", "loaded anew without them, it would rate e0 again"


async def test_rows_that_postgres_refuses_are_asked_for_again_until_it_is_mended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await sealed_by_a(rig)
    rig.disk.copies.clear()
    process = rig.process("b")
    process.store.flaky = lambda: True
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    with monkeypatch.context() as patched:
        patched.setattr(process.store, "run_rows", without_the_right)
        rig.use(account, "e0")
        await rig.clock.until(lambda: process.stage(0) == "halted", 20)
    process.store.flaky = lambda: False
    await rig.clock.until(lambda: rated(process) == (5, 1), 3 * MEND_S)
    assert process.stage(0) == "ready"


async def without_the_right(partition: int, places: object) -> list[bytes | None]:
    raise StoreRefused("Postgres: InsufficientPrivilegeError: permission denied for table dedup_rows")


async def test_rows_come_by_themselves_and_a_damaged_copy_is_fetched_again(rig: Rig) -> None:
    await sealed_by_a(rig)
    kept = dict(rig.disk.copies)
    rig.disk.copies = {name: whole[:-1] for name, whole in kept.items()}
    process = await owner(rig, "b")
    await rig.clock.until(lambda: not memory(process).away(), 20)
    assert rig.disk.copies == kept
    assert len(memory(process).entries()) == 8 + 5 * ENTRY_BYTES


async def test_whole_runs_have_every_row_and_say_when_one_is_lost(rig: Rig) -> None:
    await sealed_by_a(rig)
    store = rig.process("reader").store
    image: PartitionImage = await store.load(0, 0)
    assert [run.rows for run in runs_without_rows(image.runs)] == [None] * len(image.runs)
    whole = await whole_runs(store, 0, image.runs)
    assert sum(len(run.entries()) for run in whole) == 5 * ENTRY_BYTES
    head, _ = sealed_run(9, 9, 1)
    with pytest.raises(RowsLost, match="part 0 of run 9 of bucket 9"):
        await whole_runs(store, 0, [head])
