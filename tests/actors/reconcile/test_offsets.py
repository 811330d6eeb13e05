"""R-offsets: each outcome leaves what it must, and the checkpoint ends where it says."""

import msgspec
import orjson

from actors.ports import CommandRow, DeadLetterRow, Head, LastRecord
from actors.reconcile.offsets import Stretch, beyond_drifts, counted_in, end_drifts, stretch_drifts
from actors.reconcile.rated import RatedSet
from engine.snapshot import encode_partition

LETTER = DeadLetterRow(3, 7, "malformed", "why", b"acme", b"\xff{")
COMMAND = CommandRow(4, 7, "acme", "key-1", bytes(16), "grant", b"{}", "applied")
LAST = LastRecord(9, 1_000, bytes(16))


def line(amount: str = "1", epoch: int = 1) -> bytes:
    fields = {"partition": 0, "offset": 2, "line": 0, "epoch": epoch, "account": "acme", "price": "x"}
    return orjson.dumps(fields | {"quantity": "3", "amount": amount})


def stretch() -> Stretch:
    return Stretch(
        outcomes={2: "rated", 3: "dead_lettered.malformed", 4: "applied", 5: "tick"},
        made_lines={2: [line(epoch=0)]},
        made_letters={3: LETTER},
        made_commands={4: COMMAND},
        rated={2: RatedSet(8, {0: line(epoch=8)})},
        letters={3: msgspec.structs.replace(LETTER, detail="skipped: it broke the engine before")},
        commands={4: COMMAND},
    )


def told(of: Stretch) -> list[str]:
    return [str(drift) for drift in stretch_drifts(0, of)]


def test_what_every_record_must_leave_is_there_under_whatever_epoch() -> None:
    assert told(stretch()) == []


def test_each_row_that_is_missing_too_many_or_changed_is_named() -> None:
    of = stretch()
    of.rated = {2: RatedSet(8, {0: line("1.000000000001", 8)})}
    assert told(of) == [
        "offsets: partition 0, account acme: rated line 0 of offset 2: amount: expected 1, found 1.000000000001 "
        "(digit 12 behind the point)"
    ]
    of = stretch()
    of.letters, of.commands, of.rated = {}, {}, {}
    assert told(of) == [
        "offsets: partition 0, account acme: rated line 0 of offset 2: expected x 3 for 1, found nothing",
        "offsets: partition 0, account acme: dead letter of offset 3: expected malformed, found nothing",
        "offsets: partition 0, account acme: command of offset 4: expected applied, found nothing",
    ]
    of = stretch()
    of.letters[5] = LETTER
    of.commands[6] = COMMAND
    assert told(of) == [
        "offsets: partition 0, account acme: dead letter of offset 5 (the record was tick): expected nothing, "
        "found malformed",
        "offsets: partition 0, account acme: command of offset 6 (the record was never written): expected nothing, "
        "found applied",
    ]
    of = stretch()
    of.letters[3] = msgspec.structs.replace(LETTER, value=b"\xfe{")
    of.commands[4] = msgspec.structs.replace(COMMAND, answer="lot_exists")
    assert [drift.what for drift in stretch_drifts(0, of)] == [
        "dead letter of offset 3: value",
        "command of offset 4: outcome",
    ]


def head(**changed: object) -> Head:
    blob = encode_partition(1, 1, [(1, 0)], {"rated": 6, "tick": 4, "alert_crossed": 5}, (), (), ())
    return msgspec.structs.replace(Head(0, 1, 1, 10, LAST, blob), **changed)


def test_the_end_of_a_checkpoint_is_held_against_the_log() -> None:
    assert counted_in(head().blob) == 10
    assert counted_in(None) == 0
    assert list(end_drifts(head(), 10, LAST, 12, 0)) == []
    assert list(end_drifts(head(), 4, LAST, 12, 6)) == [], "records before the base were counted before it"
    assert list(end_drifts(head(next_offset=12), 10, LAST, 12, 0)) == [], "a control batch leaves no record"
    for changed, records, log_end, what in (
        (head(next_offset=13), 10, 12, "next offset, beyond the end of the log"),
        (head(next_offset=9), 10, 12, "next offset, not behind the last record"),
        (head(last=msgspec.structs.replace(LAST, offset=8)), 10, 12, "last record: offset"),
        (head(last=msgspec.structs.replace(LAST, append_ms=1)), 10, 12, "last record: append time"),
        (head(last=None), 10, 12, "last record: offset"),
        (head(), 9, 12, "records counted"),
    ):
        assert what in [drift.what for drift in end_drifts(changed, records, LAST, log_end, 0)]


def test_rows_beyond_the_checkpoint_are_told() -> None:
    assert list(beyond_drifts(0, 5, [LETTER], [COMMAND])) == []
    assert [str(drift) for drift in beyond_drifts(0, 4, [LETTER], [COMMAND])] == [
        "offsets: partition 0, account acme: command of offset 4 (the checkpoint ends at 4): expected nothing, found one"
    ]
