"""Lines: amounts that a person charges or gives back, with a reason, or that a re-rating makes (README, "Manual lines").

A line is posted like an adjustment of late usage: in the segment of log time, for a billing period, in no cap and no tier.
"""

from typing import Final

from msgspec import Struct

LINES_MAX: Final = 1_000  # of one account
REASON_MAX: Final = 500  # characters
BACK_US: Final = 3_660 * 86_400 * 1_000_000  # how old a billing period may be
NO_PRICE: Final = ""  # in the place of a price: only lots that pay for everything pay for it


class Rerating(Struct, frozen=True):
    """Usage of [from, to) as a published version has it. Instants are segment starts, not event times."""

    version: int
    from_us: int
    to_us: int

    def covers(self, segment_us: int) -> bool:
        return self.from_us <= segment_us < self.to_us


class ManualLine(Struct, frozen=True):
    """`amount` is pico: above 0 it is charged, below 0 given back."""

    posted_us: int  # log time
    segment_us: int  # start of the segment that it is posted in
    period_us: int  # start of the billing period that it is for
    price: str  # whose lots pay; NO_PRICE: no price's
    amount: int
    reason: str
    by: str  # who
    rerated: Rerating | None = None  # it is the difference that this makes; None: somebody said the amount


def says_why(reason: str, by: str) -> bool:
    """Whether it is told why, and by whom."""
    return all(text.strip() and len(text) <= REASON_MAX and "\0" not in text for text in (reason, by))
