"""Account and partition as bytes: versioned msgpack, the same state always the same bytes (law D4).

Money and quantities cross as decimal text, because a msgpack integer ends at 2^64. Fields are positional: a new one
goes to the end and raises the version; `decode_*` says which older versions it reads (so far only 1).
"""

from typing import Final

import msgspec
from msgspec import Struct

from engine.account import Account
from engine.alerts import Balance, CapPercent, Rule, Standing
from engine.catalog import PriceBook
from engine.credit import Lot
from engine.limits import Cap

VERSION: Final = 1


class UnknownSnapshot(ValueError):
    """The bytes were written by a version that this one does not read."""


class _Account(Struct, array_like=True):
    version: int
    account: str
    plan: str
    currency: str
    zone: str
    anchor_day: int
    woken_us: int
    newest_event_us: int
    rated: int
    sequence: int
    table: list[tuple[int, list[tuple[str, tuple[str, ...], str]]]]
    lots: list[tuple[str, str, str, int, int, int | None, tuple[str, ...]]]
    caps: list[tuple[str, str]]
    cap_rules: list[tuple[str, str, int, int]]
    balance_rules: list[tuple[str, str, str]]
    standings: list[tuple[str, str, int, bool]]


_account_decoder: Final = msgspec.msgpack.Decoder(_Account)
_encoder: Final = msgspec.msgpack.Encoder()


def encode_account(account: Account) -> bytes:
    """The account's stored state; nothing derived, nothing of the fast path."""
    rules = sorted(account.rules.items())
    return _encoder.encode(
        _Account(
            VERSION,
            account.account,
            account.plan,
            account.currency,
            account.zone,
            account.anchor_day,
            account.woken_us,
            account.newest_event_us,
            account.rated,
            account.sequence,
            [
                (start, [(name, cell, str(quantity)) for (name, cell), quantity in sorted(row.items())])
                for start, row in sorted(account.table.items())
            ],
            [
                (lot.lot, lot.kind, str(lot.granted), lot.priority, lot.effective_us, lot.expires_us, lot.scope)
                for _, lot in sorted(account.lots.items())
            ],
            [(cap.cap, str(cap.amount)) for _, cap in sorted(account.caps.items())],
            [
                (name, rule.cap, rule.percent, rule.clear_percent)
                for name, rule in rules
                if isinstance(rule, CapPercent)
            ],
            [(name, str(rule.threshold), str(rule.clear)) for name, rule in rules if isinstance(rule, Balance)],
            [
                (rule, window, standing.ordinal, standing.active)
                for (rule, window), standing in sorted(account.standings.items())
            ],
        )
    )


def decode_account(blob: bytes, book: PriceBook) -> Account:
    """The account, ready to go on. Its ledger counts as posted up to here. Raises UnknownSnapshot."""
    try:
        stored = _account_decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error
    if stored.version != VERSION:
        raise UnknownSnapshot(f"account snapshot version {stored.version}; this engine reads {VERSION}")
    account = Account(
        stored.account, stored.plan, stored.currency, stored.zone, stored.anchor_day, stored.woken_us, book
    )
    account.newest_event_us = stored.newest_event_us
    account.rated = stored.rated
    account.sequence = stored.sequence
    account.table = {
        start: {(name, cell): int(quantity) for name, cell, quantity in row} for start, row in stored.table
    }
    account.lots = {
        name: Lot(name, kind, int(granted), priority, effective_us, expires_us, scope)
        for name, kind, granted, priority, effective_us, expires_us, scope in stored.lots
    }
    account.caps = {name: Cap(name, int(amount)) for name, amount in stored.caps}
    cap_rules: dict[str, Rule] = {
        name: CapPercent(cap, percent, clear) for name, cap, percent, clear in stored.cap_rules
    }
    balance_rules: dict[str, Rule] = {
        name: Balance(int(threshold), int(clear)) for name, threshold, clear in stored.balance_rules
    }
    account.rules = cap_rules | balance_rules
    account.standings = {
        (rule, window): Standing(ordinal, active) for rule, window, ordinal, active in stored.standings
    }
    account.mark_posted()
    return account


class PartitionState(Struct, array_like=True):
    """What a partition keeps beside its accounts, its duplicate memory and its command memory."""

    version: int
    log_time_us: int
    epoch: int
    catalogues: list[tuple[int, int]]  # (version, effective instant)
    counts: list[tuple[str, int]]  # outcomes so far, by name


_partition_decoder: Final = msgspec.msgpack.Decoder(PartitionState)


def encode_partition(log_time_us: int, epoch: int, catalogues: list[tuple[int, int]], counts: dict[str, int]) -> bytes:
    return _encoder.encode(PartitionState(VERSION, log_time_us, epoch, catalogues, sorted(counts.items())))


def decode_partition(blob: bytes) -> PartitionState:
    """Raises UnknownSnapshot."""
    try:
        state = _partition_decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error
    if state.version != VERSION:
        raise UnknownSnapshot(f"partition snapshot version {state.version}; this engine reads {VERSION}")
    return state
