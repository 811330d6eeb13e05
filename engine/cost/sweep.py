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


class Stretch(Struct, frozen=True, gc=False):
    """[begin_us, end_us) of one replica, which is not empty and at most STRETCH_US_MAX long, and what may run in it."""

    executions: Sequence[Phases]
    begin_us: int
    end_us: int


class Uses(Struct, frozen=True):
    """`uses` of each execution, as weights; where none runs, as [begin_us, end_us) in order.

    The uses and the empty stretches (each microsecond of them ONE × ONE) add up to the stretch, but for what is rounded."""

    uses: list[int]
    empty: list[tuple[int, int]]


def phases(served: Served, profile: Profile | None) -> Phases:
    """Prefill, then decode; what takes no time is left out. Without a profile they have no load."""
    begin, first, last = served.scheduled_us, served.first_us, served.last_us
    split = last if first is None else first
    prefill = decode = 0
    if profile is not None:
        prompt, output = served.prompt, served.output
        prefill = profile.prefill_token_ps * (prompt - served.cached)
        if output > 1:  # the first one ends the prefill
            made = output - 1
            read = prompt * made + made * output // 2
            decode = profile.decode_token_ps * made + profile.context_read_ps * read
    before = behind = 0
    if begin < split:
        before = (prefill << SCALE) // ((split - begin) * PICOSECONDS)
        before = before if before < LOAD_MAX else LOAD_MAX
    if split < last:
        behind = (decode << SCALE) // ((last - split) * PICOSECONDS)
        behind = behind if behind < LOAD_MAX else LOAD_MAX
        return (begin, split, before, split, last, behind) if begin < split else (split, last, behind)
    return (begin, split, before) if begin < split else ()


def sweep(stretches: Sequence[Stretch]) -> list[Uses]:
    """What each execution used of each stretch. A table has a price of its own, whatever it holds: so as many stretches go
    into one as fit the clocks."""
    found: list[Uses] = []
    some: list[Stretch] = []
    length = 0
    for stretch in stretches:
        own = stretch.end_us - stretch.begin_us
        assert 0 < own <= STRETCH_US_MAX
        if length + own > STRETCH_US_MAX:
            found += _sweep(some, length)
            some, length = [], 0
        some.append(stretch)
        length += own
    return found + _sweep(some, length) if some else found


def _sweep(stretches: Sequence[Stretch], length: int) -> list[Uses]:
    """Of stretches that are laid one behind the other; `length` is that of all of them. A phase is cut to its stretch, so none
    takes anything of another's."""
    rows: list[Phases] = []  # the executions; before those of a stretch a phase of nothing, to mark where it begins
    for stretch in stretches:
        rows.append((stretch.begin_us, stretch.begin_us, 0))
        rows += stretch.executions
    row_ends = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)).cumsum() // 3  # in phases
    sizes = [1 + len(stretch.executions) for stretch in stretches]  # in rows
    phase_counts = np.diff(row_ends[np.cumsum(sizes) - 1], prepend=0)
    of = np.repeat(np.arange(len(stretches)), phase_counts)  # of each phase its stretch
    begins = np.array([stretch.begin_us for stretch in stretches], dtype=np.int64)
    lengths = np.array([stretch.end_us for stretch in stretches], dtype=np.int64) - begins
    offsets = lengths.cumsum() - lengths  # where each is laid

    table = np.fromiter(chain.from_iterable(rows), dtype=np.int64).reshape(-1, 3)
    count, loads = len(table), table[:, 2]
    sides = table[:, :2].T - begins[of]
    instants = (np.minimum(np.maximum(sides, 0), lengths[of]) + offsets[of]).ravel()
    # Begins, then ends: at one instant a phase begins before another ends, and none ends before it begins.
    order = instants.argsort(kind="stable")
    place = np.empty(2 * count, dtype=np.int64)
    place[order] = np.arange(2 * count)
    at_begin, at_end = place[:count], place[count:]
    marks = instants[order]
    # Behind each mark: how many run, their load, and how long that lasts.
    loaded = np.concatenate((loads, -loads))[order].cumsum()
    alive = np.where(order < count, 1, -1).cumsum()
    steps = np.empty(2 * count, dtype=np.int64)
    steps[:-1] = marks[1:]
    steps[-1] = length
    steps -= marks
    rest = ONE - np.minimum(loaded, ONE)
    by_load = np.where(loaded > ONE, (steps << 2 * SCALE) // np.maximum(loaded, 1), steps << SCALE)
    equal = ((steps * rest) << SCALE) // np.maximum(alive, 1) * (alive > 0)
    load_clock = by_load.cumsum() - by_load
    equal_clock = equal.cumsum() - equal
    uses = loads * (load_clock[at_end] - load_clock[at_begin]) + equal_clock[at_end] - equal_clock[at_begin]
    totals = np.zeros(count + 1, dtype=np.int64)
    uses.cumsum(out=totals[1:])
    row_uses = np.diff(totals[row_ends], prepend=0).tolist()
    found = []
    row = 0
    for size in sizes:
        found.append(Uses(row_uses[row + 1 : row + size], []))
        row += size
    idle = np.flatnonzero((alive == 0) & (steps > 0))
    owners = np.searchsorted(offsets, marks[idle], side="right") - 1
    sinces = marks[idle] - offsets[owners] + begins[owners]
    for owner, since, step in zip(owners.tolist(), sinces.tolist(), steps[idle].tolist(), strict=True):
        found[owner].empty.append((since, since + step))
    return found
