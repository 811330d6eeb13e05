"""The clock of a sandbox: an admin key moves log time forward, and a year of billing passes in a minute.

Log time belongs to partitions, so all of them move, and every account with them. Where money is real there is no such
deployment: the production profile refuses the setting.
"""

from typing import Final

import msgspec
from msgspec import Struct

from actors.ports import LogUnavailable, Outgoing
from actors.web.acts import ACT_DEADLINE_S, ACT_TEXT, Entry, administered
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, unavailable
from engine.events import Advance, seal


class AdvanceRequest(Struct, forbid_unknown_fields=True):
    """When it is to be."""

    until: str


class AdvanceAnswer(Struct):
    """The instant that every partition is told, and how many there are."""

    until: str
    partitions: int


async def advance(call: Call, entry: Entry) -> Reply:
    """POST /v1/sandbox/clock."""
    settings = call.services.settings
    if not settings.sandbox:
        raise Problem(
            409,
            "no-sandbox",
            "This deployment is no sandbox",
            "Its clock is that of the log.",
            next_step="Start one of its own with TALLYGATE_SANDBOX=true; never where money is real.",
        )
    until_us = read_instant("until", call.body.until)
    assert until_us is not None
    body = msgspec.json.encode(Advance(until_us))
    partitions = range(settings.kafka.partitions)
    topic, control_key = settings.kafka.topic_usage, settings.control_key_bytes()
    records = [Outgoing("usage", seal(control_key, topic, each, body), partition=each) for each in partitions]
    try:
        await call.services.appender.append(records)
    except LogUnavailable:
        raise unavailable(
            "The log took no record in time; some partitions may have been told. Send it again."
        ) from None
    entry.after = AdvanceAnswer(instant(until_us), len(partitions))
    return Reply(entry.after)


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/sandbox/clock",
        scope=KeyScope.ADMIN,
        handler=administered("sandbox.advance", advance),
        summary="Move the clock of a sandbox forward",
        description=(
            "Only where the setting `sandbox` is on. Log time becomes `until` in every partition, at most 366 days ahead of "
            "what it is, and stands there until real time has caught up: lots begin and expire, periods end and close, "
            "windows sink, and usage may bear times up to five minutes behind `until`. It never goes back. What the owners "
            "promise by their own clocks (keys, leases, the `expires_in_s` of holds) goes on by real time: settle holds "
            "before. A catalogue that is published afterwards states `effective`, more than five minutes behind `until`."
            + ACT_TEXT
        ),
        tags=("operations",),
        example=Example(
            request={"until": "2027-01-01T00:00:00Z"},
            response={"until": "2027-01-01T00:00:00Z", "partitions": 8},
        ),
        request=AdvanceRequest,
        response=AdvanceAnswer,
        status=202,
        deadline_s=ACT_DEADLINE_S,
        also={
            409: "The deployment is no sandbox.",
            422: "The idempotency key came with another request before.",
            503: "The log is away for now.",
        },
    ),
)
