"""R-outbox: every crossing that the rules' standings count has its alert, and every alert a standing that explains it.

The ordinal of a standing counts its crossings; so ids 1 to n must have been told as crossed, all but the active one as
recovered, and nothing else. Two kinds have no standing: an id conflict is explained by its dead letter, and a correction
that was given up by the fold, which gives it up again."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.drift import ABSENT, Drift, field_drifts
from actors.ports import AlertRow, DeadLetterRow
from engine.account import Account
from engine.alerts import CORRECTION_FAILED, ID_CONFLICT, Crossing, Phase
from engine.outcomes import DeadLetterReason

CHECK = "outbox"


def outbox_drifts(
    partition: int,
    accounts: Mapping[str, Account],
    letters: Iterable[DeadLetterRow],
    alerts: Iterable[AlertRow],
    unreadable: Collection[str] = (),
    given_up: Mapping[str, Crossing] | None = None,
    start: int = 0,
) -> Iterator[Drift]:
    """`alerts` are all that the partition has ever told, `letters` all its dead letters. Accounts whose snapshot is
    `unreadable` are told elsewhere. `given_up` are the corrections that the fold gave up, by the id of their alert, from
    the offset `start` on; what it gave up before, nobody knows any more."""
    expected: dict[str, Crossing] = dict(given_up or {})
    for account in accounts.values():
        for (rule, window), standing in account.standings.items():
            for ordinal in range(1, standing.ordinal + 1):
                phases: list[Phase] = ["crossed"]
                if ordinal < standing.ordinal or not standing.active:
                    phases.append("recovered")
                for phase in phases:
                    crossing = Crossing(account.account, rule, window, ordinal, phase, None, None)
                    expected[crossing.alert_id] = crossing
    for letter in letters:
        if letter.reason == DeadLetterReason.ID_CONFLICT:
            crossing = _conflict(letter)
            expected[crossing.alert_id] = crossing
    expected = {alert_id: each for alert_id, each in expected.items() if each.account not in unreadable}
    found = {
        row.alert_id: row
        for row in alerts
        if row.account not in unreadable and not (row.offset < start and _rule(row) == CORRECTION_FAILED)
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


def corrections_given_up(made: Iterable[AlertRow]) -> dict[str, Crossing]:
    """Of alerts that a fold made: those that tell of a correction it gave up, by id."""
    found = {}
    for row in made:
        if _rule(row) == CORRECTION_FAILED:
            data = _fields(row)
            found[row.alert_id] = Crossing(
                row.account, CORRECTION_FAILED, data["window"], int(data["ordinal"]), "crossed", None, None
            )
    return found


def _rule(row: AlertRow) -> str:
    return _fields(row).get("rule", "")


def told_drifts(partition: int, made: Iterable[AlertRow], stored: Mapping[str, AlertRow]) -> Iterator[Drift]:
    """Alerts that a fold has made anew, against the bytes that were told. What is missing altogether is told above."""
    for row in made:
        kept = stored.get(row.alert_id)
        if kept is None or kept == row:
            continue
        expected, found = _fields(row), _fields(kept)
        if expected["rule"] == ID_CONFLICT and kept.offset < row.offset:
            continue  # the same conflict again: the first telling stands
        yield from field_drifts(
            CHECK, partition, row.account, _named(row.alert_id, expected), _named(row.alert_id, found)
        )


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
