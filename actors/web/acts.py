"""What every administrative act passes: an idempotency key, the audit trail, and for commands the log.

The order: has this very request been answered before? Then a row in the audit trail, or nothing happens. Then the act,
and a second row that says how it ended.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Struct

from actors.audit import REASON_CHARACTERS_MAX, AuditEntry, Stage
from actors.commands import Answered, CommandUnanswered, CommandUnread, new_command_key
from actors.idempotency import KeptAnswer, KeyBusy, KeyReused
from actors.ports import StoreRefused, StoreUnavailable
from actors.web.limits import clean
from actors.web.problems import refused_text
from actors.web.times import instant
from actors.web.wire import Call, Handler, Problem, Reply, absent, invalid
from engine.events import Command, Malformed
from engine.outcomes import Refusal

COMMAND_WITHIN_S: Final = 4.0
COMMAND_DEADLINE_S: Final = 6.0  # of its route: the audit trail before and behind it has its share
ACT_DEADLINE_S: Final = 10.0
# What they mean stands in the introduction (actors/web/openapi.py), once for all operations.
COMMAND_TEXT: Final = " *Repeatable* for 30 days; answered when it is durable and visible."
ACT_TEXT: Final = " *Repeatable* for 24 hours."
ACT_REFUSALS: Final[Mapping[int, str]] = {
    409: "The first request with this idempotency key is under way, or its answer was lost.",
    422: "The idempotency key came with another request before.",
}

_encoder: Final = msgspec.json.Encoder(order="deterministic")
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """What the audit trail will say of an act. The handler fills in what it finds out; no secret may get in."""

    act: str
    account: str | None = None
    subject: str = ""
    before: Struct | None = None
    after: Struct | None = None


class Refused(Struct):
    """How a refusal stands in the audit trail."""

    problem: str


Act = Callable[[Call, Entry], Awaitable[Reply]]


# ---------------------------------------------------------------------------------------------------- audit and repetition


def administered(act: str, handler: Act, subject: str | None = None, *, shown: bool = True) -> Handler:
    """The handler of an act that changes the database. `subject` names the path parameter that says about what.

    With `shown` the trail holds the request's body from the start; without, only what the handler puts there."""

    async def serve(call: Call) -> Reply:
        key = call.idempotency_key
        if key is not None:
            kept = await _kept(call, act, key)
            if kept is not None:
                return Reply(kept.body, kept.status or None, {"Idempotent-Replayed": "true"})
        entry = Entry(act, call.account, "" if subject is None else call.params[subject])
        entry.after = call.body if shown and isinstance(call.body, Struct) else None
        try:
            await _ask(call, entry)
        except (Problem, StoreUnavailable, StoreRefused):
            await _forget(call)
            raise
        try:
            reply = await _do(call, entry, handler)
        except Problem as problem:
            if problem.status < 500:
                await _forget(call)
            raise
        if key is not None:
            await _keep(call, key, reply)
        return reply

    return serve


async def _ask(call: Call, entry: Entry) -> None:
    """The row that stands in the audit trail before the act. Raises Problem or the store's errors: nothing happened."""
    await _record(call, entry, "asked")
    entry.after = None


async def _do(call: Call, entry: Entry, handler: Act) -> Reply:
    """The act, and the row that says how it ended."""
    try:
        reply = await handler(call, entry)
    except Problem as problem:
        if problem.status < 500:
            entry.after = Refused(problem.slug)
            await _record_end(call, entry, "refused")
        raise
    await _record_end(call, entry, "done")
    return reply


async def _forget(call: Call) -> None:
    """Nothing happened: the key may be used for another request."""
    if call.idempotency_key is not None:
        with suppress(StoreUnavailable, StoreRefused):
            await call.services.idempotency.forget(call.actor, call.idempotency_key)


async def _kept(call: Call, act: str, key: str) -> KeptAnswer | None:
    body = call.body.hex() if isinstance(call.body, bytes) else call.body
    digest = hashlib.sha256(_encoder.encode([act, call.params, call.query, body])).digest()
    try:
        kept: KeptAnswer | None = await call.services.idempotency.begin(call.actor, key, act, digest)
    except KeyReused:
        raise key_reused() from None
    except KeyBusy:
        raise Problem(
            409,
            "idempotency-key-busy",
            "Idempotency key is busy",
            "The first request with this idempotency key is under way, or its answer was lost.",
            next_step="Repeat it in a few seconds. If that does not help, look whether it took effect; then use a new key.",
            field="Idempotency-Key",
            headers={"Retry-After": "2"},
        ) from None
    return kept


async def _keep(call: Call, key: str, reply: Reply) -> None:
    body = (
        reply.body if isinstance(reply.body, bytes) else b"" if reply.body is None else msgspec.json.encode(reply.body)
    )
    try:
        # Status 0: the route's own.
        await call.services.idempotency.keep(call.actor, key, KeptAnswer(reply.status or 0, body))
    except (StoreUnavailable, StoreRefused) as error:
        # The caller has its answer; a repetition will hear that it was lost.
        logger.warning("request %s: its answer could not be kept (%s)", call.request_id, type(error).__name__)


def key_reused() -> Problem:
    """422: the idempotency key stands for another request."""
    return Problem(
        422,
        "idempotency-key-reused",
        "Idempotency key was used before",
        "This idempotency key came with another request before.",
        next_step="Repeat the first request unchanged, or use a new key for this one.",
        field="Idempotency-Key",
    )


def _reason(call: Call) -> str:
    raw = (call.header("x-reason") or "").strip()
    text = raw.encode("latin-1").decode("utf-8", "replace")
    if len(text) > REASON_CHARACTERS_MAX or not clean(text):
        raise invalid("X-Reason", f"It has at most {REASON_CHARACTERS_MAX} characters.")
    return text


async def _record(call: Call, entry: Entry, stage: Stage) -> None:
    await call.services.audit.record(
        AuditEntry(
            actor=call.actor,
            act=entry.act,
            stage=stage,
            account=entry.account,
            subject=entry.subject,
            reason=_reason(call),
            request_id=call.request_id,
            before=None if entry.before is None else msgspec.json.encode(entry.before),
            after=None if entry.after is None else msgspec.json.encode(entry.after),
        )
    )


async def _record_end(call: Call, entry: Entry, stage: Stage) -> None:
    """It has happened, or not, whatever becomes of this row: its absence says that the end is not known."""
    try:
        await _record(call, entry, stage)
    except (StoreUnavailable, StoreRefused) as error:
        logger.warning("request %s: how it ended is not in the audit trail (%s)", call.request_id, type(error).__name__)


# ------------------------------------------------------------------------------------------------------------- commands


class CommandAnswer(Struct):
    """A command that took effect: it is in the log, and whatever is asked from now on sees it."""

    account: str
    id: str  # of what was made or changed: the account, lot, cap, rule, limit or scope ("": the account itself)
    status: Literal["applied"]
    idempotency_key: str  # under which a repetition changes nothing; made up when none was sent
    partition: int
    offset: int  # where it stands in the log; of a repetition where the repetition stands
    log_time: str  # of the owner's answer


COMMAND_EXAMPLE: Final = {
    "account": "acme",
    "id": "acme",
    "status": "applied",
    "idempotency_key": "order-4711",
    "partition": 3,
    "offset": 18250,
    "log_time": "2026-11-22T10:00:00Z",
}


def commanded(
    act: str, build: Callable[[Call, str], tuple[Command, str]], fields: Mapping[Refusal, str] | None = None
) -> Handler:
    """The handler of a route that is one command. `build` makes the command for a command key, and says the id of what
    it makes or changes; `fields` says which part of the request a refusal is about."""

    async def serve(call: Call) -> Reply:
        command, name = build(call, call.idempotency_key or new_command_key())

        async def submit(call: Call, _entry: Entry) -> Reply:
            answered = await _submitted(call, command)
            if not answered.applied:
                raise refusal_problem(Refusal(answered.answer), fields or {})
            return Reply(
                CommandAnswer(
                    command.account,
                    name,
                    "applied",
                    answered.command_key,
                    answered.partition,
                    answered.offset,
                    instant(answered.log_time_us),
                )
            )

        entry = Entry(act, command.account, name, after=command)
        await _ask(call, entry)
        return await _do(call, entry, submit)

    return serve


async def _submitted(call: Call, command: Command) -> Answered:
    try:
        answered: Answered = await call.services.commands.submit(command, COMMAND_WITHIN_S)
    except Malformed as error:
        field, detail = refused_text(str(error))
        raise invalid(field, detail) from None
    except CommandUnanswered as error:
        raise _unanswered(error) from None
    except CommandUnread as error:
        raise Problem(
            500,
            "command-unread",
            "Command was not understood",
            f"The owner set the command aside as a dead letter, at {error.partition}/{error.offset}. Nothing changed.",
            next_step=f"Look at GET /v1/dead-letters, and report the request id {call.request_id}.",
        ) from None
    return answered


def _unanswered(error: CommandUnanswered) -> Problem:
    if error.appended:
        detail = "The command is in the log, and its owner has not answered in time; it will be applied or refused."
    else:
        detail = "The log did not confirm the command; it may be in the log all the same, and be applied later."
    return Problem(
        504 if error.appended else 503,
        "command-unanswered",
        "Command was not answered",
        detail,
        next_step=f"Send the same request again with `Idempotency-Key: {error.command_key}`: it says what became of it, "
        "and is applied once at most.",
        headers={"Retry-After": "1", "Idempotency-Key": error.command_key},
    )


_REFUSALS: Final[Mapping[Refusal, tuple[str, str]]] = {
    Refusal.ACCOUNT_EXISTS: ("There is such an account already.", "Use it, or choose another id."),
    Refusal.UNKNOWN_PLAN: ("The catalogue in force has no such plan.", "Compare with GET /v1/plans."),
    Refusal.UNKNOWN_ZONE: ("It is no time zone of the IANA database.", "Use a name such as Europe/Berlin or UTC."),
    Refusal.BAD_ANCHOR: ("It is a day from 1 to 31.", "Correct the field and send the request again."),
    Refusal.BAD_AMOUNT: (
        "It is decimal text in its range, with at most 18 digits before the point and 12 behind.",
        "Correct the field and send the request again.",
    ),
    Refusal.BAD_LOT: (
        "The lot's kind or one of its instants cannot be, or it is a paid one that shall not pay debt.",
        "Correct the field and send the request again.",
    ),
    Refusal.CURRENCY_MISMATCH: (
        "The account has another currency.",
        "Use the account's currency, which never changes.",
    ),
    Refusal.LOT_EXISTS: ("The account has a lot of this id.", "Choose another id, or none."),
    Refusal.BAD_ROLLOVER: (
        "A rollover takes an expiry, 1 to 100 percent, 1 to 3,660 days, a cap above 0, and an id of at most 200 characters.",
        "Correct the field and send the request again.",
    ),
    Refusal.LOT_OVER: ("The lot has expired, or its rest was voided.", "Grant a lot of kind refund instead."),
    Refusal.EXCEEDS_LOT: (
        "A refund is at most what the lot has burnt; a void at most what it has burnt and what remains of it.",
        "Compare with GET /v1/customers/{account}/grants.",
    ),
    Refusal.TOO_MANY_CHANGES: (
        "A lot can be voided and refunded a hundred times.",
        "Void its rest, and grant another.",
    ),
    Refusal.UNKNOWN_PRICE: ("The account's plan has no price of this name.", "Compare with GET /v1/plans."),
    Refusal.UNKNOWN_COMMITMENT: (
        "The account's plan has no commitment of this name, and no price of it that commits to anything.",
        "Compare with GET /v1/plans.",
    ),
    Refusal.LINE_EXISTS: ("The account has a line of this id.", "Choose another id, or none."),
    Refusal.TOO_MANY_LINES: ("An account has at most 1,000 manual lines.", "Grant a lot, or void one, instead."),
    Refusal.NO_REASON: (
        "A manual line says why, in 1 to 500 characters.",
        "Give the reason and send the request again.",
    ),
    Refusal.BAD_PERIOD: (
        "It is an instant of the last ten years that is not to come yet.",
        "Correct the field and send the request again.",
    ),
    Refusal.UNKNOWN_VERSION: ("No such version was published.", "Compare with GET /v1/catalogue/versions."),
    Refusal.MID_SEGMENT: (
        "The range begins or ends inside a stretch of usage that is only known as a whole.",
        "Take instants at which a version, an agreed price, a lot or a billing period begins.",
    ),
    Refusal.RERATE_CHANGED: (
        "The differences are others by now: usage has come since, or another re-rating.",
        "Do the dry run again: GET .../rerated.",
    ),
    Refusal.NO_DIFFERENCE: ("There is nothing to post.", "Nothing: the usage was charged so already."),
    Refusal.EXPIRES_TOO_SOON: (
        "A lot expires after now, after the newest usage that was rated, and after it became effective.",
        "Choose a later instant.",
    ),
    Refusal.UNKNOWN_CAP: ("The account has no such cap.", "Set the cap first."),
    Refusal.CAP_IN_USE: ("A rule looks at the cap.", "Remove the rule first, or set it on another cap."),
    Refusal.BAD_RULE: (
        "A percentage is from 1 to 1000 (of a lot from 0 to 100); what clears the rule lies on the other side of its "
        "threshold; a level is info, warning or critical, a direction up or down (of what is counted, down in a rolling "
        "window only); a window and its length are those of caps; a bucket lasts whole minutes up to a day, and a lot is told "
        "of up to 3,660 days before it expires.",
        "Correct the field and send the request again.",
    ),
    Refusal.BAD_SCOPE: ("It is no path of a scope.", "Use 1 to 8 parts of A-Z a-z 0-9 . _ : @ - joined by /."),
    Refusal.UNKNOWN_SCOPE: ("The scope, or one above it, is not declared.", "Declare scopes from above, one by one."),
    Refusal.TOO_MANY_SCOPES: ("The account has as many scopes as there may be.", "Use those there are."),
    Refusal.BAD_STANDING: ("It is active, past_due or suspended.", "Correct the field and send the request again."),
    Refusal.BAD_LIMIT: (
        "The rate is out of range, or the account has too many limits.",
        "Correct the field, or remove one.",
    ),
    Refusal.BAD_LIST: (
        "A scope has at most 16 allow-lists, of at most 1,000 different values each.",
        "Shorten the list, or remove one.",
    ),
    Refusal.UNKNOWN_METER: ("The catalogue in force has no such meter.", "Name one of its meters."),
    Refusal.BAD_CAP: (
        "Only rolling and first_use windows have a length, of whole minutes up to 30 days; a cap counts money, or the "
        "units of a meter, or those of a price; one on each request is hard.",
        "Correct the field and send the request again.",
    ),
    Refusal.BAD_BASIS: (
        "What is due, and what list prices come to, is known of the whole account and by the calendar month: lots pay for "
        "an account, and a scope's spend is what it was charged.",
        "Leave scope, window, meter and price out, or the basis.",
    ),
    Refusal.BAD_BEYOND: (
        "What is spent beyond a cap can be waived of what a whole account is charged in a calendar month, and by one cap.",
        "Leave scope, window, meter, price and basis out, or change the cap that waives already.",
    ),
    Refusal.BAD_BILLING: (
        "An account is prepaid or postpaid, and only a postpaid one has a credit limit.",
        "Correct the field; how far a prepaid account may go below zero is its overdraft.",
    ),
    Refusal.WAIVED: (
        "A cap waives what is spent beyond it in that period: what a difference owes depends on all that was spent.",
        "Post what you owe as a manual line (adjustments), or leave that period out of the range.",
    ),
    Refusal.BAD_START: (
        "It is before now, or before usage that the account was charged for.",
        "Leave it out for the earliest instant, or state a later one.",
    ),
    Refusal.BAD_PRICE: (
        "No price of a catalogue could have these terms for this meter, or they count fees of events where the plan's price "
        "counts units, or the other way round. What was counted as fees cannot be rated again.",
        "Compare with GET /v1/plans.",
    ),
    Refusal.TOO_MANY_PRICES: (
        "An account has at most 1,000 agreed prices.",
        "Put what is agreed into a plan of its own.",
    ),
    Refusal.MID_PERIOD: (
        "A price that is no sum of its units, or follows one, can only begin where a billing period of the account does.",
        "State the start of its next billing period. To rate usage again, take whole billing periods that are over.",
    ),
    Refusal.UNKNOWN_SEAT: ("The plan of that time sells no seats of this name.", "GET /v1/plans lists plans."),
    Refusal.BAD_SEATS: ("A number of seats is 0 to 1,000,000.", "State one in that range."),
    Refusal.TOO_MANY_SEATS: ("The seats of an account change at most 1,000 times.", "Open another account."),
    Refusal.TOO_MANY_PAUSES: ("An account is paused and resumed at most 100 times.", "Open another account."),
    Refusal.TOO_MANY_PHASES: ("An account has at most 100 phases.", "Open another account."),
    Refusal.WOULD_REPRICE: (
        "It would shorten a billing period in which more was used than a shorter one includes, and so change what was "
        "charged.",
        "State the start of the account's next billing period, or publish the price with `prorate: false`.",
    ),
    Refusal.TOO_MANY_CAPS: (
        "The account has 100 caps and rules that count for themselves, and each looks at every event.",
        "Replace or remove one of them.",
    ),
    Refusal.TOO_MANY_RULES: ("The account has 1,000 rules.", "Remove one of them."),
    Refusal.BAD_TOP_UP: (
        "A cool-down is from 600 seconds to 30 days, attempts are 1 to 100, and a lot lives 1 to 3,660 days.",
        "Correct the field and send the request again.",
    ),
    Refusal.BAD_RECURRING: (
        "A recurring grant is every period, month or week; it has a name of at most 200 characters, and its lots live 1 to "
        "3,660 days if they expire.",
        "Correct the field and send the request again.",
    ),
    Refusal.TOO_MANY_RECURRING: (
        "The account's recurring grants would make more than 120 lots a year: a week's makes 53, another 12, and twice as many "
        "with a rollover.",
        "Remove one of them, or grant by the month.",
    ),
    Refusal.BAD_QUANTITY_GRANT: (
        "A quantity grant ends at the latest with the billing period in which it begins, and serves a price whose meter adds "
        "units up.",
        "Leave `expires` out, or grant for another price.",
    ),
    Refusal.TOO_MANY_QUANTITY_GRANTS: ("An account has at most 1,000 quantity grants.", "Open another account."),
    Refusal.NOT_ASKED: (
        "This request is not open: it was answered before, or never made.",
        "Compare with GET /v1/customers/{account}/auto-top-up. Money that came in all the same is booked by POST .../top-ups.",
    ),
}


def refusal_problem(refusal: Refusal, fields: Mapping[Refusal, str]) -> Problem:
    """How a refused command is told. Its slug is the refusal's own name; `fields` says what in the request it is about."""
    if refusal is Refusal.UNKNOWN_ACCOUNT:
        return absent("account")
    if refusal is Refusal.UNKNOWN_RULE:
        return absent("rule")
    if refusal is Refusal.UNKNOWN_LOT:
        return absent("lot")
    if refusal is Refusal.UNKNOWN_RECURRING:
        return absent("recurring grant")
    if refusal is Refusal.NO_TOP_UP:
        return absent("top-up")
    if refusal is Refusal.KEY_REUSED:
        return key_reused()
    detail, next_step = _REFUSALS[refusal]
    taken = (Refusal.ACCOUNT_EXISTS, Refusal.LOT_EXISTS, Refusal.LOT_OVER, Refusal.LINE_EXISTS, Refusal.NOT_ASKED)
    slug = refusal.value.replace("_", "-")
    return Problem(
        409 if refusal in taken else 422,
        slug,
        slug.replace("-", " ").capitalize(),
        detail,
        next_step=next_step,
        field=fields.get(refusal),
    )
