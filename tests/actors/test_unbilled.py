"""The reconciler over the topics, from a reader that has them in memory."""

from collections.abc import AsyncIterator

import msgspec

from actors.ports import Record
from actors.unbilled import Answer, PriceNames, Topics, as_rows, find_unbilled
from engine.cost.served import Served, Status, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.cost.unbilled import Tokens

TOPICS = Topics("t", "s", "r")
AT_S = 1_764_374_400
AT_US = AT_S * 1_000_000


class Memory:
    """Topics of one partition each."""

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[bytes | None, bytes | None]]] = {"t": [], "s": [], "r": []}
        self.asked_ms: list[int] = []

    async def partitions(self, topic: str) -> int:
        return 1

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.records[topic])

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        self.asked_ms.append(append_ms)
        return 0

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncIterator[Record]:
        for number, (key, value) in enumerate(self.records[topic][offset:end], start=offset):
            yield Kept(number, key, value)


class Kept(msgspec.Struct):
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    timestamp_type: int = 1


def counter(second: int, generated: int) -> tuple[bytes, bytes]:
    values = {Metric.GENERATED: generated}
    return encode_sample(Sample(SourceKind.ENGINE, "llama-0", AT_US + second * 1_000_000, values))


def ran(request: str, output: int, status: Status = Status.OK) -> tuple[bytes, bytes]:
    begin = AT_US + 10_000_000
    record = Served(request, "llama-0", "m", begin, begin + 1, begin + 20_000_000, 100, output=output, status=status)
    return encode_served(record)


def line(offset: int, event: str, price: str, quantity: str, epoch: int = 1, number: int = 0) -> bytes:
    return msgspec.json.encode(
        {"partition": 0, "offset": offset, "line": number, "epoch": epoch, "id": event, "price": price}
        | {"quantity": quantity}
    )


def memory() -> Memory:
    topics = Memory()
    topics.records["t"] = [counter(0, 5), counter(60, 105), (b"x", b"{")]
    topics.records["s"] = [ran("a", 40), ran("b", 30, Status.ABORTED), ran("c", 20), (b"x", b"{")]
    topics.records["r"] = [
        (None, line(7, "a", "in", "100") + b"\n" + line(7, "a", "out", "38", number=1)),
        (None, line(8, "z", "out", "5")),
    ]
    return topics


async def find(topics: Memory, generated: frozenset[str] = frozenset()) -> Answer:
    return await find_unbilled(topics, TOPICS, AT_US, AT_US + 3_600_000_000, PriceNames(generated=generated))


async def test_the_gap_is_named_to_the_token() -> None:
    answer = await find(memory())
    assert answer.unreadable == 2
    assert answer.found.total() == Tokens(counted=100, rated=40, aborted=30, missing=20)
    assert answer.found.total().unseen == 10


async def test_with_prices_named_what_was_billed_is_counted_as_billed() -> None:
    answer = await find(memory(), frozenset(["out"]))
    assert answer.found.total() == Tokens(counted=100, rated=38, short=2, aborted=30, missing=20)


async def test_lines_told_again_by_a_later_epoch_count_once() -> None:
    topics = memory()
    topics.records["r"].append((None, line(7, "a", "out", "38", epoch=2, number=1)))
    answer = await find(topics, frozenset(["out"]))
    assert answer.found.total().rated == 38


async def test_counters_outside_the_stretch_are_left_out() -> None:
    topics = memory()
    topics.records["t"] += [counter(-60, 0), counter(3_600, 999)]
    assert (await find(topics)).found.total().counted == 100


async def test_topics_are_read_from_a_while_before() -> None:
    topics = memory()
    await find(topics)
    assert set(topics.asked_ms) == {AT_S * 1_000 - 3_600_000}


async def test_rows_have_their_minute() -> None:
    rows = as_rows((await find(memory())).found)
    assert rows[0]["minute_us"] == AT_US - AT_US % 60_000_000
    assert (rows[0]["replica"], rows[0]["side"], rows[0]["unbilled"]) == ("llama-0", "generated", 60)
