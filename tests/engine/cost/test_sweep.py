"""Who used a replica: the two clocks beside the plain definition, microsecond by microsecond."""

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.cost.gpu_rates import Profile
from engine.cost.served import Served
from engine.cost.sweep import LOAD_MAX, ONE, STRETCH_US_MAX, Phases, Stretch, Uses, phases, sweep

PROFILE = Profile(prefill_token_ps=20_000_000, decode_token_ps=50_000_000, context_read_ps=43_000)


Phase = tuple[int, int, int]


def alone(executions: Sequence[Phases], begin_us: int, end_us: int) -> Uses:
    """Of one stretch."""
    (found,) = sweep([Stretch(executions, begin_us, end_us)])
    return found


def by_definition(running: list[Phase], begin_us: int, end_us: int) -> list[Fraction]:
    used = [Fraction(0)] * len(running)
    for instant in range(begin_us, end_us):
        here = [index for index, (begin, end, _) in enumerate(running) if begin <= instant < end]
        loads = {index: Fraction(running[index][2], ONE) for index in here}
        total = sum(loads.values(), Fraction(0))
        for index in here:
            used[index] += loads[index] / total if total > 1 else loads[index] + (1 - total) / len(here)
    return used


PHASES = st.builds(
    lambda begin, length, load: (begin, begin + length, load),
    st.integers(0, 60),
    st.integers(1, 60),
    st.integers(0, 3 * ONE),
)


@given(st.lists(PHASES, max_size=12), st.integers(0, 50), st.integers(1, 60))
def test_the_clocks_give_what_the_definition_says(running: list[Phase], begin: int, length: int) -> None:
    found = alone(running, begin, begin + length)
    for use, exact in zip(found.uses, by_definition(running, begin, begin + length), strict=True):
        assert abs(Fraction(use, ONE * ONE) - exact) < Fraction(200, ONE)  # a rounding for each boundary
    empty = [instant for since, until in found.empty for instant in range(since, until)]
    assert empty == [
        instant
        for instant in range(begin, begin + length)
        if not any(since <= instant < until for since, until, _ in running)
    ]


@given(st.lists(st.lists(PHASES, max_size=3), max_size=6))
def test_an_execution_uses_what_its_phases_do(executions: list[list[Phase]]) -> None:
    each = iter(alone([phase for phases in executions for phase in phases], 20, 70).uses)
    sums = [sum(next(each) for _ in phases) for phases in executions]
    assert alone([sum(phases, ()) for phases in executions], 20, 70).uses == sums


STRETCHES = st.builds(
    lambda running, begin, length: Stretch(running, begin, begin + length),
    st.lists(PHASES, max_size=6),
    st.integers(0, 50),
    st.integers(1, 60) | st.integers(STRETCH_US_MAX // 2, STRETCH_US_MAX),
)


@given(st.lists(STRETCHES, max_size=6))
def test_many_stretches_at_once_come_to_what_each_does_alone(stretches: list[Stretch]) -> None:
    """To the last bit: those that overlap, that are as long as the clocks go, and that nobody used."""
    assert sweep(stretches) == [alone(each.executions, each.begin_us, each.end_us) for each in stretches]


def test_the_longest_stretch_and_the_greatest_loads_stay_within_64_bits() -> None:
    length = 600_000_000
    for load in (0, 1, ONE, LOAD_MAX):
        for count in (1, 3, 1_000):
            uses = alone([(0, length, load)] * count, 0, length).uses
            assert all(abs(use * count - length * ONE * ONE) <= length * ONE * ONE // 1_000 for use in uses)


def test_a_phase_is_as_loaded_as_its_tokens_take_of_its_time() -> None:
    served = Served("r", "x", "m", 0, 100_000, 1_100_000, prompt=1_500, cached=500, output=11)
    prefill = ONE * 20_000 // 100_000  # 1,000 tokens of 20 us in 100 ms
    read_ps = 43_000 * (1_500 * 10 + 55)
    decode = (10 * 50_000_000 + read_ps) * ONE // 10**12
    assert phases(served, PROFILE) == (0, 100_000, prefill, 100_000, 1_100_000, decode)


def test_what_takes_no_time_has_no_phase() -> None:
    assert phases(Served("r", "x", "m", 5, 5, 5, 10, output=1), PROFILE) == ()
    assert phases(Served("r", "x", "m", 5, None, 9, 10), None) == (5, 9, 0)
