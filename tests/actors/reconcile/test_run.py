"""Reconciling whole partitions without servers: nothing is found where nothing is wrong, and each wrong digit is."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from actors.ports import AlertRow, DeadLetterRow
from actors.rebuild import LogTooShort
from actors.reconcile import run
from actors.reconcile.forwards import Forwards
from actors.reconcile.rated import RatedTopic
from actors.reconcile.run import Reconciler, Report, read_facts
from actors.sealed_base import Base
from engine.alerts import Crossing
from engine.money import amount_text, parse_amount
from engine.snapshot import decode_account, encode_account
from tests.actors.proof_rig import RATED, ProofRig
from tests.actors.test_rebuild import rigged, sealed
from tests.engine.bench import HOUR, MINUTE, TOPIC, Bench, RandomLog, us, versions
from tests.laws.test_r1_shared_allowances import lived as with_allowances
from tests.laws.test_r1_shared_tiers import lived as with_tiers
from tests.laws.test_r3_durations import document as sessions


async def reconciled(rig: ProofRig, base: Base | None = None, share: float = 1.0, seed: int = 1) -> Report:
    stored, facts = await read_facts(rig.stored(), base.head.next_offset if base else 0)
    fold = await rig.fold(base)
    rated = RatedTopic(rig.reader, RATED, rig.bench.number)
    forwards = Forwards()
    report = await Reconciler(fold, stored, facts, rated, forwards, share=share, seed=seed).run(lambda _: None)
    async for drift in forwards.lost(rig.reader, TOPIC):
        report.take([drift])
    return report


async def told(rig: ProofRig, base: Base | None = None) -> str:
    return "\n".join(map(str, (await reconciled(rig, base)).drifts))


# ----------------------------------------------------------------------------------------------------- nothing is wrong


@pytest.mark.parametrize("seed", range(20))
async def test_any_run_reconciles_from_anywhere(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of record, three catalogue versions, takeovers that tell lines again, blocks that come late."""
    monkeypatch.setattr(run, "STRETCH", 37)
    source = random.Random(seed)
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=source.choice([MINUTE, HOUR, 12 * HOUR]))
    rig = ProofRig(bench)
    bases: list[Base | None] = [None]
    for number in range(5):
        for _ in range(source.randrange(1, 70)):
            log.step()
        told_before = len(rig.reader.records[RATED])
        rig.checkpoint()
        blocks = rig.reader.records[RATED]
        if len(blocks) > told_before and source.random() < 0.7:
            again = blocks[-1].value or b""
            if source.random() < 0.5:  # a takeover: the same lines under a higher epoch, and a zombie's behind them
                rig.send_lines(again.replace(b'"epoch":0', b'"epoch":7').split(b"\n"))
                rig.send_lines([line.replace(b'"amount":"', b'"amount":"9') for line in again.split(b"\n")][:1])
            else:  # a block whose acknowledgement was lost
                rig.send_lines(again.split(b"\n"))
        bases.append(await sealed(rig, tmp_path / str(number)))
    for base in bases:
        report = await reconciled(rig, base)
        assert [str(drift) for drift in report.drifts] == []
        assert report.drift == 0
        assert report.records == rig.next_offset - (base.head.next_offset if base else 0)
        assert report.sampled == sorted(rig.store.accounts)
    assert bench.partition.counts["rated"]


async def test_sessions_reconcile_while_they_are_open_and_when_their_period_is_closed(tmp_path: Path) -> None:
    """Lines of no event, several of one event, what is taken back, and an adjustment; from the start and from a base."""
    bench = Bench(sessions())
    bench.now = us("2026-03-31T23:00:00+00:00")
    bench.open()
    bench.open("other")
    bench.grant("l", "1")
    rig = ProofRig(bench)
    data = {"session": "s", "gpus": "0.333333333"}
    for account, kind in (("acme", "a100"), ("other", "h100")):
        bench.use(account=account, type="gpu", data=data | {"state": "start", "kind": kind})
    bench.now += 3 * MINUTE
    bench.use("1")
    rig.checkpoint()
    base = await sealed(rig, tmp_path / "base")
    bench.tick(bench.now + HOUR)
    bench.use(at=us("2026-04-01T00:00:02+00:00"), type="gpu", data=data | {"state": "stop", "kind": "a100"})
    bench.tick(us("2026-04-10T00:00:00+00:00"))
    late = us("2026-04-01T01:00:00+00:00")
    bench.use(at=late, account="other", type="gpu", data=data | {"state": "stop", "kind": "h100"})
    rig.checkpoint()
    for start in (None, base):
        report = await reconciled(rig, start)
        assert [str(drift) for drift in report.drifts] == []
    lines = [orjson.loads(line) for block in rig.reader.records[RATED] for line in (block.value or b"").splitlines()]
    assert any("accrued_us" in line for line in lines) and any("adjusts" in line for line in lines)
    assert any(line["quantity"][0] == "-" for line in lines)


@pytest.mark.parametrize("lived", [with_allowances, with_tiers])
@pytest.mark.parametrize("seed", range(6))
async def test_what_prices_share_reconciles(seed: int, lived: Callable[[int], Bench]) -> None:
    """Lines that depend on each other, late ones of a closed period among them; a pico too much in one is named."""
    rig = ProofRig(lived(seed))
    rig.checkpoint()
    report = await reconciled(rig)
    assert [str(drift) for drift in report.drifts] == []
    blocks = rig.reader.records[RATED]
    lines = [line for block in blocks for line in (block.value or b"").splitlines()]
    place = next(n for n, line in enumerate(lines) if b'"plan":"plan"' in line and b'"agreed_us"' not in line)
    spoilt = orjson.loads(lines[place])
    spoilt["amount"] = amount_text(parse_amount(spoilt["amount"]) + 1)
    blocks.clear()
    rig.send_lines([*lines[:place], orjson.dumps(spoilt), *lines[place + 1 :]])
    assert f"rated lines of {spoilt['price']} of offset {spoilt['offset']}: amount" in await told(rig)


async def test_the_sample_is_a_share_that_the_seed_picks() -> None:
    rig, _ = rigged()
    assert len(rig.store.accounts) == 4
    picked = {tuple((await reconciled(rig, share=0.5, seed=seed)).sampled) for seed in range(8)}
    assert {len(names) for names in picked} == {2}
    assert len(picked) > 1
    assert (await reconciled(rig, share=0.5, seed=3)).sampled == (await reconciled(rig, share=0.5, seed=3)).sampled
    assert len((await reconciled(rig, share=0.01)).sampled) == 1
    assert (await reconciled(rig, share=0.0)).sampled == []


async def test_a_partition_without_a_checkpoint_has_nothing_to_reconcile() -> None:
    rig = ProofRig(Bench())
    report = await reconciled(rig)
    assert (report.drifts, report.records, report.accounts) == ([], 0, 0)


# ----------------------------------------------------------------------------------------------------- one unit is wrong

Spoil = Callable[[ProofRig], str]  # returns what must be named


def account_of(rig: ProofRig, change: Callable[[Any], None]) -> str:
    name, row = sorted(rig.store.accounts.items())[1]
    account = decode_account(row.blob, rig.bench.partition._book)
    change(account)
    rig.store.accounts[name] = msgspec.structs.replace(row, blob=encode_account(account))
    return name


def a_pico_in_a_lot(rig: ProofRig) -> str:
    def change(account: Any) -> None:
        lot = account.lots["welcome"]
        account.lots["welcome"] = msgspec.structs.replace(lot, granted=lot.granted + 1)

    name = account_of(rig, change)
    return f"ledger: partition 0, account {name}: grant of lot welcome: expected 40.000000000001, found 40 (digit 12 behind"


def a_nano_in_a_quantity(rig: ProofRig) -> str:
    found = ""

    def change(account: Any) -> None:
        nonlocal found
        start = min(account.table)
        (price, cell), quantity = sorted(account.table[start].items())[0]
        account.table[start][price, cell] = quantity + 1
        found = f"quantity of {price} {'/'.join(cell)} in the segment from {start}: expected "

    name = account_of(rig, change)
    return f"rerate: partition 0, account {name}: {found}"


def a_pico_in_a_posting(rig: ProofRig) -> str:
    place = next(index for index, row in enumerate(rig.store.postings) if row.kind == "burn")
    row = rig.store.postings[place]
    rig.store.postings[place] = msgspec.structs.replace(row, amount=row.amount - 1)
    return (
        f"ledger: partition 0, account {row.account}: burn of lot {row.lot} in the period from {row.usage_period_us}: "
    )


def a_pico_in_a_debt(rig: ProofRig) -> str:
    place = next(index for index, row in enumerate(rig.store.postings) if row.kind == "debt")
    row = rig.store.postings[place]
    rig.store.postings[place] = msgspec.structs.replace(row, amount=row.amount + 1)
    return f"rerate: partition 0, account {row.account}: debt in the period from {row.usage_period_us}: "


def a_posting_of_nobody(rig: ProofRig) -> str:
    rig.store.postings.append(msgspec.structs.replace(rig.store.postings[0], account="nobody"))
    return "ledger: partition 0, account nobody: postings: "


def a_posting_in_a_period_that_was_over(rig: ProofRig) -> str:
    place, row = next((place, row) for place, row in enumerate(rig.store.postings) if row.kind == "burn")
    account = decode_account(rig.store.accounts[row.account].blob, rig.bench.partition._book)
    earlier = account.period_of(row.posting_period_us - 1)
    rig.store.postings[place] = msgspec.structs.replace(row, posting_period_us=earlier)
    where = f"first checkpoint that posts in the period from {row.posting_period_us}"
    return f"ledger: partition 0, account {row.account}: {where}: expected one behind 1, found 1"


def a_posting_in_no_period(rig: ProofRig) -> str:
    place, row = next((place, row) for place, row in enumerate(rig.store.postings) if row.kind == "burn")
    rig.store.postings[place] = msgspec.structs.replace(row, posting_period_us=row.posting_period_us + 1)
    where = (
        f"posting period of burn of lot {row.lot}: expected {row.posting_period_us}, found {row.posting_period_us + 1}"
    )
    return f"ledger: partition 0, account {row.account}: {where}"


def the_balance_shown(rig: ProofRig) -> str:
    name, row = sorted(rig.store.accounts.items())[0]
    rig.store.accounts[name] = msgspec.structs.replace(row, balance=row.balance + 1)
    return f"ledger: partition 0, account {name}: balance shown: "


def an_alert_is_gone(rig: ProofRig) -> str:
    row = next(row for row in rig.store.alerts if b"cap-80" in row.body)
    rig.store.alerts = [kept for kept in rig.store.alerts if kept.alert_id != row.alert_id]
    return f"outbox: partition 0, account {row.account}: alert of rule cap-80, window "


def forgotten(rig: ProofRig) -> AlertRow:
    """The alert of a crossing in an hour that is gone, of which its account knows no more."""
    for row in rig.store.alerts:
        data = orjson.loads(row.body)["data"]
        standings = decode_account(rig.store.accounts[row.account].blob, rig.bench.partition._book).standings
        if data["window"].startswith("hour:") and (data["rule"], data["window"]) not in standings:
            return row
    raise AssertionError("no hour is gone")


def an_alert_of_a_forgotten_hour_is_gone(rig: ProofRig) -> str:
    row = forgotten(rig)
    rig.store.alerts = [kept for kept in rig.store.alerts if kept.alert_id != row.alert_id]
    return f"outbox: partition 0, account {row.account}: alert of rule hourly, window hour:"


def an_alert_of_a_forgotten_hour_too_many(rig: ProofRig) -> str:
    row = forgotten(rig)
    body = orjson.loads(row.body)
    body["data"]["ordinal"] = 99
    crossing = Crossing(row.account, "hourly", body["data"]["window"], 99, "crossed", None, None)
    rig.store.alerts.append(AlertRow(crossing.alert_id, row.account, row.offset, orjson.dumps(body)))
    return f"alert of offset {row.offset}: expected nothing, found {crossing.alert_id}"


def an_alert_too_many(rig: ProofRig) -> str:
    row = rig.store.alerts[0]
    rig.store.alerts.append(AlertRow("alert_" + "0" * 32, row.account, row.offset, row.body))
    return (
        f"outbox: partition 0, account {row.account}: alert of offset {row.offset}: expected nothing, found alert_000"
    )


def an_alert_tells_another_value(rig: ProofRig) -> str:
    place = next(index for index, row in enumerate(rig.store.alerts) if b'"value":"' in row.body)
    row = rig.store.alerts[place]
    body = orjson.loads(row.body)
    value = body["data"]["value"]
    body["data"]["value"] = value[:-1] + str((int(value[-1]) + 1) % 10)
    rig.store.alerts[place] = msgspec.structs.replace(row, body=orjson.dumps(body))
    return f"outbox: partition 0, account {row.account}: alert {row.alert_id}: value: expected {value}, found "


def a_dead_letter_is_gone(rig: ProofRig) -> str:
    row = rig.store.dead_letters.pop(3)
    return f"dead letter of offset {row.offset}: expected {row.reason}, found nothing"


def a_dead_letter_too_many(rig: ProofRig) -> str:
    offset = next(row.offset for row in rig.store.commands)
    rig.store.dead_letters.append(DeadLetterRow(offset, 1, "malformed", "", b"acme", b"x"))
    return f"account acme: dead letter of offset {offset} (the record was applied): expected nothing, found malformed"


def a_command_is_gone(rig: ProofRig) -> str:
    row = rig.store.commands.pop()
    return f"offsets: partition 0, account {row.account}: command of offset {row.offset}: expected {row.answer}, found nothing"


def lines_of(rig: ProofRig) -> tuple[list[bytes], Callable[[list[bytes]], None]]:
    block = rig.reader.records[RATED][0]

    def put(lines: list[bytes]) -> None:
        block.value = b"\n".join(lines)

    return (block.value or b"").split(b"\n"), put


def a_pico_in_a_line(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    place = next(index for index, line in enumerate(lines) if b'"amount":"0.' in line)
    fields = orjson.loads(lines[place])
    amount = fields["amount"]
    spoilt = amount[:-1] + str((int(amount[-1]) + 1) % 10)
    put(
        [
            *lines[:place],
            lines[place].replace(b'"%b"' % amount.encode(), b'"%b"' % spoilt.encode()),
            *lines[place + 1 :],
        ]
    )
    return (
        f"rerate: partition 0, account {fields['account']}: rated line {fields['line']} of offset {fields['offset']}: "
        f"amount: expected {amount}, found {spoilt} (digit 12 behind the point)"
    )


def a_line_is_gone(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    fields = orjson.loads(lines[5])
    put(lines[:5] + lines[6:])
    return (
        f"offsets: partition 0, account {fields['account']}: rated line {fields['line']} of offset {fields['offset']}: "
        f"expected {fields['price']} {fields['quantity']} for {fields['amount']}, found nothing"
    )


def a_line_told_for_another_offset(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    fields = orjson.loads(lines[5])
    offset = next(row.offset for row in rig.store.commands)
    put([*lines, lines[5].replace(b'"offset":%d' % fields["offset"], b'"offset":%d' % offset)])
    return f"rated line {fields['line']} of offset {offset} (the record was applied): expected nothing, found {fields['price']}"


def a_line_under_a_higher_number(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    line = next(line for line in lines if b'"correction"' not in line)
    fields = orjson.loads(line)
    put([*lines, line.replace(b'"line":%d' % fields["line"], b'"line":9')])
    return f"account {fields['account']}: rated line 9 of offset {fields['offset']} (the record was rated): expected nothing"


def a_line_told_twice_unlike(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    fields = orjson.loads(lines[5])
    put([*lines, lines[5].replace(fields["price"].encode(), b"another")])
    return f"rated line {fields['line']} of offset {fields['offset']}: price: expected {fields['price']}, found another"


def a_line_that_cannot_be_read(rig: ProofRig) -> str:
    lines, put = lines_of(rig)
    put([*lines, b'{"partition":0'])
    return "offsets: partition 0: line in block 0 of rated: expected a rated line of this partition, found "


def the_next_offset_is_one_too_low(rig: ProofRig) -> str:
    rig.next_offset -= 1
    return "offsets: partition 0: next offset, not behind the last record: expected "


def the_next_offset_is_one_too_high(rig: ProofRig) -> str:
    rig.next_offset += 1
    return f"offsets: partition 0: next offset, beyond the end of the log: expected {rig.next_offset - 1}, found "


def the_last_record_is_another(rig: ProofRig) -> str:
    assert rig.last is not None
    rig.last = msgspec.structs.replace(rig.last, digest=bytes(16))
    return "offsets: partition 0: last record: digest: expected "


def a_forwarded_event_never_arrived(rig: ProofRig) -> str:
    ((home, held),) = rig.reader.elsewhere.items()
    lost = held.pop(len(held) // 2)
    assert held, "others were forwarded, and are there"
    offset = next(each.offset for each in rig.reader.records[TOPIC] if (each.key, each.value) == (lost.key, lost.value))
    account = (lost.key or b"").decode()
    where = f"usage of offset {offset}, forwarded to partition {home}"
    return f"forwards: partition 0, account {account}: {where}: expected its record in the log there, found nothing"


def a_record_counted_twice(rig: ProofRig) -> str:
    fields = msgspec.msgpack.decode(rig.store.blob or b"")
    fields[4] = [[name, count + (name == "rated")] for name, count in fields[4]]
    rig.store.blob = msgspec.msgpack.encode(fields)
    rated = dict(fields[4])["rated"]
    return f"state: partition 0: count of rated: expected {rated - 1}, found {rated} (digit "


def a_lost_identity(rig: ProofRig) -> str:
    rig.store.dedup[0] = msgspec.structs.replace(rig.store.dedup[0], entries=rig.store.dedup[0].entries[:-20])
    return "state: partition 0: memory of rated events: "


SPOILS = [
    a_pico_in_a_lot,
    a_nano_in_a_quantity,
    a_pico_in_a_posting,
    a_pico_in_a_debt,
    a_posting_of_nobody,
    a_posting_in_a_period_that_was_over,
    a_posting_in_no_period,
    the_balance_shown,
    an_alert_is_gone,
    an_alert_of_a_forgotten_hour_is_gone,
    an_alert_of_a_forgotten_hour_too_many,
    an_alert_too_many,
    an_alert_tells_another_value,
    a_dead_letter_is_gone,
    a_dead_letter_too_many,
    a_command_is_gone,
    a_pico_in_a_line,
    a_line_is_gone,
    a_line_told_for_another_offset,
    a_line_under_a_higher_number,
    a_line_told_twice_unlike,
    a_line_that_cannot_be_read,
    the_next_offset_is_one_too_low,
    the_next_offset_is_one_too_high,
    the_last_record_is_another,
    a_forwarded_event_never_arrived,
    a_record_counted_twice,
    a_lost_identity,
]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: str(spoil.__name__))
async def test_one_wrong_unit_is_named(spoil: Spoil) -> None:
    rig, _ = rigged(seed=3, steps=400)
    assert (await reconciled(rig)).drift == 0
    named = spoil(rig)
    found = await told(rig)
    assert named in found, found


async def test_usage_ahead_of_log_time_is_posted_in_the_period_of_its_checkpoint(tmp_path: Path) -> None:
    """It may be that before the usage; and what was used before midnight may be posted behind it."""
    bench = Bench()
    bench.now = us("2026-03-31T23:57:00+00:00")
    bench.open()
    bench.grant("l", "1")
    rig = ProofRig(bench)
    assert bench.use(3, at=us("2026-04-01T00:01:00+00:00")) == "rated"
    rig.checkpoint()
    assert bench.use(2, at=us("2026-03-31T23:59:59+00:00")) == "rated"
    bench.tick(us("2026-04-01T00:00:01+00:00"))
    rig.checkpoint()
    march, april = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")
    said = {(row.usage_period_us, row.posting_period_us) for row in rig.store.postings if row.usage_period_us}
    assert said >= {(april, march), (march, april)}
    assert (await told(rig)) == ""


async def test_a_plan_that_another_of_the_same_instant_replaced_leaves_its_postings_in_its_period() -> None:
    """Where log time stands, as it does in a sandbox, a checkpoint may come in between."""
    bench = Bench(*versions())
    bench.open()
    rig = ProofRig(bench)
    bench.now += HOUR
    assert bench.command("set_plan", plan="pro") == "applied"
    bench.grant("l", "1")
    rig.checkpoint()
    assert bench.command("set_plan", plan="plan") == "applied"
    bench.grant("m", "1")
    rig.checkpoint()
    assert len({row.posting_period_us for row in rig.store.postings}) == 2
    assert (await told(rig)) == ""


async def test_skipped_records_are_told_beside_drift_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store calls an engine error is passed over unread: that it was one, nothing here proves."""
    bench = Bench()
    bench.open()
    rig = ProofRig(bench)
    with monkeypatch.context() as broken:
        broken.setattr("engine.account.Account.rate", lambda *_: 1 // 0)
        assert bench.use(5) == "dead_lettered.engine_error"
    rig.checkpoint()
    base = await sealed(rig, tmp_path)
    bench.use(2)
    rig.checkpoint()
    report = await reconciled(rig)
    assert (report.drift, report.skipped, report.as_json()["skipped"]) == (0, 1, 1)
    assert (await reconciled(rig, base)).skipped == 0, "it lies before the base"


async def test_what_is_kept_is_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "KEPT_MAX", 3)
    rig, _ = rigged(seed=3, steps=200)
    lost = len(rig.store.commands)
    rig.store.commands.clear()
    report = await reconciled(rig)
    assert report.found["offsets"] == lost
    assert len([drift for drift in report.drifts if drift.check == "offsets"]) == 3
    as_json = report.as_json()
    assert as_json["drift"] == report.drift > 3
    assert {"check", "partition", "account", "what", "expected", "found", "digit"} == set(as_json["drifts"][0])
    orjson.dumps(as_json)


async def test_a_snapshot_that_cannot_be_read_is_told_once() -> None:
    """Not once more by each reconciler that would have needed it."""
    rig, _ = rigged(seed=3, steps=400)
    name, row = sorted(rig.store.accounts.items())[1]
    assert any(alert.account == name for alert in rig.store.alerts)
    rig.store.accounts[name] = msgspec.structs.replace(row, blob=row.blob[:-1])
    (drift,) = (await reconciled(rig)).drifts
    assert (drift.check, drift.account, drift.what) == ("state", name, "snapshot")


async def test_a_log_that_begins_behind_the_base_is_refused() -> None:
    rig, _ = rigged()
    rig.reader.first = 10
    with pytest.raises(LogTooShort, match="offsets 0 to 9 are no longer in the log"):
        await reconciled(rig)


async def test_a_refused_marker_of_an_unpublished_version_is_folded_all_the_same() -> None:
    """No checkpoint names its version; the shard had loaded it from the store before it was refused."""
    bench = Bench(*versions())
    bench.open()
    bench.use(3)
    assert bench.publish(2, bench.now) == "dead_lettered.bad_control"
    bench.use(4)
    rig = ProofRig(bench)
    rig.checkpoint()
    assert (await reconciled(rig)).drift == 0
