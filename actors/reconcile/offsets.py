"""R-offsets: every offset of the log has left exactly one outcome, and what the outcome writes is there, and no more.

A rated event leaves its lines, a record that was not rated its dead letter, a command its row; ticks, owners, slices,
markers, duplicates, repeated commands and what was forwarded leave nothing here (what was forwarded must be in another
partition: `forwards.py`). The outcome is the engine's, folding anew."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from actors.drift import ABSENT, Drift, field_drifts
from actors.ports import CommandRow, DeadLetterRow, Head, LastRecord
from actors.reconcile.rated import CHECK, RatedSet
from engine.snapshot import decode_partition

RATED = "rated"
_EPOCH = re.compile(rb',"epoch":[0-9]+')


class Stretch(Struct):
    """What a fold made of the offsets [start, end), and what is stored of them."""

    outcomes: dict[int, str]  # of each record
    made_lines: dict[int, list[bytes]]
    made_letters: dict[int, DeadLetterRow]
    made_commands: dict[int, CommandRow]
    rated: dict[int, RatedSet]
    letters: dict[int, DeadLetterRow]
    commands: dict[int, CommandRow]


def stretch_drifts(partition: int, stretch: Stretch) -> Iterator[Drift]:
    """In the order of the offsets."""
    stored = stretch.rated.keys() | stretch.letters.keys() | stretch.commands.keys()
    for offset in sorted(stretch.outcomes.keys() | stored):
        yield from _lines(partition, offset, stretch)
        letter = stretch.made_letters.get(offset), stretch.letters.get(offset)
        yield from _rows(partition, offset, "dead letter", stretch, _letter_fields, *letter)
        command = stretch.made_commands.get(offset), stretch.commands.get(offset)
        yield from _rows(partition, offset, "command", stretch, _command_fields, *command)


def end_drifts(head: Head, records: int, last: LastRecord | None, log_end: int, counted_before: int) -> Iterator[Drift]:
    """Where the checkpoint says it ends, against the log: `records` were folded, of which `last` is the last one."""
    partition = head.partition
    if log_end < head.next_offset:
        yield Drift(CHECK, partition, "", "next offset, beyond the end of the log", str(log_end), str(head.next_offset))
    if last != head.last:
        yield from field_drifts(CHECK, partition, "", _last_fields(last), _last_fields(head.last))
    if head.last is not None and head.next_offset <= head.last.offset:
        what = "next offset, not behind the last record"
        yield Drift(CHECK, partition, "", what, str(head.last.offset + 1), str(head.next_offset))
    counted = counted_in(head.blob) - counted_before
    if counted != records:
        yield Drift(CHECK, partition, "", "records counted", str(records), str(counted))


def beyond_drifts(
    partition: int, end: int, letters: Iterable[DeadLetterRow], commands: Iterable[CommandRow]
) -> Iterator[Drift]:
    """What is stored of offsets that the checkpoint has not reached."""
    for name, rows in (("dead letter", letters), ("command", commands)):
        for row in rows:
            if row.offset >= end:
                where = f"{name} of offset {row.offset} (the checkpoint ends at {end})"
                yield Drift(CHECK, partition, _account_of(row), where, ABSENT, "one")


def counted_in(blob: bytes | None) -> int:
    """How many records a partition's own state has counted; alerts are counted beside the records that caused them."""
    counts = decode_partition(blob).counts if blob else []
    return sum(count for name, count in counts if not name.startswith("alert_"))


def _lines(partition: int, offset: int, stretch: Stretch) -> Iterator[Drift]:
    made = dict(enumerate(stretch.made_lines.get(offset, [])))
    rated = stretch.rated.get(offset)
    told = rated.lines if rated else {}
    for number in sorted(made.keys() | told.keys()):
        yield from _line(partition, offset, number, stretch, made.get(number), told.get(number))
    for number, line in rated.unlike if rated else []:
        yield from _line(partition, offset, number, stretch, made.get(number), line)


def _line(
    partition: int, offset: int, number: int, stretch: Stretch, made: bytes | None, told: bytes | None
) -> Iterator[Drift]:
    if made is not None and told is not None and _EPOCH.sub(b"", made, 1) == _EPOCH.sub(b"", told, 1):
        return
    where = f"rated line {number} of offset {offset}"
    expected, found = (None if line is None else _line_fields(line) for line in (made, told))
    account = (expected or found or {}).get("account", "")
    if expected is None or found is None:
        one, other = (ABSENT if fields is None else _summary(fields) for fields in (expected, found))
        why = "" if expected is not None else f" (the record was {stretch.outcomes.get(offset, 'never written')})"
        yield Drift(CHECK, partition, account, where + why, one, other)
        return
    yield from field_drifts(CHECK, partition, account, _at(where, expected), _at(where, found))


def _line_fields(line: bytes) -> dict[str, str]:
    fields: dict[str, Any] = msgspec.json.decode(line)
    return {name: str(value) for name, value in fields.items() if name != "epoch"}


def _summary(fields: Mapping[str, str]) -> str:
    return f"{fields.get('price')} {fields.get('quantity')} for {fields.get('amount')}"


def _rows(
    partition: int,
    offset: int,
    name: str,
    stretch: Stretch,
    fields: Callable[[Any], dict[str, str]],
    made: DeadLetterRow | CommandRow | None,
    stored: DeadLetterRow | CommandRow | None,
) -> Iterator[Drift]:
    row = made or stored
    if row is None:
        return
    outcome = stretch.outcomes.get(offset, "never written")
    account = _account_of(row)
    where = f"{name} of offset {offset}"
    if made is None or stored is None:
        one, other = (ABSENT if row is None else fields(row)["outcome"] for row in (made, stored))
        why = "" if made is not None else f" (the record was {outcome})"
        yield Drift(CHECK, partition, account, where + why, one, other)
        return
    yield from field_drifts(CHECK, partition, account, _at(where, fields(made)), _at(where, fields(stored)))


def _at(where: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {f"{where}: {name}": value for name, value in fields.items()}


def _account_of(row: DeadLetterRow | CommandRow) -> str:
    if isinstance(row, CommandRow):
        return row.account
    return "" if row.key is None else row.key.decode("utf-8", "replace")


def _letter_fields(row: DeadLetterRow) -> dict[str, str]:
    """All but the detail, which tells of an engine error how it broke at first and only that it did on replay."""
    return {
        "outcome": row.reason,
        "log time": str(row.log_time_us),
        "key": _bytes(row.key),
        "value": _bytes(row.value),
    }


def _command_fields(row: CommandRow) -> dict[str, str]:
    return {
        "outcome": row.answer,
        "log time": str(row.log_time_us),
        "account": row.account,
        "key": row.command_key,
        "digest": row.digest.hex(),
        "kind": row.kind,
        "body": _bytes(row.body),
    }


def _bytes(value: bytes | None) -> str:
    return ABSENT if value is None else value.decode("utf-8", "backslashreplace")


def _last_fields(last: LastRecord | None) -> dict[str, str]:
    if last is None:
        return {"last record": ABSENT}
    return {
        "last record: offset": str(last.offset),
        "last record: append time": str(last.append_ms),
        "last record: digest": last.digest.hex(),
    }
