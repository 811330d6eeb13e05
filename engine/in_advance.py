"""What a billing period owes ahead of its end: fees in advance and seats (README, "Fees in advance").

A function of what has begun by a log time: a change of plan, a pause or another number of seats counts from its own instant
on, whenever it was said. What is posted is the difference to what was posted for the period before.
"""

from collections.abc import Mapping
from typing import Final

from engine.catalog import PriceBook
from engine.contract import Contract
from engine.period_lines import Due, PeriodTerms, period_terms

# How far it is looked for a period that owes something: what is sold may change for the last time in a thousand years.
LOOK_AHEAD_US: Final = 366 * 86_400_000_000


def owed_in_advance(
    terms: PeriodTerms | None, contract: Contract, book: PriceBook, start: int, now_us: int
) -> Mapping[Due, int]:
    """Pico per line, without those of nothing, of the period that starts then, if it goes on as it does at this log time.
    `terms`: what binds in it by the whole contract."""
    begun = contract.begun_by(now_us)
    going_on = terms if begun is contract else period_terms(begun, book, start)
    return {} if going_on is None else going_on.ahead


def wakes_us(contract: Contract, book: PriceBook, woken_us: int) -> int | None:
    """When something may next be owed in advance, or no longer: a period, a pause or other seats
    begin, or a pause ends; or when it is to be looked for that anew."""
    _, start = contract.period_around(woken_us)
    turns = contract.turns_behind(woken_us)
    last_us = max(book.last_start, contract.last_start, contract.opened_us)
    while True:
        plan = contract.plan_at(book, start)
        if plan is not None and plan.has_advance:
            return min([start, *turns])
        if start >= last_us:
            return min(turns, default=None)
        if start > woken_us + LOOK_AHEAD_US:
            return min([start, *turns])
        _, start = contract.period_around(start)
