"""Who used a replica in a stretch of time: two virtual clocks, moved on from boundary to boundary.

Between two boundaries the same phases run. Each takes what its profile says that it works (its *load*, a share of the
replica's time), all of them in proportion where that is more than there is; what no profile accounts for (the fixed part of
each step) is shared equally. So a phase has used load × (what the clock of loads went on by) + (what the equal clock did)."""

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np
from msgspec import Struct

from engine.cost.gpu_rates import Profile
from engine.cost.served import Served

SCALE: Final = 16  # bits behind the point, of loads and of clocks: a use fits 64 bits in stretches up to ten minutes
ONE: Final = 1 << SCALE
STRETCH_US_MAX: Final = 600_000_000
LOAD_MAX: Final = ONE << 8  # beyond it the profile is wrong by a factor of hundreds
PICOSECONDS: Final = 1_000_000  # in a microsecond


# The phases of an execution, one behind the other: begin_us, end_us, load of each. A phase is [begin, end); its load is in
# ONE of the replica's time. Flat, because a window takes thousands of them into one table.
Phases = tuple[int, ...]


class Uses(Struct, frozen=True):
    """`uses` of each execution, as weights; where none runs, as [begin_us, end_us) in order."""

    uses: list[int]
    empty: list[tuple[int, int]]


def phases(served: Served, profile: Profile | None) -> Phases:
    """Prefill, then decode; what takes no time is left out. Without a profile they have no load."""
    begin, first, last = served.scheduled_us, served.first_us, served.last_us
    split = last if first is None else first
    prefill = decode = 0
    if profile is not None:
        prefill = profile.prefill_token_ps * (served.prompt - served.cached)
        made = max(served.output - 1, 0)  # the first one ends the prefill
        read = served.prompt * made + made * (made + 1) // 2
        decode = profile.decode_token_ps * made + profile.context_read_ps * read
    found: Phases = ()
    if begin < split:
        found = (begin, split, min((prefill << SCALE) // ((split - begin) * PICOSECONDS), LOAD_MAX))
    if split < last:
        found += (split, last, min((decode << SCALE) // ((last - split) * PICOSECONDS), LOAD_MAX))
    return found


def sweep(executions: Sequence[Phases], begin_us: int, end_us: int) -> Uses:
    """What each execution used of [begin_us, end_us), which is not empty and at most STRETCH_US_MAX long.

    The uses and the empty stretches (each microsecond of them ONE × ONE) add up to the stretch, but for what is rounded."""
    assert 0 < end_us - begin_us <= STRETCH_US_MAX
    table = np.array(list(chain.from_iterable(executions)), dtype=np.int64).reshape(-1, 3)
    if not len(table):
        return Uses([0] * len(executions), [(begin_us, end_us)])
    length = end_us - begin_us
    loads = table[:, 2]
    count = len(table)
    # Begins, then ends: at one instant a phase begins before another ends, and none ends before it begins.
    instants = np.minimum(np.maximum(table[:, :2].T.ravel() - begin_us, 0), length)
    order = np.argsort(instants, kind="stable")
    place = np.empty(2 * count, dtype=np.int64)
    place[order] = np.arange(2 * count)
    at_begin, at_end = place[:count], place[count:]
    marks = instants[order]
    ones = np.ones(count, dtype=np.int64)
    # Behind each mark: how many run, their load, and how long that lasts.
    loaded = np.cumsum(np.concatenate((loads, -loads))[order])
    alive = np.cumsum(np.concatenate((ones, -ones))[order])
    steps = np.diff(marks, append=length)
    rest = ONE - np.minimum(loaded, ONE)
    by_load = np.where(loaded > ONE, (steps << 2 * SCALE) // np.maximum(loaded, 1), steps << SCALE)
    equal = ((steps * rest) << SCALE) // np.maximum(alive, 1) * (alive > 0)
    load_clock = np.cumsum(by_load) - by_load
    equal_clock = np.cumsum(equal) - equal
    uses = loads * (load_clock[at_end] - load_clock[at_begin]) + equal_clock[at_end] - equal_clock[at_begin]
    behind = np.cumsum(np.array([len(phases) for phases in executions], dtype=np.int64) // 3)
    totals = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(uses)))[behind]
    empty = [(begin_us, begin_us + int(marks[0]))] if marks[0] else []
    for index in np.flatnonzero((alive == 0) & (steps > 0)).tolist():
        begin = begin_us + int(marks[index])
        empty.append((begin, begin + int(steps[index])))
    return Uses(np.diff(totals, prepend=0).tolist(), empty)
