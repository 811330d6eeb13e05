"""A sieve over large runs: it tells most identities that they are in none of them, for one look at memory.

A Bloom filter of 16 bits per identity, in pairs of words of 64 bits, in each of which an identity sets three bits; one
identity in four hundred passes that should not. Looks at memory are what a search costs, and calls of numpy, so the
pairs of up to eight runs lie side by side, and eight runs that are complete share one long column.

Derived from the outlines alone, never stored, and never changed: a run is added by making the next sieve.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from engine.runs import Array, Batch, Run

WIDTH: Final = 8
WORDS_MIN: Final = 1 << 17  # so that runs of many sizes lie side by side
_PIECE: Final = 1 << 14  # heads; more at once, and their bits leave the cache
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
_FACTOR: Final = np.uint32(0x9E3779B1)
_SHIFTS: Final = np.array([20, 8], np.uint32)
_LOWEST: Final = np.uint32(len(_PATTERNS) - 1)


def _bits(heads: Array, shifts: Array) -> Array:
    """The bits of each identity in the word, or words, of these shifts. The low bits of a head decide; its high ones choose
    the words."""
    bits: Array = _PATTERNS.take(heads * _FACTOR >> shifts & _LOWEST)
    return bits


def _shift(count: int) -> int:
    """The bits of a head that do not choose its words: so that a word has up to 12 identities."""
    return 32 - max(WORDS_MIN.bit_length() - 1, (count // 6).bit_length() - 1)


class Sought:
    """A batch, prepared once for all sieves."""

    def __init__(self, batch: Batch) -> None:
        self.count = len(batch)
        self.bits = _bits(batch.heads[:, None], _SHIFTS)
        self._heads = batch.heads
        self._places: dict[int, Array] = {}

    def places(self, shift: int) -> Array:
        """Of the words of each identity, in the sieves with this shift."""
        if shift not in self._places:
            self._places[shift] = (self._heads >> np.uint32(shift)).astype(np.intp)
        return self._places[shift]


class Sieve:
    """One column over each group of runs."""

    def __init__(self, shift: int, groups: tuple[tuple[Run, ...], ...], words: Array) -> None:
        self.groups = groups
        self.shift = shift
        self.words = words  # [places, groups, 2]

    @staticmethod
    def over(runs: tuple[Run, ...]) -> "Sieve":
        """One column over all these runs. It takes about a thirtieth of a second per million identities."""
        shift = _shift(sum(run.count for run in runs))
        words = np.zeros((1 << (32 - shift), 2), np.uint64)
        for run in runs:
            heads = run.heads()
            for piece in (heads[at : at + _PIECE] for at in range(0, len(heads), _PIECE)):
                places = piece >> np.uint32(shift)
                starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
                for word, shifts in enumerate(_SHIFTS):  # both at once, and it takes half as long again
                    words[places[starts], word] |= np.bitwise_or.reduceat(_bits(piece, shifts), starts)
        return Sieve(shift, (runs,), words[:, None])

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for group in self.groups for run in group)

    def takes(self, run: Run) -> bool:
        """Whether the run may have a column beside ours."""
        return self.shift == _shift(run.count) and len(self.groups) < WIDTH

    def beside(self, run: Run) -> "Sieve":
        """The next sieve, with a run that ours takes: beside ours, or, once it is full, all in one column."""
        if len(self.groups) == WIDTH - 1:
            return Sieve.over((*self.runs, run))
        other = Sieve.over((run,))
        return Sieve(self.shift, self.groups + other.groups, np.concatenate((self.words, other.words), axis=1))

    @property
    def nbytes(self) -> int:
        """Resident."""
        return self.words.nbytes


def suspects(sieves: Iterable[Sieve], sought: Sought) -> Iterator[tuple[int, tuple[Run, ...]]]:
    """(number in the batch, runs of which one may hold it). Sieves of one column, which a full memory has most of, are
    looked at together."""
    columns = [sieve for sieve in sieves if len(sieve.groups) == 1]
    pairs = np.empty((len(columns), sought.count), np.complex128)  # two words as one number, for it is only moved
    for row, sieve in zip(pairs, columns, strict=True):
        sieve.words.view(np.complex128).ravel().take(sought.places(sieve.shift), out=row, mode="clip")
    if columns:
        for at in _passed(pairs.view(np.uint64).reshape(len(columns), -1, 2), sought.bits):
            yield at % sought.count, columns[at // sought.count].groups[0]
    for sieve in sieves:
        if len(sieve.groups) > 1:
            words = sieve.words.take(sought.places(sieve.shift), axis=0)
            for at in _passed(words, sought.bits[:, None]):
                yield at // len(sieve.groups), sieve.groups[at % len(sieve.groups)]


def _passed(words: Array, bits: Array) -> list[int]:
    """The numbers of the pairs of words in which all the bits are set."""
    words &= bits
    numbers: list[int] = ((words == bits).view(np.uint16) == _BOTH).ravel().nonzero()[0].tolist()
    return numbers
