"""Every law at once: a second implementation, written apart from the first, makes the same money of the same log."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from engine.catalog import document_json
from loadtest.oracle.accounts import Rated
from loadtest.oracle.fold import Oracle
from tests.engine.bench import (
    DAY,
    HOUR,
    KEY,
    MINUTE,
    SECOND,
    START,
    TOPIC,
    Bench,
    RandomLog,
    pico_of,
    told,
    us,
    versions,
)

RHYTHMS = {
    "within an hour": 10 * SECOND,
    "within days": 20 * MINUTE,
    "across months": 6 * HOUR,
    "beyond memory": 2 * DAY,
}
STEPS = 400


def oracle_of(bench: Bench, *, paranoid: bool = False) -> Oracle:
    documents = {version: json.loads(document_json(body)) for version, body in bench.documents.items()}
    oracle = Oracle(documents, KEY, TOPIC, bench.partitions, paranoid=paranoid)
    for record in bench.log:
        oracle.feed(bench.number, *record)
    return oracle


def outcomes_of_the_engine(bench: Bench) -> dict[str, int]:
    """All but the alerts, which the oracle lists one by one."""
    return {name: count for name, count in bench.partition.counts.items() if not name.startswith("alert_")}


def standing_of_the_engine(bench: Bench, name: str) -> dict[str, Any]:
    account = bench.account(name)
    derived = account.derive()
    paid = derived.allocation
    counters: dict[tuple[int, str, tuple[str, ...]], int] = {}
    for start, row in account.table.items():
        for (price, cell), quantity in row.items():
            key = (account.period_of(start), price, cell)
            counters[key] = counters.get(key, 0) + quantity
    lots = {}
    for lot in account.lots.values():
        burnt = sum(pico for (of, _), pico in paid.burnt.items() if of == lot.lot)
        refunded = sum(pico for (of, _), pico in paid.refunded.items() if of == lot.lot)
        lots[lot.lot] = (
            paid.granted[lot.lot],
            burnt,
            paid.expired.get(lot.lot, 0),
            paid.remaining[lot.lot],
            refunded,
            paid.voided.get(lot.lot, 0),
            paid.carried.get(lot.lot, 0),
        )
    return {
        "plan": account.plan,
        "currency": account.currency,
        "counters": counters,
        "amounts": {key: run.amount for key, run in derived.running.items()},
        "lots": lots,
        "adjusted": account.adjusted,
        "debt": sum(paid.debt.values()),
        "due": sum(account.due.values()),
        "balance": paid.balance,
        "spend": derived.spend,
        "scopes": {scope: each.spend for scope, each in account.scopes.items() if scope},
    }


Charges = dict[int, tuple[str, dict[str, tuple[int, int]]]]


def charges_of_the_engine(bench: Bench) -> tuple[Charges, Charges, dict[tuple[int, str], Any]]:
    """Of events, and of corrections: per offset the event's id, and per price its quantity and charge; and of what open
    sessions accrued: the same per offset and account."""
    events: Charges = {}
    corrections: Charges = {}
    accrued: dict[tuple[int, str], Any] = {}
    for offset, raw in bench.partition.outputs.lines:
        line = json.loads(raw)
        if "accrued_us" in line:
            prices = accrued.setdefault((offset, line["account"]), {})
        else:
            prices = (corrections if "correction" in line else events).setdefault(offset, (line["id"], {}))[1]
        had = prices.get(line["price"], (0, 0))
        prices[line["price"]] = (had[0] + pico_of(line["quantity"]) // 1000, had[1] + pico_of(line["amount"]))
    return events, corrections, accrued


def charges_of(rated: Mapping[tuple[int, int], Rated]) -> Charges:
    """Of those that some meter counts: the others have no lines."""
    return {offset: (event.id, event.prices) for (_, offset), event in rated.items() if event.prices}


def assert_the_same(bench: Bench, oracle: Oracle, note: str) -> None:
    assert outcomes_of_the_engine(bench) == dict(oracle.outcomes[bench.number]), note
    accounts = oracle.accounts
    assert set(accounts) == set(bench.partition.account_ids()), note
    for name, expected in accounts.items():
        found = standing_of_the_engine(bench, name)
        for field, value in found.items():
            assert value == getattr(expected, field), f"{note}: account {name}: {field}"
    accrued = {(offset, name): each.prices for (_, offset, name), each in oracle.accrued.items()}
    expected_charges = charges_of(oracle.rated), charges_of(oracle.corrected), accrued
    assert charges_of_the_engine(bench) == expected_charges, note
    alerts: dict[str, tuple[Any, ...]] = {}
    for row in bench.partition.outputs.alerts:
        alerts.setdefault(row.alert_id, (row.account, *told(row), row.offset))
    fields = ("account", "rule", "window", "ordinal", "phase", "offset")
    assert alerts == {
        alert_id: tuple(alert[field] for field in fields)  # type: ignore[literal-required]
        for alert_id, alert in oracle.alerts.items()
    }, note


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("seed", range(6))
def test_engine_and_oracle_make_the_same_of_a_random_log(seed: int, rhythm: str) -> None:
    """Counters, amounts, lots, debt, balance, spend, charges, outcomes, and alerts with their ids and offsets."""
    source = random.Random(f"{seed} {rhythm}")
    bench = Bench(*versions(), partitions=2, number=seed % 2)
    log = RandomLog(bench, source, stride_us=RHYTHMS[rhythm])
    for _ in range(STEPS):
        log.step()
    assert bench.partition.counts["rated"] > STEPS // 3
    note = f"seed {seed}, {rhythm}"
    assert_the_same(bench, oracle_of(bench, paranoid=seed == 0), note)


def test_a_year_of_billing_passes_in_a_sandbox() -> None:
    """Twelve months in one hour: lots begin, roll over and expire, periods close, late usage is an adjustment."""
    bench = Bench(*versions())
    bench.open(anchor_day=31)
    bench.rule("spent", "spend", threshold="20", window="month")
    bench.balance_rule("0")
    source = random.Random(1)
    instant = START
    for month in range(12):
        until = instant + 30 * DAY
        rollover = {"percent": 50, "days": 20, "cap": "3"}
        assert bench.grant(f"lot{month}", "12", expires_us=until - DAY, rollover=rollover) == "applied"
        for _ in range(20):
            late = source.random() < 0.2
            at = instant - 12 * DAY if late and month else instant + source.randrange(4 * MINUTE)
            assert bench.use(source.randrange(1, 4), source.choice(["x", "tiered", "third"]), at=at) == "rated"
        bench.now += 5 * MINUTE
        assert bench.control({"kind": "advance", "until_us": until}) == "advance"
        instant = until
    assert bench.partition.counts["advance"] == 12
    assert bench.account().adjusted, "usage of a closed period came late"
    assert_the_same(bench, oracle_of(bench, paranoid=True), "a year in a sandbox")
    assert bench.replay().account("acme") is not None


def test_the_oracle_refuses_what_the_engine_refuses_of_a_sandbox() -> None:
    """More than a year at once, and what is no instant."""
    bench = Bench(*versions())
    bench.open()
    assert bench.control({"kind": "advance", "until_us": bench.now + 367 * DAY}) == "dead_lettered.bad_control"
    assert bench.control({"kind": "advance", "until": 1}) == "dead_lettered.bad_control"
    assert_the_same(bench, oracle_of(bench), "refused")


def test_the_random_logs_reach_every_outcome_that_can_be_reached() -> None:
    """A comparison of logs in which nothing happens would prove nothing."""
    reached: set[str] = set()
    for seed in range(56):
        bench = Bench(*versions(), partitions=2, number=seed % 2)
        log = RandomLog(bench, random.Random(seed), stride_us=HOUR)
        for _ in range(STEPS):
            log.step()
        reached |= set(bench.partition.counts)
    for name in (
        "rated",
        "slices",
        "duplicate",
        "forwarded",
        "repeated",
        "applied",
        "catalogue",
        "void",
        "cancelled",
        "amended",
        "parked",
        "outdated",
        "alert_recovered",
        "alert_requested",
    ):
        assert name in reached
    letters = {name.removeprefix("dead_lettered.") for name in reached if name.startswith("dead_lettered.")}
    assert letters == {
        "too_large", "malformed", "bad_mac", "bad_control", "unknown_account", "missing_time", "too_far_ahead",
        "too_old", "id_conflict", "bad_hold", "no_meter", "bad_quantity", "bad_dimension", "no_price",
        "bad_correction", "correction_mismatch", "superseded", "bad_stream", "stream_over",
    }  # fmt: skip
    refusals = {name.removeprefix("refused.") for name in reached if name.startswith("refused.")}
    assert refusals >= {
        "key_reused", "account_exists", "bad_amount", "bad_lot", "currency_mismatch", "unknown_price",
        "expires_too_soon", "unknown_cap", "bad_scope", "unknown_scope", "bad_standing", "bad_limit",
        "unknown_lot", "lot_over", "exceeds_lot", "bad_rollover",
        "unknown_meter", "bad_cap", "bad_rule", "cap_in_use", "unknown_rule", "would_reprice", "unknown_plan",
        "bad_top_up", "no_top_up", "not_asked", "bad_recurring", "unknown_recurring", "bad_quantity_grant",
    }  # fmt: skip


def test_they_read_numbers_and_nesting_alike_to_the_last_digit_and_level() -> None:
    """Numbers of thousands of digits, however written, and JSON that is too deep by one."""
    bench = Bench()
    bench.open()
    for number in ("9" * 4300, "9" * 4301, "9" * 5000 + ".0", "9" * 4300 + "e40", "1e-5000", "0e5"):
        sent = bench.event(data={"model": "x", "units": 1, "note": "here"}).replace(b'"here"', number.encode())
        bench.record(b"acme", sent)
        bench.record(b"acme", sent.replace(number.encode(), number.encode() + b"e0"))
        bench.record(b"acme", bench.event("here").replace(b'"here"', number.encode()))
    for depth in (62, 63, 64, 65, 500):
        nested = b"[" * depth + b"]" * depth
        sent = bench.event(data={"model": "x", "units": 1, "more": "here"}).replace(b'"here"', nested)
        bench.record(b"acme", sent)
        bench.record(b"acme", bench.correction(sent) if depth < 400 else sent)
        bench.control(b'{"kind":"tick","epoch":0,"more":' + nested + b"}")
    assert_the_same(bench, oracle_of(bench), "hostile JSON")


@pytest.mark.parametrize("aggregation", ["sum", "max", "duration"])
def test_they_refuse_terms_that_the_meter_has_nothing_for(aggregation: str) -> None:
    """A share of each event's amount, agreed on from a period's start on: of a sum of a field, and of nothing else."""
    body = versions()[0]
    session = "session" if aggregation == "duration" else None
    meters = body.meters | {"units": replace(body.meters["units"], aggregation=aggregation, session=session)}
    bench = Bench(replace(body, meters=meters, streams={}))
    bench.open()
    may_be = "applied" if aggregation == "sum" else "refused.bad_price"
    for terms in ({"model": "percentage", "percent": "2"}, {"model": "dynamic", "factor": "2", "estimate": "7"}):
        assert bench.agree("x", terms, from_us=us("2026-04-01T00:00:00+00:00")) == may_be
    assert bench.agree("calls", {"model": "dynamic", "factor": "2", "estimate": "7"}) == "refused.bad_price"
    assert bench.agree("calls", {"model": "dynamic", "factor": "2"}) == "applied"
    assert_the_same(bench, oracle_of(bench), aggregation)
