"""How fast checks are admitted: what each rate limit has counted in the last minute (README, "Admitted")."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from engine.holds import Bound
from engine.limits import RateLimit
from engine.prices.price import Price

SECOND_US: Final = 1_000_000
MINUTE_S: Final = 60


class _Minute:
    """What was admitted, by second: a second counts until all of it is a minute ago."""

    __slots__ = ("_seconds", "_total")

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # [second, amount], oldest first
        self._total = 0

    def left_of(self, most: int, now_us: int) -> int:
        self._forget(now_us)
        return most - self._total

    def full_for(self, most: int, amount: int, now_us: int) -> int | None:
        """Microseconds until so much more fits; 0: it does; None: it never will."""
        excess = amount - self.left_of(most, now_us)
        if excess <= 0:
            return 0
        for second, admitted in self._seconds:
            excess -= admitted
            if excess <= 0:
                return (second + MINUTE_S + 1) * SECOND_US - now_us
        return None

    def count(self, amount: int, now_us: int) -> None:
        second = now_us // SECOND_US
        if self._seconds and self._seconds[-1][0] >= second:
            self._seconds[-1][1] += amount
        else:
            self._seconds.append([second, amount])
        self._total += amount

    def _forget(self, now_us: int) -> None:
        while self._seconds and (self._seconds[0][0] + MINUTE_S + 1) * SECOND_US <= now_us:
            self._total -= self._seconds.popleft()[1]

    def idle(self, now_us: int) -> bool:
        self._forget(now_us)
        return not self._seconds


class TooFast(NamedTuple):
    """The limit that a request waits for longest; `wait_us` None: more than it will ever let through."""

    limit: RateLimit
    left: int
    wait_us: int | None


class Pace:
    """What the owner of an account has admitted of it lately."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, str | None], _Minute] = {}  # by limit, and what it counts

    def refusal(self, asked: Iterable[tuple[RateLimit, int]], now_us: int) -> TooFast | None:
        """Of limits, and what a request would count in each, the one that it does not fit in for longest."""
        worst: TooFast | None = None
        for limit, amount in asked:
            minute = self._minutes.get((limit.limit, limit.meter)) or _Minute()
            wait_us = minute.full_for(limit.most, amount, now_us)
            if wait_us == 0 or (worst is not None and worst.wait_us is None):
                continue
            if wait_us is None or worst is None or wait_us > (worst.wait_us or 0):
                worst = TooFast(limit, max(0, minute.left_of(limit.most, now_us)), wait_us)
        return worst

    def count(self, admitted: Iterable[tuple[RateLimit, int]], now_us: int) -> None:
        """So much was admitted under each of these limits."""
        for limit, amount in admitted:
            if amount:
                self._minutes.setdefault((limit.limit, limit.meter), _Minute()).count(amount, now_us)

    def idle(self, now_us: int) -> bool:
        """Whether nothing counts any more."""
        return all(minute.idle(now_us) for minute in self._minutes.values())


def counted_by(
    limit: RateLimit, bounds: Iterable[Bound], prices: Mapping[str, Price], *, is_request: bool = True
) -> int:
    """What a request counts in a limit: one admission (an extension is none), or the nano-units of the limit's meter that
    its bounds may come to."""
    if limit.meter is None:
        return 1 if is_request else 0
    return sum(
        bound.quantity
        for bound in bounds
        if any(name in prices and prices[name].meter == limit.meter for name in bound.reached)
    )
