"""R-outbox: alerts against standings, both ways."""

import msgspec
import orjson

from actors.ports import AlertRow, DeadLetterRow
from actors.reconcile.outbox import outbox_drifts, told_drifts
from engine.account import Account
from engine.alerts import Standing
from tests.engine.bench import HOUR, Bench


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


def test_a_request_for_credit_is_explained_by_its_number() -> None:
    """One that is missing is named, and so is one that the account never made."""
    bench = Bench()
    bench.open()
    bench.top_up("0", "10", cooldown_s=600)
    bench.answer(bench.requests()[0], paid=False)
    bench.tick(bench.now + HOUR)
    account, alerts = bench.account(), list(bench.partition.outputs.alerts)
    assert (len(alerts), told(account, alerts, [])) == (2, [])
    (drift,) = told(account, alerts[1:], [])
    assert "rule top_up, window request, ordinal 1, requested" in drift
    account.top_up = msgspec.structs.replace(account.top_up, ordinal=1)
    (drift,) = told(account, alerts, [])
    assert drift.endswith(f"expected nothing, found {alerts[1].alert_id}")


def test_a_correction_that_was_given_up_is_explained_by_the_fold_that_gives_it_up() -> None:
    account, alerts, letters = crossed_twice()
    body = orjson.loads(alerts[0].body)
    body["data"] |= {"rule": "correction_failed", "window": "gateway-1\n e-7", "ordinal": 1}
    failed = msgspec.structs.replace(alerts[0], alert_id="alert_f", offset=90, body=orjson.dumps(body))

    def found(stored: list[AlertRow], made: list[AlertRow], start: int = 0) -> list[str]:
        drifts = outbox_drifts(0, {"acme": account}, letters, [*alerts, *stored], (), made, start)
        return [str(drift) for drift in drifts]

    assert found([failed], [failed, *alerts]) == []
    (unexplained,) = found([failed], alerts)
    assert unexplained.endswith("alert of offset 90: expected nothing, found alert_f")
    (missing,) = found([], [failed])
    assert "rule correction_failed" in missing and missing.endswith("expected alert_f, found nothing")
    assert found([failed], [], start=91) == [], "it was given up before the base, from which the fold began"
    again = msgspec.structs.replace(failed, offset=95)
    assert found([failed], [again], start=91) == [], "before the base, and behind it once more"


def hours_that_are_gone() -> tuple[Account, list[AlertRow], int]:
    """An hour in which a cap was crossed twice, one in which it was crossed once, and two days later a third; the log
    time of that."""
    bench = Bench()
    bench.open()
    bench.cap("10", "hourly", window="hour")
    bench.cap_rule(100, "hourly", cap="hourly")
    bench.use(10)
    bench.cap("20", "hourly", window="hour")
    bench.use(10)
    bench.now += HOUR
    bench.use(20)
    bench.now += 48 * HOUR
    bench.use(20)
    assert [phase for _, _, _, phase in bench.told()] == ["crossed", "recovered", "crossed", "crossed", "crossed"]
    account = bench.account()
    assert len(account.standings) == 1, "the engine has forgotten the other two"
    return account, list(bench.partition.outputs.alerts), bench.now


def test_a_crossing_in_a_window_that_is_gone_is_explained_by_the_fold_that_tells_it_again() -> None:
    account, alerts, now_us = hours_that_are_gone()

    def found(stored: list[AlertRow], made: list[AlertRow], start: int = 0, at_us: int = now_us) -> list[str]:
        return [str(drift) for drift in outbox_drifts(0, {"acme": account}, [], stored, (), made, start, at_us)]

    assert found(alerts, alerts) == []
    for place, row in enumerate(alerts):
        (missing,) = found(alerts[:place] + alerts[place + 1 :], alerts)
        assert "alert of rule hourly, window hour:" in missing
        assert missing.endswith(f"expected {row.alert_id}, found nothing")
    for place, row in enumerate(alerts[:4]):
        (unexplained,) = found(alerts, alerts[:place] + alerts[place + 1 :])
        assert unexplained.endswith(f"alert of offset {row.offset}: expected nothing, found {row.alert_id}")
    behind = alerts[4].offset
    assert found(alerts, alerts[4:], start=behind) == [], "told before the base, from which the fold began"
    (lost,) = found(alerts[:4], alerts[4:], start=behind)
    assert lost.endswith(f"expected {alerts[4].alert_id}, found nothing"), "of this one the standing is still there"
    forged = msgspec.structs.replace(alerts[0], alert_id="alert_f")
    (unexplained,) = found([*alerts, forged], alerts[4:], start=behind)
    assert unexplained.endswith("found alert_f")
    first_hour = orjson.loads(alerts[0].body)["data"]["window"]
    account.standings["hourly", first_hour] = Standing(1, active=False)
    (second,) = found(alerts, alerts)
    assert second.endswith(f"found {alerts[2].alert_id}"), "where there is a standing, it decides"


def test_a_standing_that_is_lost_while_its_window_can_still_count_is_named() -> None:
    account, alerts, now_us = hours_that_are_gone()
    account.standings.clear()
    (unexplained,) = [str(each) for each in outbox_drifts(0, {"acme": account}, [], alerts, (), alerts, 0, now_us)]
    assert unexplained.endswith(f"alert of offset {alerts[4].offset}: expected nothing, found {alerts[4].alert_id}")


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
    stored = {row.alert_id: row for row in alerts}
    assert list(told_drifts(0, [again], stored, start=again.offset)) == [], "told before the base the first time"
    assert len(list(told_drifts(0, [again], stored))) == 1, "the fold was there, and told nothing"
    earlier = msgspec.structs.replace(alerts[3], offset=alerts[3].offset - 1)
    assert len(list(told_drifts(0, [earlier], stored, start=earlier.offset))) == 1
