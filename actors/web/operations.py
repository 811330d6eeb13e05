"""For whoever runs the deployment: prices, dead letters, the audit trail, the commands of an account."""

import base64
import json
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from actors.audit import AuditRow
from actors.ports import CatalogueTaken, Outgoing
from actors.publication import publish
from actors.records import BadCursor, CatalogueRow, CommandRecord, DeadLetterRecord
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.customers import bad_cursor, described_by_owner
from actors.web.limits import JsonRefused, check_number, clean, refuse_constant
from actors.web.problems import MEDIA_TYPE, ProblemBody, refused_text
from actors.web.times import instant, instant_or_none, read_instant
from actors.web.wire import (
    Call,
    Example,
    Handler,
    KeyScope,
    Problem,
    QueryParameter,
    Reply,
    Route,
    Stream,
    absent,
    invalid,
)
from engine.catalog import BadCatalogue, CatalogueDocument, MeterDefinition, PlanDefinition
from engine.events import CONTROL_MAGIC, KEY_BYTES_MAX, VALUE_BYTES_MAX, Malformed, UsageEvent, parse_usage
from engine.outcomes import DeadLetterReason
from engine.partition import LETTER_VALUE_BYTES_MAX
from engine.placement import partition_for

CATALOGUE_BYTES_MAX: Final = 1 << 20
SHOWN_BYTES_MAX: Final = 4_096  # of a dead letter's record in a list

_document_decoder: Final = msgspec.json.Decoder(CatalogueDocument)


# ----------------------------------------------------------------------------------------------------- prices, as read


class PlanItem(Struct):
    """A plan in force, without its prices."""

    plan: str
    currency: str
    prices: int  # how many


class PlanList(Struct):
    items: list[PlanItem]
    version: int


class PlanView(Struct):
    """A plan in force, with its prices and the meters they count."""

    plan: str
    version: int
    definition: PlanDefinition
    meters: dict[str, MeterDefinition]


class VersionItem(Struct):
    """A published version. `effective` null: its markers have not been seen by a checkpoint; the first is for all time."""

    version: int
    published: str
    effective: str | None
    sha256: str


class VersionPage(Struct):
    items: list[VersionItem]
    next_cursor: str | None


class VersionView(Struct):
    """A published version, whole."""

    version: int
    published: str
    effective: str | None
    sha256: str
    document: CatalogueDocument


async def _in_force(call: Call) -> tuple[CatalogueRow, CatalogueDocument]:
    row: CatalogueRow | None = await call.services.records.catalogue_at(call.services.clock.wall_us())
    if row is None or row.body is None:
        raise Problem(
            404,
            "no-catalogue",
            "No catalogue in force",
            "No catalogue has come into force yet.",
            next_step="Publish one with POST /v1/catalogue/versions; a checkpoint shows it about a second later.",
        )
    return row, _document_decoder.decode(row.body)


async def _plans(call: Call, document: CatalogueDocument) -> dict[str, PlanDefinition]:
    """Those that the key may see. A plan may have been made for one customer, so a bound key sees what its account was, is
    and will be sold, and no other's."""
    if call.account is None:
        return document.plans
    account = await described_by_owner(call.services, call.account)
    sold = {account.first_plan, *(plan for _, plan in account.phases)}
    return {name: plan for name, plan in document.plans.items() if name in sold}


async def list_plans(call: Call) -> Reply:
    """GET /v1/plans."""
    row, document = await _in_force(call)
    plans = await _plans(call, document)
    items = [PlanItem(name, plan.currency, len(plan.prices)) for name, plan in sorted(plans.items())]
    return Reply(PlanList(items, row.version))


async def show_plan(call: Call) -> Reply:
    """GET /v1/plans/{plan}."""
    row, document = await _in_force(call)
    plan = (await _plans(call, document)).get(call.params["plan"])
    if plan is None:
        raise absent("plan")
    meters = {price.meter for price in plan.prices.values()}
    shown = {name: meter for name, meter in sorted(document.meters.items()) if name in meters}
    return Reply(PlanView(call.params["plan"], row.version, plan, shown))


async def list_versions(call: Call) -> Reply:
    """GET /v1/catalogue/versions."""
    try:
        rows, cursor = await call.services.records.catalogues(call.query["limit"], call.query["cursor"])
    except BadCursor:
        raise bad_cursor() from None
    items = [VersionItem(row.version, instant(row.published_us), _effective(row), row.sha256) for row in rows]
    return Reply(VersionPage(items, cursor))


async def show_version(call: Call) -> Reply:
    """GET /v1/catalogue/versions/{version}."""
    number = _number(call.params["version"])
    row: CatalogueRow | None = None if number is None else await call.services.records.catalogue(number)
    if row is None or row.body is None:
        raise absent("version")
    document = _document_decoder.decode(row.body)
    return Reply(VersionView(row.version, instant(row.published_us), _effective(row), row.sha256, document))


def _effective(row: CatalogueRow) -> str | None:
    return instant_or_none(row.effective_us)


def _number(text: str) -> int | None:
    """A whole number in a path; None for what is none, which is simply not there."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


# ------------------------------------------------------------------------------------------------ prices, as published


class PublishedAnswer(Struct):
    """What was published. It is in force for usage from `effective` on; the first version for all time."""

    version: int
    effective: str


class FaultItem(Struct):
    """One breach of a law."""

    path: str  # keys from the root, joined by dots
    message: str


class CatalogueRefused(ProblemBody, kw_only=True):
    """A refusal of a catalogue, with every fault that was found."""

    errors: list[FaultItem]


class PartitionsOfLog:
    """Where markers go: the appender of this process, and how many partitions there are."""

    def __init__(self, call: Call) -> None:
        self.partitions: int = call.services.settings.kafka.partitions
        self.append = call.services.appender.append


async def publish_version(call: Call, entry: Entry) -> Reply:
    """POST /v1/catalogue/versions."""
    settings = call.services.settings
    effective_us = read_instant("effective", call.query["effective"])
    document = read_document_body(call.body)
    try:
        published = await publish(
            document,
            store=call.services.catalogues,
            log=PartitionsOfLog(call),
            clock=call.services.clock,
            topic=settings.kafka.topic_usage,
            control_key=settings.control_key_bytes(),
            effective_us=effective_us,
        )
    except BadCatalogue as error:
        raise BadDocument(error) from None
    except CatalogueTaken:
        raise Problem(
            409,
            "catalogue-taken",
            "Another version was published meanwhile",
            "Somebody else published under the same number at the same time.",
            next_step="Compare with GET /v1/catalogue/versions, then send the request again.",
        ) from None
    entry.subject = str(published.version)
    answer = PublishedAnswer(published.version, instant(published.effective_us))
    entry.after = answer
    return Reply(answer)


class BadDocument(Problem):
    """Carries the faults to `telling_faults`, which writes them into the answer."""

    def __init__(self, error: BadCatalogue) -> None:
        self.faults = [FaultItem(".".join(map(str, fault.path)), fault.message) for fault in error.faults]
        first = self.faults[0]
        super().__init__(
            422,
            "bad-catalogue",
            "Catalogue breaks a law",
            f"{len(self.faults)} faults; the first: {first.message}",
            next_step="Correct every fault in `errors`, and publish again.",
            field=first.path or None,
        )


def telling_faults(handler: Handler) -> Handler:
    """The handler, of which a refused catalogue is answered with every fault at once."""

    async def serve(call: Call) -> Reply | Stream:
        try:
            return await handler(call)
        except BadDocument as problem:
            body = CatalogueRefused(
                type=f"/problems/{problem.slug}",
                title=problem.title,
                status=problem.status,
                detail=problem.detail,
                instance=call.request_id,
                next_step=problem.next_step,
                field=problem.field,
                errors=problem.faults,
            )
            return Reply(body, problem.status, media_type=MEDIA_TYPE.decode())

    return serve


def read_document_body(body: bytes) -> CatalogueDocument:
    """A catalogue may hold more keys than other bodies, so it is read here; but no key twice, and no other surprise."""
    try:
        json.loads(
            body.decode(),
            object_pairs_hook=_no_key_twice,
            parse_int=check_number,
            parse_float=check_number,
            parse_constant=refuse_constant,
        )
        return _document_decoder.decode(body)
    except (JsonRefused, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise invalid("body", f"It is no JSON of a catalogue: {str(error)[:200]}") from None
    except msgspec.MsgspecError as error:
        field, detail = refused_text(str(error))
        raise invalid(field, detail) from None


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs) or not all(map(clean, found)):
        raise JsonRefused("a key stands twice in one object, or holds NUL")
    return found


# -------------------------------------------------------------------------------------------------------- dead letters


class DeadLetterItem(Struct):
    """A record that was not rated. Its bytes are `value` where they are UTF-8, else `value_base64`."""

    partition: int
    offset: int
    reason: str
    detail: str
    log_time: str
    recorded: str
    key: str | None
    value: str | None
    value_base64: str | None
    truncated: bool  # the list shows the first 4,096 bytes; one letter alone is shown as far as it is kept
    redrivable: bool  # it is a usage event, or what was meant to be one


class DeadLetterPage(Struct):
    items: list[DeadLetterItem]
    next_cursor: str | None


class RedriveRequest(Struct, forbid_unknown_fields=True):
    """The event to be sent again: without one as it was, else corrected, under the same `id` and `source`."""

    event: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))


class RedriveAnswer(Struct):
    """The event is in the log again, as durable as any; whether it is rated now, the log decides."""

    account: str
    partition: int
    offset: int
    corrected: bool


async def list_dead_letters(call: Call) -> Reply:
    """GET /v1/dead-letters."""
    query = call.query
    try:
        rows, cursor = await call.services.records.dead_letters(
            query["limit"], query["cursor"], reason=query["reason"], partition=query["partition"]
        )
    except BadCursor:
        raise bad_cursor() from None
    return Reply(DeadLetterPage([_letter(row, SHOWN_BYTES_MAX) for row in rows], cursor))


async def show_dead_letter(call: Call) -> Reply:
    """GET /v1/dead-letters/{partition}/{offset}."""
    return Reply(_letter(await _letter_of(call), None))


async def _letter_of(call: Call) -> DeadLetterRecord:
    partition, offset = _number(call.params["partition"]), _number(call.params["offset"])
    letter: DeadLetterRecord | None = None
    if partition is not None and offset is not None:
        letter = await call.services.records.dead_letter(partition, offset)
    if letter is None:
        raise absent("dead letter")
    return letter


def _letter(row: DeadLetterRecord, bytes_max: int | None) -> DeadLetterItem:
    raw = None if row.value is None else row.value[:bytes_max]
    text = _text(raw)
    return DeadLetterItem(
        row.partition,
        row.offset,
        row.reason,
        row.detail,
        instant(row.log_time_us),
        instant(row.recorded_us),
        None if row.key is None else row.key.decode("utf-8", "replace"),
        text,
        base64.b64encode(raw).decode() if raw is not None and text is None else None,
        raw is not None and row.value is not None and (len(raw) < len(row.value) or _is_cut(row.value)),
        _is_usage(row),
    )


def _is_cut(value: bytes) -> bool:
    return len(value) >= LETTER_VALUE_BYTES_MAX


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def _is_usage(row: DeadLetterRecord) -> bool:
    return row.value is not None and not row.value.startswith(CONTROL_MAGIC)


async def redrive(call: Call, entry: Entry) -> Reply:
    """POST /v1/dead-letters/{partition}/{offset}/redrive."""
    letter = await _letter_of(call)
    entry.subject = f"{letter.partition}/{letter.offset}"
    if not _is_usage(letter):
        raise Problem(
            422,
            "not-redrivable",
            "Not a usage event",
            "Commands and other control records are never sent again: they may contradict what happened since.",
            next_step="Send the command anew.",
        )
    given = bytes(call.body.event)
    corrected = given != b"null"
    value = given if corrected else letter.value
    assert value is not None
    event = _event(value)
    if corrected:
        _same_event(letter, event)
    key = _key(letter, event, corrected=corrected)
    (offset,) = await call.services.appender.append([Outgoing("usage", value, key)])
    partition = _partition(call, key)
    entry.account = key.decode()
    answer = RedriveAnswer(key.decode(), partition, offset, corrected)
    entry.after = answer
    return Reply(answer)


def _event(value: bytes) -> UsageEvent:
    if len(value) > VALUE_BYTES_MAX:
        raise invalid("event", f"A usage event has at most {VALUE_BYTES_MAX} bytes.", "Send it corrected.")
    try:
        return parse_usage(value)
    except Malformed as error:
        raise invalid("event", str(error), "Send it corrected, in `event`.") from None


def _same_event(letter: DeadLetterRecord, event: UsageEvent) -> None:
    """Another id would be another event: were the first one rated after all, the usage would count twice."""
    assert letter.value is not None
    try:
        first = parse_usage(letter.value)
    except Malformed:
        return  # nothing in it can be relied on
    if first.id != event.id or first.source != event.source:
        raise invalid(
            "event.id", "A corrected event keeps its id and source.", "Keep both; send what is new to POST /v1/events."
        )


def _key(letter: DeadLetterRecord, event: UsageEvent, *, corrected: bool) -> bytes:
    """Who pays: of a corrected event its subject, where it has one; else whom the record named."""
    subject = None if event.subject is None else event.subject.encode()
    key = (subject or letter.key) if corrected else (letter.key or subject)
    if not key or len(key) > KEY_BYTES_MAX or _text(key) is None:
        raise invalid(
            "event.subject", f"It names the paying account in 1 to {KEY_BYTES_MAX} bytes.", "Send it corrected."
        )
    return key


def _partition(call: Call, key: bytes) -> int:
    return partition_for(key, call.services.settings.kafka.partitions)


# ------------------------------------------------------------------------------------------------- audit and commands


class AuditItem(Struct):
    """One row of the trail. An act has a row `asked`, then one `done` or `refused` with the same `request_id`."""

    id: int
    at: str
    actor: str
    act: str
    stage: str
    account: str | None
    subject: str
    before: Raw  # null where there is nothing to tell
    after: Raw
    reason: str
    request_id: str


class AuditPage(Struct):
    items: list[AuditItem]
    next_cursor: str | None


class CommandItem(Struct):
    """A command as it stands in the log, and how it was answered."""

    partition: int
    offset: int
    log_time: str
    idempotency_key: str
    kind: str
    command: Raw
    answer: str  # "applied", or why it was refused


class CommandPage(Struct):
    items: list[CommandItem]
    next_cursor: str | None


async def list_audit(call: Call) -> Reply:
    """GET /v1/audit."""
    query = call.query
    try:
        rows, cursor = await call.services.audit.page(
            query["limit"],
            query["cursor"],
            account=query["account"],
            act=query["act"],
            request_id=query["request_id"],
        )
    except BadCursor:
        raise bad_cursor() from None
    return Reply(AuditPage([_audit(row) for row in rows], cursor))


def _audit(row: AuditRow) -> AuditItem:
    entry = row.entry
    return AuditItem(
        row.audit_id,
        instant(row.at_us),
        entry.actor,
        entry.act,
        entry.stage,
        entry.account,
        entry.subject,
        Raw(entry.before or b"null"),
        Raw(entry.after or b"null"),
        entry.reason,
        entry.request_id,
    )


async def list_commands(call: Call) -> Reply:
    """GET /v1/commands."""
    account = call.query["account"]
    if call.account is not None and account != call.account:
        raise absent("account")
    try:
        rows, cursor = await call.services.records.commands(account, call.query["limit"], call.query["cursor"])
    except BadCursor:
        raise bad_cursor() from None
    return Reply(CommandPage([_command(row) for row in rows], cursor))


def _command(row: CommandRecord) -> CommandItem:
    return CommandItem(
        row.partition,
        row.offset,
        instant(row.log_time_us),
        row.command_key,
        row.kind,
        Raw(row.body),
        row.answer,
    )


# -------------------------------------------------------------------------------------------------------------- routes

_TAGS: Final[dict[str, Any]] = {"tags": ("operations",)}
_READ: Final[dict[str, Any]] = {**_TAGS, "method": "GET", "scope": KeyScope.READ}
_ADMIN: Final[dict[str, Any]] = {**_TAGS, "method": "GET", "scope": KeyScope.ADMIN}
SHA_EXAMPLE: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_VERSION: Final = {
    "version": 2,
    "published": "2026-11-20T09:00:00Z",
    "effective": "2026-11-20T09:06:00Z",
    "sha256": SHA_EXAMPLE,
}
_METER: Final = {"event_type": "llm.request", "aggregation": "sum", "field": "output_tokens", "group_by": ["model"]}
_PRICE: Final = {"meter": "output", "model": "per_unit", "where": {"model": "large"}, "amount": "15", "per": "1000000"}
_PLAN: Final = {"currency": "USD", "prices": {"output-large": _PRICE}}
DOCUMENT_EXAMPLE: Final = {"meters": {"output": _METER}, "plans": {"starter": _PLAN}}
_PRICE_SHOWN: Final = {**_PRICE, "tiers": []}
_LETTER: Final = {
    "partition": 3,
    "offset": 18201,
    "reason": "no_price",
    "detail": "plan starter has no price for meter output, cell {'model': 'huge'}",
    "log_time": "2026-11-22T09:59:00Z",
    "recorded": "2026-11-22T09:59:01Z",
    "key": "acme",
    "value": "{...}",
    "value_base64": None,
    "truncated": False,
    "redrivable": True,
}

ROUTES: Final = (
    Route(
        path="/v1/plans",
        handler=list_plans,
        summary="List plans",
        description="Of the catalogue in force now. A key that is bound to an account: those that it was, is or will be sold.",
        example=Example(response={"items": [{"plan": "starter", "currency": "USD", "prices": 1}], "version": 2}),
        response=PlanList,
        confines=True,
        **_READ,
    ),
    Route(
        path="/v1/plans/{plan}",
        handler=show_plan,
        summary="Show one plan",
        description="With its prices, and the meters that they count. To a bound key only what its account is sold is shown.",
        example=Example(
            params={"plan": "starter"},
            response={
                "plan": "starter",
                "version": 2,
                "definition": {**_PLAN, "prices": {"output-large": _PRICE_SHOWN}},
                "meters": {"output": _METER},
            },
        ),
        response=PlanView,
        confines=True,
        **_READ,
    ),
    Route(
        path="/v1/catalogue/versions",
        handler=list_versions,
        summary="List catalogue versions",
        description="Newest first, without their contents.",
        example=Example(response={"items": [_VERSION], "next_cursor": None}),
        response=VersionPage,
        paginated=True,
        **_READ,
    ),
    Route(
        path="/v1/catalogue/versions/{version}",
        handler=show_version,
        summary="Show one catalogue version",
        description="Versions never change.",
        example=Example(
            params={"version": "2"},
            response={
                **_VERSION,
                "document": {
                    "meters": {"output": _METER},
                    "plans": {"starter": {**_PLAN, "prices": {"output-large": _PRICE_SHOWN}}},
                },
            },
        ),
        response=VersionView,
        **_READ,
    ),
    Route(
        method="POST",
        path="/v1/catalogue/versions",
        scope=KeyScope.ADMIN,
        handler=telling_faults(administered("catalogue.publish", publish_version, shown=False)),
        summary="Publish a catalogue",
        description=(
            "The body is the whole catalogue as JSON: meters and plans. It takes effect about six minutes later, behind "
            "every event that may be rated already, or at `effective`. A publication that broke off is healed by sending "
            "the same catalogue again with the instant of the first attempt." + ACT_TEXT
        ),
        example=Example(request=DOCUMENT_EXAMPLE, response={"version": 2, "effective": "2026-11-20T09:06:00Z"}),
        response=PublishedAnswer,
        status=201,
        query=(QueryParameter("effective", "text", "from when on it is in force (RFC 3339)", None, 1, 64),),
        raw_body=("application/json",),
        body_bytes_max=CATALOGUE_BYTES_MAX,
        deadline_s=ACT_DEADLINE_S,
        also={
            409: "Somebody published at the same time, or the idempotency key is busy.",
            422: "The catalogue breaks a law; `errors` lists every fault with its path.",
        },
        **_TAGS,
    ),
    Route(
        path="/v1/dead-letters",
        handler=list_dead_letters,
        summary="List dead letters",
        description="Records that were not rated, newest first, with the reason, as checkpoints wrote them.",
        example=Example(query={"reason": "no_price"}, response={"items": [_LETTER], "next_cursor": None}),
        response=DeadLetterPage,
        paginated=True,
        query=(
            QueryParameter("reason", "text", "only those of this reason", choices=tuple(DeadLetterReason)),
            QueryParameter("partition", "integer", "only those of this partition", None, 0, 2**31 - 1),
        ),
        **_ADMIN,
    ),
    Route(
        path="/v1/dead-letters/{partition}/{offset}",
        handler=show_dead_letter,
        summary="Show one dead letter",
        description="With its record whole.",
        example=Example(params={"partition": "3", "offset": "18201"}, response=_LETTER),
        response=DeadLetterItem,
        **_ADMIN,
    ),
    Route(
        method="POST",
        path="/v1/dead-letters/{partition}/{offset}/redrive",
        scope=KeyScope.ADMIN,
        handler=administered("dead_letter.redrive", redrive),
        summary="Send a dead letter again",
        description=(
            "With the body `{}` as it was, once its cause is mended; or corrected, under the same `id` and `source`. An "
            "event that was rated after all is a duplicate and changes nothing." + ACT_TEXT
        ),
        example=Example(
            params={"partition": "3", "offset": "18201"},
            request={},
            response={"account": "acme", "partition": 3, "offset": 18260, "corrected": False},
        ),
        request=RedriveRequest,
        response=RedriveAnswer,
        status=202,
        body_bytes_max=2 * VALUE_BYTES_MAX,
        deadline_s=ACT_DEADLINE_S,
        also={
            409: ACT_REFUSALS[409],
            422: "It is no usage event, or the idempotency key came with another request before.",
        },
        **_TAGS,
    ),
    Route(
        path="/v1/audit",
        handler=list_audit,
        summary="Read the audit trail",
        description="Every administrative act: who, what, why, and how it ended. Newest first; rows are never changed.",
        example=Example(
            response={
                "items": [
                    {
                        "id": 812,
                        "at": "2026-11-22T10:00:00Z",
                        "actor": "key:k3x9a0b1c2d4",
                        "act": "account.open",
                        "stage": "done",
                        "account": "acme",
                        "subject": "acme",
                        "before": None,
                        "after": None,
                        "reason": "contract 17",
                        "request_id": "0af3c1-2",
                    }
                ],
                "next_cursor": None,
            }
        ),
        response=AuditPage,
        paginated=True,
        query=(
            QueryParameter("account", "text", "only about this account", None, 1, 256),
            QueryParameter("act", "text", "only acts of this name", None, 1, 64),
            QueryParameter("request_id", "text", "only this request", None, 1, 64),
        ),
        **_ADMIN,
    ),
    Route(
        path="/v1/commands",
        handler=list_commands,
        summary="List the commands of an account",
        description="As they stand in the log, refused ones too, newest first; as far as the ledger, about a second behind.",
        example=Example(
            query={"account": "acme"},
            response={
                "items": [
                    {
                        "partition": 3,
                        "offset": 18250,
                        "log_time": "2026-11-22T10:00:00Z",
                        "idempotency_key": "order-4711",
                        "kind": "set_scope",
                        "command": {
                            "kind": "set_scope",
                            "account": "acme",
                            "command_key": "order-4711",
                            "scope": "",
                            "standing": "active",
                        },
                        "answer": "applied",
                    }
                ],
                "next_cursor": None,
            },
        ),
        response=CommandPage,
        paginated=True,
        query=(QueryParameter("account", "text", "whose", None, 1, 256, required=True),),
        confines=True,
        also={404: "The key may not see this account."},
        **_READ,
    ),
)
