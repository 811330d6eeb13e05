"""Caps: money limits per calendar month. They bind checks, never rating (laws L1 and L2)."""

from msgspec import Struct


class Cap(Struct, frozen=True):
    """At most `amount` of spend in a calendar month of the account's zone."""

    cap: str
    amount: int  # pico

    def reached(self, percent: int) -> int:
        """The smallest spend, in pico, that is at least `percent` of the cap."""
        return -(-self.amount * percent // 100)
