"""Law A1: a crossing has one id, made of account, rule, window and an ordinal that only grows; reaching is crossing."""

import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import CommitmentDefinition
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, RandomLog, Store, document, per_unit, told, us, versions
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH = str(us("2026-03-01T00:00:00+00:00"))
APRIL = str(us("2026-04-01T00:00:00+00:00"))


def opened() -> Bench:
    bench = Bench()
    bench.open()
    bench.cap("10")
    return bench


def test_spend_exactly_at_the_threshold_crosses() -> None:
    """Crossing means ≥: the pico below does not, the threshold itself does."""
    bench = opened()
    bench.cap_rule(80)
    bench.use("7.999999999")
    assert bench.told() == []
    bench.use("0.000000001")
    assert bench.told() == [("cap-80", MARCH, 1, "crossed")]
    data = json.loads(bench.partition.outputs.alerts[0].body)["data"]
    assert (data["value"], data["threshold"]) == ("8", "8")


def test_a_balance_exactly_at_the_threshold_crosses_and_above_clear_recovers() -> None:
    """Active at ≤ threshold; cleared only above `clear`, not at it."""
    bench = opened()
    bench.grant("l", "10")
    bench.balance_rule("2", clear="5")
    bench.use("7.999999999")
    assert bench.told() == []
    bench.use("0.000000001")
    bench.grant("at-clear", "3")
    bench.tick(START + HOUR)
    assert bench.told() == [("low", "-", 1, "crossed")]
    bench.grant("above", "0.000000000001")
    assert bench.told() == [("low", "-", 1, "crossed"), ("low", "-", 1, "recovered")]


def test_between_threshold_and_clear_nothing_flaps() -> None:
    """Hysteresis: a balance that wanders between the two tells nothing more."""
    bench = opened()
    bench.grant("l", "10")
    bench.balance_rule("2", clear="5")
    bench.use(8)
    for number in range(3):
        bench.now += HOUR
        bench.grant(f"m{number}", "2")
        bench.now += HOUR
        bench.use(2)
    assert bench.told() == [("low", "-", 1, "crossed")]


def test_an_ordinal_counts_crossings_and_a_recovery_shares_it() -> None:
    """Crossed 1, recovered 1, crossed 2: four facts, four ids."""
    bench = opened()
    bench.cap_rule(100)
    for units, cap in ((10, "20"), (10, "40")):
        bench.use(units)
        bench.cap(cap)
    assert bench.told() == [
        ("cap-100", MARCH, 1, "crossed"),
        ("cap-100", MARCH, 1, "recovered"),
        ("cap-100", MARCH, 2, "crossed"),
        ("cap-100", MARCH, 2, "recovered"),
    ]
    assert len({row.alert_id for row in bench.partition.outputs.alerts}) == 4
    assert [json.loads(row.body)["data"]["sequence"] for row in bench.partition.outputs.alerts] == [1, 2, 3, 4]


def test_a_rule_that_is_set_again_keeps_its_ordinals() -> None:
    """No id is ever used for two crossings, not even by lowering and raising a rule."""
    bench = opened()
    bench.use(9)
    for percent in (50, 100, 50):
        bench.cap_rule(percent, rule="r")
    assert [row[2:] for row in bench.told()] == [(1, "crossed"), (1, "recovered"), (2, "crossed")]


def test_every_month_is_a_window_of_its_own_also_when_its_usage_is_late() -> None:
    """Late usage of March crosses in March's window after April's has been told."""
    bench = opened()
    bench.cap_rule(100)
    bench.now = START + 22 * DAY
    bench.use(10)
    bench.use(10, at=START)
    assert bench.told() == [("cap-100", APRIL, 1, "crossed"), ("cap-100", MARCH, 1, "crossed")]


def test_the_id_is_the_hash_of_its_parts() -> None:
    """`alert_` and 32 hex digits of SHA-256 over account, rule, window, ordinal and phase, joined by NUL."""
    bench = opened()
    bench.cap_rule(80)
    bench.use(8)
    (row,) = bench.partition.outputs.alerts
    text = "\0".join(["acme", "cap-80", str(MARCH), "1", "crossed"])
    assert row.alert_id == "alert_" + hashlib.sha256(text.encode()).hexdigest()[:32]
    body = json.loads(row.body)
    assert (body["id"], body["type"]) == (row.alert_id, "alert.crossed")
    assert body["data"]["offset"] == row.offset == bench.log[-1].offset


@settings(max_examples=10)
@given(st.integers(0, 10**9))
def test_a_replay_tells_the_same_crossings_with_the_same_ids(seed: int) -> None:
    """From the start or from a checkpoint: the same bodies at the same offsets, and no ordinal twice."""
    source = random.Random(seed)
    bench = Bench(*versions())
    log = RandomLog(bench, source, stride_us=2 * HOUR)
    store = Store()
    at = 0
    for step in range(150):
        log.step()
        if step == seed % 150:
            store.checkpoint(bench.partition)
            at = len(bench.log)
    alerts = bench.partition.outputs.alerts
    assert bench.replay().outputs.alerts == alerts
    loaded = store.load_into(bench.fresh())
    for record in bench.log[at:]:
        loaded.apply(*record)
    assert loaded.outputs.alerts == [row for row in alerts if row.offset >= at]
    of_events = ("id_conflict", "correction_failed")  # told of an event or its revision: no rule stands behind them
    crossings = [(row.account, *told(row)) for row in alerts if told(row)[0] not in of_events]
    assert len(set(crossings)) == len(crossings)
    for account, rule, window in {crossing[:3] for crossing in crossings}:
        mine = [crossing[3:] for crossing in crossings if crossing[:3] == (account, rule, window)]
        if rule == "top_up":  # requests do not recover
            assert mine == [(number, "requested") for number in range(1, len(mine) + 1)]
            continue
        assert mine == [(number // 2 + 1, ("crossed", "recovered")[number % 2]) for number in range(len(mine))]


@pytest.mark.parametrize("times", [1, 3])
def test_a_conflict_told_again_has_the_id_of_the_first(times: int) -> None:
    """One (source, id) in conflict is one alert, however many records disagree."""
    bench = opened()
    bench.use(1, id="e")
    for units in range(2, 2 + times):
        bench.use(units, id="e")
    assert {row.alert_id for row in bench.partition.outputs.alerts} == {
        "alert_"
        + hashlib.sha256(b"\0".join([b"acme", b"id_conflict", b"gateway-1", b"e", b"1", b"crossed"])).hexdigest()[:32]
    }
    assert bench.charges() == [DOLLAR]


def test_a_level_is_told_and_is_no_part_of_the_id() -> None:
    """Whether it is a warning or critical is how it is told, not which crossing it is."""
    bodies = []
    for level in ("warning", "critical"):
        bench = opened()
        bench.rule("r", "cap_percent", level=level, cap="monthly", percent=80)
        bench.use(8)
        bodies.append(json.loads(bench.partition.outputs.alerts[0].body))
    assert [body["data"]["level"] for body in bodies] == ["warning", "critical"]
    assert bodies[0]["id"] == bodies[1]["id"]


def test_ordinals_outlive_the_rule_and_what_it_had_active_is_told_as_over() -> None:
    """A name that comes again never tells a second crossing under the id of the first."""
    bench = opened()
    bench.use(9)
    for _ in range(2):
        bench.cap_rule(80, rule="r")
        bench.command("remove_rule", rule="r")
    assert [row[2:] for row in bench.told()] == [(1, "crossed"), (1, "recovered"), (2, "crossed"), (2, "recovered")]
    data = json.loads(bench.partition.outputs.alerts[1].body)["data"]
    assert (data["value"], data["threshold"]) == (None, None)


def test_a_rule_that_looks_elsewhere_leaves_nothing_active_behind() -> None:
    """Another measure, or a cap that counts anew: the old window would never clear."""
    bench = opened()
    bench.cap_rule(80, rule="r")
    bench.use(9)
    bench.balance_rule("-100", rule="r")
    assert bench.told() == [("r", MARCH, 1, "crossed"), ("r", MARCH, 1, "recovered")]
    bench.cap_rule(80, rule="s")
    bench.cap("20", window="day")
    assert bench.told()[2:] == [("s", MARCH, 1, "crossed"), ("s", MARCH, 1, "recovered")]


def test_removing_a_rule_is_replayed() -> None:
    """State and alerts are those of the log, also where nothing is left to see."""
    bench = opened()
    bench.rule("r", "spike", percent=200, minimum="1", bucket_s=60)
    bench.use(9)
    bench.command("remove_rule", rule="r")
    bench.tick(START + DAY)
    replayed = bench.replay()
    assert replayed.state_bytes() == bench.partition.state_bytes()
    assert replayed.outputs.alerts == bench.partition.outputs.alerts
    assert [row[3] for row in bench.told()] == ["crossed", "recovered"]


@pytest.mark.parametrize("seed", range(6))
def test_a_share_of_a_commitment_is_told_alike_by_engine_and_oracle(seed: int) -> None:
    """Late and cancelled usage, short periods, a plan that commits for one price, and one that commits for all together."""
    source = random.Random(f"committed {seed}")
    whole = document(x=replace(per_unit("1", model="x"), commitment="40", overage="1.5"))
    shared = replace(whole.plans["pro"], commitments={"both": CommitmentDefinition("30", ("y", "x"))})
    bench = Bench(replace(whole, plans=whole.plans | {"pro": shared}))
    bench.now = us("2026-04-01T00:00:00+00:00")
    bench.open()
    for percent in (20, 50, 100, 150):
        assert bench.rule(f"at {percent}", "commitment_percent", commitment="x", percent=percent) == "applied"
    assert bench.rule("none", "commitment_percent", commitment="y", percent=5) == "refused.unknown_commitment"
    sent: list[bytes] = []
    for _ in range(60):
        bench.now += source.randrange(1, 2 * DAY)
        roll = source.random()
        if roll < 0.15 and sent:
            bench.correct(sent.pop(source.randrange(len(sent))))
        elif roll < 0.22:
            bench.sell(source.choice(("plan", "pro")), source.choice((None, bench.now + source.randrange(20 * DAY))))
        elif roll < 0.3:
            bench.rule("both", "commitment_percent", commitment="both", percent=50)  # refused where the plan has none
        else:
            late = source.choice((0, 0, source.randrange(30 * DAY)))
            sent.append(bench.event(source.randrange(12), source.choice("xy"), bench.now - late))
            bench.record(b"acme", sent[-1])
    assert len([each for each in bench.told() if each[3] == "crossed"]) > 1
    assert_the_same(bench, oracle_of(bench, paranoid=seed == 0), f"committed {seed}")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
