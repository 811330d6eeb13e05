"""What the port `LocalRuns` promises, held against a folder and the simulator's disk."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from actors.local_runs import LocalFolder
from actors.ports import LocalRuns, RunHead
from engine.runs import Buffer
from tests.simulation.sim_runs import SimDisk, SimLocalRuns

OUTLINE, ROWS = b"outline!", b"r" * 32
HEAD = RunHead(2, 7, 2, OUTLINE, xxhash.xxh3_128_digest(OUTLINE + ROWS))


async def pieces(*parts: bytes) -> AsyncIterator[Buffer]:
    for part in parts:
        yield part


def files_of(folder: Path) -> list[Path]:
    return list(folder.iterdir())


class Place:
    """A door to copies, and a hand that spoils them behind its back."""

    def __init__(self, runs: LocalRuns, spoil: Callable[[Callable[[bytes], bytes]], None]) -> None:
        self.runs = runs
        self.spoil = spoil


@pytest.fixture(params=["simulated", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        folder = LocalFolder(tmp_path / "made when needed", 1_000)

        def spoil_file(change: Callable[[bytes], bytes]) -> None:
            path = folder.path(1, HEAD)
            path.write_bytes(change(path.read_bytes()))

        yield Place(folder, spoil_file)
    else:
        disk = SimDisk()

        def spoil_copy(change: Callable[[bytes], bytes]) -> None:
            for name, whole in disk.copies.items():
                disk.copies[name] = change(whole)

        yield Place(SimLocalRuns(disk), spoil_copy)


async def test_work_returns_or_raises_what_the_task_does(place: Place) -> None:
    def broken() -> int:
        raise ZeroDivisionError

    assert await place.runs.work(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await place.runs.work(broken)


async def test_a_copy_is_found_whole_and_by_its_own_name_alone(place: Place) -> None:
    assert await place.runs.find(1, HEAD) is None
    kept = await place.runs.keep(1, HEAD, pieces(ROWS[:16], ROWS[16:]))
    found = await place.runs.find(1, HEAD)
    assert kept is not None and found is not None
    assert bytes(kept) == bytes(found) == OUTLINE + ROWS
    assert await place.runs.find(2, HEAD) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:9] + b"x" + whole[10:],
        lambda whole: b"",
        lambda whole: whole + b"x",
    ],
    ids=["cut short", "one byte another", "empty", "longer"],
)
async def test_a_damaged_copy_is_no_copy(place: Place, change: Callable[[bytes], bytes]) -> None:
    assert await place.runs.keep(1, HEAD, pieces(ROWS)) is not None
    place.spoil(change)
    assert await place.runs.find(1, HEAD) is None
    again = await place.runs.keep(1, HEAD, pieces(ROWS))
    assert again is not None and bytes(again) == OUTLINE + ROWS


async def test_other_rows_make_no_copy(place: Place) -> None:
    assert await place.runs.keep(1, HEAD, pieces(ROWS[1:])) is None
    assert await place.runs.find(1, HEAD) is None


async def test_rows_that_break_off_leave_nothing(place: Place) -> None:
    async def broken() -> AsyncIterator[Buffer]:
        yield ROWS[:16]
        raise KeyError

    with pytest.raises(KeyError):
        await place.runs.keep(1, HEAD, broken())
    assert await place.runs.find(1, HEAD) is None


# ------------------------------------------------------------------------------------------------------- the folder


async def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert await LocalFolder(tmp_path / "file", 1_000).keep(1, HEAD, pieces(ROWS)) is None


async def test_what_was_used_longest_ago_goes_first_and_a_copy_in_use_stays_readable(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path, 100)  # two of 40 bytes
    heads = [RunHead(2, number, 2, OUTLINE, HEAD.digest) for number in range(3)]
    first = await folder.keep(1, heads[0], pieces(ROWS))
    await folder.keep(1, heads[1], pieces(ROWS))
    for at, head in enumerate((heads[1], heads[0])):  # as if the first had been found again since
        path = folder.path(1, head)
        os.utime(path, (at, at))
    await folder.keep(1, heads[2], pieces(ROWS))
    assert [await folder.find(1, head) is not None for head in heads] == [True, False, True]
    for path in files_of(tmp_path):
        path.unlink()
    assert first is not None and bytes(first) == OUTLINE + ROWS


async def test_nothing_unfinished_is_left(tmp_path: Path) -> None:
    """Nor what a process left that died in the middle."""
    folder = LocalFolder(tmp_path, 1_000)
    left = tmp_path / ".1-0.unfinished"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    await folder.keep(1, HEAD, pieces(ROWS))
    await folder.keep(1, HEAD, pieces(ROWS[2:]))
    assert [path for path in files_of(tmp_path) if path.name.startswith(".")] == []
