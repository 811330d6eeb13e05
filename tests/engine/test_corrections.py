"""What a record that corrects an event says, and may not change."""

import json
from typing import Any

import pytest

from engine.corrections import AMEND, CANCEL, BadCorrection, read_correction
from engine.events import Malformed, UsageEvent
from tests.engine.bench import START, cloud_event


def record(kind: str, **data: Any) -> UsageEvent:
    return UsageEvent("c", "support", kind, None, None, data)


EVENT = json.loads(cloud_event("e", START, data={"model": "x", "units": 1}))


def test_a_cancel_carries_the_event_and_an_amend_both() -> None:
    cancel = read_correction("acme", record(CANCEL, original=EVENT))
    assert (cancel.original.id, cancel.amended, cancel.revision, cancel.kind) == ("e", None, 0, "cancel")
    amend = read_correction("acme", record(AMEND, original=EVENT, amended=EVENT | {"type": "other"}, revision=3))
    assert amend.amended is not None
    assert (amend.amended.type, amend.revision, amend.kind) == ("other", 3, "amend")
    assert amend.names == ("e\x003", "e\x004", "e\x00cancelled")


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (CANCEL, {}, "data of tallygate.cancel has original"),
        (CANCEL, {"original": EVENT, "amended": EVENT}, "nothing else"),
        (AMEND, {"original": EVENT}, "original and amended"),
        (CANCEL, {"original": EVENT, "why": "a mistake"}, "nothing else"),
        (CANCEL, {"original": EVENT, "revision": -1}, "data.revision"),
        (CANCEL, {"original": EVENT, "revision": True}, "data.revision"),
        (CANCEL, {"original": EVENT, "revision": "1"}, "data.revision"),
        (CANCEL, {"original": "e"}, "data.original: "),
        (AMEND, {"original": EVENT, "amended": EVENT | {"id": ""}}, r"data.amended: .* of length >= 1 - at `\$.id`"),
    ],
)
def test_what_cannot_be_read_says_where(kind: str, data: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        read_correction("acme", record(kind, **data))


@pytest.mark.parametrize(
    ("original", "amended", "said"),
    [
        (EVENT | {"subject": "other"}, EVENT, "data.original is of account 'other'"),
        (EVENT, EVENT | {"subject": "other"}, "data.amended is of account 'other'"),
        (EVENT | {"seq": 1}, EVENT, "data.original is of a stream"),
        (EVENT, EVENT | {"seq": 1}, "data.amended is of a stream"),
        (EVENT, EVENT | {"id": "f"}, "another id"),
        (EVENT, EVENT | {"source": "f"}, "another source"),
        (EVENT, EVENT | {"hold": "token"}, "another hold"),
        (EVENT | {"hold": "t"}, EVENT | {"hold": "t", "holdfinal": False}, "another holdfinal"),
        (EVENT | {"type": CANCEL}, EVENT, "data.original is itself a correction"),
        (EVENT, EVENT | {"type": AMEND}, "data.amended is itself a correction"),
    ],
)
def test_what_a_correction_may_not_change(original: dict[str, Any], amended: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCorrection, match=said):
        read_correction("acme", record(AMEND, original=original, amended=amended))
