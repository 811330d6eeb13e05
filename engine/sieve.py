"""A sieve over large runs: it tells most identities that they are in none of them, for one look at memory.

A Bloom filter of 16 bits per identity, in pairs of words of 64 bits, in each of which an identity sets three bits; one
identity in four hundred passes that should not. Looks at memory are what a search costs, and calls of numpy, so the
pairs of up to eight runs lie side by side, and eight runs that are complete share one long column.

Derived from the outlines alone, never stored, and never changed: a run is added by making the next sieve.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from engine.runs import Array, Batch, Run

WIDTH: Final = 8
WORDS_MIN: Final = 1 << 17  # so that runs of many sizes lie side by side
_BOTH: Final = 0x0101  # two truths, side by side


def _patterns() -> Array:
    """4,096 words of 64 bits with three bits set, or seldom two."""
    mixed = np.arange(4096, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    at = mixed[:, None] >> np.array([58, 52, 46], np.uint64) & np.uint64(63)
    patterns: Array = np.bitwise_or.reduce(np.uint64(1) << at, axis=1)
    return patterns


_PATTERNS: Final = _patterns()


def _bits(heads: Array) -> Array:
    """[identities, 2]: the bits of each in its two words. The low bits of a head decide; its high ones choose the words."""
    mixed = heads * np.uint32(0x9E3779B1)
    bits: Array = _PATTERNS.take(mixed[:, None] >> np.array([20, 8], np.uint32) & np.uint32(4095))
    return bits


def _shift(count: int) -> int:
    """The bits of a head that do not choose its words: so that a word has up to 12 identities."""
    return 32 - max(WORDS_MIN.bit_length() - 1, (count // 6).bit_length() - 1)


class Sought:
    """A batch, prepared once for all sieves."""

    def __init__(self, batch: Batch) -> None:
        self.heads = batch.heads
        self.bits = _bits(batch.heads)[:, None]


class Sieve:
    """One column over each group of runs."""

    def __init__(self, shift: int, groups: tuple[tuple[Run, ...], ...], words: Array) -> None:
        self.groups = groups
        self._shift = shift
        self._words = words  # [places, groups, 2]

    @staticmethod
    def over(runs: tuple[Run, ...]) -> "Sieve":
        """One column over all these runs. It takes about a tenth of a second per million identities."""
        shift = _shift(sum(run.count for run in runs))
        words = np.zeros((1 << (32 - shift), 2), np.uint64)
        for run in runs:
            heads = run.heads()
            places = heads >> np.uint32(shift)
            starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
            words[places[starts]] |= np.bitwise_or.reduceat(_bits(heads), starts)
        return Sieve(shift, (runs,), words[:, None])

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
        return Sieve(self._shift, self.groups + other.groups, np.concatenate((self._words, other._words), axis=1))

    def suspects(self, sought: Sought) -> Iterator[tuple[int, Run]]:
        """(number in the batch, run that may hold it)."""
        found = self._words.take(sought.heads >> np.uint32(self._shift), axis=0)
        found &= sought.bits
        passed = ((found == sought.bits).view(np.uint16) == _BOTH).ravel().nonzero()[0]
        for at in passed.tolist():
            for run in self.groups[at % len(self.groups)]:
                yield at // len(self.groups), run

    @property
    def nbytes(self) -> int:
        """Resident."""
        return self._words.nbytes
