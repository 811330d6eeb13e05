"""The two forms of remembered identities: whatever is put in is found, and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import runs as module
from engine.runs import ENTRY_BYTES, ROW_BYTES, Batch, Loose, Run, outline_bytes, seal

# Few different heads, so that several entries share one; and NULs at the end, which fixed-width text would drop.
ENTRIES = st.lists(
    st.builds(
        lambda head, tail, value: head + tail + value,
        st.sampled_from([bytes(4), b"\x00\x00\x00\x01", b"\x00\x01\x00\x00", b"\xff\xff\xff\xff", b"a\x00b\x00"]),
        st.binary(min_size=8, max_size=8),
        st.binary(min_size=8, max_size=8),
    ),
    unique_by=lambda entry: entry[:12],
    min_size=1,
    max_size=40,
)


@pytest.fixture(params=["small", "large"])
def _of_each_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has two layouts; both are to be had with a handful of entries."""
    monkeypatch.setattr(module, "LARGE", 1 if request.param == "large" else 1 << 17)


def found_in(run: Run, key: bytes) -> list[bytes]:
    rows = [bytes(run.row(place) or b"") for place in run.places(int.from_bytes(key[:4]))]
    return [row[8:] for row in rows if row[:8] == key[4:]]


@pytest.mark.usefixtures("_of_each_size")
@given(ENTRIES, st.binary(min_size=12, max_size=12))
def test_a_run_has_each_entry_once_and_no_other(entries: list[bytes], other: bytes) -> None:
    sealed = seal([*entries[:3], b"".join(entries[3:])])
    run = Run(0, 0, sealed.count, sealed.outline, sealed.rows)
    assert [found_in(run, entry[:12]) for entry in entries] == [[entry[12:]] for entry in entries]
    if other not in [entry[:12] for entry in entries]:
        assert found_in(run, other) == []
    assert sorted(run.heads().tolist()) == sorted(int.from_bytes(entry[:4]) for entry in entries)
    table = run.entries()
    assert sorted(table[at : at + ENTRY_BYTES] for at in range(0, len(table), ENTRY_BYTES)) == sorted(entries)


@given(st.lists(st.integers(0, 255), unique=True, min_size=1, max_size=40), st.binary(min_size=7, max_size=7))
def test_a_run_is_the_same_in_whatever_order_its_entries_came(last: list[int], first: bytes) -> None:
    """Here even where the first eight bytes differ in nothing but the last bits."""
    entries = [first + bytes([number]) + random.Random(number).randbytes(12) for number in last]
    assert seal(entries).rows == b"".join(entry[4:] for entry in sorted(entries))


@given(ENTRIES, st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=20))
def test_the_heads_of_a_small_run_are_told_apart_in_one_go(entries: list[bytes], others: list[bytes]) -> None:
    sealed = seal(entries)
    run = Run(0, 0, sealed.count, sealed.outline, sealed.rows)
    keys = [entry[:12] for entry in entries] + others
    heads = {entry[:4] for entry in entries}
    assert run.suspects(Batch(keys).heads) == [number for number, key in enumerate(keys) if key[:4] in heads]


def test_a_large_run_takes_less_than_nineteen_bytes_an_entry() -> None:
    count = 1 << 20
    assert (outline_bytes(count) + count * ROW_BYTES) / count < 18.3


def test_a_large_run_is_found_in_as_a_small_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many entries as it takes, not with the limit lowered."""
    source = random.Random(3)
    entries = [source.randbytes(ENTRY_BYTES) for _ in range(module.LARGE + 5)]
    sealed = seal(entries)
    run = Run(0, 0, sealed.count, sealed.outline, sealed.rows)
    assert run.large
    assert len(sealed.outline) == outline_bytes(len(entries))
    assert all(found_in(run, entry[:12]) == [entry[12:]] for entry in entries[::97])
    assert not any(found_in(run, source.randbytes(12)) for _ in range(1_000))
    assert run.heads().tolist() == sorted(int.from_bytes(entry[:4]) for entry in entries)


def test_bytes_of_another_length_are_no_run() -> None:
    sealed = seal([bytes(range(20)), bytes(range(20, 40))])
    for count, outline, rows in (
        (3, sealed.outline, sealed.rows),
        (2, sealed.outline[:-1], sealed.rows),
        (2, sealed.outline, sealed.rows[:-1]),
    ):
        with pytest.raises(ValueError, match="not the outline and the rows of a run"):
            Run(0, 0, count, outline, rows)


def test_rows_that_are_elsewhere_come_one_by_one_or_all_at_once() -> None:
    entry = bytes(range(20))
    sealed = seal([entry])
    run = Run(0, 0, 1, sealed.outline, None)
    (place,) = run.places(int.from_bytes(entry[:4]))
    assert run.row(place) is None
    with pytest.raises(ValueError, match="have not been brought"):
        run.entries()
    run.brought[place] = sealed.rows
    assert run.row(place) == entry[4:]
    with pytest.raises(ValueError, match="19 bytes are no outline and rows"):
        run.bring(sealed.outline + sealed.rows[1:])
    run.bring(sealed.outline + sealed.rows)
    assert (run.row(place), run.brought) == (entry[4:], {})


@given(ENTRIES, st.lists(st.integers(0, 7), max_size=12), st.binary(min_size=12, max_size=12))
def test_loose_entries_are_found_once_they_are_indexed(entries: list[bytes], pieces: list[int], other: bytes) -> None:
    loose = Loose(64)
    at = 0
    for size in [*pieces, len(entries)]:
        loose.append(b"".join(entries[at : at + size]))
        at += size
        loose.index()
    keys = [entry[:12] for entry in entries]
    assert dict(loose.find(Batch([*keys, other]))) == {
        number: entry[12:] for number, entry in enumerate([*entries, *(e for e in entries if e[:12] == other)])
    }
    assert [loose.get(key) for key in keys] == [entry[12:] for entry in entries]
    assert other in keys or loose.get(other) is None
    assert bytes(loose.entries()) == b"".join(entries)
    assert loose.free == 64 - len(entries)


@given(ENTRIES, st.integers(0, 12), st.integers(0, 12))
def test_loose_entries_move_to_where_more_fit_and_are_found_all_the_while(
    entries: list[bytes], indexed: int, taken: int
) -> None:
    loose, numbers = Loose(64), {entry[:12]: at for at, entry in enumerate(entries)}
    loose.append(b"".join(entries[:taken]))
    loose.take()
    loose.append(b"".join(entries[taken:indexed]))
    loose.index()
    loose.append(b"".join(entries[max(taken, indexed) :]))
    larger = loose.grown(128)
    assert [at for at, _ in larger.find(Batch([*numbers]))] == list(range(min(len(entries), max(taken, indexed))))
    larger.index()
    assert [larger.get(key) for key in numbers] == [entry[12:] for entry in entries]
    assert larger.take() == b"".join(entries[taken:])
    assert (larger.count, larger.free) == (len(entries), 128 - len(entries))


@pytest.mark.parametrize("line", [0, 7])
def test_loose_entries_that_point_to_a_full_line_stand_in_the_next(line: int) -> None:
    """All of a table of 64, by one line of its eight: it and three more are full, behind the last comes the first."""
    entries = [number.to_bytes(4) + bytes([line, number, 0, 0]) + bytes(12) for number in range(64)]
    loose = Loose(64)
    for start, end in ((0, 10), (10, 40), (40, 64)):
        loose.append(b"".join(entries[start:end]))
        loose.index()
        batch = Batch([entry[:12] for entry in entries])
        assert sorted(number for number, _ in loose.find(batch)) == list(range(end))
        assert [loose.get(key) is not None for key in batch.keys] == [True] * end + [False] * (64 - end)
    other = b"\x00\x00\x00\x40" + bytes([line, 5, 0, 0]) + bytes(4)
    assert not list(loose.find(Batch([other])))
    assert loose.get(other) is None


def test_loose_entries_are_taken_once() -> None:
    loose = Loose(8)
    loose.append(bytes(20))
    assert (loose.take(), loose.take()) == (bytes(20), b"")
    loose.append(b"x" * 20)
    assert loose.take() == b"x" * 20
