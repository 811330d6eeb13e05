"""What is spent beyond a cap in its month and is not owed (law L1; README, "Waived usage").

Nothing of it is stored but which cap waives since when: what is waived is a function of what the segments come to.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from engine.closing import Amounts
from engine.outcomes import Line

WAIVED: Final = "waived"  # what a line is due for that takes off what a cap waives


class Waiver(Struct, frozen=True):
    """From the start of a billing period on, until the next one."""

    from_us: int
    cap: str
    amount: int | None  # pico that a calendar month owes at most; None: all is owed


Waivers = tuple[Waiver, ...]  # in order of time


def waiving(waivers: Waivers, from_us: int, cap: str, amount: int | None) -> Waivers:
    """With this cap's amount from then on; what is closed stays as it was."""
    earlier = tuple(each for each in waivers if each.from_us < from_us)
    if amount is None and (not earlier or earlier[-1].amount is None):
        return earlier
    return (*earlier, Waiver(from_us, cap, amount))


def waiver_at(waivers: Waivers, time_us: int) -> Waiver | None:
    """The one that counts at an instant."""
    found = [each for each in waivers if each.from_us <= time_us]
    return found[-1] if found and found[-1].amount is not None else None


def left_of(
    amounts: Amounts,
    waivers: Waivers,
    month_of: Callable[[int], int],
    sure: Mapping[int, Mapping[str, int]] | None = None,
) -> Amounts:
    """What is left of amounts in time order: in each month the first up to the cap, of a segment in order of the prices'
    names.

    `sure`: by segment and price, what will be spent whatever becomes of the rest of the amounts: only that uses the cap up,
    so no segment can come to owe more than is said here. None: all of them."""
    if not waivers:
        return amounts
    kept: dict[int, int] = {}  # by month: what is owed of it so far, for sure
    found: Amounts = []
    for start, period, by_price in amounts:
        month, waiver = month_of(start), waiver_at(waivers, start)
        certain = by_price if sure is None else sure.get(start, {})
        parts = {}
        for name in sorted(by_price):
            least = certain.get(name, 0)
            parts[name] = by_price[name]
            if waiver is not None and waiver.amount is not None:
                room = max(0, waiver.amount - kept.get(month, 0))
                parts[name], least = min(by_price[name], room), min(least, room)
            kept[month] = kept.get(month, 0) + least
        found.append((start, period, parts))
    return found


def waived(amounts: Amounts, left: Amounts) -> dict[int, int]:
    """Pico by segment, where it is something: what was taken off these amounts."""
    both = zip(amounts, left, strict=True)
    found = {start: sum(charged.values()) - sum(owed.values()) for (start, _, charged), (_, _, owed) in both}
    return {start: pico for start, pico in found.items() if pico}


def waived_line(waiver: Waiver, more: int) -> Line:
    """The line of what is waived more, in pico; of nothing where only the prices have changed of which it is."""
    return Line(waiver.cap, (), 0, -more, (), due=WAIVED)
