"""A catalogue in two steps over HTTP: somebody drafts it, somebody approves it. Until then it rates nothing."""

from typing import Any, Final, Literal

from msgspec import Raw, Struct, structs

from actors.drafts import Draft, DraftDecided, DraftUnknown
from actors.ports import CatalogueTaken
from actors.publication import Proposed, Published, append_markers, propose
from actors.records import BadCursor, Big, read_cursor, write_cursor
from actors.web.acts import ACT_DEADLINE_S, ACT_TEXT, Entry, administered
from actors.web.customers import bad_cursor
from actors.web.operations import (
    CATALOGUE_BYTES_MAX,
    DOCUMENT_EXAMPLE,
    SHA_EXAMPLE,
    BadDocument,
    PartitionsOfLog,
    read_document_body,
    telling_faults,
)
from actors.web.times import instant, instant_or_none, read_instant
from actors.web.wire import Call, Example, KeyScope, Problem, QueryParameter, Reply, Route, absent
from config.catalogue_diff import difference
from engine.catalog import SKEW_US, BadCatalogue, CatalogueDocument, CatalogueFault, document_json, read_document

_NUMBER_MAX: Final = 2**63 - 1
_NOTHING: Final = CatalogueDocument({}, {})


class DraftItem(Struct):
    """A proposed catalogue. `version` and `effective` are what it became when it was approved."""

    draft: int
    state: Literal["draft", "approved", "discarded"]
    based_on: int  # the newest version when it was drafted; 0: none
    sha256: str
    created: str
    created_by: str
    decided: str | None
    decided_by: str | None
    version: int | None
    effective: str | None


class DraftPage(Struct):
    items: list[DraftItem]
    next_cursor: str | None


class DraftPlan(Struct):
    """What becomes of one plan."""

    plan: str
    currency: str
    kind: Literal["new", "gone", "changed"]
    changes: list[str]


class DraftView(DraftItem):
    """A draft, whole; and what it changes against the version that it was made from."""

    plans: list[DraftPlan]  # those that change
    unpriced: list[str]  # changes of meters that no plan has a price for
    document: Raw  # as POST /v1/catalogue/versions takes it


async def list_drafts(call: Call) -> Reply:
    """GET /v1/catalogue/drafts."""
    limit: int = call.query["limit"]
    try:
        (below,) = read_cursor("drafts", call.query["cursor"], tuple[Big], (_NUMBER_MAX,))
    except BadCursor:
        raise bad_cursor() from None
    drafts: list[Draft] = await call.services.drafts.newest(limit + 1, below)
    shown = drafts[:limit]
    cursor = write_cursor("drafts", shown[-1].draft) if len(drafts) > limit else None
    return Reply(DraftPage([_item(draft) for draft in shown], cursor))


async def show_draft(call: Call) -> Reply:
    """GET /v1/catalogue/drafts/{draft}."""
    return Reply(await _view(call, await _asked_for(call)))


async def add_draft(call: Call, entry: Entry) -> Reply:
    """POST /v1/catalogue/drafts."""
    document = read_document_body(call.body)
    store = call.services.catalogues
    latest: int = await store.latest_catalogue_version() or 0
    if latest and await store.catalogue(latest) == document_json(document):
        fault = CatalogueFault((), f"version {latest} is this very catalogue: there is nothing to approve")
        raise BadDocument(BadCatalogue([fault]))
    try:
        proposed = await propose(document, store=store, clock=call.services.clock)
    except BadCatalogue as error:
        raise BadDocument(error) from None
    draft: Draft = await call.services.drafts.add(document_json(document), proposed.version - 1, call.actor)
    entry.subject, entry.after = str(draft.draft), _item(draft)
    return Reply(await _view(call, draft))


async def approve_draft(call: Call, entry: Entry) -> Reply:
    """POST /v1/catalogue/drafts/{draft}/approve."""
    draft = await _asked_for(call)
    entry.subject, entry.before = str(draft.draft), _item(draft)
    if draft.state == "draft":
        draft = await _approved(call, draft)
    published = _markers_of(call, draft)
    settings = call.services.settings
    await append_markers(published, PartitionsOfLog(call), settings.kafka.topic_usage, settings.control_key_bytes())
    entry.after = _item(draft)
    return Reply(entry.after)


async def _approved(call: Call, draft: Draft) -> Draft:
    """The draft, which has become a version."""
    proposed = await _proposed(call, draft, read_instant("effective", call.query["effective"]))
    if proposed.version != draft.based_on + 1:
        raise _outdated(draft)
    try:
        approved: Draft = await call.services.drafts.approve(
            draft.draft, call.actor, proposed.version, proposed.effective_us
        )
    except CatalogueTaken:
        raise _outdated(draft) from None
    except DraftDecided:
        raise _decided(await _asked_for(call)) from None
    return approved


async def _proposed(call: Call, draft: Draft, effective_us: int | None) -> Proposed:
    assert draft.body is not None
    store = call.services.catalogues
    if (await store.latest_catalogue_version() or 0) != draft.based_on:
        raise _outdated(draft)
    try:
        return await propose(
            read_document(draft.body), store=store, clock=call.services.clock, effective_us=effective_us
        )
    except BadCatalogue as error:
        raise BadDocument(error) from None


def _markers_of(call: Call, draft: Draft) -> Published:
    """What an approved draft puts into force, again if need be: its first approval may have broken off behind the store."""
    if draft.version is None or draft.effective_us is None:
        raise _decided(draft)
    if draft.effective_us and draft.effective_us <= call.services.clock.wall_us() + SKEW_US:
        raise _decided(draft)  # no partition would take its marker any more
    return Published(draft.version, draft.effective_us)


async def discard_draft(call: Call, entry: Entry) -> Reply:
    """POST /v1/catalogue/drafts/{draft}/discard."""
    draft = await _asked_for(call)
    entry.subject, entry.before = str(draft.draft), _item(draft)
    try:
        draft = await call.services.drafts.discard(draft.draft, call.actor)
    except DraftDecided:
        raise _decided(await _asked_for(call)) from None
    entry.after = _item(draft)
    return Reply(entry.after)


async def _asked_for(call: Call) -> Draft:
    text = call.params["draft"]
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise absent("draft")
    try:
        draft: Draft = await call.services.drafts.get(int(text))
    except DraftUnknown:
        raise absent("draft") from None
    return draft


def _outdated(draft: Draft) -> Problem:
    return Problem(
        409,
        "draft-outdated",
        "Made from an older version",
        f"Draft {draft.draft} was made from version {draft.based_on}, and another one was published since: approving it "
        "would undo that one unseen.",
        next_step="Draft the catalogue again, with what was published meanwhile in it; discard this one.",
    )


def _decided(draft: Draft) -> Problem:
    done = f"It was {draft.state} by {draft.decided_by} at {instant(draft.decided_us or 0)}"
    became = f", as version {draft.version} in force from {instant(draft.effective_us or 0)}" if draft.version else ""
    return Problem(
        409,
        "draft-decided",
        "Decided already",
        f"{done}{became}.",
        next_step="Look at GET /v1/catalogue/versions; what is published is changed by the next draft.",
    )


def _item(draft: Draft) -> DraftItem:
    return DraftItem(
        draft.draft,
        draft.state,
        draft.based_on,
        draft.sha256,
        instant(draft.created_us),
        draft.created_by,
        instant_or_none(draft.decided_us),
        draft.decided_by,
        draft.version,
        instant_or_none(draft.effective_us),
    )


async def _view(call: Call, draft: Draft) -> DraftView:
    assert draft.body is not None
    before = await call.services.catalogues.catalogue(draft.based_on) if draft.based_on else None
    found = difference(_NOTHING if before is None else read_document(before), read_document(draft.body))
    plans = [
        DraftPlan(each.plan, each.currency, each.kind, [str(change) for change in each.changes]) for each in found.plans
    ]
    unpriced = [str(change) for change in found.unpriced]
    return DraftView(**structs.asdict(_item(draft)), plans=plans, unpriced=unpriced, document=Raw(draft.body))


# -------------------------------------------------------------------------------------------------------------- routes

_TAGS: Final[dict[str, Any]] = {"tags": ("operations",)}
_DRAFT: Final = {
    "draft": 7,
    "state": "draft",
    "based_on": 1,
    "sha256": SHA_EXAMPLE,
    "created": "2026-11-20T09:00:00Z",
    "created_by": "k7Hq2mPz",
    "decided": None,
    "decided_by": None,
    "version": None,
    "effective": None,
}
_APPROVED: Final = {
    **_DRAFT,
    "state": "approved",
    "decided": "2026-11-20T11:00:00Z",
    "decided_by": "b3Xw9nLc",
    "version": 2,
    "effective": "2026-12-01T00:00:00Z",
}
_DISCARDED: Final = {
    **_DRAFT,
    "state": "discarded",
    "decided": "2026-11-20T11:00:00Z",
    "decided_by": "b3Xw9nLc",
}
_WHOLE: Final = {
    **_DRAFT,
    "plans": [
        {
            "plan": "starter",
            "currency": "USD",
            "kind": "changed",
            "changes": ["price output-large: 12 per 1000000 -> 15 per 1000000 (+25%)"],
        }
    ],
    "unpriced": [],
    "document": DOCUMENT_EXAMPLE,
}

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/catalogue/drafts",
        scope=KeyScope.READ,
        handler=list_drafts,
        summary="List drafts of the catalogue",
        description="Newest first, without their contents: who proposed and who decided, when, and what became of it.",
        example=Example(response={"items": [_APPROVED], "next_cursor": None}),
        response=DraftPage,
        paginated=True,
        **_TAGS,
    ),
    Route(
        method="GET",
        path="/v1/catalogue/drafts/{draft}",
        scope=KeyScope.READ,
        handler=show_draft,
        summary="Show one draft",
        description="With what it changes, for each plan and price, against the version that it was made from.",
        example=Example(params={"draft": "7"}, response=_WHOLE),
        response=DraftView,
        **_TAGS,
    ),
    Route(
        method="POST",
        path="/v1/catalogue/drafts",
        scope=KeyScope.ADMIN,
        handler=telling_faults(administered("catalogue.draft", add_draft, shown=False)),
        summary="Draft a catalogue",
        description=(
            "The body is the whole catalogue, as for a publication, and every fault is told. A draft rates nothing and never "
            "changes: it waits until somebody approves or discards it." + ACT_TEXT
        ),
        example=Example(request=DOCUMENT_EXAMPLE, response=_WHOLE),
        response=DraftView,
        status=201,
        raw_body=("application/json",),
        body_bytes_max=CATALOGUE_BYTES_MAX,
        deadline_s=ACT_DEADLINE_S,
        also={
            422: "The catalogue breaks a law, or is the newest version itself; `errors` lists every fault with its path."
        },
        **_TAGS,
    ),
    Route(
        method="POST",
        path="/v1/catalogue/drafts/{draft}/approve",
        scope=KeyScope.ADMIN,
        handler=telling_faults(administered("catalogue.approve", approve_draft, "draft", shown=False)),
        summary="Approve a draft",
        description=(
            "The draft becomes the next version, in force about six minutes later, or from `effective` on. Only a draft made "
            "from the newest version can be approved, so nobody's change is undone unseen. An approval that broke off is "
            "healed by sending it again, while its instant is more than five minutes ahead." + ACT_TEXT
        ),
        example=Example(params={"draft": "7"}, query={"effective": "2026-12-01T00:00:00Z"}, response=_APPROVED),
        response=DraftItem,
        query=(QueryParameter("effective", "text", "from when on it is in force (RFC 3339)", None, 1, 64),),
        deadline_s=ACT_DEADLINE_S,
        also={
            409: "Approved or discarded before, or another version was published since it was drafted.",
            422: "The instant is too soon, or the idempotency key came with another request before.",
        },
        **_TAGS,
    ),
    Route(
        method="POST",
        path="/v1/catalogue/drafts/{draft}/discard",
        scope=KeyScope.ADMIN,
        handler=administered("catalogue.discard", discard_draft, "draft", shown=False),
        summary="Discard a draft",
        description="It can never be approved any more. It is kept, with who discarded it and when." + ACT_TEXT,
        example=Example(params={"draft": "7"}, response=_DISCARDED),
        response=DraftItem,
        deadline_s=ACT_DEADLINE_S,
        also={409: "Approved or discarded before.", 422: "The idempotency key came with another request before."},
        **_TAGS,
    ),
)
