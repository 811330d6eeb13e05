"""What goes out on the topic `costs`."""

import json

import msgspec
import pytest

from engine.cost.lines import RequestLine, WindowLine, parse_line, request_line, window_line
from engine.cost.replica import RequestCost, WindowCost
from engine.cost.served import Served, Status
from engine.cost.window import Bucket

SERVED = Served(
    "req-1", "r", "m", 1, 2, 3, 10, 4, 5, Status.ABORTED, "acme", "team:red", "chat", attempt=1, run="talk-1"
)


def test_a_request_says_what_it_cost_and_how_that_is_known() -> None:
    line = request_line(RequestCost(SERVED, 0, 1_500_000_000_000, True, False, -5), "USD", 7, 9)
    assert json.loads(line) == {
        "kind": "request",
        "replica": "r",
        "request": "req-1",
        "attempt": 1,
        "hour_us": 0,
        "amount": "1.500000000000",
        "change": "-0.000000000005",
        "currency": "USD",
        "settled": True,
        "method": "equal",
        "account": "acme",
        "scope": "team:red",
        "feature": "chat",
        "model": "m",
        "status": "aborted",
        "prompt": 10,
        "cached": 4,
        "output": 5,
        "epoch": 7,
        "seq": 9,
        "run": "talk-1",
    }
    assert isinstance(parse_line(line), RequestLine)


def test_a_cost_that_is_not_known_is_null() -> None:
    line = parse_line(request_line(RequestCost(SERVED, 0, None, False, True, 0), None, 1, 1))
    assert isinstance(line, RequestLine)
    assert (line.amount, line.method) == (None, "profiled")


def test_a_window_says_where_its_cost_went() -> None:
    buckets = dict.fromkeys(Bucket, 0) | {Bucket.HARD_IDLE: 3}
    line = parse_line(window_line(WindowCost("r", 10, 3, buckets, False), "USD", 1, 2))
    assert isinstance(line, WindowLine)
    assert (line.cost, line.buckets[Bucket.HARD_IDLE], line.buckets[Bucket.DIRECT]) == (
        "0.000000000003",
        "0.000000000003",
        "0",
    )


def test_what_is_no_line_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        parse_line(b'{"kind":"request"}')
