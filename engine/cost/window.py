"""What a replica cost in one window, and who it was: a pure function of all that is known of it.

So it does not matter in which order that became known, and a window that is told again differs by what came late, and by
nothing else."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final

from msgspec import Struct

from engine.cost.activity import Activity
from engine.cost.gpu_rates import GpuRates
from engine.cost.served import ReplicaUp
from engine.cost.split import largest_remainder
from engine.cost.sweep import ONE, Phases, sweep


class Bucket(StrEnum):
    """Where the cost of a replica goes. The wire names are stable."""

    DIRECT = "direct"  # requests that ran
    COLD_START = "cold_start"  # none ran, and the replica was not ready yet
    HARD_IDLE = "hard_idle"  # none ran
    UNATTRIBUTED = "unattributed"  # none is known to have run, and the GPU was busy
    OVERHEAD = "overhead"  # beside the GPU, as the rates say


EMPTY_WEIGHT: Final = ONE * ONE  # of a microsecond, as in `Uses`


class Costs(Struct, frozen=True):
    """Pico-units of one window. `of` has one entry per member: its share; None where what it used has no known cost.

    `cost` (the GPUs and the overhead) = all shares + all buckets but `direct`, exactly. It is None where a part of the
    window has no known cost; the buckets and shares then hold what is known."""

    cost: int | None
    buckets: dict[Bucket, int]
    of: list[int | None]


def window_costs(
    members: Sequence[Phases],
    stays: Sequence[ReplicaUp],
    rates: GpuRates | None,
    activity: Activity,
    begin_us: int,
    end_us: int,
) -> Costs:
    """The window [begin_us, end_us). `members`: the phases of each execution that may run in it, in an order that hangs on
    their names alone. `stays`: in order of time, apart; outside of them the replica holds nothing."""
    cuts = {begin_us, end_us}
    for stay in stays:
        ends = (stay.up_us, stay.ready_us, stay.down_us)
        cuts.update(mark for mark in ends if mark is not None and begin_us < mark < end_us)
        if rates is not None:
            cuts |= rates.changes(stay.gpus, begin_us, end_us)
    known = True
    buckets = dict.fromkeys(Bucket, 0)
    of: list[int | None] = [0] * len(members)
    for begin, end in pairwise(sorted(cuts)):
        uses = sweep(members, begin, end)
        weights = uses.uses
        held = _stay_at(stays, begin)
        costs = (0, 0) if held is None else None if rates is None else rates.cost(held.gpus, begin, end)
        if costs is None or (held is None and any(weights)):
            known = False
            of = [None if weight else share for weight, share in zip(weights, of, strict=True)]
            continue
        if held is None:
            continue
        cost, overhead = costs
        buckets[Bucket.OVERHEAD] += overhead
        empty = _emptiness(held, uses.empty, activity)
        weights = weights + [length * EMPTY_WEIGHT for _, length in empty]
        if not any(weights):  # so many ran that each one's use is rounded to nothing
            buckets[Bucket.UNATTRIBUTED] += cost
            continue
        parts = largest_remainder(cost, weights)
        for index, part in enumerate(parts[: len(members)]):
            share = of[index]
            if share is not None:
                of[index] = share + part
            buckets[Bucket.DIRECT] += part
        for (bucket, _), part in zip(empty, parts[len(members) :], strict=True):
            buckets[bucket] += part
    return Costs(sum(buckets.values()) if known else None, buckets, of)


def _stay_at(stays: Sequence[ReplicaUp], instant_us: int) -> ReplicaUp | None:
    for stay in stays:
        if stay.up_us <= instant_us and (stay.down_us is None or instant_us < stay.down_us):
            return stay
    return None


def _emptiness(stay: ReplicaUp, empty: list[tuple[int, int]], activity: Activity) -> list[tuple[Bucket, int]]:
    """Microseconds in which none ran, by bucket. All of it lies on one side of `ready_us`."""
    total = sum(end - begin for begin, end in empty)
    if not total:
        return []
    if stay.ready_us is None or empty[0][0] < stay.ready_us:
        return [(Bucket.COLD_START, total)]
    busy = sum(until - since for begin, end in empty for since, until in activity.busy(begin, end))
    return [(Bucket.HARD_IDLE, total - busy), (Bucket.UNATTRIBUTED, busy)]
