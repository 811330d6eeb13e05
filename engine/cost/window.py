"""What a replica cost in one window, and who it was: a pure function of all that is known of it.

So it does not matter in which order that became known, and a window that is told again differs by what came late, and by
nothing else."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import chain, pairwise
from typing import Final

from msgspec import Struct

from engine.cost.activity import Activity
from engine.cost.gpu_rates import GpuRates
from engine.cost.served import ReplicaUp
from engine.cost.split import largest_remainder
from engine.cost.sweep import ONE, Phases, Stretch, Uses, sweep


class Bucket(StrEnum):
    """Where the cost of a replica goes. The wire names are stable."""

    DIRECT = "direct"  # requests that ran
    COLD_START = "cold_start"  # none ran, and the replica was not ready yet
    HARD_IDLE = "hard_idle"  # none ran
    UNATTRIBUTED = "unattributed"  # none is known to have run, and the GPU was busy
    OVERHEAD = "overhead"  # beside the GPU, as the rates say


EMPTY_WEIGHT: Final = ONE * ONE  # of a microsecond, as in `Uses`


class Window(Struct, frozen=True, gc=False):
    """[begin_us, end_us) of a replica, and the phases of each execution that may run in it, in an order that hangs on their
    names alone."""

    members: Sequence[Phases]
    begin_us: int
    end_us: int


class Costs(Struct):
    """Pico-units of one window. `of` has one entry per member: its share; None where what it used has no known cost.

    `cost` (the GPUs and the overhead) = all shares + all buckets but `direct`, exactly. It is None where a part of the
    window has no known cost; the buckets and shares then hold what is known."""

    cost: int | None
    buckets: dict[Bucket, int]
    of: list[int | None]


def window_costs(
    windows: Sequence[Window], stays: Sequence[ReplicaUp], rates: GpuRates | None, activity: Activity
) -> list[Costs]:
    """Each of the windows. `stays`: in order of time, apart; outside of them the replica holds nothing."""
    stretches = [_stretches(window, stays, rates) for window in windows]
    uses = iter(sweep(list(chain.from_iterable(stretches))))
    found = []
    for window, own in zip(windows, stretches, strict=True):
        costs = Costs(0, dict.fromkeys(Bucket, 0), [0] * len(window.members))
        for stretch in own:
            _add(costs, stretch, next(uses), stays, rates, activity)
        if costs.cost is not None:
            costs.cost = sum(costs.buckets.values())
        found.append(costs)
    return found


def _stretches(window: Window, stays: Sequence[ReplicaUp], rates: GpuRates | None) -> list[Stretch]:
    """The window, cut where its GPUs or their rates change."""
    cuts = {window.begin_us, window.end_us}
    for stay in stays:
        if stay.up_us >= window.end_us or (stay.down_us is not None and stay.down_us <= window.begin_us):
            continue
        ends = (stay.up_us, stay.ready_us, stay.down_us)
        cuts.update(mark for mark in ends if mark is not None and window.begin_us < mark < window.end_us)
        if rates is not None:
            cuts |= rates.changes(stay.gpus, window.begin_us, window.end_us)
    return [Stretch(window.members, begin, end) for begin, end in pairwise(sorted(cuts))]


def _add(
    to: Costs, stretch: Stretch, uses: Uses, stays: Sequence[ReplicaUp], rates: GpuRates | None, activity: Activity
) -> None:
    weights, members = uses.uses, len(uses.uses)
    held = _stay_at(stays, stretch.begin_us)
    if held is None and not any(weights):
        return
    costs = None if held is None or rates is None else rates.cost(held.gpus, stretch.begin_us, stretch.end_us)
    if held is None or costs is None:
        to.cost = None
        to.of = [None if weight else share for weight, share in zip(weights, to.of, strict=True)]
        return
    cost, overhead = costs
    to.buckets[Bucket.OVERHEAD] += overhead
    empty = _emptiness(held, uses.empty, activity)
    weights = weights + [length * EMPTY_WEIGHT for _, length in empty]
    if not any(weights):  # so many ran that each one's use is rounded to nothing
        to.buckets[Bucket.UNATTRIBUTED] += cost
        return
    parts = largest_remainder(cost, weights)
    to.of = [None if share is None else share + part for share, part in zip(to.of, parts[:members], strict=True)]
    to.buckets[Bucket.DIRECT] += sum(parts[:members])
    for (bucket, _), part in zip(empty, parts[members:], strict=True):
        to.buckets[bucket] += part


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
