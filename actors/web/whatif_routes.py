"""What a stretch cost and earned by model and customer, and what it would under other rates, prices or use, over HTTP."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from actors.ports import LogDamaged, LogUnavailable, StoreRefused, StoreUnavailable
from actors.web.times import read_instant
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, invalid, unavailable
from actors.whatif import TooMuch, WhatIf, whole_hours
from actors.whatif_view import WhatIfAnswer, shown
from engine.cost.whatif import Change, Scenario
from engine.events import Malformed

RECORDS_MAX: Final = 200_000  # of one question: a replica answers others meanwhile
DEADLINE_S: Final = 120.0
HOURS_MAX: Final = 24 * 35

_Time = Annotated[str, Meta(max_length=64)]


class WhatIfRequest(Struct, forbid_unknown_fields=True):
    """The hours that begin in [from, to), and what is otherwise in the projection."""

    from_: _Time = msgspec.field(name="from")
    to: _Time
    change: Change = Change()


async def what_if(call: Call) -> Reply:
    """POST /v1/whatif."""
    asked: WhatIfRequest = call.body
    since_us, to_us = read_instant("from", asked.from_), read_instant("to", asked.to)
    assert since_us is not None
    assert to_us is not None
    from_us, until_us = whole_hours(since_us, to_us)
    if not 0 < until_us - from_us <= HOURS_MAX * 3_600_000_000:
        raise invalid("to", f"No hour begins between from and to, or more than {HOURS_MAX} do.")
    whatif: WhatIf = call.services.whatif
    if whatif.busy:
        raise unavailable("Another question of this kind is being answered.", 10)
    try:
        scenario = Scenario(asked.change)
        found = await whatif.ask(scenario, from_us, until_us, call.services.clock.wall_us(), records_max=RECORDS_MAX)
    except Malformed as error:
        raise invalid("change", str(error)) from None
    except TooMuch as error:
        raise Problem(
            422,
            "too-many-records",
            "Too many records",
            f"{error}.",
            next_step="Ask for fewer hours, or use `tallygate whatif`, which reads as many as there are.",
        ) from None
    except (LogUnavailable, LogDamaged, StoreUnavailable, StoreRefused):
        raise unavailable("The topics or the checkpoints of cost cannot be read now.", 10) from None
    return Reply(shown(found, scenario.margin_ppm))


_BUCKETS: Final = {"direct": "6", "cold_start": "0", "hard_idle": "4", "unattributed": "0", "overhead": "1"}
_TOKENS: Final = {
    "uncached_input": {"tokens": 2000000, "direct": "1", "loaded": "1.833333333333", "price_floor": "4.583333333334"},
    "cached_input": {"tokens": 0, "direct": None, "loaded": None, "price_floor": None},
    "output": {"tokens": 400000, "direct": "10", "loaded": "18.333333333333", "price_floor": "45.833333333334"},
}
_MODEL: Final = {
    "model": "atlas-large",
    "requests": 1000,
    "direct": "6",
    "loaded": "11",
    "revenue": "20",
    "margin": "9",
    "unsplit": "0",
    "tokens": _TOKENS,
    "projected_month": {"cost": "7920", "revenue": "14400", "margin": "6480"},
}
_CUSTOMER: Final = {
    "model": "atlas-large",
    "account": "acme",
    "direct": "6",
    "loaded": "11",
    "revenue": "20",
    "margin": "9",
}
_ACTUAL: Final = {
    "is_projection": False,
    "buckets": _BUCKETS,
    "utilisation_percent": "60",
    "unspread": "0",
    "unknown": 0,
    "models": [_MODEL],
    "customers": [_CUSTOMER],
}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/whatif",
        scope=KeyScope.ADMIN,
        handler=what_if,
        summary="What hours cost and earned, and what they would have",
        description=(
            "By model and customer: direct cost, cost loaded with a share of what no request took, revenue, margin; by model "
            "what 1,000,000 tokens of each class cost, the price that leaves the target margin, and the month that comes of "
            "it. `actual` is what the records of these hours come to; `projection` the same records under `change`: other "
            "GPU rates by kind, prices by a factor, another utilisation, another bearer of idle time. Nothing is changed. "
            "One question at a time, of at most 200,000 executions."
        ),
        tags=("operations",),
        example=Example(
            request={
                "from": "2026-11-22T10:00:00Z",
                "to": "2026-11-22T11:00:00Z",
                "change": {"target_margin_percent": "60"},
            },
            response={
                "from": "2026-11-22T10:00:00Z",
                "to": "2026-11-22T11:00:00Z",
                "currency": "USD",
                "target_margin_percent": "60",
                "actual": _ACTUAL,
                "projection": {**_ACTUAL, "is_projection": True},
                "differs": {},
                "other_currencies": [],
                "records": 1000,
            },
        ),
        request=WhatIfRequest,
        response=WhatIfAnswer,
        deadline_s=DEADLINE_S,
        also={
            422: "More executions than one question may have.",
            503: "Another question is being answered, or the topics or Postgres are away.",
        },
    ),
)
