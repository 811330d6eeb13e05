"""What to do about a record that was set aside, by the reason why it was."""

from collections.abc import Mapping
from typing import Final

from engine.outcomes import DeadLetterReason as Why

_AGAIN: Final = "send it again: an administrator by POST {redrive}, its sender under the same id and source."
_CORRECTED: Final = "Correct it, and " + _AGAIN
_FROM_THEN_ON: Final = (
    "It is in force from its instant on, and an event is rated by what is in force at its own time: so send the event with a "
    "`time` behind that instant, by POST {redrive}."
)

_REMEDIES: Final[Mapping[str, str]] = {
    Why.TOO_LARGE: "A usage event has at most 65,536 bytes: leave out of `data` what no meter reads. " + _CORRECTED,
    Why.MALFORMED: _CORRECTED,
    Why.BAD_MAC: (
        "Find out who writes to the topic without the deployment's control key. If it was the deployment itself: give all its "
        "processes the same key, then send the command again."
    ),
    Why.BAD_CONTROL: "Send the command again through the API, which knows its form.",
    Why.UNKNOWN_ACCOUNT: "Open the account by POST /v1/customers, then " + _AGAIN,
    Why.BAD_HOLD: "The token is another deployment's or another account's: leave `hold` out. " + _CORRECTED,
    Why.MISSING_TIME: _CORRECTED,
    Why.TOO_FAR_AHEAD: "Set the sender's clock. Once the time that the event states has come, " + _AGAIN,
    Why.TOO_OLD: (
        "Events are rated for 35 days: later nobody could say whether this one was rated before. What it is worth is settled "
        "outside, or by POST /v1/customers/{account}/grants."
    ),
    Why.ID_CONFLICT: (
        "Another event was rated under its id and source. If both happened, this one needs an id of its own; if this one is "
        "right, amend the one that was rated."
    ),
    Why.NO_METER: "Publish a catalogue that has a meter for its type. " + _FROM_THEN_ON,
    Why.BAD_QUANTITY: _CORRECTED,
    Why.BAD_DIMENSION: _CORRECTED,
    Why.BAD_USAGE: "Its token counts do not fit each other, or not the shape that it states. " + _CORRECTED,
    Why.NO_PRICE: (
        "Publish a catalogue in which the account's plan has a price for it; free is an amount of 0. " + _FROM_THEN_ON
    ),
    Why.TOO_MANY_CELLS: (
        "A dimension has too many values for one account: publish a catalogue in which the meter does not group by it. "
        + _FROM_THEN_ON
    ),
    Why.TOO_MANY_VALUES: (
        "A period of the account has as many different values as the meter's `limit` allows: publish a catalogue with a higher "
        "one. "
        + _FROM_THEN_ON
        + " Or it is a level older than the 1,000 that are kept of its session: send such in time."
    ),
    Why.BAD_SESSION: _CORRECTED,
    Why.SESSION_CONFLICT: (
        "Every event of a session states the same dimensions, weight and scope: correct it, or give what it tells of a session "
        "id of its own. Then " + _AGAIN
    ),
    Why.TOO_MANY_SESSIONS: (
        "The account has 10,000 sessions of the last 35 days, the most that are kept: report longer sessions, or what is "
        "already over as a sum of seconds. When older ones are forgotten, " + _AGAIN
    ),
    Why.BAD_STREAM: (
        "It has a `seq`, and the catalogue has no `streams` of its type: publish one that does. " + _FROM_THEN_ON
    ),
    Why.STREAM_OVER: (
        "Its stream was open for the catalogue's `window_s`, or its id was rated without a `seq`: settle what it is worth by "
        "POST /v1/customers/{account}/adjustments."
    ),
    Why.TOO_MANY_STREAMS: (
        "The account has 10,000 open streams: give them a shorter `window_s` in the catalogue. When older ones are over, "
        + _AGAIN
    ),
    Why.NOT_CANCELLABLE: (
        "It tells of a session, which a later stop or level corrects; or it counts in a max, min or latest that has had more "
        "corrections than its meter keeps change_points, so that nobody knows what would count in its place: publish more for "
        "the periods to come, and settle what it is worth by POST /v1/customers/{account}/adjustments."
    ),
    Why.ENGINE_ERROR: (
        "It broke the engine, which is the engine's fault: report it with partition and offset. Once that is mended, "
        + _AGAIN
    ),
    Why.BAD_CORRECTION: "A correction keeps account, id, source and hold of its original: send one that does.",
    Why.CORRECTION_MISMATCH: "It carries another event than the one that was rated: look at that one, and carry it as it is.",
    Why.SUPERSEDED: "The event was corrected before: correct what it was amended to, with the next `revision`.",
    Why.TOO_MANY_PARKED: "Many corrections of the account wait for events that have not come: send those, then this one again.",
}


def remedy(reason: str, account: str, partition: int, offset: int) -> str:
    """The next step for whoever finds the record."""
    text = _REMEDIES.get(reason, "Mend the cause, then " + _AGAIN)
    return text.format(redrive=f"/v1/dead-letters/{partition}/{offset}/redrive", account=account)
