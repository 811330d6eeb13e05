"""One form for an account and a partition, made once from the oracle's fold and once from a checkpoint's bytes.

A snapshot is msgpack: an array whose places are named below, as `engine/snapshot.py` writes them. Every place is either part
of the form, or left out of it for the reason that stands beside its name: in some anything may stand, of which the oracle has
no notion (LEFT_OUT); the others nothing in a run ever fills, so they must be as they began (AS_IT_BEGAN, `unmade`). A quantity
of zero and a missing row are the same. Two equal states give equal bytes.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from loadtest.oracle.accounts import Account, Partition, Recurring, Rule, TopUp
from loadtest.oracle.commands import NO_CAP
from loadtest.oracle.fold import Oracle

SNAPSHOT_VERSIONS: Final = (3,)
# The array of an account, in its order.
PLACES: Final = (
    *(
        "version",
        "account",
        "plan",
        "currency",
        "zone",
        "anchor_day",
        "woken_us",
        "newest_event_us",
        "rated",
        "sequence",
    ),
    *("table", "lots", "caps", "cap_rules", "balance_rules", "standings", "cap_scopes", "scopes", "overdraft"),
    *(
        "rate_limits",
        "slices",
        "draws",
        "scopes_since",
        "parked",
        "debt_payers",
        "lot_changes",
        "carries",
        "cap_windows",
    ),
    *("tallies", "aggregates", "agreed", "late", "adjusted", "rules", "rate_meters", "allowed", "lines", "phases"),
    *("first_plan", "sessions", "sessions_us", "top_up", "pauses", "rerated", "recurring", "gauges", "opened_us"),
    *("quantity_grants", "streams", "streams_us", "leases", "seats", "cap_bases", "waiving", "waivers", "postpaid"),
    "billed_us",
)
LEFT_OUT: Final = {
    "woken_us": "slices wake an account too, and the oracle has none; what waking does to lots stands in the ledger",
    "sequence": "it counts tellings, also of a conflict that arrives again; each alert is compared by its id",
    "slices": "they bind checks and move no money; each hold is held against those in the log (`loadtest/backing.py`)",
    "draws": "what of a hold has been used: likewise",
}
_NO_SUCH_COMMAND: Final = "no command of a run sets it"
_NO_SUCH_METER: Final = "no plan of a run has a meter that keeps it"
AS_IT_BEGAN: Final[dict[str, tuple[Any, str]]] = {
    "cap_rules": ([], "of versions 1 and 2"),
    "balance_rules": ([], "of versions 1 and 2"),
    "overdraft": ("0", _NO_SUCH_COMMAND),
    "scopes_since": ([], "no run declares a scope"),
    "parked": ([], "no run corrects anything"),
    "aggregates": ([], _NO_SUCH_METER),
    "agreed": ([], _NO_SUCH_COMMAND),
    "late": ([], "no period closes, with its day of grace, while a run goes on"),
    "rate_meters": ([], _NO_SUCH_COMMAND),
    "allowed": ([], _NO_SUCH_COMMAND),
    "lines": ([], _NO_SUCH_COMMAND),
    "phases": ([], _NO_SUCH_COMMAND),
    "first_plan": (None, "only where there are phases"),
    "sessions": ([], _NO_SUCH_METER),
    "sessions_us": (0, _NO_SUCH_METER),
    "pauses": ([], _NO_SUCH_COMMAND),
    "rerated": ([], _NO_SUCH_COMMAND),
    "gauges": ([], _NO_SUCH_METER),
    "streams": ([], "no usage of a run has a sequence"),
    "streams_us": (0, "no usage of a run has a sequence"),
    "leases": ([], "no gateway of a run asks for a lease"),
    "seats": ([], _NO_SUCH_COMMAND),
    "cap_bases": ([], _NO_SUCH_COMMAND),
    "waiving": ([], _NO_SUCH_COMMAND),
    "waivers": ([], _NO_SUCH_COMMAND),
    "postpaid": (False, _NO_SUCH_COMMAND),
    "billed_us": (0, "nobody pays behind what is used"),
}
# And of a partition.
PARTITION_PLACES: Final = ("version", "log_time_us", "epoch", "catalogues", "counts", "sliced", "bound", "leased")


class Unreadable(ValueError):
    """The bytes are no snapshot of a version that is read here."""


def _stored(blob: bytes, places: tuple[str, ...]) -> dict[str, Any]:
    """By the name of its place. One place more than are named here is nothing that could be left out unread."""
    try:
        found = msgspec.msgpack.decode(blob)
    except msgspec.MsgspecError as error:
        raise Unreadable(str(error)) from error
    if not isinstance(found, list) or not found or found[0] not in SNAPSHOT_VERSIONS:
        raise Unreadable(f"a snapshot that starts with {str(found)[:60]}; versions {SNAPSHOT_VERSIONS} are read here")
    if len(found) != len(places):
        raise Unreadable(f"a snapshot of {len(found)} places; {len(places)} have a name here")
    return dict(zip(places, found, strict=True))


def _bytes(form: dict[str, Any]) -> bytes:
    return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)


def account_of_snapshot(blob: bytes) -> bytes:
    """The form of a stored account. Raises Unreadable."""
    stored = _stored(blob, PLACES)
    return _bytes(
        {
            "account": stored["account"],
            "plan": stored["plan"],
            "currency": stored["currency"],
            "zone": stored["zone"],
            "anchor": stored["anchor_day"],
            "opened": stored["opened_us"],
            "newest": stored["newest_event_us"],
            "rated": stored["rated"],
            "table": sorted(
                [start, price, list(cell), quantity]
                for start, row in stored["table"]
                for price, cell, quantity in row
                if quantity != "0"
            ),
            "lots": sorted([*lot[:6], sorted(lot[6])] for lot in stored["lots"]),
            "caps": sorted([cap, amount] for cap, amount in stored["caps"]),
            "cap_scopes": sorted([cap, scope] for cap, scope, _ in stored["cap_scopes"]),
            "cap_windows": stored["cap_windows"],
            "tallies": stored["tallies"],
            "rules": sorted(rule[:5] for rule in stored["rules"]),
            "crossings": sorted(crossing for crossing in stored["standings"] if crossing[2]),
            "scopes": sorted(scope for scope, _, _ in stored["scopes"] if scope),
            "spends": sorted([scope, month, spend] for scope, _, spends in stored["scopes"] for month, spend in spends),
            "rate_limits": sorted(limit for limit, _, _ in stored["rate_limits"]),
            "debt_payers": sorted(stored["debt_payers"]),
            "carries": sorted(stored["carries"]),
            "lot_changes": sorted([lot, changes] for lot, changes in stored["lot_changes"]),
            "adjusted": stored["adjusted"],
            "top_up": stored["top_up"],
            "recurring": stored["recurring"],
            "quantity_grants": stored["quantity_grants"],
        }
    )


def unmade(blob: bytes) -> list[str]:
    """What a stored account holds that nothing in a run could have made, as sentences. Raises Unreadable."""
    stored = _stored(blob, PLACES)
    found = [
        f"{place}: expected {began}, as {reason}, found {str(stored[place])[:300]}"
        for place, (began, reason) in AS_IT_BEGAN.items()
        if stored[place] != began
    ]
    # Parts of rows that are left out of the form: the oracle has no notion of them.
    found += [f"cap {cap}: expected hard, found soft" for cap, _, is_hard in stored["cap_scopes"] if not is_hard]
    found += [
        f"rule {rule[0]}: expected a warning, found {rule[5]}" for rule in stored["rules"] if rule[5] != "warning"
    ]
    return found + [
        f"scope {scope!r}: expected active, found {standing}"
        for scope, standing, _ in stored["scopes"]
        if standing != "active"
    ]


def has_slices(blob: bytes) -> bool:
    """Whether a stored account has slices. Raises Unreadable."""
    return bool(_stored(blob, PLACES)["slices"])


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
            "account": account.account,
            "plan": account.plan,
            "currency": account.currency,
            "zone": account.zone,
            "anchor": account.anchor,
            "opened": account.opened,
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
            "scopes": sorted(account.scopes),
            "spends": sorted(
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
    stored = _stored(blob, PARTITION_PLACES)
    return _partition(stored["log_time_us"], stored["epoch"], stored["catalogues"], Counter(dict(stored["counts"])))


def unmade_of_partition(blob: bytes, has_slices: Mapping[str, bool]) -> list[str]:
    """What a partition's own state lists that is not so, as sentences. `has_slices` is said of each of its accounts. Raises
    Unreadable."""
    stored = _stored(blob, PARTITION_PLACES)
    # An account whose slices are gone may stand there until it is touched; one that has some must.
    untold = sorted({name for name, some in has_slices.items() if some} - {*stored["sliced"]})
    strangers = sorted({*stored["sliced"]} - {*has_slices})
    found = [f"sliced: expected {name} to be listed, found it not" for name in untold]
    found += [f"sliced: expected no {name}, as it is not open here, found it listed" for name in strangers]
    return found + [
        f"{place}: expected [], found {str(stored[place])[:300]}" for place in ("bound", "leased") if stored[place]
    ]


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
