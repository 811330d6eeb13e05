"""What a replica cost in one window, worked by hand."""

import msgspec

from engine.cost.activity import Activity
from engine.cost.gpu_rates import HOUR_US, GpuRates, parse_rates
from engine.cost.served import GpuPart, ReplicaUp
from engine.cost.sweep import ONE, Phases
from engine.cost.window import Bucket, Window, window_costs

S = 1_000_000
RATES = parse_rates(
    msgspec.json.encode(
        {
            "version": 1,
            "currency": "USD",
            # $3.60 an hour is a millidollar a second; a tenth of it beside it.
            "rates": [{"kind": "h100", "from_us": HOUR_US, "per_hour": "3.6", "overhead_ppm": 100_000}],
        }
    )
)
MILLI = 10**9
UP = ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), 2 * HOUR_US, 2 * HOUR_US + 4 * S, None)
BEGIN = 2 * HOUR_US


def buckets(**amounts: int) -> dict[Bucket, int]:
    return {bucket: amounts.get(bucket.value, 0) for bucket in Bucket}


def costs(
    *members: Phases,
    rates: GpuRates | None = RATES,
    stays: tuple[ReplicaUp, ...] = (UP,),
    busy: tuple[int, ...] = (),
) -> tuple[int | None, dict[Bucket, int], list[int | None]]:
    activity = Activity()
    for at in busy:
        activity.note("GPU-1", at, 900)
    (found,) = window_costs([Window(members, BEGIN, BEGIN + 10 * S)], stays, rates, activity)
    return found.cost, found.buckets, found.of


def test_a_replica_that_nobody_asks_is_cold_and_then_idle() -> None:
    assert costs() == (11 * MILLI, buckets(cold_start=4 * MILLI, hard_idle=6 * MILLI, overhead=MILLI), [])


def test_what_nobody_is_known_to_have_used_is_not_idle() -> None:
    found = costs(busy=(BEGIN + 1, BEGIN + 5 * S))  # busy all the time until then
    assert found[1] == buckets(cold_start=4 * MILLI, unattributed=MILLI, hard_idle=5 * MILLI, overhead=MILLI)


def test_who_runs_alone_pays_for_all_and_who_runs_together_shares() -> None:
    alone, both = (BEGIN, BEGIN + 6 * S, 0), (BEGIN + 2 * S, BEGIN + 6 * S, 0)
    assert costs(alone, both) == (
        11 * MILLI,
        buckets(direct=6 * MILLI, hard_idle=4 * MILLI, overhead=MILLI),
        [4 * MILLI, 2 * MILLI],
    )


def test_a_loaded_one_pays_its_load_and_its_part_of_the_rest() -> None:
    whole = (BEGIN, BEGIN + 10 * S)
    found = costs((*whole, ONE // 2), (*whole, ONE // 4))
    assert found[2] == [6_250_000_000, 3_750_000_000]  # a half and a quarter, and an eighth each
    crowded = costs((*whole, 3 * ONE), (*whole, ONE))
    assert crowded[2] == [7_500_000_000, 2_500_000_000]


def test_an_execution_of_two_phases_has_one_share() -> None:
    phases = (BEGIN, BEGIN + 2 * S, 5, BEGIN + 2 * S, BEGIN + 10 * S, 7)
    assert costs(phases)[2] == [10 * MILLI]


def test_without_rates_nothing_is_known() -> None:
    late = ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), 0, 0)
    ran, did_not = (BEGIN, BEGIN + S, 0), ()
    assert costs(ran, did_not, rates=None) == (None, buckets(), [None, 0])
    unknown = (ReplicaUp("r", "m", (GpuPart("GPU-1", "b200"),), 0, 0),)
    assert costs(ran, stays=unknown)[2] == [None]
    # Known from the second hour on only.
    window = Window([(HOUR_US - S, HOUR_US + S, 0)], HOUR_US - 5 * S, HOUR_US + 5 * S)
    (found,) = window_costs([window], [late], RATES, Activity())
    assert (found.cost, found.of) == (None, [None])
    assert found.buckets[Bucket.HARD_IDLE] == 4 * MILLI


def test_what_ran_while_no_gpu_was_held_has_no_known_cost() -> None:
    assert costs((BEGIN, BEGIN + S, 0), stays=()) == (None, buckets(), [None])
    assert costs(stays=()) == (0, buckets(), [])


def test_each_of_two_stays_has_its_gpus() -> None:
    two = ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"), GpuPart("GPU-2", "h100")), BEGIN + 5 * S, BEGIN + 5 * S)
    one = ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), BEGIN, BEGIN, BEGIN + 4 * S)
    found = costs(stays=(one, two))
    assert found[0] == 15_400_000_000  # 4 s of one, a second of none, 5 s of two, and a tenth
    assert found[1] == buckets(hard_idle=14 * MILLI, overhead=1_400_000_000)
