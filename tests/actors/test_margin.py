"""Margin from the topics: the newest line of each place counts."""

from collections.abc import AsyncGenerator

import msgspec
import orjson
import pytest

from actors.margin import EVENT_RECORDS_MAX, RequestMargins, TooMuch, find_margins
from actors.ports import Record
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import request_line, window_line
from engine.cost.margin import By
from engine.cost.replica import RequestCost, WindowCost
from engine.cost.served import Served
from engine.cost.window import Bucket

H = 490_000 * HOUR_US


class Kept(msgspec.Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Topics:
    """Each topic is one partition of blocks, appended at the hour's start."""

    def __init__(self, **blocks: list[bytes]) -> None:
        self.records = {
            topic: [Kept(offset, H // 1_000, None, block) for offset, block in enumerate(some)]
            for topic, some in blocks.items()
        }

    async def partitions(self, topic: str) -> int:
        return 1

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.records[topic])

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        kept = self.records[topic]
        return next((record.offset for record in kept if record.timestamp >= append_ms), len(kept))

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        for record in self.records[topic][offset:end]:
            yield record


def rated(offset: int, request: str, amount: str, epoch: int = 1, **more: object) -> bytes:
    line = {
        "partition": 0,
        "offset": offset,
        "line": 0,
        "epoch": epoch,
        "account": "acme",
        "id": request,
        "time_us": H + 5,
    }
    return orjson.dumps(line | {"amount": amount, "currency": "USD", "cell": {"model": "m"}} | more)


def request(name: str, amount: int | None, seq: int, run: str | None = None) -> bytes:
    served = Served(name, "r", "m", H, H, H + 9, 10, output=1, account="acme", feature="chat", run=run)
    return request_line(RequestCost(served, H, amount, True, True, 0), "USD", 1, seq)


def window(cost: int | None, direct: int, seq: int) -> bytes:
    buckets = dict.fromkeys(Bucket, 0) | {Bucket.DIRECT: direct, Bucket.HARD_IDLE: (cost or direct) - direct}
    return window_line(WindowCost("r", H, cost, buckets, True), "USD", 1, seq)


async def test_the_newest_lines_of_both_topics_are_joined_by_request() -> None:
    topics = Topics(
        rated=[
            rated(1, "a", "5") + b"\n" + rated(2, "b", "3"),
            rated(1, "a", "4", epoch=2),  # a takeover: it takes the place of the first
            rated(3, "due", "9", due="fee"),
            rated(4, "a", "7", time_us=H + HOUR_US),  # behind the stretch
            b"{",
        ],
        costs=[
            request("a", 10**12, 1) + b"\n" + window(3, 1, 1),
            request("a", 2 * 10**12, 2) + b"\nnothing",
            window(5, 2, 2),
        ],
    )
    answer = await find_margins(topics, "rated", "costs", H, H + HOUR_US, [By.REQUEST, By.FEATURE])
    found = [(key.request, key.feature, sums.revenue, sums.cost) for key, sums in answer.rows]
    assert found == [("b", "", 3 * 10**12, None), ("a", "chat", 4 * 10**12, 2 * 10**12)]
    assert answer.buckets["USD", Bucket.DIRECT] == 2
    assert answer.buckets["USD", Bucket.HARD_IDLE] == 3
    assert (answer.windows_without_cost, answer.unreadable) == (0, 2)


async def test_windows_without_a_known_cost_are_counted_beside_what_is_known_of_them() -> None:
    """As the rows in Postgres have it."""
    nothing = window_line(WindowCost("r", H + 1, None, dict.fromkeys(Bucket, 0), True), None, 1, 1)
    topics = Topics(rated=[], costs=[window(None, 3, 1), nothing])
    answer = await find_margins(topics, "rated", "costs", H, H + HOUR_US, [])
    known = {key: amount for key, amount in answer.buckets.items() if amount}
    assert (answer.rows, known, answer.windows_without_cost) == ([], {("USD", Bucket.DIRECT): 3}, 2)


async def test_one_request_is_found_among_all_others() -> None:
    topics = Topics(
        rated=[rated(1, "a", "5") + b"\n" + rated(2, "ab", "3"), rated(1, "a", "4", epoch=2)],
        costs=[request("a", 10**12, 1) + b"\n" + window(3, 1, 1), request("ab", 7, 1), request("a", 2 * 10**12, 2)],
    )
    margins = RequestMargins(topics, "rated", "costs", 1)
    ((key, sums),) = await margins.of("acme", "a", H)
    assert (key.feature, key.hour_us, sums.revenue, sums.cost) == ("chat", H, 4 * 10**12, 2 * 10**12)
    assert await margins.of("zen", "a", H) == []
    assert await margins.of("acme", "b", H) == []
    assert await margins.of("acme", "a", H - 2 * HOUR_US) == [], "nothing was appended at that time"


async def test_more_than_one_question_may_cost_is_not_read() -> None:
    many = [rated(number, "a", "1") for number in range(3)]
    topics = Topics(rated=many, costs=[])
    assert EVENT_RECORDS_MAX == 50_000
    topics.records["rated"] *= EVENT_RECORDS_MAX // 3 + 1
    with pytest.raises(TooMuch, match="50000 records"):
        await RequestMargins(topics, "rated", "costs", 1).of("acme", "a", H)
