"""Where two tellings of the same state differ: the partition, the account, the field, and the digit.

Pure. Money and quantities are compared as text, so that nothing is rounded on the way to a person's eyes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from engine.snapshot import UnknownSnapshot, account_fields, decode_partition

ABSENT: Final = "nothing"
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


Anew = Callable[[str], tuple[bytes | None, bytes | None]]  # account -> both tellings, as this version writes them


class Drift(Struct, frozen=True):
    """One difference. `check` is the reconciler that found it; `account` is "" where the partition itself differs."""

    check: str
    partition: int
    account: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"partition {self.partition}" + (f", account {self.account}" if self.account else "")
        told = f"{self.check}: {where}: {self.what}: expected {_short(self.expected)}, found {_short(self.found)}"
        place = digit(self.expected, self.found)
        return f"{told} ({place})" if place else told


def digit(expected: str, found: str) -> str:
    """Which digit (or character) is the first to differ; "" where one of them is not there at all, or none differs."""
    if ABSENT in (expected, found):
        return ""
    if _DECIMAL.fullmatch(expected) and _DECIMAL.fullmatch(found):
        return _digit(expected, found) if expected != found else ""
    for place, (one, other) in enumerate(zip(expected, found, strict=False), start=1):
        if one != other:
            return f"character {place}"
    return f"character {min(len(expected), len(found)) + 1}" if expected != found else ""


def _digit(expected: str, found: str) -> str:
    if expected.startswith("-") != found.startswith("-"):
        return "the sign"
    one, other = (text.removeprefix("-").partition(".") for text in (expected, found))
    width = max(len(one[0]), len(other[0]))
    whole = zip(one[0].rjust(width, "0"), other[0].rjust(width, "0"), strict=True)
    for place, (left, right) in enumerate(whole):
        if left != right:
            return f"digit {width - place} {'before the point' if one[1] or other[1] else 'from the right'}"
    width = max(len(one[2]), len(other[2]))
    behind = zip(one[2].ljust(width, "0"), other[2].ljust(width, "0"), strict=True)
    for place, (left, right) in enumerate(behind, start=1):
        if left != right:
            return f"digit {place} behind the point"
    return "the same number, written otherwise"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def field_drifts(
    check: str, partition: int, account: str, expected: Mapping[str, str], found: Mapping[str, str]
) -> Iterator[Drift]:
    """Fields by name that differ, or are on one side only."""
    for name in dict.fromkeys([*expected, *found]):
        if expected.get(name) != found.get(name):
            yield Drift(check, partition, account, name, expected.get(name, ABSENT), found.get(name, ABSENT))


def account_drifts(
    check: str, partition: int, account: str, expected: bytes | None, found: bytes | None, anew: Anew | None = None
) -> Iterator[Drift]:
    """Fields of two snapshots of one account that differ; None: not open. An idle account keeps the bytes of the version
    that wrote them: two versions are compared as `anew` writes them."""
    if expected is None or found is None:
        if expected is not found:
            told = [ABSENT if blob is None else "an open account" for blob in (expected, found)]
            yield Drift(check, partition, account, "account", *told)
        return
    expected_fields = account_fields(expected)
    try:
        found_fields = account_fields(found)
        if anew is not None and expected_fields["version"] != found_fields["version"]:
            yield from account_drifts(check, partition, account, *anew(account))
            return
    except UnknownSnapshot as error:
        yield Drift(check, partition, account, "snapshot", "one that can be read", str(error))
        return
    differences = list(field_drifts(check, partition, account, expected_fields, found_fields))
    if not differences and expected != found:
        differences = [Drift(check, partition, account, "snapshot bytes", expected.hex(), found.hex())]
    yield from differences


def state_drifts(
    check: str, partition: int, expected: bytes, found: bytes, anew: Anew | None = None
) -> Iterator[Drift]:
    """Everything that differs between two results of `Partition.state_bytes`: the partition's own state, then account by
    account, then its two memories."""
    if expected == found:
        return
    one, other = (msgspec.msgpack.decode(state, type=_State) for state in (expected, found))
    yield from _header_drifts(check, partition, one.header, other.header)
    accounts, found_accounts = dict(one.accounts), dict(other.accounts)
    for account in sorted(accounts.keys() | found_accounts.keys()):
        yield from account_drifts(check, partition, account, accounts.get(account), found_accounts.get(account), anew)
    if one.dedup != other.dedup:
        told = [f"{len(side.dedup)} bytes, {side_bytes}" for side, side_bytes in _first_unlike(one, other)]
        yield Drift(check, partition, "", "memory of rated events", *told)
    answers, found_answers = _answers(one.answered), _answers(other.answered)
    for account, key in sorted(answers.keys() | found_answers.keys()):
        told = [side.get((account, key), ABSENT) for side in (answers, found_answers)]
        if told[0] != told[1]:
            yield Drift(check, partition, account, f"answer to command {key}", *told)


class _State(Struct, array_like=True):
    header: bytes
    accounts: list[tuple[str, bytes]]
    dedup: bytes
    answered: list[tuple[str, str, bytes, str, int]]


def _first_unlike(one: _State, other: _State) -> Iterator[tuple[_State, str]]:
    """Twenty bytes of each memory, from the first that differs."""
    start, step = 0, 1 << 20
    while one.dedup[start : start + step] == other.dedup[start : start + step]:
        start += step
    pairs = zip(one.dedup[start : start + step], other.dedup[start : start + step], strict=False)
    start += next((place for place, (left, right) in enumerate(pairs) if left != right), 0)
    for side in (one, other):
        yield side, f"at {start}: {side.dedup[start : start + 20].hex()}"


def _answers(rows: list[tuple[str, str, bytes, str, int]]) -> dict[tuple[str, str], str]:
    return {(row[0], row[1]): f"{row[3]} at {row[4]} to {row[2].hex()}" for row in rows}


def _header_drifts(check: str, partition: int, expected: bytes, found: bytes) -> Iterator[Drift]:
    """Fields of two partitions' own states that differ."""
    differences = list(field_drifts(check, partition, "", header_fields(expected), header_fields(found)))
    if not differences and expected != found:
        differences = [Drift(check, partition, "", "header bytes", expected.hex(), found.hex())]
    yield from differences


def header_fields(blob: bytes) -> dict[str, str]:
    """A partition's own state, every field of it, as text, by name."""
    state = decode_partition(blob)
    fields: dict[str, str] = {}
    for name in state.__struct_fields__:
        value = getattr(state, name)
        match name:
            case "catalogues":
                fields |= {f"catalogue version {version} in force from": str(instant) for version, instant in value}
            case "counts":
                fields |= {f"count of {outcome}": str(count) for outcome, count in value}
            case _:
                fields[_OF_HEADER.get(name, name)] = ", ".join(value) if isinstance(value, list) else str(value)
    return fields


_OF_HEADER: Final = {
    "sliced": "accounts with slices",
    "bound": "accounts bound by an agreed price",
    "leased": "accounts with leases",
}
