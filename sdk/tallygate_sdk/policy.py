"""What a check answers when nobody does: closed (no), open (yes), or an overdraft of a stated size.

A policy is asked only when the service gave no decision within the deadline. What it lets through has no hold and has
been held against no limit: report its usage as ever, and it is charged once the service is back.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, Protocol

from msgspec import Struct

from tallygate_sdk.answers import Decision, Running
from tallygate_sdk.questions import Bound, Check, Quantity, Usage

SLICES: Final = 100  # of a budget's time: so many amounts are remembered at the most


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
    """At most so much within any `every_s` seconds, whenever they begin.

    Share one among all callers of a process: it is what that process may at most let through unseen, in so long a time.
    Whether it counts requests or money is for the overdraft to say that draws on it."""

    def __init__(self, limit: Quantity, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = Decimal(limit)
        self.every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[_Taken] = deque()
        self._sum = Decimal(0)

    def take(self, amount: Quantity) -> bool:
        """Whether there was room for it; then it is taken."""
        wanted = Decimal(amount)
        with self._lock:
            now_s = self._clock()
            while self._taken and now_s >= self._taken[0].last_s + self.every_s:
                self._sum -= self._taken.popleft().amount
            if wanted < 0 or self._sum + wanted > self.limit:
                return False
            self._note(now_s, wanted)
            return True

    def _note(self, now_s: float, amount: Decimal) -> None:
        """What is taken within a hundredth of the time is kept as one, and comes free with the last of it."""
        self._sum += amount
        if self._taken and now_s < self._taken[-1].first_s + self.every_s / SLICES:
            self._taken[-1].last_s = now_s
            self._taken[-1].amount += amount
        else:
            self._taken.append(_Taken(now_s, now_s, amount))


class _Taken(Struct):
    first_s: float
    last_s: float
    amount: Decimal


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


def carried_on_by(policy: FailurePolicy, usage: Usage, ahead: Sequence[Bound]) -> Running:
    """The same of a stream that runs: the policy is asked about what is ahead of it, with the dimensions that it has had so
    far. What it holds is not known to cover anything more."""
    dimensions = {name: value for name, value in usage.data.items() if isinstance(value, str)}
    check = Check(usage.account, usage.scope, usage.type, dimensions, bounds=tuple(ahead))
    decision = decided_by(policy, check, None)
    return Running("continue" if decision.allowed else "stop", check=decision)
