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
_LINE: Final = 16  # cells
_TAKEN: Final = 1 << 31

Array = np.ndarray[Any, Any]
Buffer = bytes | bytearray | memoryview


class Batch:
    """Identities to be searched for together."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = keys
        joined, each = b"".join(keys), (len(keys),)
        self.heads = np.ndarray(each, ">u4", joined, 0, (KEY_BYTES,)).astype(np.uint32)  # the first 4 bytes
        self.hashes = np.ndarray(each, "<u4", joined, HEAD_BYTES, (KEY_BYTES,)).astype(np.uint32)  # the next 4

    def __len__(self) -> int:
        return len(self.keys)


class Loose:
    """Up to `capacity` entries, of a generation that may grow; `index` makes findable what was appended since the last call.

    The index is lines of 16 cells of 32 bits, a look at memory each, two cells for each entry that fits. 32 bits of an
    identity are its hash: the lowest choose its line, which fills from the left; the next line follows one that is full.
    A cell holds the number of the entry in as many bits as it takes, above them the same bits of the hash, and a bit that
    says it is taken. So few cells are looked up that are another's."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is a power of two."""
        self.count = 0
        self.capacity = capacity
        self._indexed = 0
        self._taken = 0
        self._entries = np.zeros(capacity * ENTRY_BYTES, np.uint8)  # not touched, so not resident, before it is used
        self._bytes = self._entries.data
        self._hashes: Array = np.ndarray((capacity,), "<u4", self._entries, HEAD_BYTES, (ENTRY_BYTES,))
        self._tag_mask, self._tag_taken = np.uint32(_TAKEN - capacity), np.uint32(_TAKEN)
        self._lines_mask = max(1, 2 * capacity // _LINE) - 1
        self._cells: Array | None = None
        self._taken_cells: Array = np.zeros(self._lines_mask + 1, np.uint8)  # of each line

    @property
    def free(self) -> int:
        """How many more fit."""
        return self.capacity - self.count

    def append(self, entries: Buffer) -> None:
        """They must fit."""
        start = self.count * ENTRY_BYTES
        self._bytes[start : start + len(entries)] = entries
        self.count += len(entries) // ENTRY_BYTES

    @property
    def nbytes(self) -> int:
        """Of memory, once it is full."""
        return self._entries.nbytes + self._taken_cells.nbytes + (0 if self._cells is None else self._cells.nbytes)

    def grown(self, capacity: int) -> "Loose":
        """The same entries where more fit."""
        larger = Loose(capacity)
        larger._taken = self._taken
        larger.append(self._bytes[: self._indexed * ENTRY_BYTES])
        larger.index()
        larger.append(self._bytes[self._indexed * ENTRY_BYTES : self.count * ENTRY_BYTES])
        return larger

    def take(self) -> bytes:
        """What was appended since the last call."""
        start, self._taken = self._taken, self.count
        return bytes(self._bytes[start * ENTRY_BYTES : self.count * ENTRY_BYTES])

    def entries(self) -> memoryview:
        """All of them, as they stand."""
        return self._bytes[: self.count * ENTRY_BYTES]

    def index(self) -> None:
        """Each entry takes the first free cell from the line on to which its identity points."""
        if self._indexed == self.count:
            return
        if self._cells is None:
            self._cells = np.zeros(_LINE * (self._lines_mask + 1), np.uint32)
        for start in range(self._indexed, self.count, _PIECE):  # all at once, several copies would be in memory
            self._index(self._cells, start, min(start + _PIECE, self.count))
        self._indexed = self.count

    def _index(self, cells: Array, start: int, end: int) -> None:
        hashes = self._hashes[start:end].copy()
        lines, wanting = self._line(hashes), self._tag(hashes) | np.arange(start, end, dtype=np.uint32)
        while len(lines):
            taken = self._taken_cells.take(lines)
            while (full := taken == _LINE).any():
                lines = (lines + full) & self._lines_mask
                taken = self._taken_cells.take(lines)
            at = lines * _LINE + taken
            cells[at] = wanting  # of several that want one cell, one gets it
            self._taken_cells[lines] = taken + 1
            lost = (cells.take(at) != wanting).nonzero()[0]
            lines, wanting = lines[lost], wanting[lost]

    def _line(self, hashes: Array) -> Array:
        return hashes.astype(np.int64) & self._lines_mask

    def _tag(self, hashes: Array) -> Array:
        return hashes & self._tag_mask | self._tag_taken

    def get(self, key: bytes) -> bytes | None:
        """Fingerprint and offset, if it is indexed here."""
        if self._cells is None:
            return None
        number = int.from_bytes(key[HEAD_BYTES:8], "little")
        line, tag, cells = number & self._lines_mask, number & (_TAKEN - self.capacity) | _TAKEN, self._cells.data
        while True:
            for cell in cells[line * _LINE : (line + 1) * _LINE]:
                if not cell:
                    return None
                if cell ^ tag < self.capacity and (value := self._value(cell, key)) is not None:
                    return value
            line = (line + 1) & self._lines_mask

    def _value(self, cell: int, key: bytes) -> bytes | None:
        start = (cell & (self.capacity - 1)) * ENTRY_BYTES
        if self._bytes[start : start + KEY_BYTES] != key:
            return None
        return bytes(self._bytes[start + KEY_BYTES : start + ENTRY_BYTES])

    def find(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        """(number in the batch, fingerprint and offset) of those indexed here."""
        if self._cells is None:
            return
        lines = self._cells.reshape(-1, _LINE).take(self._line(batch.hashes), axis=0)
        full = lines[:, -1].nonzero()[0]
        lines ^= self._tag(batch.hashes)[:, None]  # what is left of a cell with the same tag is the entry's number
        at = (lines < self.capacity).ravel().nonzero()[0]
        found = set()
        for number, cell in zip((at // _LINE).tolist(), lines.ravel()[at].tolist(), strict=True):
            if (value := self._value(cell, batch.keys[number])) is not None:
                found.add(number)
                yield number, value
        for number in full.tolist():  # it may stand in the next line
            if number not in found and (value := self.get(batch.keys[number])) is not None:
                yield number, value


class Sealed(Struct, frozen=True):
    """A run as bytes (see above)."""

    count: int
    outline: bytes
    rows: bytes


def seal(loose: Iterable[Buffer]) -> Sealed:
    """A run of all these entries. At a million it takes about a tenth of a second, most of it without Python's lock."""
    parts = [part for part in loose if part]
    count, filled = sum(map(len, parts)) // ENTRY_BYTES, 0
    words, tails = np.empty(count, np.uint64), np.empty(count, np.complex128)  # the last 16 bytes, which are only moved
    for part in parts:
        each = (len(part) // ENTRY_BYTES,)
        words[filled : filled + each[0]] = np.ndarray(each, ">u8", part, 0, (ENTRY_BYTES,))
        tails[filled : filled + each[0]] = np.ndarray(each, np.complex128, part, HEAD_BYTES, (ENTRY_BYTES,))
        filled += each[0]
    order, heads = _order(words)
    pieces = [tails.take(order[at : at + _PIECE], mode="clip") for at in range(0, len(order), _PIECE)]
    del tails
    rows = b"".join(piece.data for piece in pieces)
    if len(heads) < LARGE:
        return Sealed(len(heads), heads.astype("<u4").tobytes(), rows)
    below = np.searchsorted(heads >> np.uint32(16), np.arange(_TABLE + 1, dtype=np.uint32))
    return Sealed(len(heads), below.astype("<u4").tobytes() + heads.astype("<u2").tobytes(), rows)


def _order(words: Array) -> tuple[Array, Array]:
    """The numbers of the words in rising order of the words, and the upper halves in that order.

    Sorting is eight times as fast where each number stands in the low bits of its word. Only words that agree in all
    others, as some of one run in thirty do, must be sorted by themselves."""
    low = np.uint64((1 << max(1, len(words) - 1).bit_length()) - 1)
    packed = words & ~low
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    if np.any((packed[1:] ^ packed[:-1]) <= low):
        order = np.argsort(words)
        return order, (words[order] >> np.uint64(32)).astype(np.uint32)
    heads = (packed >> np.uint64(32)).astype(np.uint32)
    packed &= low
    return packed.astype(np.intp), heads


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
        at = np.searchsorted(self._marks, heads)
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
