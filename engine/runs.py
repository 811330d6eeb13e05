"""The two forms that remembered identities take: loose, as they arrive, and sealed, sorted for good.

An entry has 20 bytes: 12 of the identity, 4 of the fingerprint, 4 of the offset (engine/dedup.py). Loose entries stand in
the order of arrival behind a hash index. A sealed run is two strings of bytes that never change again:

    outline  the first 32 bits of each identity, sorted. A run of LARGE or more: a table of 65,537 numbers of 32 bits, how
             many entries lie below each value of the first 16 bits; then 16 bits for each entry, the next ones. A
             smaller run: 32 bits for each entry.
    rows     for each entry, in the same order, its other 16 bytes: 8 of the identity, fingerprint, offset

So a large run has 18.25 bytes per entry. Its outline, 2.25 of them, says at which row an identity would stand, and one
in four thousand that is not in a run of a million is told to look at a row in vain. All numbers are little-endian, but
for the identity, whose first byte is the most significant.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct

ENTRY_BYTES: Final = 20
KEY_BYTES: Final = 12
ROW_BYTES: Final = 16
HEAD_BYTES: Final = 4  # of the identity, in the outline
LARGE: Final = 1 << 17
_TABLE: Final = 1 << 16
_PIECE: Final = 1 << 16

Array = np.ndarray[Any, Any]
Buffer = bytes | bytearray | memoryview


class Batch:
    """Identities to be searched for together."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = keys
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        self.words = np.ascontiguousarray(table[:, :8]).view("<u8").ravel()  # the first 8 bytes as they stand
        self.heads = self.words.byteswap() >> np.uint64(32)  # the first 4 bytes, as a number

    def __len__(self) -> int:
        return len(self.keys)


class Loose:
    """Up to `capacity` entries, of a generation that may grow; `index` makes findable what was appended since the last call."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is a power of two."""
        self.count = 0
        self.capacity = capacity
        self._indexed = 0
        self._taken = 0
        self._entries = np.zeros(capacity * ENTRY_BYTES, np.uint8)  # not touched, so not resident, before it is used
        self._bytes = self._entries.data
        self._words: Array = np.ndarray((capacity,), "<u8", self._entries, 0, (ENTRY_BYTES,))
        self._slots: Array | None = None  # number of the entry plus one, 0: free

    @property
    def free(self) -> int:
        """How many more fit."""
        return self.capacity - self.count

    def append(self, entries: bytes) -> None:
        """They must fit."""
        start = self.count * ENTRY_BYTES
        self._bytes[start : start + len(entries)] = entries
        self.count += len(entries) // ENTRY_BYTES

    @property
    def nbytes(self) -> int:
        """Of memory, once it is full."""
        return self._entries.nbytes + (0 if self._slots is None else self._slots.nbytes)

    def take(self) -> bytes:
        """What was appended since the last call."""
        start, self._taken = self._taken, self.count
        return bytes(self._bytes[start * ENTRY_BYTES : self.count * ENTRY_BYTES])

    def entries(self) -> memoryview:
        """All of them, as they stand."""
        return self._bytes[: self.count * ENTRY_BYTES]

    def index(self) -> None:
        """Each entry takes the first free slot from where its identity points."""
        if self._indexed == self.count:
            return
        if self._slots is None:
            self._slots = np.zeros(2 * self.capacity, np.uint32)
        slots, numbers = self._slots, np.arange(self._indexed + 1, self.count + 1, dtype=np.uint32)
        wanted = self._slot_of(self._words[self._indexed : self.count])
        while len(numbers):
            free = slots[wanted] == 0
            slots[wanted[free]] = numbers[free]  # of several that want one slot, one gets it
            lost = slots[wanted] != numbers
            numbers, wanted = numbers[lost], (wanted[lost] + 1) & (len(slots) - 1)
        self._indexed = self.count

    def _slot_of(self, words: Array) -> Array:
        return (words >> np.uint64(32)).astype(np.int64) & (2 * self.capacity - 1)

    def get(self, key: bytes) -> bytes | None:
        """Fingerprint and offset, if it is indexed here."""
        if self._slots is None:
            return None
        slots, wanted = self._slots.data, int.from_bytes(key[4:8], "little") & (2 * self.capacity - 1)
        while number := slots[wanted]:
            start = (number - 1) * ENTRY_BYTES
            if self._bytes[start : start + KEY_BYTES] == key:
                return bytes(self._bytes[start + KEY_BYTES : start + ENTRY_BYTES])
            wanted = (wanted + 1) & (2 * self.capacity - 1)
        return None

    def find(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        """(number in the batch, fingerprint and offset) of those indexed here."""
        if self._slots is None:
            return
        pending = np.arange(len(batch))
        wanted = self._slot_of(batch.words)
        while len(pending):
            numbers = self._slots[wanted]
            taken = numbers != 0
            pending, wanted, numbers = pending[taken], wanted[taken], numbers[taken]
            for at in np.flatnonzero(self._words[numbers - 1] == batch.words[pending]).tolist():
                start = (int(numbers[at]) - 1) * ENTRY_BYTES
                number = int(pending[at])
                if self._bytes[start : start + KEY_BYTES] == batch.keys[number]:
                    yield number, bytes(self._bytes[start + KEY_BYTES : start + ENTRY_BYTES])
            wanted = (wanted + 1) & (len(self._slots) - 1)


class Sealed(Struct, frozen=True):
    """A run as bytes (see above)."""

    count: int
    outline: bytes
    rows: bytes


def seal(loose: Iterable[Buffer]) -> Sealed:
    """A run of all these entries. At a million it takes about a fifth of a second, most of it without Python's lock."""
    entries = b"".join(loose)
    words = np.ndarray((len(entries) // ENTRY_BYTES,), ">u8", entries, 0, (ENTRY_BYTES,)).astype(np.uint64)
    order = np.argsort(words)
    heads = (words[order] >> np.uint64(32)).astype(np.uint32)
    table = np.frombuffer(entries, f"V{ENTRY_BYTES}")
    pieces = []
    for start in range(0, len(order), _PIECE):  # all at once, another copy of the run would be in memory
        piece = table[order[start : start + _PIECE]].view(np.uint8).reshape(-1, ENTRY_BYTES)
        pieces.append(piece[:, HEAD_BYTES:].tobytes())
    rows = b"".join(pieces)
    if len(heads) < LARGE:
        return Sealed(len(heads), heads.astype("<u4").tobytes(), rows)
    below = np.searchsorted(heads >> np.uint32(16), np.arange(_TABLE + 1, dtype=np.uint32))
    return Sealed(len(heads), below.astype("<u4").tobytes() + heads.astype("<u2").tobytes(), rows)


def outline_bytes(count: int) -> int:
    """The length of the outline of a run of `count` entries."""
    return 4 * count if count < LARGE else 4 * (_TABLE + 1) + 2 * count


class Run:
    """A sealed run in use: all entries of one generation of a bucket. Its buffers may be files in memory; `rows` is None
    while they are elsewhere."""

    def __init__(self, bucket: int, generation: int, count: int, outline: Buffer, rows: Buffer | None) -> None:
        """Raises ValueError for buffers that cannot be those of `count` entries."""
        if len(outline) != outline_bytes(count) or (rows is not None and len(rows) != count * ROW_BYTES):
            raise ValueError(f"these are not the outline and the rows of a run of {count} entries")
        self.bucket = bucket
        self.generation = generation
        self.count = count
        self.large = count >= LARGE
        self.rows = rows
        self.brought: dict[int, bytes] = {}  # single rows, while the others are elsewhere
        self._read_in(outline)

    def _read_in(self, outline: Buffer) -> None:
        self.outline = outline
        count = self.count
        if self.large:
            self._below = np.frombuffer(outline, "<u4", _TABLE + 1).data
            self._marks: Array = np.frombuffer(outline, "<u2", count, 4 * (_TABLE + 1))
        else:
            self._marks = np.frombuffer(outline, "<u4", count)
        self._mark = self._marks.data  # ten times faster than an array when a single number is asked for

    def heads(self) -> Array:
        """The first 32 bits of each identity, sorted."""
        if not self.large:
            return self._marks
        tops = np.repeat(np.arange(_TABLE, dtype=np.uint32), np.diff(np.asarray(self._below)))
        return (tops << np.uint32(16)) | self._marks

    def places(self, head: int) -> range:
        """The rows of the identities that begin with these 32 bits."""
        if self.large:
            mark, first, end = head & 0xFFFF, self._below[head >> 16], self._below[(head >> 16) + 1]
        else:
            mark, first, end = head, 0, self.count
        marks = self._mark
        first = last = bisect_left(marks, mark, first, end)
        while last < end and marks[last] == mark:
            last += 1
        return range(first, last)

    def suspects(self, heads: Array) -> list[int]:
        """The numbers of the heads that are in the outline. For a small run: a large one is behind a sieve."""
        at = np.searchsorted(self._marks, heads.astype(np.uint32))
        at[at == self.count] = 0
        return np.flatnonzero(self._marks[at] == heads).tolist()

    def row(self, place: int) -> Buffer | None:
        """The other 16 bytes of an entry; None when they are elsewhere."""
        if self.rows is None:
            return self.brought.get(place)
        return self.rows[place * ROW_BYTES : (place + 1) * ROW_BYTES]

    def bring(self, whole: Buffer) -> None:
        """All rows are here: outline and rows, one behind the other. Raises ValueError when they cannot be this run's."""
        size = outline_bytes(self.count)
        if len(whole) != size + self.count * ROW_BYTES:
            raise ValueError(f"{len(whole)} bytes are no outline and rows of a run of {self.count} entries")
        view = memoryview(whole)
        self._read_in(view[:size])
        self.rows = view[size:]
        self.brought = {}

    def entries(self) -> bytes:
        """All entries. Raises ValueError when the rows are elsewhere."""
        if self.rows is None:
            raise ValueError("the rows of this run have not been brought yet")
        table = np.empty((self.count, ENTRY_BYTES), np.uint8)
        table[:, :HEAD_BYTES] = self.heads().astype(">u4").view(np.uint8).reshape(-1, HEAD_BYTES)
        table[:, HEAD_BYTES:] = np.frombuffer(self.rows, np.uint8).reshape(-1, ROW_BYTES)
        return table.tobytes()
