"""The memory of identities: buckets, runs, forgetting, and what checkpoints hold of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import dedup as module
from engine import runs as runs_module
from engine import sieve as sieve_module
from engine.dedup import BUCKET_US, WINDOW_US, Dedup, Place, RowsAway, identity
from engine.outcomes import DedupSegment
from engine.runs import ENTRY_BYTES, ROW_BYTES, Run, Sealed, seal

MARK = b"mark"


@pytest.fixture(params=["as they arrive", "sealed", "sealed and large"])
def _small_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes thousands or millions of identities happens after a handful."""
    monkeypatch.setattr(module, "RECENT_MAX", 3)
    monkeypatch.setattr(module, "FEW", 2)
    monkeypatch.setattr(module, "_CAPACITIES", (2, 4, 8))
    if request.param != "as they arrive":
        monkeypatch.setattr(module, "RUN_MIN", 5)
    if request.param == "sealed and large":
        monkeypatch.setattr(runs_module, "LARGE", 4)
        monkeypatch.setattr(sieve_module, "WORDS_MIN", 2)


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
    assert [memory.mark(key) for key in (*keys(5), b"n" * 12)] == [MARK] * 5 + [None]
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
    assert memory.take_fresh() == [DedupSegment(0, 0, entries[0] + entries[1]), DedupSegment(1, 0, entries[2])]
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


# ----------------------------------------------------------------------------------------------- sealing and bringing


class Kept:
    """What a store keeps: loose segments, and runs with their rows."""

    def __init__(self) -> None:
        self.segments: list[DedupSegment] = []
        self.runs: dict[tuple[int, int], Sealed] = {}

    def commit(self, memory: Dedup) -> None:
        self.segments += memory.take_fresh()

    def seal(self, memory: Dedup, *, bring: bool = True) -> None:
        """All that is closed, as a shard does it beside rating."""
        for closed in memory.closed():
            name = closed.bucket, closed.generation
            sealed = self.runs[name] = seal(closed.pieces)
            self.segments = [each for each in self.segments if (each.bucket, each.generation) != name]
            memory.adopt(Run(*name, sealed.count, sealed.outline, sealed.rows if bring else None))
        sieve(memory)

    def forget(self, log_time_us: int) -> None:
        floor = Dedup.bucket_min(log_time_us)
        self.segments = [each for each in self.segments if each.bucket >= floor]
        self.runs = {name: sealed for name, sealed in self.runs.items() if name[0] >= floor}

    def load(self, *, bring: bool) -> Dedup:
        memory = Dedup()
        runs = [
            Run(*name, sealed.count, sealed.outline, sealed.rows if bring else None)
            for name, sealed in self.runs.items()
        ]
        memory.load(self.segments, runs)
        return memory

    def row(self, place: Place) -> bytes:
        rows = self.runs[place.bucket, place.generation].rows
        return rows[place.row * ROW_BYTES : (place.row + 1) * ROW_BYTES]


def sieve(memory: Dedup) -> None:
    while work := memory.unsieved():
        memory.put_sieve(work, work.done())


def supply(memory: Dedup, kept: Kept) -> None:
    memory.supply([(place, kept.row(place)) for place in memory.doubts()])


@pytest.mark.usefixtures("_small_runs")
@given(st.data())
def test_the_memory_is_a_dict_that_forgets_by_buckets(data: st.DataObject) -> None:
    """Through batches, seals, sieves, checkpoints, takeovers before and after the rows are in, and forgetting."""
    known: dict[int, dict[bytes, tuple[bytes, int]]] = {}
    memory, kept, log_time_us, offset = Dedup(), Kept(), 0, 0
    # Few heads: what is not known often shares one with what is.
    some_keys = st.builds(
        lambda head, tail: head + tail.to_bytes(8), st.sampled_from([b"head", b"heae"]), st.integers(0, 60)
    )
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["batch"] * 6 + ["commit", "seal", "sieve", "takeover", "time"]))
        if action == "batch":
            batch = data.draw(st.lists(some_keys, max_size=12))
            if data.draw(st.booleans()):
                memory.expect(batch)
                supply(memory, kept)
            for key in batch:
                expected = next((bucket[key] for bucket in known.values() if key in bucket), None)
                assert ask(memory, kept, key) == expected
                if expected is None:
                    memory.remember(key, MARK, offset, log_time_us)
                    known.setdefault(log_time_us // BUCKET_US, {})[key] = MARK, offset
                    offset += 1
                assert ask(memory, kept, key) is not None
        elif action == "commit":
            kept.commit(memory)
        elif action == "seal":
            kept.commit(memory)
            kept.seal(memory, bring=data.draw(st.booleans()))
        elif action == "sieve":
            sieve(memory)
        elif action == "takeover":
            kept.commit(memory)
            before = memory.entries() if not memory.away() else None
            memory = kept.load(bring=data.draw(st.booleans()))
            if before is not None and not memory.away():
                assert memory.entries() == before
        else:
            log_time_us += data.draw(st.sampled_from([1, BUCKET_US // 2, BUCKET_US, WINDOW_US, 9 * BUCKET_US]))
            memory.forget(log_time_us)
            kept.forget(log_time_us)
            known = {number: bucket for number, bucket in known.items() if number >= Dedup.bucket_min(log_time_us)}
        assert len(memory) == sum(map(len, known.values()))


def ask(memory: Dedup, kept: Kept, key: bytes) -> tuple[bytes, int] | None:
    """As one who was told to bring the rows first."""
    while True:
        try:
            found = memory.find(key)
            assert memory.mark(key) == (None if found is None else found[0])
            return found
        except RowsAway as away:
            memory.supply([(place, kept.row(place)) for place in away.places])


@pytest.mark.usefixtures("_small_runs")
@pytest.mark.parametrize("known", [True, False])
def test_an_identity_whose_row_is_away_is_neither_known_nor_new(known: bool) -> None:
    stored = [b"head" + bytes(8), *keys(9)]
    kept = Kept()
    memory = filled(stored)
    kept.commit(memory)
    memory.remember(b"k" * 12, MARK, 99, BUCKET_US)  # the first bucket is over
    kept.commit(memory)
    kept.seal(memory)
    loaded = kept.load(bring=False)
    asked = b"head" + bytes(8) if known else b"head" + b"not that"
    loaded.expect([asked, b"quite another one"[:12]])
    assert loaded.find(b"quite another one"[:12]) is None
    with pytest.raises(RowsAway):
        loaded.mark(asked)
    with pytest.raises(RowsAway) as away:
        loaded.find(asked)
    assert away.value.places == loaded.doubts() != frozenset()
    for expected, places in ([], frozenset[Place]()), ([asked], away.value.places):
        loaded.expect(expected)
        assert loaded.doubts() == places
    supply(loaded, kept)
    assert loaded.doubts() == frozenset()
    assert loaded.find(asked) == ((MARK, 0) if known else None)


@pytest.mark.usefixtures("_small_runs")
def test_what_is_forgotten_leaves_no_doubt() -> None:
    kept = Kept()
    memory = filled(keys(9))
    kept.commit(memory)
    memory.remember(b"k" * 12, MARK, 99, BUCKET_US)
    kept.commit(memory)
    kept.seal(memory)
    loaded = kept.load(bring=False)
    loaded.expect(keys(1))
    assert loaded.doubts()
    loaded.forget(BUCKET_US + WINDOW_US)
    assert loaded.doubts() == frozenset()


def test_what_is_remembered_after_it_was_expected_is_known() -> None:
    """Also when it leaves the recent ones for the index in between."""
    numbered = keys(3 * module.RECENT_MAX)
    memory = filled(numbered[: 2 * module.RECENT_MAX])
    memory.expect(numbered)
    for offset, key in enumerate(numbered[2 * module.RECENT_MAX :], start=2 * module.RECENT_MAX):
        assert memory.find(key) is None
        memory.remember(key, MARK, offset, BUCKET_US if offset % 2 else 0)
        assert memory.find(key) == (MARK, offset)


def test_what_was_expected_is_forgotten_with_its_bucket() -> None:
    numbered = keys(module.RECENT_MAX + 1)
    memory = filled(numbered)
    memory.remember(b"k" * 12, MARK, 1, BUCKET_US)
    memory.expect(numbered)
    assert memory.find(numbered[0]) is not None
    memory.forget(BUCKET_US + WINDOW_US)
    assert memory.find(numbered[0]) is None


def test_a_generation_grows_until_a_checkpoint_finds_it_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_MIN", 3)
    memory = filled(keys(5))
    assert memory.closed() == []
    assert [segment.generation for segment in memory.take_fresh()] == [0]
    [closed] = memory.closed()
    assert (closed.bucket, closed.generation, sum(map(len, closed.pieces))) == (0, 0, 5 * ENTRY_BYTES)
    memory.remember(b"k" * 12, MARK, 5, 0)
    assert [segment.generation for segment in memory.take_fresh()] == [1]


def test_the_last_generation_of_a_bucket_that_is_over_is_closed_whatever_its_size() -> None:
    memory = filled(keys(2))
    memory.remember(b"k" * 12, MARK, 2, BUCKET_US)
    memory.take_fresh()
    assert [(closed.bucket, closed.generation) for closed in memory.closed()] == [(0, 0)]


def test_a_sieve_over_runs_of_two_buckets_goes_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "LARGE", 4)
    monkeypatch.setattr(sieve_module, "WORDS_MIN", 2)
    kept, memory = Kept(), Dedup()
    for offset, key in enumerate(keys(11)):
        memory.remember(key, MARK, offset, offset // 5 * BUCKET_US)
    kept.commit(memory)
    kept.seal(memory)
    full = memory.sizes()["sieves"]
    memory.forget(BUCKET_US + WINDOW_US)
    assert memory.sizes()["sieves"] == full > 0
    memory.forget(2 * BUCKET_US + WINDOW_US)
    assert memory.sizes()["sieves"] == 0


def test_a_run_of_a_forgotten_bucket_is_not_taken_back() -> None:
    memory = filled(keys(2))
    memory.remember(b"k" * 12, MARK, 2, BUCKET_US)
    memory.take_fresh()
    [closed] = memory.closed()
    sealed = seal(closed.pieces)
    memory.forget(BUCKET_US + WINDOW_US)
    memory.adopt(Run(0, 0, sealed.count, sealed.outline, sealed.rows))
    assert memory.find(keys(1)[0]) is None
    assert len(memory) == 1


def test_rows_are_brought_newest_first() -> None:
    kept = Kept()
    memory = Dedup()
    for number in range(4):
        memory.remember(keys(4)[number], MARK, number, number * BUCKET_US)
    kept.commit(memory)
    kept.seal(memory)
    loaded = kept.load(bring=False)
    assert [run.bucket for run in loaded.away()] == [2, 1, 0]
    loaded.away()[0].bring(kept.runs[2, 0].outline + kept.runs[2, 0].rows)
    assert [run.bucket for run in loaded.away()] == [1, 0]
