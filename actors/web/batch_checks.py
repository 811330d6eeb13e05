"""Many checks in one request. Each is a check of its own, put to the owner of its account; this file only deals them out."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from actors.web.hot import ALLOWED, TOO_SOON, CheckAnswer, CheckRequest, advised, decided
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, absent, unavailable

CHECKS_MAX: Final = 100
BATCH_BYTES_MAX: Final = 131_072
WITHIN_S: Final = 1.5  # for all checks of one account


class ChecksRequest(Struct, forbid_unknown_fields=True):
    """May these requests run?"""

    checks: Annotated[tuple[CheckRequest, ...], Meta(min_length=1, max_length=CHECKS_MAX)]


class NotDecided(Struct):
    """Why there is no decision: what the same check would have been refused with, sent alone."""

    status: Literal[400, 404, 503]
    type: str  # "/problems/<slug>": stable, to branch on
    detail: str
    next_step: str
    field: str | None = None


class OutcomeOfCheck(Struct):
    """Either the owner's answer, or why there is none; the other is null."""

    answer: CheckAnswer | None = None
    problem: NotDecided | None = None


class ChecksAnswer(Struct):
    """In the order of the checks."""

    outcomes: list[OutcomeOfCheck]


async def check_many(call: Call) -> Reply:
    """POST /v1/checks."""
    asked: ChecksRequest = call.body
    places: dict[str, list[int]] = {}
    for place, one in enumerate(asked.checks):
        places.setdefault(one.account, []).append(place)
    outcomes: dict[int, OutcomeOfCheck] = {}
    until_s = asyncio.get_running_loop().time() + WITHIN_S
    await asyncio.gather(
        *(_of_one_account(call, asked.checks, own, until_s, outcomes) for own in places.values()),
    )
    return Reply(ChecksAnswer([outcomes[place] for place in range(len(asked.checks))]))


async def _of_one_account(
    call: Call, checks: Sequence[CheckRequest], places: list[int], until_s: float, outcomes: dict[int, OutcomeOfCheck]
) -> None:
    """One after the other: what an earlier one reserves, a later one finds reserved."""
    for place in places:
        try:
            outcomes[place] = OutcomeOfCheck(await _one(call, checks[place], until_s))
        except Problem as problem:
            outcomes[place] = OutcomeOfCheck(problem=_not_decided(problem))


async def _one(call: Call, asked: CheckRequest, until_s: float) -> CheckAnswer:
    if call.account is not None and asked.account != call.account:
        raise absent("account")
    left_s = until_s - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise unavailable("The checks of this account before it took all the time there is; it was not asked.")
    return advised(call, asked, await decided(call.services, asked, left_s))


def _not_decided(problem: Problem) -> NotDecided:
    assert problem.status in (400, 404, 503)
    return NotDecided(
        problem.status,  # type: ignore[arg-type]
        f"/problems/{problem.slug}",
        problem.detail,
        problem.next_step,
        problem.field,
    )


_BOUND: Final = {"fields": ["output_tokens"], "up_to": "4096"}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/checks",
        scope=KeyScope.CHECK,
        handler=check_many,
        summary="Ask about many customers or features in one request",
        description=(
            f"Takes 1 to {CHECKS_MAX} checks, each as `POST /v1/check` takes it, in at most {BATCH_BYTES_MAX} bytes, and "
            "answers each by itself, in the same order: `answer`, or `problem` where there is none (`status` and `type` as "
            "the same check would have been refused with alone). Accounts are asked side by side, and each check is "
            "decided whole by the owner of its account; the checks of one account are decided one after the other in the "
            "order in which they stand, so that a hold of an earlier one is reserved for a later one. Nothing "
            "binds them together beyond that: usage may be rated between two of them, and some may be allowed where "
            "others are denied. A body that breaks the form is refused whole, and nobody is asked."
        ),
        tags=("checks",),
        example=Example(
            request={
                "checks": [
                    {"account": "acme", "type": "llm.tokens", "data": {"model": "small"}, "bounds": [_BOUND]},
                    {"account": "acme", "feature": "tools"},
                ]
            },
            response={
                "outcomes": [
                    {"answer": ALLOWED, "problem": None},
                    {
                        "answer": None,
                        "problem": {
                            "status": 503,
                            "type": "/problems/unavailable",
                            "detail": "The owner of the account gave no answer; what was asked may have happened.",
                            "next_step": "Send the same request again in 1 s.",
                            "field": None,
                        },
                    },
                ]
            },
        ),
        request=ChecksRequest,
        response=ChecksAnswer,
        confines=True,
        body_bytes_max=BATCH_BYTES_MAX,
        also=TOO_SOON,
    ),
)
