"""The workload is the same for the same seed, has the shares it promises, and comes to what it says it will."""

import hashlib
import hmac
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from loadtest.oracle.fold import Oracle
from loadtest.oracle.records import partition_of
from loadtest.workload import (
    FORGED,
    INPUT_TOKENS,
    MALFORMED,
    PERCENTILES,
    Send,
    Shape,
    Workload,
    decimal,
    read_trace,
)

START_US = 1_700_000_000_000_000
KEY = b"control key of the tests"
DURATION_S = 60.0


def price(meter: str, model: str, amount: str, later: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"meter": meter, "where": {"model": model}, "model": "per_unit", "amount": amount}
    body |= {"per": "1000000", "tiers": []}
    if later is not None:
        first = {"up_to": "20000", "amount": amount, "per": "1000000"}
        body |= {"model": "graduated", "amount": None, "tiers": [first, first | {"up_to": None, "amount": later}]}
    return body


def catalogue() -> dict[str, Any]:
    prices = {}
    for model, amount in (("atlas-large", "3"), ("atlas-small", "0.5"), ("atlas-mini", "0.15")):
        prices[f"{model}-in"] = price("input_tokens", model, amount)
        prices[f"{model}-out"] = price("output_tokens", model, "2.5", "1.5")
    meters = {
        name: {"event_type": "llm.request", "aggregation": "sum", "field": name, "group_by": ["model"]}
        for name in ("input_tokens", "output_tokens")
    }
    plans = {plan: {"currency": "USD", "prices": prices} for plan in ("starter", "growth")}
    return {"meters": meters, "plans": plans}


def workload(seed: int = 1, events: int = 4000, customers: int = 50, trace: Path | None = None) -> Workload:
    return Workload(seed, events, customers, trace, DURATION_S, catalogue=catalogue())


def rendered(work: Workload) -> list[tuple[Any, ...]]:
    return [(*send[:5], send.render(START_US + round(send.at_s * 1e6))) for send in work]


def seal(partition: int, body: bytes) -> bytes:
    mac = hmac.new(KEY, b"usage\0" + str(partition).encode() + b"\0" + body, hashlib.sha256).digest()
    return b"TGC1" + mac + body


class Run:
    """The whole workload through a log in memory, forwarding included, into the oracle."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.oracle = Oracle({1: catalogue()}, KEY, "usage", work.partitions)
        self.offsets: Counter[int] = Counter()
        self.seen: list[tuple[str, str]] = []
        for partition in range(work.partitions):
            self.put(partition, None, seal(partition, b'{"kind":"catalogue","version":1,"effective_us":0}'), START_US)
        for body in work.setup(START_US + 30_000_000):
            partition = partition_of(body["account"].encode(), work.partitions)
            assert self.put(partition, None, seal(partition, orjson.dumps(body)), START_US) == "applied", body
        for send in work:
            self.seen.append((send.kind, self.send(send)))

    def send(self, send: Send) -> str:
        now = START_US + 30_000_000 + round(send.at_s * 1e6)
        value = send.render(now - 5000)
        if send.seal_partition is not None:
            assert value is not None
            value = seal(send.seal_partition, value)
        partition = send.partition
        if partition is None:
            assert send.key is not None
            partition = partition_of(send.key, self.work.partitions)
        outcome = self.put(partition, send.key, value, now)
        if outcome == "forwarded":
            key = orjson.loads(value or b"")["subject"].encode()
            outcome = self.put(partition_of(key, self.work.partitions), key, value, now)
        return outcome

    def put(self, partition: int, key: bytes | None, value: bytes | None, now_us: int) -> str:
        self.offsets[partition] += 1
        return self.oracle.feed(partition, self.offsets[partition], now_us // 1000, key, value)


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(workload())


def test_the_same_seed_gives_the_same_records() -> None:
    assert rendered(workload()) == rendered(workload())
    assert workload().setup(START_US) == workload().setup(START_US)
    assert rendered(workload()) != rendered(workload(seed=2))


def test_records_come_in_order_of_time_and_fill_the_run() -> None:
    times = [send.at_s for send in workload()]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] == pytest.approx(DURATION_S)


def test_shares() -> None:
    kinds = Counter(send.kind.split(".")[0] for send in workload(events=20_000))
    assert kinds["event"] + kinds["wrong_partition"] + kinds["keyless"] == 20_000
    assert kinds["duplicate"] == 600
    assert kinds["malformed"] == 20
    for kind in ("wrong_partition", "keyless", "conflict", "forged"):
        assert kinds[kind] == 4
    assert kinds["top_up"] > 0


def test_no_event_runs_ahead_and_one_in_twenty_is_late() -> None:
    late = 0
    for send in workload(events=20_000):
        now = START_US + round(send.at_s * 1e6)
        value = send.render(now)
        if send.kind == "event":
            assert value is not None
            text = orjson.loads(value)["time"]
            written = int(np.datetime64(text.rstrip("Z"), "us").astype(np.int64))
            assert now - 4_000_001 <= written <= now
            late += written < now
    assert 800 < late < 1200


def test_customers_follow_a_zipf_law() -> None:
    counts = Counter(send.key for send in workload(events=20_000, customers=100) if send.kind == "event")
    ranked = [count for _, count in counts.most_common()]
    harmonic = sum(1 / rank for rank in range(1, 101))
    assert ranked[0] == pytest.approx(20_000 / harmonic, rel=0.1)
    assert ranked[9] == pytest.approx(20_000 / harmonic / 10, rel=0.2)
    assert len(counts) > 95


def test_a_duplicate_repeats_the_bytes_and_the_address() -> None:
    first: dict[bytes, tuple[Any, ...]] = {}
    repeats = 0
    for send in rendered(workload()):
        *_, value = send
        if send[1] == "duplicate":
            original = first[value]
            assert (send[2], send[3], send[4]) == (original[2], original[3], original[4])
            assert send[0] >= original[0]
            repeats += 1
        elif value is not None and send[1] in ("event", "keyless", "wrong_partition"):
            assert value not in first
            first[value] = send
    assert repeats == 120


def test_the_generator_has_the_shape_of_the_trace() -> None:
    work = workload(events=50_000)
    assert "seeded generator" in work.origin
    drawn = np.percentile(work._input, PERCENTILES[1:-1])
    assert drawn == pytest.approx(INPUT_TOKENS[1:-1], rel=0.15)


def test_every_kind_comes_to_what_it_should(run: Run) -> None:
    for kind, outcome in run.seen:
        family, _, name = kind.partition(".")
        expected = {
            "event": "rated",
            "keyless": "rated",
            "wrong_partition": "rated",
            "duplicate": "duplicate",
            "conflict": "dead_lettered.id_conflict",
            "forged": "dead_lettered.bad_mac",
            "top_up": "applied",
        }.get(family) or f"dead_lettered.{MALFORMED[name].reason}"
        assert outcome == expected, kind
    assert len(run.oracle.rated) == 4000


def test_every_malformed_and_forged_kind_appears_in_a_long_run() -> None:
    work = workload(events=len(MALFORMED) * 1000)
    kinds = {send.kind for send in work}
    assert kinds >= {f"malformed.{name}" for name in MALFORMED}
    assert kinds >= {f"forged.{name}" for name in FORGED}


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_a_malformed_kind_has_its_reason(run: Run, name: str) -> None:
    work = run.work
    event = work._event(0, START_US + 100_000_000) | {"id": f"spoilt-{name}"}
    key = MALFORMED[name].key
    if key is None:
        key = event["subject"].encode()
    value = MALFORMED[name].spoil(event, START_US + 100_000_000)
    outcome = run.put(partition_of(key, work.partitions), key, value, START_US + 100_000_000)
    assert outcome == f"dead_lettered.{MALFORMED[name].reason}"


def test_about_a_third_run_dry_and_cross_their_cap(run: Run) -> None:
    crossed = {alert["account"] for alert in run.oracle.alerts.values() if alert["rule"] == "cap-100"}
    dry = {name for name, account in run.oracle.accounts.items() if account.debt}
    for part in (crossed, dry):
        assert len(run.work.customers) * 0.2 < len(part) < len(run.work.customers) * 0.5
    recovered = [alert for alert in run.oracle.alerts.values() if alert["phase"] == "recovered"]
    assert recovered
    expired = [account for account in run.oracle.accounts.values() if any(lot.expired for lot in account.lots.values())]
    assert expired


def test_spend_is_foretold(run: Run) -> None:
    accounts = run.oracle.accounts
    found = [sum(accounts[name].amounts.values()) for name in run.work.customers]
    assert found == run.work.spend_pico


def test_the_trace_is_looped_with_fresh_ids(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.6805900,10,20\n2023-11-16 18:15:50.6805900,30,40\n"
    )
    gaps, tokens_in, tokens_out = read_trace(path)
    assert (gaps.tolist(), tokens_in.tolist(), tokens_out.tolist()) == ([2, 1, 3], [374, 10, 30], [44, 20, 40])
    work = workload(events=7, customers=2, trace=path)
    events = [send for send in work if send.kind in ("event", "keyless", "wrong_partition")]
    bodies = [orjson.loads(send.render(START_US) or b"") for send in events]
    assert [body["data"]["input_tokens"] for body in bodies] == [374, 10, 30, 374, 10, 30, 374]
    assert len({body["id"] for body in bodies}) == 7
    assert [send.at_s for send in events] == pytest.approx(np.cumsum([2, 1, 3, 2, 1, 3, 2]) * DURATION_S / 14)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", ":1: needs the columns"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,x,1\n", ":2:"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", ":2:"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-1,1\n", ":2: token counts"),
    ],
)
def test_a_trace_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_trace(path)


@pytest.mark.parametrize(("events", "customers", "duration_s"), [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)])
def test_arguments_have_limits(events: int, customers: int, duration_s: float) -> None:
    with pytest.raises(ValueError, match=r"events is|customers is|above 0"):
        Workload(1, events, customers, None, duration_s, catalogue=catalogue())


def test_a_plan_without_a_price_for_a_model_is_named() -> None:
    document = catalogue()
    document["plans"]["growth"]["prices"] = {}
    with pytest.raises(ValueError, match="plan growth: no price of meter input_tokens takes atlas-large"):
        Workload(1, 10, 2, None, 1.0, catalogue=document)


def test_decimal_text() -> None:
    assert [decimal(pico) for pico in (1, 10**12, 1_500_000_000_000)] == [
        "0.000000000001",
        "1.000000000000",
        "1.500000000000",
    ]


def shaped(shape: Shape, **more: Any) -> Workload:
    return Workload(5, 20_000, 50, None, 100.0, catalogue=catalogue(), shape=shape, **more)


def test_one_customer_may_have_a_share_of_its_own() -> None:
    counts = Counter(call.customer for call in shaped(Shape(hot_share=0.3)).calls())
    (_, most), (_, next_most) = counts.most_common(2)
    assert 0.28 < most / 20_000 < 0.32
    assert next_most < most / 1.5


def test_customers_may_be_all_alike() -> None:
    counts = Counter(call.customer for call in shaped(Shape(zipf=0.0)).calls())
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_bursts_fall_into_a_tenth_of_the_time_and_keep_the_total() -> None:
    times = [call.at_s for call in shaped(Shape(burst_factor=5.0)).calls()]
    inside = sum(at_s % 10 < 1 for at_s in times)
    assert 0.48 < inside / len(times) < 0.52
    assert times == sorted(times)
    assert max(times) <= 100.0


def test_late_events_tell_of_what_lies_hours_back() -> None:
    now_us = 1_788_264_000_000_000
    workload = shaped(Shape(late_share=0.2, late_max_s=7_200.0))
    ages = []
    for send in workload:
        if send.kind == "event":
            stated = orjson.loads(send.render(now_us) or b"")["time"]
            ages.append(now_us / 1e6 - datetime.fromisoformat(stated).timestamp())
    assert 0.18 < sum(age > 10 for age in ages) / len(ages) < 0.22
    assert 7_000 < max(ages) <= 7_200


def test_there_may_be_more_duplicates() -> None:
    kinds = Counter(send.kind for send in shaped(Shape(duplicate_share=0.5)))
    assert kinds["duplicate"] == 10_000


def test_the_plain_shape_is_the_demo() -> None:
    plain = Workload(5, 2_000, 50, None, 100.0, catalogue=catalogue())
    given = Workload(5, 2_000, 50, None, 100.0, catalogue=catalogue(), shape=Shape())
    assert [send.render(10**15) for send in plain] == [send.render(10**15) for send in given]


@pytest.mark.parametrize("shape", [Shape(hot_share=1.0), Shape(burst_factor=10.0), Shape(late_share=-0.1)])
def test_a_shape_has_limits(shape: Shape) -> None:
    with pytest.raises(ValueError):
        shaped(shape)
