"""What is spent beyond a cap in its month and is not owed (law L1; README, "Waived usage").

Nothing of it is stored but which cap waives since when: what is waived is a function of what the segments come to.
"""

from collections.abc import Callable, Hashable, Mapping
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


def left_of(amounts: Amounts, waivers: Waivers, month_of: Callable[[int], int]) -> Amounts:
    """What is left of amounts in time order: in each month the first up to the cap, of a segment in order of the prices'
    names."""
    if not waivers:
        return amounts
    kept: dict[int, int] = {}  # by month: what is owed of it so far
    found: Amounts = []
    for start, period, by_price in amounts:
        month, waiver = month_of(start), waiver_at(waivers, start)
        parts = {}
        for name in sorted(by_price):
            parts[name] = by_price[name]
            if waiver is not None and waiver.amount is not None:
                parts[name] = min(parts[name], max(0, waiver.amount - kept.get(month, 0)))
            kept[month] = kept.get(month, 0) + parts[name]
        found.append((start, period, parts))
    return found


def most_left(
    amounts: Amounts,
    waivers: Waivers,
    month_of: Callable[[int], int],
    sure: Mapping[int, Mapping[str, int]],
    payers_of: Callable[[int, str], Hashable],
) -> Amounts:
    """What can be left of amounts at most, for all prices together that the same lots pay in a segment (`payers_of` a segment
    and price), if of them as much is spent as `sure` says, and of the rest any part.

    These owe no more than they come to, and no more than what lies for sure before the first of them leaves of the cap. Both
    fall, or stay, when something of the rest becomes sure: so no settlement within a hold leaves more to owe (law L4)."""
    kept: dict[int, int] = {}  # by month: what is owed of it so far, at least
    found: Amounts = []
    for start, period, by_price in amounts:
        month, waiver = month_of(start), waiver_at(waivers, start)
        parts, rooms = dict(by_price), dict[Hashable, int]()
        for name in sorted(by_price):
            least = sure.get(start, {}).get(name, 0)
            if waiver is not None and waiver.amount is not None:
                room = max(0, waiver.amount - kept.get(month, 0))
                payers = payers_of(start, name)
                if by_price[name]:
                    parts[name] = min(by_price[name], rooms.setdefault(payers, room))
                    rooms[payers] -= parts[name]
                least = min(least, room)
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
