"""What a run came to, held against what the oracle says it should have come to.

The engine's side arrives as plain dicts, read back from the checkpoints, the topic `rated` and the webhook receiver;
nothing here knows where they came from. Every difference is a sentence that names the account, the field, what was
expected and what was found.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from loadtest.oracle.accounts import Alert, OracleAccount, Rated
from loadtest.oracle.records import fixed_point

DIFFERENCES_MAX = 50
NONE_ACCRUED: Mapping[tuple[int, int, str], Rated] = MappingProxyType({})
PARTS = ("counters", "amounts", "lots", "debt", "balance", "spend", "scopes")
DIGITS = {"quantity": 9, "amount": 12}  # behind the point, of what a line tells
LINE_KINDS = ("event", "session", "correction", "accrual")
LOT_PARTS = ("granted", "burnt", "expired", "remaining", "refunded", "voided", "carried")


class Differences:
    """Sentences, of which the first few are kept and all are counted."""

    def __init__(self) -> None:
        self.count = 0
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        self.count += 1
        if len(self.sentences) < DIFFERENCES_MAX:
            self.sentences.append(sentence)


@dataclass(frozen=True)
class Comparison:
    """`oracle_equal` when nothing differs; `differences` holds the first 50 of `differences_count` sentences."""

    oracle_equal: bool
    lost: int  # offsets the oracle rated, without a line
    double: int  # events rated at more than one offset, and rated offsets that should not be
    alerts_missing: list[str]  # alert ids
    alerts_extra: list[str]
    differences: list[str]
    differences_count: int


def compare(
    accounts: Mapping[str, OracleAccount],
    rated: Mapping[tuple[int, int], Rated],
    alerts: Mapping[str, Alert],
    *,
    corrected: Mapping[tuple[int, int], Rated],
    engine_accounts: Mapping[str, Mapping[str, Any]],
    rated_lines: Iterable[Mapping[str, Any]],
    received_alerts: Collection[str],
    accrued: Mapping[tuple[int, int, str], Rated] = NONE_ACCRUED,
) -> Comparison:
    """The oracle's accounts, rated and corrected events, what open sessions accrued, and alerts against the engine's.

    `engine_accounts` maps account -> the keys `counters`, `amounts`, `lots`, `debt`, `balance`, `spend` and `scopes` as
    in `OracleAccount` (a lot is its four amounts in that order); `rated_lines` are the parsed lines of the topic
    `rated`, in any order, of all epochs; `received_alerts` are the alert ids at the receiver."""
    differences = Differences()
    compare_accounts(accounts, engine_accounts, differences)
    lost, double = compare_rated(rated, corrected, rated_lines, differences, accrued)
    received = set(received_alerts)
    missing = [alert_id for alert_id in alerts if alert_id not in received]
    extra = sorted(received - set(alerts))
    for alert_id in missing:
        alert = alerts[alert_id]
        differences.add(
            f"account {alert['account']}: alert {alert_id} (rule {alert['rule']}, window {alert['window']!r}, ordinal "
            f"{alert['ordinal']}, {alert['phase']}) of partition {alert['partition']}, offset {alert['offset']}: "
            "expected at the receiver, found none"
        )
    for alert_id in extra:
        differences.add(f"alert {alert_id}: expected none, found it at the receiver")
    return Comparison(
        oracle_equal=differences.count == 0,
        lost=lost,
        double=double,
        alerts_missing=missing,
        alerts_extra=extra,
        differences=differences.sentences,
        differences_count=differences.count,
    )


# ---------------------------------------------------------------------------------------------------------- accounts


def compare_accounts(
    accounts: Mapping[str, OracleAccount], found: Mapping[str, Mapping[str, Any]], differences: Differences
) -> None:
    """Every account and every part of it; a table's missing row is the same as a row of 0."""
    for name in sorted({*accounts, *found}):
        if name not in found:
            differences.add(f"account {name}: expected an open account, found none")
        elif name not in accounts:
            differences.add(f"account {name}: expected none, found an account")
        else:
            for part in PARTS:
                if part not in found[name]:
                    differences.add(f"account {name}: {part} expected, found nothing to compare")
                else:
                    _compare_part(
                        f"account {name}", part, getattr(accounts[name], part), found[name][part], differences
                    )


def _compare_part(owner: str, part: str, expected: Any, found: Any, differences: Differences) -> None:
    if part in ("debt", "balance"):
        if expected != found:
            differences.add(f"{owner}: {part}: expected {expected}, found {found}")
    elif part == "lots":
        for lot in sorted({*expected, *found}):
            if lot not in found or lot not in expected:
                differences.add(f"{owner}: lot {lot}: expected {lot in expected}, found {lot in found}")
                continue
            for name, want, have in zip(LOT_PARTS, expected[lot], found[lot], strict=True):
                if want != have:
                    differences.add(f"{owner}: lot {lot} {name}: expected {want}, found {have}")
    else:
        if part == "scopes":
            expected, found = _by_scope_and_month(expected), _by_scope_and_month(found)
        for key in sorted({*expected, *found}):
            if expected.get(key, 0) != found.get(key, 0):
                differences.add(f"{owner}: {part} {key}: expected {expected.get(key, 0)}, found {found.get(key, 0)}")


def _by_scope_and_month(spends: Mapping[str, Mapping[int, int]]) -> dict[tuple[str, int], int]:
    return {(scope, month): spend for scope, months in spends.items() for month, spend in months.items()}


def compare_ledger(ledger: Mapping[tuple[str, str, str], int], accounts: Mapping[str, OracleAccount]) -> list[str]:
    """The postings' sums against the oracle's lots and debts, as sentences."""
    differences = []
    expected: dict[tuple[str, str, str], int] = {}
    for name, account in accounts.items():
        expected[name, "", "debt"] = account.debt - account.due
        expected[name, "", "due"] = account.due
        for lot, standing in account.lots.items():
            expected[name, lot, "grant"] = standing.granted
            expected[name, lot, "burn"] = standing.burnt
            expected[name, lot, "expire"] = standing.expired
            expected[name, lot, "refund"] = standing.refunded
            expected[name, lot, "void"] = standing.voided
            expected[name, lot, "carry"] = standing.carried
    for key in sorted({*expected, *ledger}):
        if expected.get(key, 0) != ledger.get(key, 0):
            account_name, lot, kind = key
            differences.append(
                f"account {account_name}: postings of {kind} {lot}: expected {expected.get(key, 0)}, "
                f"found {ledger.get(key, 0)}"
            )
    return differences


# ------------------------------------------------------------------------------------------------------- rated lines


def settled_lines(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """The lines that count, by (partition, offset): per offset the set of the highest epoch, each line once."""
    epochs: dict[tuple[int, int], int] = {}
    settled: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        place = (int(line["partition"]), int(line["offset"]))
        epoch = int(line["epoch"])
        if epoch > epochs.get(place, -1):
            epochs[place] = epoch
            settled[place] = {}
        if epoch == epochs[place]:
            # The same line may be written twice by a producer that tried again: it is one line.
            settled[place][int(line["line"])] = line
    return {place: [rows[number] for number in sorted(rows)] for place, rows in settled.items()}


def _each_told_once(lines: Iterable[Mapping[str, Any]], differences: Differences) -> Iterator[Mapping[str, Any]]:
    """The lines. Whoever reads the topic takes one of those that bear the same epoch and number: two that are unlike would let
    each reader have another amount, unless a higher epoch has told all of their offset anew."""
    epochs: dict[tuple[int, int], int] = {}
    told: dict[tuple[int, int, int], Mapping[str, Any]] = {}
    unlike: dict[tuple[int, int, int], tuple[int, str]] = {}
    for line in lines:
        partition, offset, number, epoch = (int(line[name]) for name in ("partition", "offset", "line", "epoch"))
        place = partition, offset, number
        epochs[partition, offset] = max(epoch, epochs.get((partition, offset), -1))
        known = told.setdefault(place, line)
        if epoch > int(known["epoch"]):
            told[place] = line
        elif epoch == int(known["epoch"]) and line != known:
            unlike[place] = (
                epoch,
                (
                    f"account {line['account']}: partition {partition}, offset {offset}, line {number} of epoch {epoch}: "
                    f"expected to be told once, found {known} and {line}"
                ),
            )
        yield line
    for (partition, offset, _), (epoch, sentence) in unlike.items():
        if epoch == epochs[partition, offset]:
            differences.add(sentence)


def compare_rated(
    rated: Mapping[tuple[int, int], Rated],
    corrected: Mapping[tuple[int, int], Rated],
    lines: Iterable[Mapping[str, Any]],
    differences: Differences,
    accrued: Mapping[tuple[int, int, str], Rated] = NONE_ACCRUED,
) -> tuple[int, int]:
    """(lost, double). Where an offset has lines, its account, identity, quantities and amounts are compared; of
    corrections, of stretches of sessions and of what accrued, what all of an offset come to, per price."""
    told: dict[str, dict[tuple[int, int], list[Mapping[str, Any]]]] = {kind: {} for kind in LINE_KINDS}
    accruals: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    for place, rows in settled_lines(_each_told_once(lines, differences)).items():
        for row in map(_read, rows):
            if _kind(row) == "accrual":
                accruals.setdefault((*place, str(row["account"])), []).append({**row, "id": "", "source": ""})
            else:
                told[_kind(row)].setdefault(place, []).append(row)
    settled = {
        place: _come_to([*told["event"].get(place, ()), *told["session"].get(place, ())])
        for place in {**told["event"], **told["session"]}
    }
    corrections = {place: _net(rows) for place, rows in told["correction"].items()}
    for place in sorted({*corrected, *corrections}):
        spot = f"partition {place[0]}, offset {place[1]}, corrections"
        if place in corrected and place in corrections:
            _compare_event(spot, corrected[place], corrections[place], differences)
        elif place in corrections or corrected[place].prices:  # of what no meter counts, nothing is told
            differences.add(f"{spot}: expected {place in corrected}, found {place in corrections}")
    for moment in sorted({*accrued, *accruals}):
        spot = f"partition {moment[0]}, offset {moment[1]}, account {moment[2]}, accrued"
        if moment in accrued and moment in accruals:
            # What sessions accrue and what a period owes may meet here: neither has an event to name.
            _compare_event(spot, accrued[moment]._replace(source=""), _net(accruals[moment]), differences)
        else:
            differences.add(f"{spot}: expected {moment in accrued}, found {moment in accruals}")
    lost = double = 0
    places: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for place, rows in settled.items():
        for identity in {(str(row["account"]), str(row["source"]), str(row["id"])) for row in rows}:
            places.setdefault(identity, []).append(place)
    for identity, where in places.items():
        if len(where) > 1:
            double += 1
            differences.add(
                f"account {identity[0]}: event {identity[2]} of {identity[1]}: expected at one offset, found at "
                + ", ".join(f"{partition}/{offset}" for partition, offset in sorted(where))
            )
    for place in sorted({*rated, *settled}):
        spot = f"partition {place[0]}, offset {place[1]}"
        if place not in settled:
            if not rated[place].prices:  # no meter counts it, so nothing is told of it
                continue
            lost += 1
            expected = rated[place]
            differences.add(f"account {expected.account}: event {expected.id} at {spot}: expected rated, found no line")
        elif place not in rated:
            double += 1
            differences.add(f"account {settled[place][0]['account']}: {spot}: expected not rated, found rated")
        else:
            _compare_event(spot, rated[place], settled[place], differences)
    return lost, double


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line with its quantity in nano and its amount in pico; None for what is not a number: that differs from any."""
    return {**row, **{name: fixed_point(str(row[name]), digits) for name, digits in DIGITS.items()}}


def _kind(row: Mapping[str, Any]) -> str:
    """Of what a line tells: an event, a stretch of a session that an event told of, a correction, or an accrual."""
    if row.get("accrued_us"):
        return "accrual"
    if row.get("session"):
        return "session"
    return "correction" if row.get("correction") else "event"


def _come_to(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What an event and the stretches of its session are told to come to. Of some prices there are several lines: one for
    each stretch, and for each part of what is waived, or owed besides usage. Of any other there is one."""
    several = {row["price"] for row in rows if row.get("due") or row.get("session")}
    alone = [row for row in rows if row["price"] not in several]
    return [*alone, *_net([row for row in rows if row["price"] in several])]


def _net(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per price, with what all of its lines come to; with one that is not a number, they come to none."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        net = found.setdefault(str(row["price"]), dict(row) | dict.fromkeys(DIGITS, 0))
        for name in DIGITS:
            net[name] = None if net[name] is None or row[name] is None else net[name] + row[name]
    return list(found.values())


def _compare_event(spot: str, expected: Rated, rows: Sequence[Mapping[str, Any]], differences: Differences) -> None:
    owner = f"account {expected.account}: {spot}"
    found: dict[str, tuple[int | None, int | None]] = {}
    for row in rows:
        for name in ("account", "source", "id"):
            if row[name] != getattr(expected, name):
                differences.add(f"{owner}: {name}: expected {getattr(expected, name)!r}, found {row[name]!r}")
        price = str(row["price"])
        if price in found:
            differences.add(f"{owner}: price {price}: expected one line, found more")
        found[price] = row["quantity"], row["amount"]
    for price in sorted({*expected.prices, *found}):
        for position, name in enumerate(("quantity in nano", "amount in pico")):
            want = expected.prices[price][position] if price in expected.prices else None
            have = found[price][position] if price in found else None
            if want != have or (price in found and have is None):
                differences.add(f"{owner}: price {price}: {name}: expected {want}, found {have}")


# ------------------------------------------------------------------------------------------------------- percentiles


def percentiles(values: Sequence[float], which: Sequence[float] = (50, 99)) -> dict[str, float | None]:
    """{"p50": ..., "p99": ...} by linear interpolation; None where there are no values."""
    if not len(values):
        return {f"p{point:g}": None for point in which}
    found = np.percentile(np.asarray(values, dtype=float), which)
    return {f"p{point:g}": round(float(value), 3) for point, value in zip(which, found, strict=True)}
