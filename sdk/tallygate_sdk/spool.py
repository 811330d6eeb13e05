"""A queue on disk, for what has to reach the service and may have to wait: bounded, in order, and there after kill -9.

What is appended is handed to the operating system before the call returns, so it outlives the process; `fsync` says
whether it also outlives the machine. The folder holds numbered segments, each a row of records (length, CRC-32, bytes),
and the file `sent`, which says up to where. A process begins a segment of its own and only ever appends to that one:
what a crash left half written ends the segment it stands in, and nothing follows it there.
"""

import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tallygate_sdk.errors import SpoolBusy, SpoolFull

_log = logging.getLogger(__name__)

Fsync = Literal["each", "batch", "never"]
WhenFull = Literal["refuse", "drop_newest", "drop_oldest"]

BYTES_MAX: Final = 64 * 1024 * 1024
SEGMENTS: Final = 16  # a full spool has so many; what was sent is freed by the segment
_HEAD: Final = 8  # bytes before a record: its length and its CRC-32, both big-endian
_SENT: Final = "sent"


class Position(NamedTuple):
    """A place between two records."""

    segment: int
    offset: int


class Batch(NamedTuple):
    """Records of one segment, in the order in which they were appended; `end` is behind the last."""

    records: list[bytes]
    end: Position


class Spool:
    """One process at a time has a folder. May be used by several threads.

    `fsync`: "each" record is on the disk when `append` returns (which then waits for it); "batch": whatever `sync` was
    called for, which the reporter does all the time; "never": whenever the operating system thinks fit.
    `when_full`: "refuse" raises SpoolFull, "drop_newest" and "drop_oldest" count in `dropped` what they drop."""

    def __init__(
        self,
        folder: Path | str,
        *,
        bytes_max: int = BYTES_MAX,
        fsync: Fsync = "batch",
        when_full: WhenFull = "refuse",
    ) -> None:
        """`bytes_max` bounds all segments together. Raises SpoolBusy, OSError."""
        self.folder = Path(folder)
        self.bytes_max = bytes_max
        self.dropped = 0  # records
        self.damaged_bytes = 0  # that could not be read: what a crash left half written, or a disk has spoiled
        self._fsync = fsync
        self._when_full = when_full
        self._segment_bytes_max = max(1, bytes_max // SEGMENTS)
        self._lock = threading.Lock()  # never held while the disk is waited for, but by fsync="each"
        self._syncing = threading.Lock()
        self._process = os.getpid()
        self.folder.mkdir(0o700, parents=True, exist_ok=True)  # what is set aside in it is as private as the segments
        self._owned = _own(self.folder)
        try:
            self._open()
        except BaseException:
            os.close(self._owned)
            raise

    def _open(self) -> None:
        self._sizes = {int(path.stem): path.stat().st_size for path in self.folder.glob("*.segment")}
        self._sent = self._read_sent()
        self._counts: dict[int, int] = {}  # records of each segment that wait
        for number in [number for number in self._sizes if number < self._sent.segment]:
            self._forget(number)
        for number in self._sizes:
            self._counts[number] = self._count(number)
        self._active = 0
        self._writing = -1  # the file of the active segment
        self._ended: list[int] = []  # files of earlier ones that are still to be synced
        self._begin_segment()

    # ------------------------------------------------------------------------------------------------------- the writer

    def append(self, record: bytes) -> bool:
        """Keep it. False when it was dropped. Raises SpoolFull; SpoolBusy in another process than that which made it."""
        framed = len(record).to_bytes(4, "big") + zlib.crc32(record).to_bytes(4, "big") + record
        if os.getpid() != self._process:  # it would write between the records that the other one counts
            raise SpoolBusy(
                f"the spool {self.folder} was made before a fork: make one, with a folder of its own, behind it"
            )
        with self._lock:
            if self._writing < 0:
                raise SpoolFull(f"the spool {self.folder} is closed")
            if not self._make_room(len(framed)):
                self.dropped += 1
                return False
            if self._sizes[self._active] and self._sizes[self._active] + len(framed) > self._segment_bytes_max:
                self._begin_next_segment()
            self._write(framed)
            if self._fsync == "each":
                os.fdatasync(self._writing)
            return True

    def sync(self) -> None:
        """With `fsync="batch"`: put on the disk what was appended before this call. Appending goes on meanwhile. Raises
        OSError: some of it may not be there."""
        if self._fsync != "batch":
            return
        with self._syncing:
            with self._lock:
                ended, self._ended = self._ended, []
                writing = self._writing
            failed: OSError | None = None
            for file in (*ended, writing):
                try:
                    if file >= 0:
                        os.fdatasync(file)
                except OSError as error:
                    failed = error
            for file in ended:
                os.close(file)
            if failed is not None:
                raise failed
            if ended:
                _sync_folder(self.folder)

    def _make_room(self, wanted: int) -> bool:
        full = sum(self._sizes.values()) + wanted > self.bytes_max
        while full and self._when_full == "drop_oldest" and len(self._sizes) > 1:
            oldest = min(self._sizes)
            self.dropped += self._counts[oldest]
            self._forget(oldest)
            full = sum(self._sizes.values()) + wanted > self.bytes_max
        if full and self._when_full == "refuse":
            raise SpoolFull(
                f"the spool {self.folder} has no room: {sum(self._sizes.values())} of bytes_max={self.bytes_max} bytes "
                "wait to be sent. Give it more, or find out why the service does not take them."
            )
        return not full

    def _write(self, framed: bytes) -> None:
        start = self._sizes[self._active]
        try:
            written = os.write(self._writing, framed)
        except OSError as error:
            raise SpoolFull(f"the spool {self.folder} cannot be written: {error}") from error
        if written < len(framed):  # the disk is full; what is half written must not be taken for a record
            os.ftruncate(self._writing, start)
            raise SpoolFull(f"the disk under the spool {self.folder} is full")
        self._sizes[self._active] = start + written
        self._counts[self._active] += 1

    def _begin_next_segment(self) -> None:
        try:
            self._begin_segment()
        except OSError as error:
            raise SpoolFull(f"the spool {self.folder} cannot be written: {error}") from error

    def _begin_segment(self) -> None:
        number = max([*self._sizes, self._active, self._sent.segment]) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        begun = os.open(self._path(number), flags, 0o600)  # before anything changes: a full disk takes no file either
        if self._fsync == "batch" and self._writing >= 0:
            self._ended.append(self._writing)
        elif self._writing >= 0:
            os.close(self._writing)
        self._active, self._writing = number, begun
        self._sizes[number] = self._counts[number] = 0
        if self._fsync == "each":
            _sync_folder(self.folder)

    # ------------------------------------------------------------------------------------------------------- the reader

    @property
    def unsent_bytes(self) -> int:
        """What waits, in bytes of its segments."""
        with self._lock:
            sizes = {number: size for number, size in self._sizes.items() if number >= self._sent.segment}
            return sum(sizes.values()) - min(self._sent.offset, sizes.get(self._sent.segment, 0))

    @property
    def unsent(self) -> int:
        """How many records wait."""
        with self._lock:
            return sum(self._counts.values())

    def end(self) -> Position:
        """Behind the last record there is."""
        with self._lock:
            return Position(self._active, self._sizes[self._active])

    def sent(self) -> Position:
        """What stands before this has been sent."""
        with self._lock:
            return self._sent

    def peek(self, records_max: int, bytes_max: int) -> Batch | None:
        """The oldest records that wait, at least one however long it is; None when nothing waits."""
        while True:
            with self._lock:
                start = self._start()
                size = self._sizes[start.segment]
                last = start.segment == self._active
            batch = self._read(start, size, records_max, bytes_max)
            if batch.records:
                return batch
            if last:
                return None
            self._skip(start, size)

    def advance(self, batch: Batch) -> None:
        """This batch, the last that `peek` gave, is sent: it will not be read again."""
        with self._lock:
            self._sent = max(self._sent, batch.end)
            if batch.end.segment in self._counts:  # else it was dropped meanwhile
                self._counts[batch.end.segment] -= len(batch.records)
            for number in [number for number in self._sizes if number < batch.end.segment]:
                self._forget(number)
        self._write_sent()

    def _start(self) -> Position:
        if self._sent.segment in self._sizes:
            return self._sent
        return Position(min(number for number in self._sizes if number > self._sent.segment), 0)

    def _read(self, start: Position, size: int, records_max: int, bytes_max: int) -> Batch:
        records: list[bytes] = []
        total, end = 0, start.offset
        try:
            for record, behind in self._records(start, size):
                if records and (len(records) >= records_max or total + len(record) > bytes_max):
                    break
                records.append(record)
                total += len(record)
                end = behind
        except FileNotFoundError:  # the writer dropped it meanwhile
            pass
        return Batch(records, Position(start.segment, end))

    def _records(self, start: Position, size: int) -> Iterator[tuple[bytes, int]]:
        """Each record from `start` on, with the offset behind it, as far as they can be read."""
        with self._path(start.segment).open("rb") as file:
            file.seek(start.offset)
            offset = start.offset
            while offset + _HEAD <= size:
                head = file.read(_HEAD)
                length = int.from_bytes(head[:4], "big")
                if not 0 < length <= size - offset - _HEAD:
                    return
                record = file.read(length)
                if zlib.crc32(record) != int.from_bytes(head[4:], "big"):
                    return
                offset += _HEAD + length
                yield record, offset

    def _skip(self, start: Position, size: int) -> None:
        """Go on to the next segment: this one is read to its end, or to where it cannot be read."""
        with self._lock:
            left = size - start.offset
            if start.segment in self._sizes and left > 0:
                self.damaged_bytes += left
                _log.warning("%d bytes at the end of %s cannot be read", left, self._path(start.segment))
            self._sent = max(self._sent, Position(min(number for number in self._sizes if number > start.segment), 0))
            self._forget(start.segment)
        self._write_sent()

    # -------------------------------------------------------------------------------------------------------- the folder

    def close(self) -> None:
        """Let another have the folder. What waits stays there."""
        self.sync()
        with self._syncing, self._lock:
            if self._writing < 0:
                return
            for file in (*self._ended, self._writing, self._owned):
                os.close(file)
            self._ended, self._writing, self._owned = [], -1, -1

    def _count(self, number: int) -> int:
        start = self._sent.offset if number == self._sent.segment else 0
        return sum(1 for _ in self._records(Position(number, start), self._sizes[number]))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.segment"

    def _forget(self, number: int) -> None:
        self._sizes.pop(number, None)
        self._counts.pop(number, None)
        self._path(number).unlink(missing_ok=True)

    def _read_sent(self) -> Position:
        """The smallest segment's start where nothing, or nothing that can be read, says otherwise: sent twice is harmless,
        as events keep their ids."""
        try:
            segment, offset = (self.folder / _SENT).read_text().split()
            return Position(int(segment), int(offset))
        except (FileNotFoundError, ValueError):
            return Position(min(self._sizes, default=1) - 1, 0)

    def _write_sent(self) -> None:
        made = self.folder / f"{_SENT}.new"
        try:
            made.write_text(f"{self._sent.segment} {self._sent.offset}\n")
            made.replace(self.folder / _SENT)
        except OSError as error:  # nothing waits for it: what goes makes room
            _log.warning("how far %s is sent cannot be noted; after a crash some comes again: %s", self.folder, error)


def _own(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpoolBusy(f"the spool {folder} is in use: give each process a folder of its own") from None
    return lock


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
