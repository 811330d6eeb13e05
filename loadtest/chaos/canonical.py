"""One form for an account and a partition, made once from the oracle's fold and once from a checkpoint's bytes.

A snapshot is msgpack: an array whose places are named below, as `engine/snapshot.py` writes them. What the oracle has no
notion of (standings of scopes, hard or soft, levels of rules, the overdraft, slices and draws of holds) is left out of both,
and so is the instant of the last waking, since slices wake an account too: what waking does to lots stands in the ledger. A
quantity of zero and a missing row are the same. Two equal states give equal bytes.
"""

from collections import Counter
from typing import Any, Final

import msgspec
import orjson

from loadtest.oracle.accounts import Account, Partition, Recurring, Rule, TopUp
from loadtest.oracle.commands import NO_CAP
from loadtest.oracle.fold import Oracle

SNAPSHOT_VERSIONS: Final = (3,)
# Places in the array of an account.
_PLAN, _CURRENCY, _ZONE, _ANCHOR, _NEWEST, _RATED = 2, 3, 4, 5, 7, 8
_TABLE, _LOTS, _CAPS, _CROSSINGS, _CAP_SCOPES, _SCOPES = 10, 11, 12, 15, 16, 17
(
    _RATE_LIMITS,
    _DEBT_PAYERS,
    _LOT_CHANGES,
    _CARRIES,
    _CAP_WINDOWS,
    _TALLIES,
    _ADJUSTED,
    _RULES,
    _TOP_UP,
    _RECURRING,
    _GRANTED,
) = (
    19,
    24,
    25,
    26,
    27,
    28,
    32,
    33,
    41,
    44,
    47,
)
# And of a partition.
_LOG_TIME, _EPOCH, _CATALOGUES, _COUNTS = 1, 2, 3, 4


class Unreadable(ValueError):
    """The bytes are no snapshot of a version that is read here."""


def _array(blob: bytes, places: int) -> list[Any]:
    try:
        found = msgspec.msgpack.decode(blob)
    except msgspec.MsgspecError as error:
        raise Unreadable(str(error)) from error
    if not isinstance(found, list) or len(found) <= places or found[0] not in SNAPSHOT_VERSIONS:
        raise Unreadable(f"a snapshot that starts with {str(found)[:60]}; versions {SNAPSHOT_VERSIONS} are read here")
    return found


def _bytes(form: dict[str, Any]) -> bytes:
    return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)


def account_of_snapshot(blob: bytes) -> bytes:
    """The form of a stored account. Raises Unreadable."""
    stored = _array(blob, _GRANTED)
    return _bytes(
        {
            "plan": stored[_PLAN],
            "currency": stored[_CURRENCY],
            "zone": stored[_ZONE],
            "anchor": stored[_ANCHOR],
            "newest": stored[_NEWEST],
            "rated": stored[_RATED],
            "table": sorted(
                [start, price, list(cell), quantity]
                for start, row in stored[_TABLE]
                for price, cell, quantity in row
                if quantity != "0"
            ),
            "lots": sorted([*lot[:6], sorted(lot[6])] for lot in stored[_LOTS]),
            "caps": sorted([cap, amount] for cap, amount in stored[_CAPS]),
            "cap_scopes": sorted([cap, scope] for cap, scope, _ in stored[_CAP_SCOPES]),
            "cap_windows": stored[_CAP_WINDOWS],
            "tallies": stored[_TALLIES],
            "rules": sorted(rule[:5] for rule in stored[_RULES]),
            "crossings": sorted(crossing for crossing in stored[_CROSSINGS] if crossing[2]),
            "scopes": sorted(
                [scope, month, spend] for scope, _, spends in stored[_SCOPES] for month, spend in spends if scope
            ),
            "rate_limits": sorted(limit for limit, _, _ in stored[_RATE_LIMITS]),
            "debt_payers": sorted(stored[_DEBT_PAYERS]),
            "carries": sorted(stored[_CARRIES]),
            "lot_changes": sorted([lot, changes] for lot, changes in stored[_LOT_CHANGES]),
            "adjusted": stored[_ADJUSTED],
            "top_up": stored[_TOP_UP],
            "recurring": stored[_RECURRING],
            "quantity_grants": stored[_GRANTED],
        }
    )


def _measure(rule: Rule) -> list[str | int]:
    if rule.measure in ("spend", "quantity"):
        return ["counted"]
    return [rule.measure, *([rule.of] if rule.of else []), *([rule.length] if rule.length else [])]


def _recurring(each: Recurring) -> list[object]:
    rollover = None
    if each.rollover is not None:
        percent, days, cap = each.rollover
        rollover = [percent, days, None if cap == NO_CAP else str(cap)]
    terms = [each.name, each.every, each.next, each.kind, str(each.amount), each.priority, sorted(each.scope)]
    return [*terms, each.pays_debt, each.expires, each.days, rollover]


def _top_up(top_up: TopUp) -> list[object] | None:
    if top_up == TopUp():
        return None
    terms, asked = (
        None if of is None else [str(of.threshold), str(of.amount), *of[2:]] for of in (top_up.terms, top_up.open)
    )
    return [terms, top_up.requests, top_up.failed, top_up.since or 0, asked, top_up.is_low]


def account_of_oracle(oracle: Oracle, partition: int, account: Account) -> bytes:
    """The form of an account as the oracle has folded it."""
    caps = account.caps | {f"\0{rule}": count for rule, count in account.counts.items()}
    return _bytes(
        {
            "plan": account.plan,
            "currency": account.currency,
            "zone": account.zone,
            "anchor": account.anchor,
            "newest": account.newest_us or 0,
            "rated": account.rated,
            "table": sorted(
                [start, price, list(cell), str(quantity)]
                for start, row in oracle.segments(partition, account).items()
                for (price, cell), quantity in row.items()
                if quantity
            ),
            "lots": sorted(
                [lot.lot, lot.kind, str(lot.granted), lot.priority, lot.effective, lot.expires, sorted(lot.scope)]
                for lot in account.lots
            ),
            "caps": sorted([name, str(cap.amount)] for name, cap in caps.items()),
            "cap_scopes": sorted([name, cap.scope] for name, cap in caps.items()),
            "cap_windows": sorted(
                [name, cap.window, cap.length, cap.meter, cap.price, cap.since]
                for name, cap in caps.items()
                if not cap.is_plain
            ),
            "tallies": sorted(
                [name, [[place, str(amount)] for place, amount in sorted(cap.counted.items())]]
                for name, cap in caps.items()
                if cap.counts
            ),
            "rules": [
                [name, _measure(rule), str(rule.threshold), str(rule.clear), rule.down]
                for name, rule in sorted(account.rules.items())
            ],
            "crossings": sorted(
                [rule, window, crossing.ordinal, crossing.active]
                for (rule, window), crossing in account.crossings.items()
                if crossing.ordinal
            ),
            "scopes": sorted(
                [scope, month, str(spend)]
                for scope, spends in account.scopes.items()
                for month, spend in spends.items()
            ),
            "rate_limits": sorted(account.rate_limits),
            "debt_payers": sorted([lot.lot, lot.pays_debt] for lot in account.lots if lot.pays_debt is not None),
            "carries": sorted(
                [lot.lot, lot.carry.source, lot.carry.percent, None if lot.carry.cap is None else str(lot.carry.cap)]
                for lot in account.lots
                if lot.carry is not None
            ),
            "lot_changes": sorted(
                [
                    lot.lot,
                    [[each.at, each.kind, None if each.amount is None else str(each.amount)] for each in lot.changes],
                ]
                for lot in account.lots
                if lot.changes
            ),
            "adjusted": sorted(
                [posted, start, [[price, str(pico)] for price, pico in sorted(charges.items())]]
                for (posted, start), charges in oracle.adjusted(partition, account).items()
            ),
            "top_up": _top_up(account.top_up),
            "recurring": [_recurring(each) for _, each in sorted(account.recurring.items())],
            "quantity_grants": [
                [each.name, each.price, str(each.units), each.begins, each.expires, each.voided]
                for _, each in sorted(account.quantity_grants.items())
            ],
        }
    )


# The oracle lists alerts one by one instead of counting them.
_UNCOUNTED: Final = ("alert_crossed", "alert_recovered", "alert_requested")


def partition_of_snapshot(blob: bytes) -> bytes:
    """The form of a partition's own state. Raises Unreadable."""
    stored = _array(blob, _COUNTS)
    return _partition(stored[_LOG_TIME], stored[_EPOCH], stored[_CATALOGUES], Counter(dict(stored[_COUNTS])))


def partition_of_oracle(state: Partition) -> bytes:
    """The form of a partition as the oracle has folded it. Its first version is in force for all time: from 0 on."""
    versions = [[number, effective if position else 0] for position, (number, effective) in enumerate(state.versions)]
    return _partition(state.log_us, state.epoch, versions, state.outcomes)


def _partition(log_us: int, epoch: int, catalogues: list[Any], counts: Counter[str]) -> bytes:
    counted = {name: count for name, count in counts.items() if count and name not in _UNCOUNTED}
    return _bytes({"log_time": log_us, "epoch": epoch, "catalogues": catalogues, "counts": counted})


def difference(expected: bytes, found: bytes) -> str:
    """The first part in which two forms differ, for a person."""
    want, have = orjson.loads(expected), orjson.loads(found)
    for part in want:
        if want[part] != have.get(part):
            return f"{part}: expected {str(want[part])[:300]}, found {str(have.get(part))[:300]}"
    return "in nothing that has a name"
