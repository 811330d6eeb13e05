"""The memory of identities: buckets, runs, forgetting, and what checkpoints hold of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import dedup as module
from engine.dedup import BUCKET_US, ENTRY_BYTES, WINDOW_US, Dedup, identity
from engine.outcomes import DedupSegment

MARK = b"mark"


@pytest.fixture
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of three, so that a handful of identities seals and merges."""
    monkeypatch.setattr(module, "RECENT_MAX", 3)


def keys(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(12) for _ in range(count)]


def filled(numbered: list[bytes], log_time_us: int = 0) -> Dedup:
    memory = Dedup()
    for offset, key in enumerate(numbered):
        memory.remember(key, MARK, offset, log_time_us)
    return memory


def test_an_identity_has_twelve_bytes_and_depends_on_each_of_its_parts() -> None:
    found = {identity("a", "b", "c"), identity("x", "b", "c"), identity("a", "x", "c"), identity("a", "b", "x")}
    found |= {identity("ab", "", "c"), identity("a", "bc", "")}
    assert len(found) == 6
    assert {len(key) for key in found} == {12}


def test_what_is_remembered_is_found_with_its_fingerprint_and_offset() -> None:
    memory = filled(keys(5))
    assert [memory.find(key) for key in keys(5)] == [(MARK, offset) for offset in range(5)]
    assert memory.find(b"n" * 12) is None
    assert len(memory) == 5


def test_an_offset_is_kept_modulo_2_to_the_32() -> None:
    memory = Dedup()
    memory.remember(b"k" * 12, MARK, (1 << 32) + 7, 0)
    assert memory.find(b"k" * 12) == (MARK, 7)


@pytest.mark.usefixtures("_small_runs")
@given(st.lists(st.binary(min_size=12, max_size=12), unique=True, max_size=40), st.binary(min_size=12, max_size=12))
def test_runs_and_merges_lose_nothing_and_invent_nothing(numbered: list[bytes], other: bytes) -> None:
    memory = filled(numbered)
    assert [memory.find(key) for key in numbered] == [(MARK, offset) for offset in range(len(numbered))]
    assert len(memory) == len(numbered)
    if other not in numbered:
        assert memory.find(other) is None


@pytest.mark.usefixtures("_small_runs")
def test_identities_that_end_in_nul_bytes_are_told_apart() -> None:
    """A sorted run of fixed-width text drops trailing NULs when it compares; an identity has any bytes."""
    numbered = [b"k" * length + bytes(12 - length) for length in range(12)]
    memory = filled(numbered)
    assert [memory.find(key) for key in numbered] == [(MARK, offset) for offset in range(12)]
    assert memory.find(b"k" * 5 + bytes(6) + b"\x01") is None
    assert Dedup.bucket_min(0) < 0  # none of them was forgotten


@pytest.mark.usefixtures("_small_runs")
def test_a_bucket_of_n_has_about_log_n_runs() -> None:
    """Each run is searched for every new event: without merging, a full bucket would be read thousands of times."""
    memory = filled(keys(3 * 256))
    (bucket,) = memory._buckets.values()
    assert len(bucket.runs) <= 9


def test_a_full_bucket_seals_itself() -> None:
    memory = filled(keys(module.RECENT_MAX + 1))
    (bucket,) = memory._buckets.values()
    assert (len(bucket.recent), len(bucket.runs)) == (1, 1)
    assert memory.find(keys(1)[0]) == (MARK, 0)


@pytest.mark.parametrize(
    ("remembered_us", "forgotten_us"),
    [
        (0, BUCKET_US + WINDOW_US),
        (BUCKET_US - 1, BUCKET_US + WINDOW_US),
        (BUCKET_US, 2 * BUCKET_US + WINDOW_US),
    ],
)
def test_a_bucket_is_forgotten_35_days_after_its_end(remembered_us: int, forgotten_us: int) -> None:
    memory = filled(keys(1), remembered_us)
    memory.forget(forgotten_us - 1)
    assert memory.find(keys(1)[0]) is not None
    memory.forget(forgotten_us)
    assert memory.find(keys(1)[0]) is None
    assert len(memory) == 0


def test_an_identity_is_kept_for_the_whole_window_at_least() -> None:
    for remembered_us in (0, 1, BUCKET_US - 1, BUCKET_US, 3 * BUCKET_US + 5):
        memory = filled(keys(1), remembered_us)
        memory.forget(remembered_us + WINDOW_US)
        assert memory.find(keys(1)[0]) is not None


def test_forgetting_leaves_the_other_buckets_alone() -> None:
    first, second = keys(2)
    memory = filled([first])
    memory.remember(second, MARK, 1, BUCKET_US)
    memory.forget(BUCKET_US + WINDOW_US)
    assert (memory.find(first), memory.find(second)) == (None, (MARK, 1))


def test_a_checkpoint_gets_each_entry_once_by_bucket() -> None:
    first, second, third = keys(3)
    memory = filled([first, second])
    memory.remember(third, MARK, 2, BUCKET_US)
    entries = [key + MARK + offset.to_bytes(4) for offset, key in enumerate((first, second, third))]
    assert memory.take_fresh() == [DedupSegment(0, entries[0] + entries[1]), DedupSegment(1, entries[2])]
    assert memory.take_fresh() == []


@pytest.mark.usefixtures("_small_runs")
@given(st.integers(0, 30), st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_loaded_memory_is_the_same_whatever_the_order_of_its_segments(
    count: int, source: random.Random, cuts: int
) -> None:
    numbered = keys(count)
    memory = Dedup()
    segments: list[DedupSegment] = []
    for offset, key in enumerate(numbered):
        memory.remember(key, MARK, offset, (offset * 3 // 10) * BUCKET_US)
        if source.randrange(cuts) == 0:
            segments += memory.take_fresh()
    segments += memory.take_fresh()
    source.shuffle(segments)
    loaded = Dedup()
    loaded.load(segments)
    assert loaded.entries() == memory.entries()
    assert [loaded.find(key) for key in numbered] == [(MARK, offset) for offset in range(count)]
    assert loaded.take_fresh() == []


@pytest.mark.usefixtures("_small_runs")
def test_a_loaded_memory_goes_on() -> None:
    numbered = keys(20)
    memory = filled(numbered[:10])
    loaded = Dedup()
    loaded.load(memory.take_fresh())
    for offset, key in enumerate(numbered[10:], start=10):
        memory.remember(key, MARK, offset, 0)
        loaded.remember(key, MARK, offset, 0)
    assert loaded.entries() == memory.entries()
    assert loaded.take_fresh() == memory.take_fresh()
    assert [loaded.find(key) for key in numbered] == [(MARK, offset) for offset in range(20)]


@pytest.mark.usefixtures("_small_runs")
def test_the_bytes_of_the_memory_do_not_tell_how_it_was_filled() -> None:
    numbered = keys(10)
    forward, backward = Dedup(), Dedup()
    for offset, key in enumerate(numbered):
        forward.remember(key, MARK, offset, 0)
    for offset, key in reversed(list(enumerate(numbered))):
        backward.remember(key, MARK, offset, 0)
    assert forward.entries() == backward.entries()
    assert len(forward.entries()) == 8 + 10 * ENTRY_BYTES
