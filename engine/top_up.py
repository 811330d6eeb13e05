"""Automatic top-up (law C5): when more credit is asked for, by which id, and what was answered (README, "Top-up").

The engine asks and never pays: a request is told like an alert, and a command says what became of the payment.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.alerts import Crossing
from engine.credit import UNBOUNDED

RULE: Final = "top_up"  # under which endpoints may ask to be told of requests alone
WINDOW: Final = "request"  # none that a rule has: so no id of an alert is a request's


class Terms(Struct, frozen=True):
    """When credit is asked for, and what the lot is like that a payment makes."""

    threshold: int  # pico: asked for once the balance is at or below
    amount: int  # pico
    cooldown_us: int  # behind a request, and behind an answer, in which nothing is asked for
    attempts: int  # requests in a row that may fail
    priority: int = 100
    days: int | None = None  # of 24 hours, from when the lot begins to its expiry; None: it never expires


class TopUp(Struct, frozen=True):
    """How an account stands to its top-up. Without `terms` nothing is asked for; an open request can still be answered."""

    terms: Terms | None = None
    ordinal: int = 0  # requests so far
    failed: int = 0  # of the last ones, in a row
    since_us: int = 0  # log time of the last request or answer
    asked: Terms | None = None  # as they were at the open request; None: there is none
    low: bool = False  # the balance is at or below the threshold

    @property
    def due_us(self) -> int | None:
        """From which log time on a request is made; None: none is wanted."""
        terms = self.terms
        if terms is None or self.asked is not None or not self.low or self.failed >= terms.attempts:
            return None
        return self.since_us + terms.cooldown_us if self.ordinal else 0

    def after(self, balance: int, now_us: int) -> "TopUp":
        """With this balance, at this log time: one request more, if one is due."""
        if self.terms is None:
            return self
        low = balance <= self.terms.threshold
        seen = replace(self, low=low, failed=self.failed if low else 0)
        due_us = seen.due_us
        if due_us is None or due_us > now_us:
            return seen
        return replace(seen, ordinal=seen.ordinal + 1, since_us=now_us, asked=seen.terms)

    def answered(self, *, paid: bool, now_us: int) -> "TopUp":
        """What became of the open request."""
        return replace(self, asked=None, since_us=now_us, failed=0 if paid else self.failed + 1)

    def room(self, balance: int) -> int:
        """Pico that may be charged, by less than this, before credit is asked for."""
        return UNBOUNDED if self.terms is None or self.low else balance - self.terms.threshold

    def wakes_us(self, woken_us: int) -> int | None:
        """When it wants looking at although nothing happens."""
        due_us = self.due_us
        return due_us if due_us is not None and due_us > woken_us else None


NONE: Final = TopUp()  # of an account for which nobody has set any


def request_id(account: str, ordinal: int) -> str:
    """By which a request is told and answered; also the id of the lot that its payment makes."""
    return Crossing(account, RULE, WINDOW, ordinal, "requested", None, None).alert_id


def request(account: str, top_up: TopUp, balance: int) -> Crossing:
    """What is told of the request that is open."""
    assert top_up.asked is not None
    return Crossing(
        account,
        RULE,
        WINDOW,
        top_up.ordinal,
        "requested",
        balance,
        top_up.asked.threshold,
        amount=top_up.asked.amount,
        attempt=top_up.failed + 1,
    )
