"""Law D4: state is a fold over the log: the same log gives the same state, byte for byte, however it is cut."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission import FieldBound, Question, SliceNeeded
from engine.money import NANO
from engine.partition import CatalogueMissing, Partition
from tests.engine.bench import HOUR, KEY, TOPIC, Bench, RandomLog, Store, versions
from tests.golden import record as golden

ROOT = Path(__file__).parents[2]


def random_bench(seed: int, steps: int = 180) -> Bench:
    source = random.Random(seed)
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=source.choice([HOUR // 6, 3 * HOUR, 30 * HOUR]))
    for _ in range(steps):
        log.step()
    return bench


@settings(max_examples=25)
@given(st.integers(0, 10**9), st.data())
def test_any_cuts_checkpoints_freezes_and_takeovers_end_in_the_same_state(seed: int, data: st.DataObject) -> None:
    """Batches of any length; after each: nothing, a checkpoint, a slow cut, a freeze, or a new owner from the store."""
    bench = random_bench(seed)
    partition = bench.fresh()
    store = Store()
    lines, alerts = [], []
    after = data.draw(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4)), min_size=1, max_size=10))
    at = 0
    for length, choice in [*after, (len(bench.log), 0)]:
        cut = partition.begin_cut() if choice == 1 else None
        for row in bench.log[at : at + length]:
            partition.apply(*row)
            if cut is not None:
                cut.encode(row.offset % 2)
        if cut is not None:
            cut.encode(1000)
            partition.end_cut()
            store.take(cut)
        at += length
        if choice == 2:
            partition.freeze_idle(0, 3)
        lines += partition.outputs.lines
        alerts += partition.outputs.alerts
        partition.outputs = type(partition.outputs)()
        if choice >= 3:
            store.checkpoint(partition)
            partition.freeze_idle(0, 2)
        if choice == 4:
            partition = store.load_into(bench.fresh())
    assert partition.state_bytes() == bench.partition.state_bytes()
    assert (lines, alerts) == (bench.partition.outputs.lines, bench.partition.outputs.alerts)


@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_may_be_taken_at_any_offset(seed: int) -> None:
    """Whichever record the old owner died behind, the new one goes on to the same state."""
    bench = random_bench(seed, 40)
    partition = bench.fresh()
    store = Store()
    for row in bench.log:
        partition.apply(*row)
        store.checkpoint(partition)
        loaded = store.load_into(bench.fresh())
        assert loaded.state_bytes() == partition.state_bytes()
        for later in bench.log[row.offset + 1 :]:
            loaded.apply(*later)
        assert loaded.state_bytes() == bench.partition.state_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_checks_and_holds_leave_no_trace_in_the_state(seed: int) -> None:
    """An owner that answers between any two records folds the same bytes, and emits the same lines, as one that only reads."""
    bench = random_bench(seed, 120)
    partition = bench.fresh()
    source = random.Random(seed)
    store = Store()
    answers = 0
    for row in bench.log:
        partition.apply(*row)
        if partition.epoch != partition.desk.epoch:
            partition.desk.begin(partition.epoch)
        now = partition.log_time_us + source.randrange(HOUR)
        if source.random() < 0.2:
            store.checkpoint(partition)
            partition.freeze_idle(0, 2)
        for account in partition.account_ids():
            bounds = (FieldBound(("units",), source.randrange(1, 9) * NANO),)
            asked = Question(account, "", "use", {"model": "x"}, {}, bounds, 1, None, source.choice([None, HOUR]))
            answers += not isinstance(partition.check(asked, now), SliceNeeded)
            partition.wallet(account, now)
        partition.desk.reclaim(partition.log_time_us, now)
    assert answers > 100
    assert partition.state_bytes() == bench.partition.state_bytes()
    assert partition.outputs.lines == bench.partition.outputs.lines


def test_a_record_that_is_applied_again_after_a_missing_catalogue_leaves_no_trace() -> None:
    """An owner that must first load a version ends in the same state as one that had it."""
    bench = random_bench(7)
    library = {1: bench.library[1]}
    partition = Partition(0, 2, TOPIC, KEY, library)
    missing = 0
    for row in bench.log:
        try:
            partition.apply(*row)
        except CatalogueMissing as error:
            missing += 1
            library[error.version] = bench.library[error.version]
            partition.apply(*row)
    assert missing >= 1
    assert partition.state_bytes() == bench.partition.state_bytes()


def test_two_processes_with_different_hash_seeds_end_in_the_same_state() -> None:
    """The order of a set or a hash must not reach the bytes."""
    program = "from tests.golden import record; print(record.digest(record.replay()))"
    found = set()
    for hash_seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.add(done.stdout.strip())
    assert found == {golden.digest(golden.replay())}


def test_the_recorded_log_ends_in_the_recorded_state() -> None:
    """A log that an earlier engine folded is folded to the same bytes by this one."""
    found = golden.digest(golden.replay())
    assert found == golden.HASH.read_text().strip(), (
        "The bytes of a state have changed. If that was meant: raise VERSION in engine/snapshot.py, say there which "
        "older versions decode_* reads, and run `python -m tests.golden.record`. If it was not meant, a replay of the "
        "log would now end in other money."
    )


def test_the_recorded_log_holds_something_to_notice() -> None:
    """It rates, refuses, expires, alerts, changes its prices twice, and ends with scopes, slices and owners that went."""
    partition = golden.replay()
    assert partition.counts["rated"] > 100
    assert partition.counts["catalogue"] == 3
    assert partition.counts["alert_crossed"] > 3
    assert partition.counts["slices"] > 5
    assert partition.counts["owner"] > 1
    assert sum(b'"settled"' in line for _, line in partition.outputs.lines) > 10
    accounts = [partition.account(name) for name in partition.account_ids()]
    assert any(account and account.slices for account in accounts)
    assert any(account and any(scope.spend for scope in account.scopes.values()) for account in accounts)
    assert {"duplicate", "forwarded", "repeated", "applied"} <= set(partition.counts)
    assert {"cancelled", "amended", "parked"} <= set(partition.counts)
    assert any(account and account.parked for account in accounts)
    assert any(account and account.contract.agreed for account in accounts)
    assert any(account and account.lines for account in accounts)
    assert any(line.rerated for account in accounts if account for line in account.lines.values())
    assert any(account and account.contract.phases for account in accounts)
    assert any(account and account.recurring for account in accounts)
    assert any(account and account.derive().taken for account in accounts)
    assert any(account and account.top_up.ordinal for account in accounts)
    assert any(account and account.contract.pauses for account in accounts)
    assert any(account and account.streams.by_type for account in accounts)


def test_what_a_record_is_does_not_depend_on_who_reads_it() -> None:
    """However many calls stand around the fold: how deep JSON may be is said by the law, not by the stack that is left."""
    bench = Bench()
    bench.open()
    sent = []
    for depth in (64, 65, 66, 67, 300, 480, 520, 940):
        nested = b"[" * (depth - 2) + b"]" * (depth - 2)
        event, other = (bench.event(data={"model": "x", "units": 1, "more": "deepest"}) for _ in range(2))
        sent.append(event.replace(b'"deepest"', nested))
        bench.record(b"acme", sent[-1])
        bench.record(b"acme", bench.correction(other).replace(b'"deepest"', nested))
    assert bench.partition.counts["rated"] == 1
    assert bench.partition.counts["parked"] == 1
    assert bench.partition.counts["dead_lettered.malformed"] == 14
    assert bench.correct(sent[0]) == "cancelled"

    def further(calls: int) -> Partition:
        return further(calls - 1) if calls else bench.replay()

    assert further(500).state_bytes() == bench.partition.state_bytes()
