"""Leases of an account: what gateways may still use of what was granted to them (README, "Leases").

They are in the log, so they are state: whoever owns the account next holds the same. Rating needs none of it; an event
that names a lease is rated by its token alone, as that of a hold is.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from engine.holds import Hold
from engine.outcomes import Settled

LEASES_MAX: Final = 1_000  # of one account, with those that are over and still remembered


class Lease(Struct, frozen=True):
    """What was granted, and what of it may still come."""

    hold: Hold  # all that was granted, extensions included
    left: tuple[int, ...]  # nano-units, by bound
    rated: int = 0  # usage events that have named it
    sent: int | None = None  # how many there will be, as its holder said in closing it; None: it is open

    @property
    def is_done(self) -> bool:
        """Whether it was closed and all its events have come: nothing is held any more."""
        return self.sent is not None and self.rated >= self.sent


def takes(known: Lease | None, hold: Hold) -> bool:
    """Whether the hold would be granted, or the lease extended to it, by a record that came now. A lease that has ended is
    not known any more: to extend it would grant anew all that was used of it. By a closed one nothing is decided."""
    return not hold.extends or (known is not None and known.sent is None)


class LeaseBook:
    """All leases of one account, by id, until nothing can be reported of them. `changed` are those that changed since
    whoever counts what they hold has looked, and cleared it; it is no part of the state."""

    __slots__ = ("changed", "of")

    def __init__(self) -> None:
        self.of: dict[str, Lease] = {}
        self.changed: set[str] = set()

    def put(self, hold: Hold, log_time_us: int) -> None:
        """It was granted, or extended to this. Nothing changes by a record that was written twice, nor by an extension that
        finds its lease over or closed."""
        if hold.report_until_us < log_time_us:
            return  # nothing of it can be reported: a copy of a record that came long ago, or one that came too late
        known = self.of.get(hold.id)
        if not takes(known, hold):
            return
        if known is None:
            self._set(Lease(hold, tuple(bound.quantity for bound in hold.bounds)))
        elif hold.requests > known.hold.requests or hold.report_until_us > known.hold.report_until_us:
            left = [
                had + max(0, now.quantity - before.quantity)
                for had, now, before in zip(known.left, hold.bounds, known.hold.bounds, strict=True)
            ]
            self._set(_settled(Lease(hold, tuple(left), known.rated, known.sent)))

    def draw(self, hold: Hold, used: Mapping[str, int], events: int, log_time_us: int) -> Settled:
        """An event that names the lease used this much, in nano-units per price. `events`: 0 if it takes the place of an
        earlier one."""
        known = self.of.get(hold.id)
        granted = hold if known is None else known.hold
        over = known is None or known.rated + events > granted.requests
        over = over or any(
            units and not any(price in bound.reached for bound in granted.bounds) for price, units in used.items()
        )
        left = []
        for bound, had in zip(granted.bounds, () if known is None else known.left, strict=False):
            units = sum(used.get(price, 0) for price in bound.reached)
            over = over or units > had
            left.append(max(0, had - units))
        if known is not None:
            self._set(_settled(Lease(granted, tuple(left), known.rated + events, known.sent)))
        if log_time_us > granted.expires_us:
            return Settled.LATE
        return Settled.OVER_HOLD if over else Settled.WITHIN

    def close(self, lease: str, sent: int) -> None:
        """Its holder decides nothing by it any more, and has sent so many events. The first word stands."""
        known = self.of.get(lease)
        if known is not None and known.sent is None:
            self._set(_settled(Lease(known.hold, known.left, known.rated, sent)))

    def wake_us(self) -> int | None:
        """When the first of them is over: from then on nothing that reaches the log is covered by it."""
        return min((each.hold.report_until_us + 1 for each in self.of.values()), default=None)

    def forget(self, instant_us: int) -> None:
        """Log time has reached the instant."""
        for lease in [name for name, each in self.of.items() if each.hold.report_until_us < instant_us]:
            del self.of[lease]
            self.changed.add(lease)

    def _set(self, lease: Lease) -> None:
        self.of[lease.hold.id] = lease
        self.changed.add(lease.hold.id)


def _settled(lease: Lease) -> Lease:
    if lease.is_done and any(lease.left):
        return Lease(lease.hold, (0,) * len(lease.left), lease.rated, lease.sent)
    return lease
