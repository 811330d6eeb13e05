"""Quantity grants (law R5): units of one price that owe nothing, behind what it includes and before its model (README,
"Quantity grants")."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct

from engine.prices.price import Price

GRANTED: Final = -2  # the number of a tier that no price has: of units that a grant has taken

Served = dict[tuple[int, str], int]  # (segment start, price name) -> nano-units that grants have taken


class QuantityGrant(Struct, frozen=True):
    """So many units of one price, in one billing period of its account. Half-open [effective, ends) by the event's own
    time."""

    grant: str
    price: str
    granted: int  # nano-units
    effective_us: int
    expires_us: int  # at the latest with the billing period in which it becomes effective
    voided_us: int | None = None  # from when on its rest is gone

    @property
    def order(self) -> tuple[int, int, str]:
        """In which those of one price are spent: earliest expiry, earliest effective, id."""
        return self.expires_us, self.effective_us, self.grant

    @property
    def boundaries(self) -> list[int]:
        """Where a segment of usage ends."""
        instants = [self.effective_us, self.expires_us]
        return instants if self.voided_us is None else [*instants, self.voided_us]

    def covers(self, start: int, period: int) -> bool:
        """Whether it serves a segment of a billing period: of its own, which may have come to end earlier."""
        ends_us = self.expires_us if self.voided_us is None else min(self.expires_us, self.voided_us)
        return period <= self.effective_us <= start < ends_us


class Service:
    """What grants take of usage, while an account's segments are walked in time order."""

    def __init__(
        self, grants: Iterable[QuantityGrant] = (), fixed: Mapping[tuple[int, str], int] | None = None
    ) -> None:
        """`fixed`: of closed periods, what was taken there; no more is."""
        self.taken: dict[str, int] = {}  # grant -> nano-units
        self.served: Served = {}
        self._fixed = fixed
        self._by_price: dict[str, list[QuantityGrant]] = {}
        for grant in sorted(grants, key=lambda each: each.order):
            self._by_price.setdefault(grant.price, []).append(grant)
        self._used: dict[tuple[int, str], int] = {}  # (period, price name) -> nano-units walked

    def take(self, start: int, period: int, price: Price, quantity: int, allowed: int = 0) -> int:
        """Of `quantity` used in a segment, under the price in force there: the nano-units that grants serve. `allowed`: so
        many of the period are left to the price by a shared allowance."""
        grants = self._by_price.get(price.name)
        if grants is None:
            return 0
        before = self._used.get((period, price.name), 0)
        after = self._used[period, price.name] = before + quantity
        included = allowed or price.curves[0].included
        wanted = max(0, after - included) - max(0, before - included)
        if self._fixed is not None:
            return min(wanted, self._fixed.get((start, price.name), 0))
        left = wanted
        for grant in grants:
            if left and grant.covers(start, period):
                taken = self.taken.get(grant.grant, 0)
                part = min(left, grant.granted - taken)
                self.taken[grant.grant] = taken + part
                left -= part
        self.served[start, price.name] = wanted - left
        return wanted - left


def granted_in(grants: Iterable[QuantityGrant], price: str, period: int, period_of: Callable[[int], int]) -> int:
    """Nano-units that grants of a price can serve in a billing period."""
    return sum(each.granted for each in grants if each.price == price and period_of(each.effective_us) == period)
