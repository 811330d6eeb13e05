"""A spool against a plain list, against crashes, and against a disk that is full or lies."""

import os
import random
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate_sdk import SpoolBusy, SpoolFull
from tallygate_sdk.spool import Fsync, Spool, WhenFull

CHILD = """
import sys
from tallygate_sdk.spool import Spool
spool = Spool(sys.argv[1], fsync=sys.argv[2])
for number in range(int(sys.argv[3]), 10**9):
    spool.append(b"%d " % number + b"x" * (number % 300))
    print(number, flush=True)
"""


def taken(spool: Spool, records_max: int = 7, bytes_max: int = 10_000) -> list[bytes]:
    """All that waits, as a reader takes it."""
    found: list[bytes] = []
    while (batch := spool.peek(records_max, bytes_max)) is not None:
        assert len(batch.records) <= records_max
        found += batch.records
        spool.advance(batch)
    return found


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.segment"))


@pytest.mark.parametrize("fsync", ["each", "batch", "never"])
def test_what_is_appended_comes_out_in_order_also_after_a_restart(tmp_path: Path, fsync: Fsync) -> None:
    records = [b"%d" % number for number in range(100)]
    spool = Spool(tmp_path, fsync=fsync)
    for record in records[:60]:
        assert spool.append(record)
    batch = spool.peek(25, 10_000)
    assert batch is not None and batch.records == records[:25] and spool.unsent == 60
    spool.advance(batch)
    assert spool.unsent == 35
    spool.sync()
    spool.close()
    spool = Spool(tmp_path, fsync=fsync)
    assert spool.unsent == 35
    for record in records[60:]:
        spool.append(record)
    assert taken(spool) == records[25:] and spool.unsent == spool.unsent_bytes == 0
    spool.close()


def test_a_batch_ends_at_its_bytes_but_has_at_least_one_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for size in (10, 10, 500, 10):
        spool.append(b"x" * size)
    sizes = []
    while (batch := spool.peek(100, 25)) is not None:
        sizes.append([len(record) for record in batch.records])
        spool.advance(batch)
    assert sizes == [[10, 10], [500], [10]]


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    with pytest.raises(SpoolBusy, match="folder of its own"):
        Spool(tmp_path)
    first.close()
    Spool(tmp_path).close()


def test_nobody_else_on_the_machine_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    spool = Spool(folder)
    spool.append(b"one")
    (segment,) = folder.glob("*.segment")
    assert (folder.stat().st_mode & 0o777, segment.stat().st_mode & 0o777) == (0o700, 0o600)
    spool.close()


def test_what_was_sent_leaves_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=16_000)
    for _ in range(50):
        for _ in range(20):
            spool.append(b"x" * 100)
        assert len(taken(spool)) == 20
    assert on_disk(tmp_path) < 5_000
    spool.close()


# --------------------------------------------------------------------------------------------------------- full


@pytest.mark.parametrize("when_full", ["refuse", "drop_newest", "drop_oldest"])
def test_a_full_spool_does_as_it_was_told(tmp_path: Path, when_full: WhenFull) -> None:
    spool = Spool(tmp_path, bytes_max=4_000, when_full=when_full)
    records = [b"%03d" % number + b"x" * 97 for number in range(100)]
    kept, refused = [], []
    for record in records:
        try:
            if spool.append(record):
                kept.append(record)
        except SpoolFull as error:
            refused.append(str(error))
        assert on_disk(tmp_path) <= 4_000
    assert bool(refused) == (when_full == "refuse")
    assert all("bytes_max=4000" in each for each in refused)
    waiting = spool.unsent
    got = taken(spool)
    assert len(got) == waiting
    if when_full == "drop_oldest":
        assert len(kept) == 100 and got == records[-len(got) :] and len(got) > 30
        assert spool.dropped == 100 - len(got)
    else:
        assert got == kept == records[: len(kept)] and len(got) > 30
        assert spool.dropped == (100 - len(got) if when_full == "drop_newest" else 0)
    assert spool.append(b"again")
    spool.close()


def test_what_is_dropped_while_it_is_being_sent_is_not_read_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=1_600, when_full="drop_oldest")
    for number in range(10):
        spool.append(b"%02d" % number + b"x" * 90)
    batch = spool.peek(1, 1_000)
    assert batch is not None
    for number in range(10, 40):
        spool.append(b"%02d" % number + b"x" * 90)
    spool.advance(batch)
    got = [int(record[:2]) for record in taken(spool)]
    assert got == list(range(40 - len(got), 40)) and len(got) > 10
    assert spool.unsent == 0


@pytest.mark.parametrize("written", [0, 3, 8, 50])
def test_a_disk_that_takes_half_a_record_keeps_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    spool = Spool(tmp_path)
    spool.append(b"first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:written]))
    with pytest.raises(SpoolFull, match="disk under the spool"):
        spool.append(b"y" * 100)
    monkeypatch.undo()
    spool.append(b"second")
    assert taken(spool) == [b"first", b"second"] and spool.damaged_bytes == 0
    spool.close()


def test_a_disk_that_refuses_is_a_full_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)

    def refuse(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(SpoolFull, match="No space left"):
        spool.append(b"x")
    monkeypatch.undo()
    assert spool.append(b"y") and taken(spool) == [b"y"]
    spool.close()


def test_a_disk_that_takes_no_further_file_is_a_full_spool_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loses nothing that it kept, and goes on once there is room."""
    spool = Spool(tmp_path, bytes_max=1_600)
    first = b"x" * 90
    assert spool.append(first)

    def refuse(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", refuse)
    for _ in range(3):
        with pytest.raises(SpoolFull, match="No space left"):
            spool.append(b"y" * 90)
    monkeypatch.undo()
    assert spool.append(b"z" * 90)
    spool.sync()
    assert taken(spool) == [first, b"z" * 90] and (spool.damaged_bytes, spool.dropped, spool.unsent) == (0, 0, 0)
    spool.close()


def test_a_full_disk_keeps_nothing_from_being_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it is sent cannot be noted then: whatever comes again after a restart counts once."""
    spool = Spool(tmp_path, bytes_max=16_000)
    records = [b"%02d" % number + b"x" * 400 for number in range(10)]
    for record in records:
        spool.append(record)

    def refuse(*arguments: Any, **named: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert taken(spool) == records and spool.unsent == 0
    monkeypatch.undo()
    spool.close()
    spool = Spool(tmp_path)
    assert taken(spool) == records[-2:], "of the last segment; those before it are gone"
    spool.close()


def test_a_spool_that_could_not_begin_leaves_the_folder_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "_begin_segment", refuse)
    with pytest.raises(OSError, match="No space left"):
        Spool(tmp_path)
    monkeypatch.undo()
    Spool(tmp_path).close()


def test_a_closed_spool_takes_nothing_into_a_folder_that_is_no_longer_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=1_600)
    spool.append(b"x" * 90)
    spool.close()
    after = Spool(tmp_path, bytes_max=1_600)
    with pytest.raises(SpoolFull, match="is closed"):
        spool.append(b"y" * 90)
    assert taken(after) == [b"x" * 90]
    after.close()


FORKED = """
import os, sys
from tallygate_sdk import SpoolBusy
from tallygate_sdk.spool import Spool
spool = Spool(sys.argv[1])
spool.append(b"before")
child = os.fork()
if child == 0:
    try:
        spool.append(b"from the child")
    except SpoolBusy:
        os._exit(7)
    os._exit(0)
_, status = os.waitpid(child, 0)
spool.append(b"behind")
batch = spool.peek(10, 1000)
print(os.waitstatus_to_exitcode(status), batch.records, spool.damaged_bytes)
"""


def test_a_process_that_was_forked_does_not_write_into_its_parents_spool(tmp_path: Path) -> None:
    """Between the records that the parent counts, it would cost the parent's."""
    said = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "7 [b'before', b'behind'] 0"


# ------------------------------------------------------------------------------------------------------- crashes


def test_a_torn_tail_costs_the_torn_record_only(tmp_path: Path) -> None:
    """Cut at each byte of the last record: those before it are there, and what is appended later too."""
    whole = Spool(tmp_path / "whole")
    for record in (b"one", b"two", b"three!"):
        whole.append(record)
    whole.close()
    (segment,) = (tmp_path / "whole").glob("*.segment")
    content = segment.read_bytes()
    for cut in range(len(content) - 14, len(content)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment.name).write_bytes(content[:cut])
        spool = Spool(folder)
        spool.append(b"four")
        assert taken(spool) == [b"one", b"two", b"four"]
        assert spool.damaged_bytes == cut - (len(content) - 14)
        spool.close()


def test_what_the_disk_has_spoiled_is_counted_and_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(5):
        spool.append(b"%d" % number * 20)
    spool.close()
    (segment,) = tmp_path.glob("*.segment")
    content = bytearray(segment.read_bytes())
    content[28 * 2 + 15] ^= 1  # inside the third record
    segment.write_bytes(content)
    spool = Spool(tmp_path)
    spool.append(b"later")
    assert spool.unsent == 3
    assert taken(spool) == [b"0" * 20, b"1" * 20, b"later"]
    assert spool.damaged_bytes == 3 * 28 and spool.unsent == 0
    spool.close()


@pytest.mark.parametrize("content", [None, b"", b"x y", b"1 99999\n"])
def test_a_lost_or_broken_note_of_what_was_sent_loses_nothing_later(tmp_path: Path, content: bytes | None) -> None:
    """Sent again is harmless; a note that says more than the segment holds is what a power cut leaves."""
    spool = Spool(tmp_path)
    spool.append(b"one")
    batch = spool.peek(1, 100)
    assert batch is not None
    spool.advance(batch)
    spool.close()
    note = tmp_path / "sent"
    note.unlink() if content is None else note.write_bytes(content)
    spool = Spool(tmp_path)
    spool.append(b"two")
    assert taken(spool) == ([b"two"] if content == b"1 99999\n" else [b"one", b"two"])
    spool.close()


@pytest.mark.parametrize("fsync", ["each", "batch", "never"])
def test_nothing_that_was_kept_is_lost_by_kill_9(tmp_path: Path, fsync: str) -> None:
    """A child appends and says each number; it is killed three times, somewhere. What it said is there, in order."""
    said = 0
    for round in range(3):
        command = [sys.executable, "-c", CHILD, str(tmp_path), fsync, str(said)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(50 + 37 * round):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().splitlines()
        # The last line may be torn; one more record than was said may be there.
        spool = Spool(tmp_path)
        got = [int(record.split()[0]) for record in taken(spool, 1_000, 1 << 30)]
        heard = said + 50 + 37 * round + len(rest)
        assert got == list(range(said, said + len(got)))
        assert said + len(got) >= heard - 1
        said += len(got)
        spool.close()


# ------------------------------------------------------------------------------------------------ against a list

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 400)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("peek"), st.integers(1, 5)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_it_is_a_list_that_outlives_its_process(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, bytes_max=1 << 20)
    spool._segment_bytes_max = 500
    model: deque[bytes] = deque()
    draw = random.Random(5)
    for what, size in steps:
        if what == "append":
            record = draw.randbytes(size)
            spool.append(record)
            model.append(record)
        elif what == "reopen":
            spool.close()
            spool = Spool(folder, bytes_max=1 << 20)
            spool._segment_bytes_max = 500
        else:
            batch = spool.peek(size, 600)
            got = [] if batch is None else batch.records
            assert got == list(model)[: len(got)] and bool(got) == bool(model)
            if what == "take" and batch is not None:
                spool.advance(batch)
                for _ in got:
                    model.popleft()
        assert spool.unsent == len(model)
    assert taken(spool) == list(model)
    spool.close()
