"""A draft tried on logged usage charges what a publication of it would have charged, to the last pico."""

import random
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from msgspec.structs import replace

from actors import dryrun, rebuild
from actors.dryrun import Comparison, Draft, DryRun, Shadow, TooLate
from actors.rebuild import find_base
from actors.sealed_base import Base, seal_base
from engine.catalog import SKEW_US, CatalogueDocument, PlanDefinition, compile_catalogue
from engine.events import CatalogueMarker, seal
from engine.partition import Partition
from tests.actors.proof_rig import ProofRig
from tests.engine.bench import (
    DAY,
    HOUR,
    KEY,
    METERS,
    MINUTE,
    START,
    TOPIC,
    Bench,
    RandomLog,
    document,
    graduated,
    per_unit,
    versions,
)
from tests.laws.test_r3_durations import document as sessions

DRAFT = replace(
    document(
        third=per_unit("0.000000000002", "9", model="third"),
        tiered=graduated(("5", "3"), ("40", "60"), (None, "0.25"), model="tiered"),
        x=per_unit("1.25", model="x"),
    ),
    streams=versions()[0].streams,
)
ANY_TIME = (-(10**18), 10**18)
Sums = dict[str, tuple[int, int]]  # by account: pico, events


async def compared(
    rig: ProofRig, draft: Draft, base: Base | None = None, hear: dryrun.Hear = lambda line: None
) -> DryRun:
    fold = await rig.fold(base)
    shadow = Shadow(draft, fold, base, topic=TOPIC, partitions=rig.bench.partitions, control_key=KEY)
    return await Comparison(fold, shadow, draft.to_us, hear).run(lambda _: None)


def charged(partition: Partition, start_us: int, end_us: int) -> Sums:
    """From the partition's own lines, of the event times [start_us, end_us)."""
    return sums_of([line for _, line in partition.outputs.lines], start_us, end_us)


def sums_of(lines: list[bytes], start_us: int, end_us: int) -> Sums:
    sums: Sums = {}
    for line in lines:
        row = orjson.loads(line)
        if start_us <= row["time_us"] < end_us:
            pico, events = sums.get(row["account"], (0, 0))
            whole, _, rest = row["amount"].partition(".")
            amount = int(whole + rest.ljust(12, "0"))
            sums[row["account"]] = pico + amount, events + (row["line"] == 0 and "correction" not in row)
    return sums


def published_instead(bench: Bench, body: CatalogueDocument, from_us: int | None) -> Partition:
    """The log folded as if the draft had been published from that instant on, right behind the versions before it."""
    library = {**bench.library, 99: compile_catalogue(99, body)}
    if from_us is None:
        library[1] = compile_catalogue(1, body)
    kept = [version for version, start in bench.partition._book.versions if from_us is not None and start < from_us]
    kept = kept or [1]
    partition = Partition(bench.number, bench.partitions, TOPIC, KEY, library)
    for record in bench.log:
        value = record.value or b""
        body_json: dict[str, Any] = orjson.loads(value[36:]) if value[:4] == b"TGC1" and b'"catalogue"' in value else {}
        if body_json.get("kind") == "catalogue" and body_json["version"] not in kept:
            continue
        outcome = partition.apply(*record)
        if outcome == "catalogue" and body_json["version"] == kept[-1] and from_us is not None:
            marker = msgspec.json.encode(CatalogueMarker(99, from_us))
            assert partition.apply(record.offset, record.append_ms, None, seal(KEY, TOPIC, 0, marker)) == "catalogue"
    return partition


def told(found: DryRun) -> tuple[Sums, Sums]:
    before = {one.account: (one.takings.before, one.takings.events_before) for one in found.customers}
    after = {one.account: (one.takings.after, one.takings.events_after) for one in found.customers}
    return before, after


async def sealed(rig: ProofRig, folder: Path) -> Base:
    await seal_base(rig.stored(), folder, topic=TOPIC, partitions=rig.bench.partitions, control_key=KEY)
    base = find_base(folder, rig.bench.number, KEY)
    assert base is not None
    return base


@pytest.mark.parametrize("seed", range(12))
async def test_a_draft_charges_what_its_publication_would_have_charged(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rebuild, dryrun):
        monkeypatch.setattr(module, "SETTLE_EVERY", 17)
    source = random.Random(seed)
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=source.choice([HOUR // 60, HOUR, 8 * HOUR]))
    for _ in range(200):
        log.step()
    rig = ProofRig(bench)
    actual = Partition(bench.number, bench.partitions, TOPIC, KEY, bench.library)
    for record in bench.log:
        actual.apply(*record)
    rig.checkpoint()
    span = bench.now - START
    for from_us in (None, START + 10 * MINUTE, START + source.randrange(10 * MINUTE, span), START + span // 2):
        to_us = source.choice([None, START + span * 3 // 4])
        within = ANY_TIME[0] if from_us is None else from_us, ANY_TIME[1] if to_us is None else to_us
        heard: list[bytes] = []
        found = await compared(rig, Draft(DRAFT, from_us, to_us), hear=heard.append)
        before, after = told(found)
        assert sums_of(heard, *within) == after
        assert before == charged(actual, *within)
        assert after == charged(published_instead(bench, DRAFT, from_us), *within)
        # At other prices a lot has burnt more, or less, than a command takes back, and credit is asked for at other times.
        # A re-rating states what it found by the versions of its time.
        assert {each for turn in found.turns for each in (turn.before, turn.after)} <= {
            *("applied", "refused.exceeds_lot", "refused.not_asked", "refused.rerate_changed", "refused.no_difference"),
            *("refused.unknown_version", "refused.unknown_price", "refused.mid_segment", "refused.mid_period"),
        }
    assert before != after


@pytest.mark.parametrize("seed", range(6))
async def test_from_a_base_a_draft_goes_on_where_the_counters_stand(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=HOUR)
    for _ in range(100):
        log.step()
    rig = ProofRig(bench)
    rig.checkpoint()
    base = await sealed(rig, tmp_path)
    from_us = bench.partition.log_time_us + SKEW_US + 1
    for _ in range(100):
        log.step()
    rig.checkpoint()
    found = await compared(rig, Draft(DRAFT), base)
    assert found.start == base.head.next_offset
    assert told(found)[1] == charged(published_instead(bench, DRAFT, from_us), from_us, ANY_TIME[1])
    assert told(found) == told(await compared(rig, Draft(DRAFT, from_us)))
    with pytest.raises(TooLate, match="take an older base"):
        await compared(rig, Draft(DRAFT, from_us - 1), base)


def _rig(*documents: CatalogueDocument) -> ProofRig:
    bench = Bench(*documents)
    bench.open()
    return ProofRig(bench)


async def test_what_is_published_already_changes_nothing() -> None:
    rig = _rig()
    for _ in range(5):
        rig.bench.use(units=7, model="tiered")
    rig.checkpoint()
    (customer,) = (await compared(rig, Draft(document()))).customers
    assert (customer.account, customer.plan, customer.currency) == ("acme", "plan", "USD")
    assert customer.takings.before == customer.takings.after > 0
    assert customer.takings.events_before == customer.takings.events_after == 5


async def test_versions_published_behind_the_draft_s_instant_are_what_it_replaces() -> None:
    """Golden: 10 units of x at $1, then 10 at $0 under version 2; at $1.25 from the same instant under the draft."""
    rig = _rig(document(), document(x=per_unit("0", model="x")))
    bench = rig.bench
    bench.use(units=10, model="x")
    bench.publish(2, START + DAY)
    bench.now = START + 2 * DAY
    bench.use(units=10, model="x")
    rig.checkpoint()
    (all_of_it,) = (await compared(rig, Draft(DRAFT))).customers
    assert (all_of_it.takings.before, all_of_it.takings.after) == (10 * 10**12, 25 * 10**12)
    (later,) = (await compared(rig, Draft(DRAFT, START + DAY))).customers
    assert (later.takings.before, later.takings.after, later.takings.difference) == (0, 125 * 10**11, 125 * 10**11)
    assert (await compared(rig, Draft(DRAFT, START + 3 * DAY))).customers == []


async def test_what_accrues_is_charged_and_is_no_event() -> None:
    """A session's start, its stop and a plain event: three records, of which two charge, and minutes between them."""
    rig = _rig(sessions())
    data = {"session": "s", "state": "start", "gpus": "1", "kind": "a100"}
    rig.bench.use(type="gpu", data=data)
    rig.bench.now += 3 * MINUTE
    rig.bench.use("1")
    rig.bench.use(type="gpu", data=data | {"state": "stop"})
    rig.checkpoint()
    found = await compared(rig, Draft(sessions("7.20")))
    (customer,) = found.customers
    assert (customer.takings.events_before, customer.takings.events_after) == (2, 2)
    assert (customer.takings.before, customer.takings.after) == (1_180_000_000_000, 1_360_000_000_000)


async def test_what_a_draft_does_not_sell_is_told_with_the_reason() -> None:
    rig = _rig(document(y=None))
    bench = rig.bench
    first = len(bench.log)
    for model in ("x", "y", "x", "y"):
        bench.use(units=1, model=model)
    bench.record(b"acme", b"junk")
    rig.checkpoint()
    found = await compared(rig, Draft(document(x=None)))
    (customer,) = found.customers
    takings = customer.takings
    assert (takings.before, takings.after) == (2 * 10**12, 2 * 10**12)
    lost, won = found.turns
    assert (lost.before, lost.after, lost.records, lost.offset) == ("rated", "dead_lettered.no_price", 2, first)
    assert "no price for meter units" in lost.detail
    assert (won.before, won.after, won.records, won.offset) == ("dead_lettered.no_price", "rated", 2, first + 1)
    outside = await compared(rig, Draft(document(x=None), START + DAY))
    assert (outside.customers, outside.turns) == ([], [])


async def test_a_plan_that_only_the_draft_has_opens_accounts_there() -> None:
    bench = Bench()
    assert bench.open(plan="new") == "refused.unknown_plan"
    bench.use(units=3, model="x")
    rig = ProofRig(bench)
    rig.checkpoint()
    body = document()
    plan = PlanDefinition("USD", body.plans["plan"].prices)
    found = await compared(rig, Draft(CatalogueDocument(METERS, {**body.plans, "new": plan})))
    (customer,) = found.customers
    assert (customer.plan, customer.takings.before, customer.takings.after) == ("new", 0, 3 * 10**12)
    assert {turn.before: turn.after for turn in found.turns} == {
        "refused.unknown_plan": "applied",
        "dead_lettered.unknown_account": "rated",
    }
