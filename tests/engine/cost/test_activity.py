"""Where the GPUs of a replica were busy."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from engine.cost.activity import GAP_US, Activity

S = 1_000_000


def test_a_sample_speaks_for_what_lies_behind_the_one_before_it() -> None:
    activity = Activity()
    for at, permille in ((100 * S, 0), (130 * S, 970), (160 * S, 50), (190 * S, 51)):
        activity.note("GPU-1", at, permille)
    assert activity.busy(0, 300 * S) == [(100 * S, 130 * S), (160 * S, 190 * S)]
    assert activity.busy(110 * S, 120 * S) == [(110 * S, 120 * S)]


def test_a_gap_is_not_filled() -> None:
    activity = Activity()
    activity.note("GPU-1", 100 * S, 900)
    activity.note("GPU-1", 400 * S, 900)
    assert activity.busy(0, 500 * S) == [(40 * S, 100 * S), (400 * S - GAP_US, 400 * S)]


def test_the_replica_is_busy_where_any_gpu_is() -> None:
    activity = Activity()
    activity.note("GPU-1", 100 * S, 900)
    activity.note("GPU-2", 110 * S, 900)
    assert activity.busy(0, 500 * S) == [(40 * S, 110 * S)]


def test_what_is_forgotten_says_nothing_of_what_comes() -> None:
    activity = Activity()
    for at in (10, 20, 30, 40, 50):
        activity.note("GPU-1", at * S, 900)
    before = activity.busy(30 * S, 90 * S)
    activity.forget(30 * S)
    assert activity.busy(30 * S, 90 * S) == before


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300), st.integers(0, 100))), st.randoms())
def test_order_and_repetition_change_nothing(samples: list[tuple[str, int, int]], random: Random) -> None:
    one, other = Activity(), Activity()
    for gpu, at, permille in samples:
        one.note(gpu, at * S, permille)
    again = samples * 2
    random.shuffle(again)
    for gpu, at, permille in again:
        other.note(gpu, at * S, permille)
    assert one.busy(0, 400 * S) == other.busy(0, 400 * S)
