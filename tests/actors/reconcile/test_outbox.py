"""R-outbox: alerts against standings, both ways."""

import msgspec
import orjson

from actors.ports import AlertRow, DeadLetterRow
from actors.reconcile.outbox import corrections_given_up, outbox_drifts, told_drifts
from engine.account import Account
from tests.engine.bench import Bench


def crossed_twice() -> tuple[Account, list[AlertRow], list[DeadLetterRow]]:
    """Low, recovered, low again; and an id that came with other fields."""
    bench = Bench()
    bench.open()
    bench.grant("first", "10")
    bench.balance_rule("5")
    bench.now += 1_000_000
    bench.use(6, id="once")
    bench.now += 1_000_000
    bench.grant("second", "10")
    bench.now += 1_000_000
    bench.use(20)
    assert bench.use(7, id="once") == "dead_lettered.id_conflict"
    assert [phase for _, _, _, phase in bench.told()] == ["crossed", "recovered", "crossed", "crossed"]
    return bench.account(), list(bench.partition.outputs.alerts), list(bench.partition.outputs.dead_letters)


def told(account: Account, alerts: list[AlertRow], letters: list[DeadLetterRow]) -> list[str]:
    return [str(drift) for drift in outbox_drifts(0, {"acme": account}, letters, alerts)]


def test_every_alert_is_explained() -> None:
    account, alerts, letters = crossed_twice()
    assert told(account, alerts, letters) == []


def test_each_missing_and_each_unexplained_alert_is_named() -> None:
    account, alerts, letters = crossed_twice()
    names = [
        "ordinal 1, crossed",
        "ordinal 1, recovered",
        "ordinal 2, crossed",
        "rule id_conflict, window gateway-1 once",
    ]
    for place, name in enumerate(names):
        (drift,) = told(account, alerts[:place] + alerts[place + 1 :], letters)
        assert name in drift
        assert drift.endswith(f"expected {alerts[place].alert_id}, found nothing")
    (drift,) = told(account, alerts, [])
    assert drift.endswith(f"alert of offset {alerts[3].offset}: expected nothing, found {alerts[3].alert_id}")
    stolen = [msgspec.structs.replace(alerts[0], account="other"), *alerts[1:]]
    assert told(account, stolen, letters) == [
        f"outbox: partition 0, account acme: account of alert {alerts[0].alert_id}: expected acme, found other "
        "(character 1)"
    ]


def test_a_correction_that_was_given_up_is_explained_by_the_fold_that_gives_it_up() -> None:
    account, alerts, letters = crossed_twice()
    body = orjson.loads(alerts[0].body)
    body["data"] |= {"rule": "correction_failed", "window": "gateway-1\n e-7", "ordinal": 1}
    failed = msgspec.structs.replace(alerts[0], alert_id="alert_f", offset=90, body=orjson.dumps(body))

    def found(stored: list[AlertRow], made: list[AlertRow], start: int = 0) -> list[str]:
        given_up = corrections_given_up(made)
        drifts = outbox_drifts(0, {"acme": account}, letters, [*alerts, *stored], (), given_up, start)
        return [str(drift) for drift in drifts]

    assert found([failed], [failed, *alerts]) == []
    (unexplained,) = found([failed], alerts)
    assert unexplained.endswith("alert of offset 90: expected nothing, found alert_f")
    (missing,) = found([], [failed])
    assert "rule correction_failed" in missing and missing.endswith("expected alert_f, found nothing")
    assert found([failed], [], start=91) == [], "it was given up before the base, from which the fold began"


def test_the_bytes_that_were_told_are_compared() -> None:
    _, alerts, _ = crossed_twice()
    stored = {row.alert_id: row for row in alerts}
    assert list(told_drifts(0, alerts, stored)) == []
    first = alerts[0]
    body = orjson.loads(first.body)
    body["data"]["sequence"] += 1
    stored[first.alert_id] = msgspec.structs.replace(first, body=orjson.dumps(body))
    (drift,) = told_drifts(0, alerts, stored)
    assert str(drift).endswith(f"alert {first.alert_id}: sequence: expected 1, found 2 (digit 1 from the right)")
    stored[first.alert_id] = msgspec.structs.replace(first, body=b"no JSON")
    assert any("body" in drift.what for drift in told_drifts(0, alerts, stored))
    stored[first.alert_id] = msgspec.structs.replace(first, offset=first.offset - 1)
    (drift,) = told_drifts(0, alerts, stored)
    assert "at the offset" in drift.what


def test_a_conflict_met_again_is_no_second_alert() -> None:
    _, alerts, _ = crossed_twice()
    again = msgspec.structs.replace(alerts[3], offset=alerts[3].offset + 5)
    assert list(told_drifts(0, [again], {row.alert_id: row for row in alerts})) == []
    earlier = msgspec.structs.replace(alerts[3], offset=alerts[3].offset - 1)
    assert len(list(told_drifts(0, [earlier], {row.alert_id: row for row in alerts}))) == 1
