"""A stream that runs on a hold: what its hold still covers, whether it may go on, or what else would (README, "Holds")."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from engine.account import Account
from engine.admission import Decision, Desk, FieldBound, Question, SliceNeeded
from engine.catalog import Catalogue, Plan, PriceBook
from engine.holds import Hold
from engine.leasing import fields_of

Cheaper = Sequence[Mapping[str, str]]  # the dimensions of requests that would cost less, the one liked best first


class Covered(Struct, frozen=True):
    """What a hold still covers of these fields together, in nano-units; no fields: events."""

    fields: tuple[str, ...]
    left: int


class Running(Struct, frozen=True):
    """What a running stream is told. `decision`: on the extension that it takes to go on; its hold is the one to go on
    with. `alternative`: the dimensions that would still run, of `cheaper`."""

    action: Literal["continue", "stop", "cheaper"]
    covered: tuple[Covered, ...]
    decision: Decision
    alternative: Mapping[str, str] | None = None


def carry_on(
    desk: Desk,
    account: Account,
    book: PriceBook,
    hold: Hold,
    used: Mapping[str, int],
    event_type: str,
    ahead: Sequence[FieldBound],
    hold_us: int,
    cheaper: Cheaper,
    now_us: int,
) -> Running | SliceNeeded:
    """May a stream that has used so much (nano-units by price, in all) use what is `ahead` as well? Its hold is extended
    by what it does not cover of that, and in time; where that is refused, the first of the alternatives that the account
    could still bear so much of is named."""
    plan, catalogue = account.contract.plan_at(book, hold.admitted_us), book.at(hold.admitted_us)
    assert plan is not None, "it was admitted by a plan"
    assert catalogue is not None
    known = desk.opened(hold) or hold
    covered = _covered(known, used, plan, catalogue)
    more = _missing(covered, ahead)
    decision = desk.extend(account, book, hold, more, hold_us, now_us)
    if isinstance(decision, SliceNeeded):
        return decision
    if decision.hold is not None:
        return Running("continue", _covered(decision.hold, used, plan, catalogue), decision)
    if not more and now_us < known.valid_until_us:
        return Running("continue", covered, decision)
    for data in cheaper:
        question = Question(account.account, hold.scope, event_type, data, bounds=tuple(ahead))
        if desk.would_run(account, book, question, now_us):
            return Running("cheaper", covered, decision, data)
    return Running("stop", covered, decision)


def _covered(hold: Hold, used: Mapping[str, int], plan: Plan, catalogue: Catalogue) -> tuple[Covered, ...]:
    left: dict[tuple[str, ...], int] = {}
    for bound in hold.bounds:
        fields = fields_of(bound, plan, catalogue)
        rest = max(0, bound.quantity - sum(used.get(price, 0) for price in bound.reached))
        left[fields] = min(rest, left.get(fields, rest))
    return tuple(Covered(fields, rest) for fields, rest in left.items())


def _missing(covered: Sequence[Covered], ahead: Iterable[FieldBound]) -> tuple[FieldBound, ...]:
    """What the hold does not cover of what is ahead. What it does not know of costs nothing."""
    missing = []
    for wanted in ahead:
        rests = [each.left for each in covered if not set(each.fields).isdisjoint(wanted.fields)]
        if rests and wanted.up_to > min(rests):
            missing.append(FieldBound(wanted.fields, wanted.up_to - min(rests)))
    return tuple(missing)
