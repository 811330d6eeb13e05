"""Events made parts of streams: a few at a time bear one id, and a `seq` that mostly grows."""

import re
from collections.abc import Callable
from random import Random
from typing import Final

PARTS: Final = 3  # events of one id
SHARE: Final = 0.5  # of the events of a seed that has streams
_ID: Final = re.compile(rb'"id":"[^"]*"')

Make = Callable[[int], bytes | None]


class Streaming:
    """Makes of some events of a seed parts of streams, so that it has no events more."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._parts = 0

    def part(self, make: Make) -> Make:
        """The event as it is, or under the id of a stream of its account."""
        if self._random.random() > SHARE:
            return make
        number, place = divmod(self._parts, PARTS)
        self._parts += 1
        seq = max(0, place + self._random.choice([0, 0, 0, 1, -1, -2]))

        def streamed(now_us: int) -> bytes | None:
            value = make(now_us)
            assert value is not None, "an event has a value"
            return _ID.sub(b'"seq":%d,"id":"stream-%d"' % (seq, number), value, count=1)

        return streamed
