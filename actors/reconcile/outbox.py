"""R-outbox: every crossing that the rules' standings count has its alert, every request for credit is told, and every
alert has a standing, or a request, that explains it.

The ordinal of a standing counts its crossings; so ids 1 to n must have been told as crossed, all but the active one as
recovered, and nothing else. Three kinds have no standing. An id conflict is explained by its dead letter. A correction
that was given up, and a crossing in a calendar window that is gone and whose standing is forgotten, are explained by the
fold, which tells them again; what was told of these two before the fold's start is looked at by nobody."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.drift import ABSENT, Drift, field_drifts
from actors.ports import AlertRow, DeadLetterRow
from engine.account import Account
from engine.alerts import CORRECTION_FAILED, ID_CONFLICT, Crossing, Phase
from engine.outcomes import DeadLetterReason
from engine.top_up import RULE as TOP_UP_RULE
from engine.top_up import WINDOW as TOP_UP_WINDOW
from engine.windows import is_named_gone

CHECK = "outbox"


def outbox_drifts(
    partition: int,
    accounts: Mapping[str, Account],
    letters: Iterable[DeadLetterRow],
    alerts: Iterable[AlertRow],
    unreadable: Collection[str] = (),
    made: Iterable[AlertRow] = (),
    start: int = 0,
    log_time_us: int = 0,
) -> Iterator[Drift]:
    """`alerts` are all that the partition has ever told, `letters` all its dead letters. Accounts whose snapshot is
    `unreadable` are told elsewhere. `made` are the alerts of a fold from the offset `start` to the partition's
    `log_time_us`."""
    expected: dict[str, Crossing] = {}
    for account in accounts.values():
        for (rule, window), standing in account.standings.items():
            for ordinal in range(1, standing.ordinal + 1):
                phases: list[Phase] = ["crossed"]
                if ordinal < standing.ordinal or not standing.active:
                    phases.append("recovered")
                for phase in phases:
                    crossing = Crossing(account.account, rule, window, ordinal, phase, None, None)
                    expected[crossing.alert_id] = crossing
        for ordinal in range(1, account.top_up.ordinal + 1):
            asked = Crossing(account.account, TOP_UP_RULE, TOP_UP_WINDOW, ordinal, "requested", None, None)
            expected[asked.alert_id] = asked
    for letter in letters:
        if letter.reason == DeadLetterReason.ID_CONFLICT:
            crossing = _conflict(letter)
            expected[crossing.alert_id] = crossing
    for row in made:
        if (forgotten := _without_standing(row, accounts, log_time_us)) is not None:
            expected[row.alert_id] = forgotten
    expected = {alert_id: each for alert_id, each in expected.items() if each.account not in unreadable}
    found = {
        row.alert_id: row
        for row in alerts
        if row.account not in unreadable
        and (row.alert_id in expected or row.offset >= start or _without_standing(row, accounts, log_time_us) is None)
    }
    for alert_id in sorted(expected.keys() - found.keys()):
        crossing = expected[alert_id]
        yield Drift(CHECK, partition, crossing.account, _of(crossing), alert_id, ABSENT)
    for alert_id in sorted(found.keys() - expected.keys()):
        row = found[alert_id]
        yield Drift(CHECK, partition, row.account, f"alert of offset {row.offset}", ABSENT, alert_id)
    for alert_id in sorted(found.keys() & expected.keys()):
        if found[alert_id].account != expected[alert_id].account:
            told = expected[alert_id].account, found[alert_id].account
            yield Drift(CHECK, partition, told[0], f"account of alert {alert_id}", *told)


def told_drifts(
    partition: int, made: Iterable[AlertRow], stored: Mapping[str, AlertRow], start: int = 0
) -> Iterator[Drift]:
    """Alerts that a fold from the offset `start` has made anew, each id once, as it came first, against the bytes that
    were told. What is missing altogether is told above."""
    for row in made:
        kept = stored.get(row.alert_id)
        if kept is None or kept == row:
            continue
        expected, found = _fields(row), _fields(kept)
        if expected["rule"] in (ID_CONFLICT, CORRECTION_FAILED) and kept.offset < start:
            continue  # the same failure again: the first telling stands
        yield from field_drifts(
            CHECK, partition, row.account, _named(row.alert_id, expected), _named(row.alert_id, found)
        )


def _without_standing(row: AlertRow, accounts: Mapping[str, Account], log_time_us: int) -> Crossing | None:
    """The crossing that an alert tells, if it is a correction that was given up, or one in a window that is gone and of
    which the account rightly knows no more."""
    data = _fields(row)
    try:
        phase: Phase = "recovered" if data["type"] == "alert.recovered" else "crossed"
        window, ordinal = data["window"].replace("\n", "\x00"), int(data["ordinal"])
    except (KeyError, ValueError):
        return None  # not an alert
    rule, account = data["rule"], accounts.get(row.account)
    crossing = Crossing(row.account, rule, window, ordinal, phase, None, None)
    if rule == CORRECTION_FAILED:
        return crossing
    if rule == ID_CONFLICT or account is None or (rule, window) in account.standings:
        return None
    is_own = crossing.alert_id == row.alert_id
    return crossing if is_own and is_named_gone(account.zone, window, log_time_us) else None


def _fields(row: AlertRow) -> dict[str, str]:
    try:
        body: Any = msgspec.json.decode(row.body)
        data = body["data"]
        fields = {name: str(value) for name, value in data.items()} | {"id": body["id"], "type": body["type"]}
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        fields = {"rule": "", "body": row.body.decode("utf-8", "replace")}
    return fields | {"of the account": row.account, "at the offset": str(row.offset)}


def _named(alert_id: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {f"alert {alert_id}: {name}": value for name, value in fields.items()}


def _of(crossing: Crossing) -> str:
    window = crossing.window.replace("\x00", " ")
    return f"alert of rule {crossing.rule}, window {window}, ordinal {crossing.ordinal}, {crossing.phase}"


def _conflict(letter: DeadLetterRow) -> Crossing:
    """The alert that a conflicting event caused. Its record was read by the engine, so it can be read here."""
    event: Any = msgspec.json.decode(letter.value or b"{}")
    account = event["subject"] if letter.key is None else letter.key.decode()
    return Crossing(account, ID_CONFLICT, f"{event['source']}\x00{event['id']}", 1, "crossed", None, None)
