"""A sieve over large runs: it tells most identities that they are in none of them, for one look at memory or two.

A Bloom filter of 16 bits per identity, split in two words of 64 bits, in each of which an identity sets three bits; one
identity in four hundred passes that should not. Looks at memory are what a search costs, so the columns of up to eight
runs lie side by side in one cache line, and eight runs that are complete share one long column.

Derived from the outlines alone, never stored, and never changed: a run is added by making the next sieve.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from engine.runs import Array, Batch, Run

WIDTH: Final = 8
WORDS_MIN: Final = 1 << 17  # so that runs of many sizes lie side by side
_SALTS: Final = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)


def _bits(heads: Array, salt: int) -> Array:
    """Three bits of 64 for each."""
    mixed = heads * np.uint64(salt)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    one = np.uint64(1)
    bits: Array = one << (mixed >> np.uint64(58))
    bits |= one << ((mixed >> np.uint64(52)) & np.uint64(63))
    bits |= one << ((mixed >> np.uint64(46)) & np.uint64(63))
    return bits


def _shift(count: int) -> int:
    """The bits of a head that do not choose its words: so that a word has up to 12 identities."""
    return 32 - max(WORDS_MIN.bit_length() - 1, (count // 6).bit_length() - 1)


class Sought:
    """A batch, prepared once for all sieves."""

    def __init__(self, batch: Batch) -> None:
        self.heads = batch.heads
        self.first = _bits(batch.heads, _SALTS[0])[:, None]
        self.second = _bits(batch.heads, _SALTS[1])


class Sieve:
    """One column over each group of runs."""

    def __init__(self, shift: int, groups: tuple[tuple[Run, ...], ...], first: Array, second: Array) -> None:
        self.groups = groups
        self._shift = shift
        self._first = first  # [words, groups]
        self._second = second

    @staticmethod
    def over(runs: tuple[Run, ...]) -> "Sieve":
        """One column over all these runs. It takes about a tenth of a second per million identities."""
        shift = _shift(sum(run.count for run in runs))
        first, second = np.zeros((2, 1 << (32 - shift)), np.uint64)
        for run in runs:
            heads = run.heads().astype(np.uint64)
            words = (heads >> np.uint64(shift)).astype(np.int64)
            starts = np.flatnonzero(np.concatenate(([True], words[1:] != words[:-1])))
            for column, salt in zip((first, second), _SALTS, strict=True):
                column[words[starts]] |= np.bitwise_or.reduceat(_bits(heads, salt), starts)
        return Sieve(shift, (runs,), first[:, None], second[:, None])

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for group in self.groups for run in group)

    def takes(self, run: Run) -> bool:
        """Whether the run may have a column beside ours."""
        return self._shift == _shift(run.count) and len(self.groups) < WIDTH

    def beside(self, run: Run) -> "Sieve":
        """The next sieve, with a run that ours takes: beside ours, or, once it is full, all in one column."""
        if len(self.groups) == WIDTH - 1:
            return Sieve.over((*self.runs, run))
        other = Sieve.over((run,))
        return Sieve(
            self._shift,
            self.groups + other.groups,
            np.concatenate((self._first, other._first), axis=1),
            np.concatenate((self._second, other._second), axis=1),
        )

    def suspects(self, sought: Sought) -> Iterator[tuple[int, Run]]:
        """(number in the batch, run that may hold it)."""
        words = (sought.heads >> np.uint64(self._shift)).view(np.int64)
        found = self._first.take(words, axis=0)
        found &= sought.first
        at = (found == sought.first).ravel().nonzero()[0]
        numbers, columns = np.divmod(at, len(self.groups))
        bits = sought.second.take(numbers)
        passed = (self._second[words.take(numbers), columns] & bits == bits).nonzero()[0]
        for number, column in zip(numbers[passed].tolist(), columns[passed].tolist(), strict=True):
            for run in self.groups[column]:
                yield number, run

    @property
    def nbytes(self) -> int:
        """Resident."""
        return self._first.nbytes + self._second.nbytes
