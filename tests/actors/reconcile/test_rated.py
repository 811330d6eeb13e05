"""Rated lines beside the log: the highest epoch of each offset as a set, whatever the order of the blocks."""

import orjson

from actors.ports import LastRecord
from actors.reconcile.rated import RatedTopic, sets_of
from tests.actors.proof_rig import RATED, BenchReader
from tests.simulation.sim_log import SimRecord


def line(offset: int, number: int = 0, epoch: int = 1, amount: str = "1", partition: int = 0) -> bytes:
    return orjson.dumps(
        {"partition": partition, "offset": offset, "line": number, "epoch": epoch, "account": "acme", "amount": amount}
    )


def topic(*blocks: bytes) -> tuple[BenchReader, RatedTopic]:
    reader = BenchReader()
    reader.records[RATED] = [SimRecord(place, 0, None, block) for place, block in enumerate(blocks)]
    return reader, RatedTopic(reader, RATED, 0)


def test_the_highest_epoch_replaces_the_set_and_a_lower_one_behind_it_changes_nothing() -> None:
    blocks = [
        line(5, 0, 1) + b"\n" + line(5, 1, 1) + b"\n" + line(6, 0, 1),
        line(5, 0, 3, "2"),
        line(5, 1, 2, "zombie") + b"\n" + line(6, 0, 1),
    ]
    found = sets_of(blocks, 5, 7)
    assert {offset: (each.epoch, each.lines) for offset, each in found.items()} == {
        5: (3, {0: line(5, 0, 3, "2")}),
        6: (1, {0: line(6, 0, 1)}),
    }
    assert found[6].unlike == [], "the same line again is a repetition"
    assert sets_of(blocks, 6, 7).keys() == {6}


def test_a_line_told_twice_unlike_under_one_epoch_is_kept_apart() -> None:
    found = sets_of([line(5) + b"\n" + line(5, amount="2")], 0, 10)
    assert found[5].lines == {0: line(5)}
    assert found[5].unlike == [(0, line(5, amount="2"))]


async def test_a_stretch_is_read_from_the_blocks_that_tell_of_it() -> None:
    reader, rated = topic(
        line(1) + b"\n" + line(4), line(5), line(9), line(2, epoch=2), line(6) + b"\n" + line(3, epoch=2)
    )
    assert await rated.survey(None) == []
    read: list[tuple[int, int]] = []
    plain = reader.read

    def noting(topic: str, partition: int, offset: int, end: int):  # type: ignore[no-untyped-def]
        read.append((offset, end))
        return plain(topic, partition, offset, end)

    reader.read = noting  # type: ignore[method-assign]
    found = await rated.stretch(2, 4)
    assert sorted(found) == [2, 3]
    assert {each.epoch for each in found.values()} == {2}
    assert read == [(0, 1), (3, 5)], "each run of blocks in one go, and no others"
    assert sorted(await rated.stretch(5, 10)) == [5, 6, 9]
    assert await rated.stretch(10, 20) == {}


async def test_what_was_told_long_before_the_start_is_not_read() -> None:
    reader, rated = topic(line(1), line(2), line(3), line(4))
    for record, minutes in zip(reader.records[RATED], (0, 50, 70, 95), strict=True):
        record.timestamp = minutes * 60_000
    last = LastRecord(2, 60 * 60_000, bytes(16))
    assert await rated.survey(last) == []
    assert sorted(await rated.stretch(0, 10)) == [2, 3, 4], "another broker's clock may be ten minutes behind"


async def test_what_is_no_rated_line_of_the_partition_is_told() -> None:
    _, rated = topic(line(1) + b"\nno JSON", line(2, partition=1), b"")
    told = [str(drift) for drift in await rated.survey(None)]
    assert len(told) == 3
    assert "line in block 0 of rated: expected a rated line of this partition, found no JSON" in told[0]
    assert sorted(await rated.stretch(0, 10)) == [1]
