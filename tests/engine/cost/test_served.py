"""What stands in a record of the topic `served`, and what is refused."""

import json
from typing import Any

import pytest

from engine.cost.served import (
    SPAN_US_MAX,
    TIME_US_MAX,
    GpuPart,
    ReplicaUp,
    Served,
    Status,
    encode_served,
    parse_served,
)
from engine.events import VALUE_BYTES_MAX, Malformed

SERVED = {
    "kind": "served",
    "request": "req-1",
    "replica": "llama-0",
    "model": "llama-70b",
    "scheduled_us": 1_000_000,
    "first_us": 1_200_000,
    "last_us": 3_000_000,
    "prompt": 1_200,
}
REPLICA = {
    "kind": "replica",
    "replica": "llama-0",
    "model": "llama-70b",
    "up_us": 5,
    "gpus": [{"gpu": "GPU-1", "kind": "h100"}],
}


def parsed(record: dict[str, Any], key: bytes | None = b"llama-0") -> Served | ReplicaUp:
    return parse_served(json.dumps(record).encode(), key)


def test_what_is_left_out_has_its_default() -> None:
    assert parsed(SERVED) == Served("req-1", "llama-0", "llama-70b", 1_000_000, 1_200_000, 3_000_000, 1_200)
    assert parsed(REPLICA) == ReplicaUp("llama-0", "llama-70b", (GpuPart("GPU-1", "h100"),), 5)


def test_a_record_is_read_back_as_it_was_written() -> None:
    whole = Served(
        *("r", "llama-0", "m", 1, None, 9, 7, 7, 0, Status.ABORTED, "acme", "team:red/user:ann", "chat", 2, 3),
    )
    cut = ReplicaUp("llama-0", "m", (GpuPart("GPU-1", "h100", 0, 3, 7), GpuPart("GPU-1", "h100", 3, 7, 7)), 5, 6, 7, 1)
    for record in (whole, cut):
        key, value = encode_served(record)
        assert parse_served(value, key) == record


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"request": ""}, "request"),
        ({"request": "a\0"}, "NUL"),
        ({"request": "r" * 257}, "request"),
        ({"model": 5}, "model"),
        ({"first_token_us": 5}, "first_token_us"),
        ({"kind": "serve"}, "kind"),
        ({"scheduled_us": -1}, "scheduled_us"),
        ({"scheduled_us": 1.5}, "scheduled_us"),
        ({"last_us": TIME_US_MAX + 1}, "last_us"),
        ({"first_us": 999_999}, "follow"),
        ({"last_us": 1_199_999}, "follow"),
        ({"last_us": 1_000_001 + SPAN_US_MAX}, "behind"),
        ({"cached": 1_201}, "cached: 1201 of 1200"),
        ({"first_us": None, "output": 1}, "output"),
        ({"prompt": 1_000_000_001}, "prompt"),
        ({"output": -1}, "output"),
        ({"status": "done"}, "done"),
        ({"account": ""}, "account"),
        ({"account": "acme", "scope": "team red"}, "scope 'team red'"),
        ({"scope": "team:red"}, "without its account"),
        ({"seq": True}, "seq"),
        ({"attempt": 1_001}, "attempt"),
    ],
)
def test_an_execution_that_makes_no_sense_is_refused_by_the_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parsed(SERVED | change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gpus": []}, "gpus"),
        ({"gpus": [{"gpu": "GPU-1"}]}, "kind"),
        ({"gpus": [{"gpu": "GPU-1", "kind": "h100", "begin": 3, "end": 3, "of": 7}]}, "from 3 to 3 of 7"),
        ({"gpus": [{"gpu": "GPU-1", "kind": "h100", "begin": 3, "end": 8, "of": 7}]}, "from 3 to 8 of 7"),
        ({"gpus": [{"gpu": "GPU-1", "kind": "h100"}] * 2}, "twice"),
        ({"ready_us": 4}, "follow"),
        ({"ready_us": 9, "down_us": 8}, "follow"),
        ({"replica": "llama-1"}, "the key is not the replica 'llama-1'"),
    ],
)
def test_a_replica_that_makes_no_sense_is_refused_by_the_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parsed(REPLICA | change)


def test_the_key_is_the_replica() -> None:
    for key in (None, b"", b"llama-1"):
        with pytest.raises(Malformed, match="send it as the key"):
            parsed(SERVED, key)


def test_what_is_no_record_is_refused() -> None:
    for value in (None, b"", b"{", b"[" * 5_000, b"\xff", b"x" * (VALUE_BYTES_MAX + 1)):
        with pytest.raises(Malformed):
            parse_served(value, b"llama-0")


def test_a_producer_is_told_before_it_sends() -> None:
    with pytest.raises(Malformed, match="cached"):
        encode_served(Served("r", "llama-0", "m", 1, 2, 3, prompt=5, cached=6))
