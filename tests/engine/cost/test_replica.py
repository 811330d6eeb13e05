"""When windows of a replica are worked out, and what is told of them."""

import msgspec

from engine.cost.gpu_rates import HOUR_US, parse_rates
from engine.cost.replica import Replica
from engine.cost.rollup import Rollup
from engine.cost.served import GpuPart, ReplicaUp, Served
from engine.cost.window import Bucket

S = 1_000_000
WINDOW_US = 10 * S
RATES = parse_rates(
    msgspec.json.encode({"version": 1, "currency": "USD", "rates": [{"kind": "h100", "from_us": 0, "per_hour": "3.6"}]})
)
MILLI = 10**9
BEGIN = 2 * HOUR_US


def replica() -> Replica:
    made = Replica("r", WINDOW_US, Rollup(), RATES)
    made.note_up(ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), BEGIN, BEGIN), 0)
    return made


def served(name: str, begin_s: float, end_s: float, seq: int = 0) -> Served:
    begin, end = BEGIN + int(begin_s * S), BEGIN + int(end_s * S)
    return Served(name, "r", "m", begin, begin, end, 10, output=1, account="acme", seq=seq)


def test_a_request_has_its_cost_at_once_and_again_when_it_settles() -> None:
    made = replica()
    made.note_served(served("a", 2, 5), 0)
    windows, requests = made.work(BEGIN + 5 * S, 0, 0, live=True)
    assert [(cost.amount, cost.settled) for cost in requests] == [(3 * MILLI, False)]
    assert [(window.cost, window.settled) for window in windows] == [(5 * MILLI, False)]  # so far
    windows, requests = made.work(BEGIN + 30 * S, BEGIN + 10 * S, 0, live=True)
    assert [(cost.amount, cost.settled, cost.change) for cost in requests] == [(3 * MILLI, True, 0)]
    assert [(window.begin_us - BEGIN, window.cost, window.settled) for window in windows] == [
        (0, 10 * MILLI, True),
        (10 * S, 10 * MILLI, False),
        (20 * S, 10 * MILLI, False),
    ]
    assert made.work(BEGIN + 30 * S, BEGIN + 10 * S, 0, live=True) == ([], [])


def test_a_request_that_took_no_time_is_told_to_have_cost_nothing() -> None:
    made = replica()
    made.note_served(served("a", 2, 2), 0)
    _, requests = made.work(BEGIN + 5 * S, 0, 0, live=True)
    assert [(cost.amount, cost.settled, cost.change) for cost in requests] == [(0, False, 0)]


def test_a_window_that_goes_on_changing_is_looked_at_the_rarer_the_older_it_is() -> None:
    made = replica()
    worked = []
    for second in range(1, 400):
        made.note_served(served(f"req-{second}", 4, 5 + second / 1_000), 0, late=True)
        windows, _ = made.work(BEGIN + second * S, 0, 0, live=True)
        if any(window.begin_us == BEGIN for window in windows):
            worked.append(second)
    assert worked[:3] == [1, 2, 4]
    assert len(worked) <= 12
    windows, _ = made.work(BEGIN + 400 * S, BEGIN + WINDOW_US, 0, live=True)
    assert windows[0].begin_us == BEGIN and windows[0].settled  # and once more to settle, with all that came


def test_what_is_told_in_time_has_all_of_its_cost_at_once_however_old_its_windows_are() -> None:
    made = replica()
    for second in range(1, 95):
        made.work(BEGIN + second * S, 0, 0, live=True)  # every window rests as long as it is old
    amounts = []
    for second in (95, 96, 97):
        made.note_served(served(f"until-{second}", 5, second), 0)
        _, requests = made.work(BEGIN + second * S, 0, 0, live=True)
        amounts += [cost.amount for cost in requests if cost.served.request == f"until-{second}"]
    assert amounts == [90 * MILLI, 46 * MILLI, 31 * MILLI + MILLI // 2 - 3]  # thirds, rounded in each window


def test_what_others_cost_by_then_is_told_when_their_window_is_looked_at_again() -> None:
    """And until then the rows are exact in their sum: what is not told lies with nobody."""
    rollup = Rollup()
    made = Replica("r", WINDOW_US, rollup, RATES)
    made.note_up(ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), BEGIN, BEGIN), 0)
    made.note_served(served("one", 0, 4), 0)
    made.work(BEGIN + 4 * S, 0, 0, live=True)  # it rests until 8
    made.note_served(served("two", 2, 5), 0)
    windows, requests = made.work(BEGIN + 5 * S, 0, 0, live=True)
    assert [(cost.served.request, cost.amount) for cost in requests] == [("two", 2 * MILLI)]
    assert [window.buckets[Bucket.DIRECT] for window in windows] == [5 * MILLI]
    direct = {key.account: sums.amount for key, sums in rollup.all() if key.bucket is Bucket.DIRECT}
    assert direct == {"acme": 6 * MILLI, None: -1 * MILLI}
    _, requests = made.work(BEGIN + 8 * S, 0, 0, live=True)
    assert [(cost.served.request, cost.change) for cost in requests] == [("one", -1 * MILLI)]
    direct = {key.account: sums.amount for key, sums in rollup.all() if key.bucket is Bucket.DIRECT}
    assert direct == {"acme": 5 * MILLI}


def test_whoever_runs_is_told_at_once_that_its_cost_is_not_known_any_more() -> None:
    """Where nobody asks for a price that is known, and again where it is: nothing is told in part then."""
    made = replica()
    made.note_served(served("one", 0, 4), 0)
    made.work(BEGIN + 4 * S, 0, 0, live=True)
    document = {"version": 2, "currency": "USD", "rates": [{"kind": "other", "from_us": 0, "per_hour": "1"}]}
    unpriced = parse_rates(msgspec.json.encode(document))
    for seq, (rates, amounts) in enumerate(((unpriced, [None, None]), (RATES, [3 * MILLI, 2 * MILLI]))):
        made.set_rates(rates, 0)
        made.note_served(served("two", 2, 5, seq=seq), 0)
        _, requests = made.work(BEGIN + 5 * S, 0, 0, live=True)
        assert [cost.amount for cost in requests] == amounts


def test_to_catch_up_only_what_settles_is_worked_out() -> None:
    made = replica()
    made.note_served(served("a", 2, 15), 0)
    windows, requests = made.work(BEGIN + 100 * S, BEGIN + 10 * S, 0, live=False)
    assert [window.begin_us for window in windows] == [BEGIN]
    assert [(cost.amount, cost.settled) for cost in requests] == [(8 * MILLI, False)]


def test_what_comes_after_settling_is_told_as_a_difference() -> None:
    made = replica()
    made.note_served(served("a", 0, 10), 0)
    made.work(BEGIN + 100 * S, BEGIN + 50 * S, 0, live=True)
    made.note_served(served("late", 5, 10), 0)
    windows, requests = made.work(BEGIN + 100 * S, BEGIN + 50 * S, 0, live=True)
    assert [(cost.served.request, cost.amount, cost.change, cost.settled) for cost in requests] == [
        ("a", 7_500_000_000, -2_500_000_000, True),
        ("late", 2_500_000_000, 2_500_000_000, True),
    ]
    assert windows == []  # the sum of the shares is what it was


def test_of_two_records_the_higher_seq_counts_and_of_equal_ones_always_the_same() -> None:
    one, two = served("a", 0, 5), served("a", 0, 6)
    for first, second in ((one, two), (two, one)):
        made = replica()
        made.note_served(first, 0)
        made.note_served(second, 0)
        _, requests = made.work(BEGIN + 10 * S, 0, 0, live=True)
        assert [cost.amount for cost in requests] == [6 * MILLI]
    made = replica()
    assert made.note_served(served("a", 0, 5, seq=2), 0)
    assert not made.note_served(served("a", 0, 9, seq=1), 0)
    assert not made.note_served(served("a", 0, 5, seq=2), 0)


def test_a_stay_ends_when_the_next_begins() -> None:
    made = replica()
    two = (GpuPart("GPU-1", "h100"), GpuPart("GPU-2", "h100"))
    made.note_up(ReplicaUp("r", "m", two, BEGIN + 4 * S, BEGIN + 4 * S, BEGIN + 8 * S), 0)
    windows, _ = made.work(BEGIN + 20 * S, 0, 0, live=True)
    assert [window.cost for window in windows] == [12 * MILLI]  # 4 s of one, 4 s of two


def test_a_busy_gpu_that_nobody_is_known_to_use_is_told() -> None:
    made = replica()
    made.work(BEGIN + 10 * S, 0, 0, live=True)
    made.note_activity("GPU-1", BEGIN, 0, 0)
    made.note_activity("GPU-1", BEGIN + 4 * S, 990, 0)
    windows, _ = made.work(BEGIN + 40 * S, 0, 0, live=True)
    assert windows[0].buckets[Bucket.UNATTRIBUTED] == 4 * MILLI
    assert windows[0].buckets[Bucket.HARD_IDLE] == 6 * MILLI


def test_an_engine_that_sleeps_costs_an_idle_line_and_no_customer() -> None:
    """A replica in a sleep between two requests: the customers of both pay for what they ran, and the bill is whole."""
    made = replica()
    made.note_served(served("before", 0, 3), 0)
    made.note_served(served("after", 57, 60), 0)
    for second in range(0, 61, 15):
        made.note_activity("GPU-1", BEGIN + second * S, 10, 0)  # a driver and a monitor keep it as busy as that
    windows, requests = made.work(BEGIN + 60 * S, BEGIN + 60 * S, 0, live=True)
    assert {cost.served.request: cost.amount for cost in requests} == {"before": 3 * MILLI, "after": 3 * MILLI}
    total = {bucket: sum(window.buckets[bucket] for window in windows) for bucket in Bucket}
    assert (total[Bucket.HARD_IDLE], total[Bucket.UNATTRIBUTED]) == (54 * MILLI, 0)
    assert sum(total.values()) == sum(window.cost or 0 for window in windows) == 60 * MILLI


def test_a_request_over_an_hour_s_end_is_told_by_hour() -> None:
    made = replica()
    made.note_served(served("a", 3_590, 3_605), 0)
    _, requests = made.work(BEGIN + 3_700 * S, BEGIN + 3_600 * S, 0, live=True)
    assert [(cost.hour_us - BEGIN, cost.amount, cost.settled) for cost in requests] == [
        (0, 10 * MILLI, True),
        (HOUR_US, 5 * MILLI, False),
    ]


def test_an_execution_counts_in_the_hour_of_its_end_once() -> None:
    rollup = Rollup()
    made = Replica("r", WINDOW_US, rollup, RATES)
    for record in (served("a", 3_590, 3_605), served("a", 3_590, 3_605, seq=1), served("b", 1, 2)):
        made.note_served(record, 0)
    counted = [(key.hour_us - BEGIN, sums.requests, sums.computed, sums.output) for key, sums in rollup.all()]
    assert counted == [(0, 1, 10, 1), (HOUR_US, 1, 10, 1)]


def test_what_is_closed_is_forgotten() -> None:
    made = replica()
    made.note_served(served("a", 0, 10), 0)
    made.note_served(served("b", 3_590, 3_605), 0)
    made.work(BEGIN + 2 * HOUR_US, BEGIN + HOUR_US, 0, live=True)
    made.forget(BEGIN + HOUR_US, HOUR_US)
    assert not made.note_served(served("b", 3_590, 3_605), BEGIN + HOUR_US)
    assert made.work(BEGIN + 2 * HOUR_US, BEGIN + HOUR_US, BEGIN + HOUR_US, live=True) == ([], [])


def test_what_replaces_an_execution_says_nothing_of_an_hour_that_has_closed() -> None:
    """It was told there what it cost, and so it stays: of the rest the newer record counts."""
    made = replica()
    made.note_served(served("a", 3_590, 3_605), 0)
    made.work(BEGIN + 2 * HOUR_US, BEGIN + HOUR_US + 100 * S, 0, live=True)
    closed_us = BEGIN + HOUR_US
    made.forget(closed_us, HOUR_US)
    made.note_served(served("a", 3_590, 3_607, seq=1), closed_us)
    _, requests = made.work(BEGIN + 2 * HOUR_US, BEGIN + HOUR_US + 100 * S, closed_us, live=True)
    assert [(cost.hour_us - BEGIN, cost.amount, cost.change) for cost in requests] == [(HOUR_US, 7 * MILLI, 2 * MILLI)]
