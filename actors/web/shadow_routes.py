"""Shadows of catalogue drafts over HTTP: live usage rated a second time under a draft, beside what it is charged."""

from fractions import Fraction
from typing import Any, Final, Literal

from msgspec import Struct, field, structs

from actors.drafts import DraftUnknown
from actors.dryrun import Customer, Takings
from actors.shadow_store import (
    SHADOWS_MAX,
    NoShadow,
    ShadowFound,
    ShadowPartition,
    ShadowRuns,
    TooManyShadows,
)
from actors.web.acts import ACT_DEADLINE_S, ACT_TEXT, Entry, administered
from actors.web.operations import BadDocument, telling_faults
from actors.web.times import instant, instant_or_none
from actors.web.wire import Call, Example, KeyScope, Problem, QueryParameter, Reply, Route, absent
from engine.catalog import BadCatalogue, check_succession, read_document
from engine.money import amount_text

CUSTOMERS_SHOWN: Final = 20
CUSTOMERS_MAX: Final = 1_000


class ShadowTakings(Struct):
    """Charges before credit, of usage since `from`: as published and under the draft. `percent` is of `before`; null: that
    is 0."""

    currency: str
    events: int
    events_after: int
    before: str
    after: str
    difference: str
    percent: str | None


class ShadowTotal(ShadowTakings):
    customers: int


class ShadowPlan(ShadowTakings):
    plan: str
    customers: int


class ShadowCustomer(ShadowTakings):
    account: str
    plan: str


class ShadowTurn(Struct):
    """Records that come out otherwise under the draft."""

    outcome: str
    outcome_after: str
    records: int
    partition: int
    first_offset: int
    detail: str


class ShadowPlace(Struct):
    """How far a partition of the log has been rated both ways. Null: it has not begun."""

    partition: int
    base_offset: int | None  # of the checkpoint that it began with
    from_: str | None = field(name="from")  # event time from which the draft is in force here
    offset: int | None
    log_time: str | None
    trouble: str | None  # why it does not get on


class ShadowView(Struct):
    draft: int
    state: Literal["running", "stopped"]
    started: str
    started_by: str
    stopped: str | None
    stopped_by: str | None
    totals: list[ShadowTotal]
    plans: list[ShadowPlan]
    customers: list[ShadowCustomer]  # the largest differences first
    turns: list[ShadowTurn]
    partitions: list[ShadowPlace]


async def start_shadow(call: Call, entry: Entry) -> Reply:
    """POST /v1/catalogue/drafts/{draft}/shadow."""
    number = _number(call)
    if not call.services.settings.shadow.actors:
        raise Problem(
            409,
            "no-shadow-actors",
            "Nobody would follow it",
            "This deployment has no shadow actors.",
            next_step="Set shadow.actors (TALLYGATE_SHADOW__ACTORS) to 1 or more, and start the deployment again.",
        )
    try:
        draft = await call.services.drafts.get(number)
    except DraftUnknown:
        raise absent("draft") from None
    store = call.services.catalogues
    latest = await store.latest_catalogue_version()
    published = None if latest is None else await store.catalogue(latest)
    if published is not None:
        try:
            check_succession(read_document(published), read_document(draft.body))
        except BadCatalogue as error:
            raise BadDocument(error) from None
    entry.subject = str(number)
    try:
        await call.services.shadows.begin(number, call.actor)
    except ShadowRuns:
        raise Problem(
            409,
            "shadow-runs",
            "It runs already",
            f"Draft {number} has a shadow.",
            next_step="Look at it, or stop it first to begin anew.",
        ) from None
    except TooManyShadows:
        raise Problem(
            409,
            "too-many-shadows",
            "Too many shadows",
            f"{SHADOWS_MAX} shadows run already; each rates all usage twice more.",
            next_step="Stop one that is not needed any more.",
        ) from None
    return Reply(await _view(call, number, None, CUSTOMERS_SHOWN))


async def show_shadow(call: Call) -> Reply:
    """GET /v1/catalogue/drafts/{draft}/shadow."""
    return Reply(await _view(call, _number(call), call.query["account"], call.query["customers"]))


async def stop_shadow(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/catalogue/drafts/{draft}/shadow."""
    number = _number(call)
    entry.subject = str(number)
    try:
        await call.services.shadows.end(number, call.actor)
    except NoShadow:
        raise absent("shadow") from None
    return Reply(await _view(call, number, None, CUSTOMERS_SHOWN))


def _number(call: Call) -> int:
    text = call.params["draft"]
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise absent("draft")
    return int(text)


async def _view(call: Call, draft: int, account: str | None, customers_max: int) -> ShadowView:
    try:
        found: ShadowFound = await call.services.shadows.found(draft, account, customers_max)
    except NoShadow:
        raise absent("shadow") from None
    totals: dict[str, tuple[int, Takings]] = {}
    for each in found.plans:
        customers, sums = totals.setdefault(each.currency, (0, Takings()))
        sums.add(each.takings)
        totals[each.currency] = customers + each.customers, sums
    return ShadowView(
        draft=found.draft,
        state="running" if found.stopped_us is None else "stopped",
        started=instant(found.started_us),
        started_by=found.started_by,
        stopped=instant_or_none(found.stopped_us),
        stopped_by=found.stopped_by,
        totals=[
            ShadowTotal(**_takings(currency, sums), customers=customers)
            for currency, (customers, sums) in sorted(totals.items())
        ],
        plans=[
            ShadowPlan(**_takings(each.currency, each.takings), plan=each.plan, customers=each.customers)
            for each in found.plans
        ],
        customers=[_customer(each) for each in found.customers],
        turns=[
            ShadowTurn(turn.before, turn.after, turn.records, place.partition, turn.offset, turn.detail)
            for place in found.partitions
            for turn in place.turns
        ],
        partitions=[_place(each) for each in found.partitions],
    )


def _takings(currency: str, takings: Takings) -> dict[str, Any]:
    return structs.asdict(
        ShadowTakings(
            *(currency, takings.events_before, takings.events_after),
            *(amount_text(takings.before), amount_text(takings.after), amount_text(takings.difference)),
            _percent(takings),
        )
    )


def _percent(takings: Takings) -> str | None:
    """To two digits, half-even, of what is charged."""
    if not takings.before:
        return None
    hundredths = round(Fraction(takings.difference * 10_000, takings.before))
    sign = "-" if hundredths < 0 else ""
    whole, rest = divmod(abs(hundredths), 100)
    return f"{sign}{whole}.{rest:02}"


def _customer(customer: Customer) -> ShadowCustomer:
    return ShadowCustomer(**_takings(customer.currency, customer.takings), account=customer.account, plan=customer.plan)


def _place(place: ShadowPartition) -> ShadowPlace:
    return ShadowPlace(
        place.partition,
        place.base_offset,
        instant_or_none(place.from_us),
        place.next_offset,
        instant_or_none(place.log_time_us),
        place.trouble or None,
    )


# -------------------------------------------------------------------------------------------------------------- routes

_TAGS: Final[dict[str, Any]] = {"tags": ("operations",)}
_AMOUNTS: Final = {
    "currency": "USD",
    "events": 48,
    "events_after": 48,
    "before": "1.2",
    "after": "1.5",
    "difference": "0.3",
    "percent": "25.00",
}
_STARTED: Final = {
    "draft": 7,
    "state": "running",
    "started": "2026-11-20T09:00:00Z",
    "started_by": "k7Hq2mPz",
    "stopped": None,
    "stopped_by": None,
    "totals": [],
    "plans": [],
    "customers": [],
    "turns": [],
    "partitions": [],
}
_SHOWN: Final = {
    **_STARTED,
    "totals": [{**_AMOUNTS, "customers": 1}],
    "plans": [{**_AMOUNTS, "plan": "starter", "customers": 1}],
    "customers": [{**_AMOUNTS, "account": "acme", "plan": "starter"}],
    "turns": [
        {
            "outcome": "rated",
            "outcome_after": "dead_lettered.no_price",
            "records": 3,
            "partition": 0,
            "first_offset": 5120,
            "detail": "no price for meter images of plan starter",
        }
    ],
    "partitions": [
        {
            "partition": 0,
            "base_offset": 5000,
            "from": "2026-11-20T09:05:00.000001Z",
            "offset": 5200,
            "log_time": "2026-11-20T10:00:00Z",
            "trouble": None,
        }
    ],
}
_STOPPED: Final = {**_SHOWN, "state": "stopped", "stopped": "2026-11-21T09:00:00Z", "stopped_by": "b3Xw9nLc"}
_PATH: Final = "/v1/catalogue/drafts/{draft}/shadow"

ROUTES: Final = (
    Route(
        method="POST",
        path=_PATH,
        scope=KeyScope.ADMIN,
        handler=telling_faults(administered("catalogue.shadow", start_shadow, "draft", shown=False)),
        summary="Start a shadow of a draft",
        description=(
            "From here on live usage is rated a second time under the draft, by actors of their own behind the shards: no "
            "wallet, cap, alert or check sees any of it. In each partition of the log it begins with the newest checkpoint, "
            "and the draft is in force for event times five minutes behind it, as a publication would be; from then on the "
            "charges of both stand side by side, to the pico those of a dry run over the same records. One that was stopped "
            "begins anew." + ACT_TEXT
        ),
        example=Example(params={"draft": "7"}, response=_STARTED),
        response=ShadowView,
        status=201,
        deadline_s=ACT_DEADLINE_S,
        also={
            404: "There is no such draft.",
            409: "It runs already, or too many do, or the deployment has no shadow actors (`shadow.actors`).",
            422: "The draft cannot follow what is published, or the idempotency key came with another request before.",
        },
        **_TAGS,
    ),
    Route(
        method="GET",
        path=_PATH,
        scope=KeyScope.ADMIN,
        handler=show_shadow,
        summary="Show what live usage is charged under a draft",
        description=(
            "Charges before credit, as published and under the draft: in total by currency, by plan, and of the customers "
            "with the largest differences, or of one `account`. `partitions` says up to where the log has been rated; "
            "`turns` which records come out otherwise, such as usage that the draft has no price for."
        ),
        example=Example(params={"draft": "7"}, response=_SHOWN),
        response=ShadowView,
        query=(
            QueryParameter("account", "text", "only this customer among `customers`", None, 1, 256),
            QueryParameter("customers", "integer", "how many customers", CUSTOMERS_SHOWN, 0, CUSTOMERS_MAX),
        ),
        also={404: "The draft has no shadow, and never had one."},
        **_TAGS,
    ),
    Route(
        method="DELETE",
        path=_PATH,
        scope=KeyScope.ADMIN,
        handler=administered("catalogue.shadow_stop", stop_shadow, "draft", shown=False),
        summary="Stop a shadow",
        description="What it has found until now can still be read." + ACT_TEXT,
        example=Example(params={"draft": "7"}, response=_STOPPED),
        response=ShadowView,
        deadline_s=ACT_DEADLINE_S,
        also={404: "The draft has no shadow that runs.", 422: "The idempotency key came with another request before."},
        **_TAGS,
    ),
)
