"""Rebuilding: from nothing, or from a base and the log behind it, the same bytes as the checkpoint; else what differs."""

import random
from pathlib import Path

import msgspec
import pytest

from actors import rebuild
from actors.ports import LogDamaged
from actors.rebuild import Fold, LogTooShort, find_base
from actors.sealed_base import BadBase, Base, seal_base
from engine.snapshot import VERSION
from tests.actors.proof_rig import ProofRig
from tests.engine.bench import HOUR, KEY, START, TOPIC, Bench, RandomLog, random_bench, versions


def rigged(seed: int = 3, steps: int = 150) -> tuple[ProofRig, RandomLog]:
    bench, log = random_bench(seed, steps)
    rig = ProofRig(bench)
    rig.checkpoint()
    return rig, log


async def sealed(rig: ProofRig, folder: Path) -> Base:
    await seal_base(rig.stored(), folder, topic=TOPIC, partitions=rig.bench.partitions, control_key=KEY)
    base = find_base(folder, rig.bench.number, KEY)
    assert base is not None
    return base


async def run(fold: Fold) -> list[str]:
    await fold.run(lambda _: None)
    return [str(drift) for drift in fold.drifts("rebuild")]


@pytest.mark.parametrize("seed", range(12))
async def test_any_log_rebuilt_from_any_base_gives_the_same_bytes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law D4, over bases: sealed anywhere, on the way or at the end."""
    monkeypatch.setattr(rebuild, "SETTLE_EVERY", 13)
    source = random.Random(seed)
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=source.choice([HOUR // 60, HOUR, 8 * HOUR]))
    rig = ProofRig(bench)
    bases: list[Base | None] = [None]
    for number in range(6):
        for _ in range(source.randrange(1, 60)):
            log.step()
        rig.checkpoint()
        bases.append(await sealed(rig, tmp_path / str(number)))
    for base in bases:
        fold = await rig.fold(base)
        assert await run(fold) == []
        assert fold.partition.state_bytes() == fold.stored_partition().state_bytes() == bench.partition.state_bytes()


async def test_one_pico_in_a_lot_is_named_with_account_field_and_digit() -> None:
    rig, _ = rigged()
    granted = b"\xae40000000000000"  # of the lot `welcome`: 40 dollars in pico; nothing else of the account is as much
    name, row = next(found for found in sorted(rig.store.accounts.items()) if found[1].blob.count(granted) == 1)
    changed = row.blob.replace(b"40000000000000", b"40000000000001")
    rig.store.accounts[name] = msgspec.structs.replace(row, blob=changed)
    assert await run(await rig.fold()) == [
        f"rebuild: partition 0, account {name}: lots welcome: granted: expected 40000000000000, found 40000000000001 "
        "(digit 1 from the right)"
    ]


async def test_one_account_is_compared_alone() -> None:
    rig, _ = rigged()
    (good, _), (bad, row) = sorted(rig.store.accounts.items())[:2]
    rig.store.accounts[bad] = msgspec.structs.replace(row, blob=row.blob.replace(b"plan", b"plaM", 1))
    fold = await rig.fold()
    await fold.run(lambda _: None)
    assert fold.drifts("rebuild", good) == []
    (drift,) = fold.drifts("rebuild", bad)
    assert (drift.account, drift.what, drift.expected, drift.found) == (bad, "plan", "plan", "plaM")
    (view,) = fold.views(good)
    assert view.account == good
    assert view.rated == fold.partition.account(good).rated  # type: ignore[union-attr]
    assert [view.account for view in fold.views()] == sorted(fold.partition.account_ids())
    assert fold.views("nobody") == []


async def test_a_snapshot_that_cannot_be_read_is_a_difference() -> None:
    rig, _ = rigged()
    name, row = sorted(rig.store.accounts.items())[0]
    rig.store.accounts[name] = msgspec.structs.replace(row, blob=row.blob[:-1])
    (told,) = await run(await rig.fold())
    assert told.startswith(f"rebuild: partition 0, account {name}: snapshot: expected one that can be read, found ")


async def test_a_record_handed_out_twice_is_folded_once() -> None:
    rig, _ = rigged()
    held = rig.reader.records[TOPIC]
    held[50:50] = held[40:50]
    assert await run(await rig.fold()) == []


async def test_a_lost_account_and_a_lost_identity_are_found() -> None:
    rig, _ = rigged()
    gone = sorted(rig.store.accounts)[0]
    del rig.store.accounts[gone]
    rig.store.dedup[0] = msgspec.structs.replace(rig.store.dedup[0], entries=rig.store.dedup[0].entries[20:])
    rig.store.commands.pop()
    told = await run(await rig.fold())
    assert f"rebuild: partition 0, account {gone}: account: expected an open account, found nothing" in told
    assert any("memory of rated events" in line for line in told)
    assert any("answer to command" in line for line in told)


async def test_accounts_that_an_older_version_wrote_are_equal_but_for_what_it_did_not_know() -> None:
    """When an account was opened stands in newer ones alone: it may matter to what its first period owes, and so is told."""
    bench = Bench()
    bench.open()
    rig = ProofRig(bench)
    rig.checkpoint()
    row = rig.store.accounts["acme"]
    fields = msgspec.msgpack.decode(row.blob)
    assert VERSION == 3, "then this test needs another older version"
    rig.store.accounts["acme"] = msgspec.structs.replace(row, blob=msgspec.msgpack.encode([2, *fields[1:22]]))
    (unknown,) = await run(await rig.fold())
    assert f"account acme: opened_us: expected {START}, found 0" in unknown
    broken = msgspec.msgpack.encode([2, *fields[1:4], "Asia/Tokyo", *fields[5:22]])
    rig.store.accounts["acme"] = msgspec.structs.replace(row, blob=broken)
    told, again = await run(await rig.fold())
    assert "account acme: zone: expected UTC, found Asia/Tokyo" in told and again == unknown


async def test_a_lost_answer_of_an_account_of_an_older_version_is_told() -> None:
    """Only its own fields are read as this version would write them; all else is compared as ever."""
    bench = Bench()
    bench.open()
    rig = ProofRig(bench)
    rig.checkpoint()
    row = rig.store.accounts["acme"]
    fields = msgspec.msgpack.decode(row.blob)
    rig.store.accounts["acme"] = msgspec.structs.replace(row, blob=msgspec.msgpack.encode([2, *fields[1:22]]))
    (lost,) = [command for command in rig.store.commands if command.account == "acme"]
    rig.store.commands.remove(lost)
    told = await run(await rig.fold())
    assert any(f"account acme: answer to command {lost.command_key}: expected applied" in line for line in told), told


async def test_a_snapshot_of_a_version_that_nobody_reads_is_a_difference() -> None:
    bench = Bench()
    bench.open()
    rig = ProofRig(bench)
    rig.checkpoint()
    row = rig.store.accounts["acme"]
    fields = msgspec.msgpack.decode(row.blob)
    rig.store.accounts["acme"] = msgspec.structs.replace(row, blob=msgspec.msgpack.encode([99, *fields[1:]]))
    (told,) = await run(await rig.fold())
    assert "account acme: snapshot: expected one that can be read, found " in told


async def test_a_log_that_no_longer_reaches_back_names_the_missing_offsets(tmp_path: Path) -> None:
    rig, log = rigged()
    base = await sealed(rig, tmp_path)
    log.step()
    rig.checkpoint()
    start = base.head.next_offset
    rig.reader.first = start
    assert await run(await rig.fold(base)) == []
    with pytest.raises(LogTooShort, match=f"offsets 0 to {start - 1} are no longer in the log: give --base"):
        await run(await rig.fold())
    rig.reader.first = start + 1
    with pytest.raises(LogTooShort, match=f"offsets {start} to {start} are no longer in the log"):
        await run(await rig.fold(base))


async def test_a_truncated_or_replaced_log_is_refused(tmp_path: Path) -> None:
    rig, log = rigged()
    base = await sealed(rig, tmp_path)
    log.step()
    rig.checkpoint()
    held = rig.reader.records[TOPIC]
    held[base.head.next_offset - 1].value = b"another"
    with pytest.raises(LogDamaged, match="is not the one that the base saw"):
        await run(await rig.fold(base))
    held.pop()
    with pytest.raises(LogDamaged, match=f"ends at {rig.next_offset - 1}, the checkpoint at {rig.next_offset}"):
        await run(await rig.fold())


async def test_a_base_of_something_else_is_refused(tmp_path: Path) -> None:
    rig, log = rigged()
    log.step()
    older = rig.stored()
    rig.checkpoint()
    base = await sealed(rig, tmp_path)
    stored = await rebuild.read_stored(older)
    with pytest.raises(BadBase, match="take an older base"):
        Fold(rig.reader, stored, base, topic=TOPIC, partitions=2, control_key=KEY, load=older.catalogue)
    with pytest.raises(
        BadBase, match="is of topic usage with 2 partitions; wanted is partition 0 of topic usage with 8"
    ):
        Fold(rig.reader, stored, base, topic=TOPIC, partitions=8, control_key=KEY, load=older.catalogue)


async def test_what_broke_the_engine_is_skipped_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.open()
    with monkeypatch.context() as broken:
        broken.setattr("engine.account.Account.rate", lambda *_: 1 // 0)
        assert bench.use(5) == "dead_lettered.engine_error"
    bench.use(2)
    rig = ProofRig(bench)
    rig.checkpoint()
    assert await run(await rig.fold()) == []
