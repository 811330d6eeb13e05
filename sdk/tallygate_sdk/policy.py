"""What a check answers when nobody does: closed (no), open (yes), or an overdraft of a stated size.

A policy is asked only when the service gave no decision within the deadline. What it lets through has no hold and has
been held against no limit: report its usage as ever, and it is charged once the service is back.
"""

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Protocol

from tallygate_sdk.answers import Decision, Running
from tallygate_sdk.questions import Check, Quantity


class FailurePolicy(Protocol):
    """Decides in place of the service."""

    def allows(self, check: Check) -> bool: ...


class _Closed:
    def allows(self, check: Check) -> bool:
        return False


class _Open:
    def allows(self, check: Check) -> bool:
        return True


CLOSED: Final[FailurePolicy] = _Closed()
OPEN: Final[FailurePolicy] = _Open()


class Budget:
    """So much in any window of `every_s` seconds; a window begins with the first that is let through after the last one.

    Share one among all callers of a process: it is what that process may at most let through unseen, in each window.
    Whether it counts requests or money is for the overdraft to say that draws on it."""

    def __init__(self, limit: Quantity, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = Decimal(limit)
        self.every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._taken = Decimal(0)

    def take(self, amount: Quantity) -> bool:
        """Whether there was room for it; then it is taken."""
        wanted = Decimal(amount)
        with self._lock:
            now_s = self._clock()
            if self._began_s is not None and now_s >= self._began_s + self.every_s:
                self._began_s, self._taken = None, Decimal(0)
            if wanted < 0 or self._taken + wanted > self.limit:
                return False
            if self._began_s is None:
                self._began_s = now_s
            self._taken += wanted
            return True


def _requests(check: Check) -> Quantity:
    return check.n


class Overdraft:
    """Lets requests through while the budget lasts. `cost` says what one takes of it: by default 1 for each request,
    so that the budget counts requests; for a budget of money, what the request may cost at most."""

    def __init__(self, budget: Budget, cost: Callable[[Check], Quantity] = _requests) -> None:
        self._budget = budget
        self._cost = cost

    def allows(self, check: Check) -> bool:
        return self._budget.take(self._cost(check))


def decided_by(policy: FailurePolicy, check: Check, last: Decision | None) -> Decision:
    """`last`: what the service said in the end, if it said that the account's owner is being replaced."""
    if policy.allows(check):
        return Decision(True, decided_by="policy")
    if last is not None:
        return last
    return Decision(False, "unavailable", transient=True, decided_by="policy")


def carried_on_by(policy: FailurePolicy, check: Check) -> Running:
    """The same of a stream that runs; `check`: what is ahead of it. What it holds is not known to cover anything more."""
    decision = decided_by(policy, check, None)
    return Running("continue" if decision.allowed else "stop", check=decision)
