"""Whether the GPUs of a replica were busy, as far as samples tell: it sizes what nobody is known to have used, and never
splits what is known."""

from bisect import bisect_left, bisect_right
from typing import Final

BUSY_PERMILLE: Final = 50  # below it, what a driver and a monitor do by themselves
GAP_US: Final = 60_000_000  # a sample speaks for what lies behind the one before it, and for a minute at most


class Activity:
    """The samples of one replica: of each GPU the share of time in which it worked, in permille, by instant.

    What counts is the set of samples: neither their order nor how often one comes changes anything."""

    def __init__(self) -> None:
        self._instants: dict[str, list[int]] = {}
        self._shares: dict[str, list[int]] = {}

    def note(self, gpu: str, at_us: int, permille: int) -> tuple[int, int] | None:
        """One sample. The stretch that may be told otherwise now; None if none. Of two for one instant the higher counts."""
        instants, shares = self._instants.setdefault(gpu, []), self._shares.setdefault(gpu, [])
        index = bisect_left(instants, at_us)
        if index < len(instants) and instants[index] == at_us:
            if permille <= shares[index]:
                return None
            shares[index] = permille
        else:
            instants.insert(index, at_us)
            shares.insert(index, permille)
        end = instants[index + 1] if index + 1 < len(instants) else at_us
        return at_us - GAP_US, end

    def busy(self, begin_us: int, end_us: int) -> list[tuple[int, int]]:
        """Where in [begin_us, end_us) a GPU is known to have worked: in order, apart."""
        found = []
        for gpu, instants in self._instants.items():
            shares = self._shares[gpu]
            for index in range(bisect_right(instants, begin_us), len(instants)):
                at = instants[index]
                since = at - GAP_US if index == 0 else max(instants[index - 1], at - GAP_US)
                if since >= end_us:
                    break
                if shares[index] > BUSY_PERMILLE and max(since, begin_us) < min(at, end_us):
                    found.append((max(since, begin_us), min(at, end_us)))
        merged: list[tuple[int, int]] = []
        for begin, end in sorted(found):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def forget(self, before_us: int) -> None:
        """Drop the samples that say nothing of what is not before the instant, but for the last of them."""
        for gpu, instants in self._instants.items():
            index = max(bisect_left(instants, before_us) - 1, 0)
            del instants[:index], self._shares[gpu][:index]
