"""Corrections of usage events: what a record that cancels or amends says, and how it is known again (law D3).

Forms and rules: README.md, "Corrections". Nothing here knows accounts or prices: what a correction does is in
`engine/correcting.py`.
"""

from typing import Any, Final, NamedTuple

from msgspec import Struct

from engine.events import AMEND as AMEND
from engine.events import CANCEL as CANCEL
from engine.events import Malformed, UsageEvent, fingerprint, nested_usage, parse_usage

FORMS: Final = {CANCEL: ("original",), AMEND: ("original", "amended")}  # event type -> the events in its data
REVISIONS_MAX: Final = 1_000_000_000
PARKED_BYTES_MAX: Final = 262_144  # of all records that wait in an account


class BadCorrection(ValueError):
    """The record would change what a correction may not change. The message is for a person."""


class Names(NamedTuple):
    """By which ids, of the same account and source, the duplicate memory knows what a correction is about.

    No id of an event holds a NUL, so none of an event is mistaken for them."""

    corrected: str  # the revision that it corrects
    next: str  # the revision behind that
    cancelled: str  # that the event is cancelled


class Correction(Struct, frozen=True):
    """A cancel (`amended` is None) or an amend of one revision of an event; 0 is the event as it was first sent."""

    original: UsageEvent
    amended: UsageEvent | None
    revision: int

    @property
    def kind(self) -> str:
        """As rated lines name it."""
        return "cancel" if self.amended is None else "amend"

    @property
    def names(self) -> Names:
        event_id = self.original.id
        return Names(
            revision_name(event_id, self.revision),
            revision_name(event_id, self.revision + 1),
            cancelled_name(event_id),
        )

    @property
    def mark(self) -> bytes:
        """The fingerprint of what it corrects."""
        return _mark(self.original)

    @property
    def becomes(self) -> bytes:
        """The fingerprint of what the event is amended to; of a cancel, that of the original."""
        return _mark(self.original if self.amended is None else self.amended)


class Parked(Struct, frozen=True):
    """A correction that waits for what it corrects."""

    until_us: int  # log time from which it waits no more
    value: bytes  # the record


def revision_name(event_id: str, revision: int) -> str:
    """What stands in the place of an event's id for one of its revisions; the first one is the event itself."""
    return f"{event_id}\x00{revision}" if revision else event_id


def cancelled_name(event_id: str) -> str:
    """What stands in the place of an event's id for that it is cancelled."""
    return f"{event_id}\x00cancelled"


def read_correction(account: str, event: UsageEvent) -> Correction:
    """The correction in a record of one of the FORMS. Raises Malformed or BadCorrection."""
    parts = FORMS[event.type]
    if event.data.keys() - {"revision"} != set(parts):
        raise Malformed(f"data of {event.type} has {' and '.join(parts)}, and may have revision; nothing else")
    revision = event.data.get("revision", 0)
    if type(revision) is not int or not 0 <= revision <= REVISIONS_MAX:
        raise Malformed(f"data.revision must be a whole number of 0 to {REVISIONS_MAX}")
    events = [_part(name, event.data[name]) for name in parts]
    for name, part in zip(parts, events, strict=True):
        if part.type in FORMS:
            raise BadCorrection(f"data.{name} is itself a correction; name the event that it corrects")
        if part.seq is not None:
            raise BadCorrection(f"data.{name} is of a stream: send an event with a higher seq instead")
        if part.subject is not None and part.subject != account:
            raise BadCorrection(f"data.{name} is of account {part.subject!r}; a correction stays in its account")
    original, amended = events[0], events[1] if len(events) > 1 else None
    if amended is not None:
        for name, stated in _kept(original).items():
            if _kept(amended)[name] != stated:
                raise BadCorrection(
                    f"data.amended has another {name} than data.original; cancel it and send a new event"
                )
    return Correction(original, amended, revision)


def read_parked(account: str, parked: Parked) -> Correction:
    """The correction that waits."""
    return read_correction(account, parse_usage(parked.value))


def _mark(event: UsageEvent) -> bytes:
    assert event.time_us is not None, "a correction of what has no time is refused"
    return fingerprint(event, event.time_us)


def _kept(event: UsageEvent) -> dict[str, object]:
    """What no amend changes."""
    final = event.hold is not None and event.hold_final  # nothing without a hold
    return {"id": event.id, "source": event.source, "hold": event.hold, "holdfinal": final}


def _part(name: str, value: Any) -> UsageEvent:
    try:
        return nested_usage(value)
    except Malformed as error:
        raise Malformed(f"data.{name}: {error}") from None
