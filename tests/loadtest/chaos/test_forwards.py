"""What lies in the wrong partition must stand in the right one, byte for byte; that it does is asked over all partitions."""

from typing import Any

import orjson
import pytest

from loadtest.chaos.acknowledged import digest_of
from loadtest.chaos.forwards import Fold, Forward, nowhere
from loadtest.oracle.records import partition_of

KEY = b"a control key of thirty-two bytes"
HOME = partition_of(b"acme", 4)
OTHER = (HOME + 1) % 4
EVENT = orjson.dumps({"specversion": "1.0", "id": "e1", "source": "gw", "type": "call", "subject": "acme", "data": {}})
CALLS: dict[str, Any] = {"event_type": "call", "aggregation": "count", "field": None, "group_by": []}


@pytest.mark.parametrize("key", [b"acme", None])
def test_what_belongs_elsewhere_is_noted_with_the_bytes_that_it_must_have_there(key: bytes | None) -> None:
    fold = Fold({1: {"meters": {"calls": CALLS}, "plans": {}}}, KEY, "usage", 4)
    assert fold.feed(OTHER, 3, 1, key, EVENT) == "forwarded"
    assert fold.feed(OTHER, 4, 1, b"", EVENT) == "dead_lettered.malformed"
    assert fold.forwards == [Forward(OTHER, 3, HOME, digest_of(b"acme", EVENT))]
    assert fold.dead_letters == {4: "malformed"}


def test_one_that_never_arrived_is_named_and_one_that_did_is_not() -> None:
    forwards = [Forward(OTHER, 3, HOME, b"a"), Forward(OTHER, 5, HOME, b"b"), Forward(OTHER, 6, HOME, b"b")]
    assert nowhere(forwards, {HOME: [b"a", b"b", b"c"]}) == []
    gone = "expected to be forwarded, found nowhere in partition"
    assert nowhere(forwards, {HOME: [b"b"], OTHER: [b"a"]}) == [f"partition {OTHER}, offset 3: {gone} {HOME}"]
    assert len(nowhere(forwards, {})) == 3
