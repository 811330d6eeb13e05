"""Cost: every pico of what GPUs cost is somewhere, once; and what settles does not depend on what came first."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cost.attribution import Attribution, Published
from engine.cost.gpu_rates import GpuRates, parse_rates
from engine.cost.replica import WindowCost
from engine.cost.served import GpuPart, Served
from engine.cost.window import Bucket
from tests.engine.cost.histories import (
    HORIZONS,
    START_US,
    Arrival,
    S,
    apply,
    apply_all,
    history,
    new_fold,
    rates_document,
    rates_record,
    read_again,
    served_record,
)

SPAN_S = 200
# By then all windows that any test publishes before have settled: one that has not may rest with what it was told.
END_US = START_US + SPAN_S * S + 2 * HORIZONS.settle_us
WHOLE_GPUS = (GpuPart("GPU-1", "h100"), GpuPart("GPU-2", "h100"))
SHARED_GPU = (GpuPart("GPU-3", "a100"),)


def rates() -> GpuRates:
    return parse_rates(msgspec.json.encode(rates_document()))


def bill(now_us: int) -> int:
    """What the GPUs of `history` cost until `now_us`, from the rates alone: the shared one is not cut here."""
    total = 0
    for gpus, begin, end in ((WHOLE_GPUS, START_US + 3, START_US + (SPAN_S - 30) * S), (SHARED_GPU, START_US, now_us)):
        cost = rates().cost(gpus, begin, min(end, now_us))
        assert cost is not None
        total += sum(cost)
    return total


def settled_rows(
    arrivals: list[Arrival], random: Random, publications: int
) -> tuple[bytes, Attribution, list[Published]]:
    """The fold of the arrivals in this order, with publications in between; all settle at the end."""
    fold = new_fold()
    fold.apply(rates_record(), b"both", START_US)
    seen = []
    last_us = START_US + SPAN_S * S
    marks = {random.randrange(len(arrivals)) for _ in range(publications)}
    for index, arrival in enumerate(arrivals):
        apply(fold, arrival, last_us)
        if index in marks:
            read_again(fold, arrivals[: index + 1], last_us)
            seen.append(fold.publish(last_us + random.randrange(600 * S), live=random.random() < 0.7))
    read_again(fold, arrivals, last_us)
    seen.append(fold.publish(END_US))
    return msgspec.msgpack.encode(fold.rows()), fold, seen


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(0, 60))
def test_all_shares_and_buckets_are_the_bill(random: Random, requests: int) -> None:
    """Batches, equal instants, phases without length, a change of rates, two GPUs in one replica, one GPU cut in two: what
    is told by hour, and what is told by window, are the GPUs' cost to the last pico; all shares of requests are `direct`."""
    _, fold, seen = settled_rows(history(random, requests, SPAN_S), random, 3)
    rows = fold.rows()
    assert not any(sums.unknown for _, sums in rows)
    assert sum(sums.amount for _, sums in rows) == bill(END_US)
    windows: dict[tuple[str, int], WindowCost] = {}
    shares: dict[tuple[str, str, int, int], int | None] = {}
    for published in seen:
        windows |= {(window.replica, window.begin_us): window for window in published.windows}
        for cost in published.requests:
            served = cost.served
            shares[served.replica, served.request, served.attempt, cost.hour_us] = cost.amount
    assert sum(window.cost or 0 for window in windows.values()) == bill(END_US)
    assert all(window.cost == sum(window.buckets.values()) for window in windows.values())
    direct = sum(window.buckets[Bucket.DIRECT] for window in windows.values())
    assert sum(share or 0 for share in shares.values()) == direct
    assert direct == sum(sums.amount for key, sums in rows if key.bucket is Bucket.DIRECT)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(20, 80))
def test_the_rows_are_the_windows_at_every_moment(random: Random, requests: int) -> None:
    """As it happens, looked at every few records: what all rows come to is what the windows cost, as they were told last,
    bucket by bucket; though an execution is not told anew each time that another is known to have run beside it."""
    fold = new_fold()
    fold.apply(rates_record(), b"both", START_US)
    windows: dict[tuple[str, int], WindowCost] = {}
    for number, arrival in enumerate(sorted(history(random, requests, SPAN_S), key=lambda arrival: arrival.at_us)):
        apply(fold, arrival, arrival.at_us)
        if number % random.randrange(1, 6):
            continue
        windows |= {(window.replica, window.begin_us): window for window in fold.publish(arrival.at_us).windows}
        for bucket in Bucket:
            told = sum(sums.amount for key, sums in fold.rows() if key.bucket is bucket)
            assert told == sum(window.buckets[bucket] for window in windows.values()), bucket


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 60))
def test_any_order_settles_alike(random: Random, requests: int) -> None:
    """Shuffled arrivals, other moments of publication: byte-identical rows."""
    arrivals = history(random, requests, SPAN_S)
    in_order, _, _ = settled_rows(sorted(arrivals, key=lambda arrival: arrival.at_us), random, 8)
    random.shuffle(arrivals)
    shuffled, _, _ = settled_rows(arrivals, random, 2)
    assert in_order == shuffled


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 40))
def test_what_is_told_sums_to_what_is(random: Random, requests: int) -> None:
    """Each row's differences, of provisional and settled publications and of what came after settling, sum to the row; so do
    an execution's in an hour. Without a change of rates they cancel out within each replica."""
    arrivals = history(random, requests, SPAN_S)
    random.shuffle(arrivals)
    late = arrivals[: len(arrivals) // 10]
    _, fold, seen = settled_rows(arrivals[len(arrivals) // 10 :], random, 4)
    before = {key: sums.amount for key, sums in fold.rows()}
    for arrival in late:
        apply(fold, arrival, END_US)
    read_again(fold, arrivals, END_US)
    seen.append(fold.publish(END_US))
    total: dict[object, int] = dict.fromkeys(before, 0)
    executions: dict[object, int] = {}
    last: dict[object, int | None] = {}
    for published in seen:
        for row in published.rows:
            total[row.key] = total.get(row.key, 0) + row.change
        for cost in published.requests:
            name = (cost.served.replica, cost.served.request, cost.served.attempt, cost.hour_us)
            executions[name] = executions.get(name, 0) + cost.change
            last[name] = cost.amount
    assert {key: amount for key, amount in total.items() if amount} == {
        key: sums.amount for key, sums in fold.rows() if sums.amount
    }
    assert executions == {name: amount or 0 for name, amount in last.items()}
    if not any(b'"kind":"replica"' in arrival.value for arrival in late):
        assert sum(row.change for row in seen[-1].rows) == 0
    # And it is what it would be, had nothing been late.
    _, on_time, _ = settled_rows(arrivals, random, 0)
    for each in (fold, on_time):
        each.publish(END_US + 2 * HORIZONS.settle_us)
    assert msgspec.msgpack.encode(fold.rows()) == msgspec.msgpack.encode(on_time.rows())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 40))
def test_a_new_owner_comes_to_the_same(random: Random, requests: int) -> None:
    """A checkpoint's blob, the rows that were told, and the records since `needed_from_us`: nothing is told twice, and what
    follows is as if nothing had happened."""
    arrivals = history(random, requests, SPAN_S)
    random.shuffle(arrivals)
    cut = random.randrange(len(arrivals))
    last_us = START_US + SPAN_S * S
    fold = new_fold()
    fold.apply(rates_record(), b"both", START_US)
    apply_all(fold, arrivals[:cut], last_us)
    fold.publish(last_us + 100 * S)
    successor = new_fold()
    successor.restore(fold.blob())
    apply_all(successor, arrivals[:cut], last_us)
    successor.told(fold.rows())
    assert successor.publish(last_us + 100 * S).rows == []
    for each in (fold, successor):
        for arrival in arrivals[cut:]:
            apply(each, arrival, last_us)
        read_again(each, arrivals, last_us)
    assert fold.publish(END_US).rows == successor.publish(END_US).rows
    assert fold.blob() == successor.blob()


def test_a_true_up_of_the_rates_tells_differences_only() -> None:
    """The invoice says another hourly rate: a new document, and each row moves by its part of the difference."""
    random = Random(7)
    _, fold, _ = settled_rows(history(random, 40, SPAN_S), random, 0)
    before = sum(sums.amount for _, sums in fold.rows())
    fold.apply(rates_record(2, "2.60"), b"both", END_US)
    changes = fold.publish(END_US + HORIZONS.settle_us).rows
    after = parse_rates(msgspec.json.encode(rates_document(2, "2.60")))
    cost = after.cost(WHOLE_GPUS, START_US + 3, START_US + (SPAN_S - 30) * S)
    shared = after.cost(SHARED_GPU, START_US, END_US + HORIZONS.settle_us)
    assert cost is not None and shared is not None
    assert before + sum(row.change for row in changes) == sum(cost) + sum(shared)
    assert all(row.change > 0 for row in changes)
    fold.apply(rates_record(1, "9"), b"both", END_US)  # an earlier document changes nothing
    assert fold.publish(END_US + HORIZONS.settle_us).rows == []


def test_closed_hours_never_change() -> None:
    """Once its hour is closed, what comes is set aside, and what is known of it is dropped."""
    random = Random(3)
    arrivals = history(random, 30, SPAN_S)
    _, fold, _ = settled_rows(arrivals, random, 0)
    assert any(key.hour_us == START_US for key, _ in fold.rows())
    later_us = START_US + 3_600 * S + HORIZONS.close_us + 1
    fold.apply(rates_record(1), b"both", later_us)
    fold.publish(later_us)
    assert not any(key.hour_us == START_US for key, _ in fold.rows())
    for arrival in arrivals:
        apply(fold, arrival, later_us)
    assert not any(row.key.hour_us == START_US for row in fold.publish(later_us).rows)
    assert fold.counts["set_aside"] > 30


@pytest.mark.parametrize("missing", ["rates", "replica"])
def test_a_cost_that_is_not_known_is_null(missing: str) -> None:
    """No rates, or no word of the replica's GPUs: the requests have no cost, not a cost of 0; and then they have one."""
    random = Random(11)
    arrivals = history(random, 20, SPAN_S)
    ups = [arrival for arrival in arrivals if b'"kind":"replica"' in arrival.value]
    fold = new_fold()
    now_us = START_US + SPAN_S * S
    if missing == "replica":
        fold.apply(rates_record(), b"both", START_US)
    for arrival in arrivals:
        if missing == "rates" or arrival not in ups:
            apply(fold, arrival, now_us)
    told = fold.publish(now_us)
    ran = [cost for cost in told.requests if cost.served.last_us > cost.served.scheduled_us]
    assert ran
    assert all(cost.amount is None for cost in ran)
    assert sum(sums.amount for _, sums in fold.rows()) == 0
    assert any(sums.unknown for _, sums in fold.rows())
    if missing == "rates":
        fold.apply(rates_record(), b"both", now_us)
    else:
        for arrival in ups:
            apply(fold, arrival, now_us)
    fold.publish(END_US)
    assert not any(sums.unknown for _, sums in fold.rows())
    assert sum(sums.amount for _, sums in fold.rows()) == bill(END_US)


def test_a_record_that_replaces_another_takes_its_cost_along() -> None:
    """The same execution under another account: the first one is told to have cost nothing."""
    random = Random(5)
    fold = new_fold()
    fold.apply(rates_record(), b"both", START_US)
    for arrival in history(random, 0, SPAN_S):
        apply(fold, arrival, START_US)
    first = Served(
        "r", "part-a", "llama", START_US + 50 * S, START_US + 51 * S, START_US + 65 * S, 100, output=9, account="acme"
    )
    apply(fold, served_record(first), START_US + 65 * S)
    fold.publish(START_US + 65 * S)
    moved = msgspec.structs.replace(first, account="zen", seq=1)
    apply(fold, served_record(moved), START_US + 65 * S)
    told = fold.publish(START_US + 65 * S)
    by_account = {key.account: sums.amount for key, sums in fold.rows() if key.bucket is Bucket.DIRECT}
    assert "acme" not in by_account
    assert by_account["zen"] > 0
    assert [row.change for row in told.rows if row.key.account == "acme"] == [-by_account["zen"]]
