"""The memory of rated events: identity -> fingerprint and offset, in 20 bytes each or less (law D1).

Identities live in buckets of seven days of log time; a bucket is forgotten as a whole, at an instant that depends on
log time alone. Within a bucket they belong to numbered generations: the last one grows, entry by entry (`Loose`); at a
checkpoint that finds it at RUN_MIN or more, or its bucket over, it is closed, and becomes a sealed run (`Run`) in its
own time. How identities are spread over generations is no part of the state; which ones there are is (law D4).

An entry: 12 bytes of xxh3-128 over account, source, id; 4 bytes fingerprint of the billing fields; 4 bytes offset
modulo 2^32 (big-endian), which names one offset as long as a partition holds fewer than 2^32 records in the window.

96 bits are enough: that any two of 50 million identities share theirs by chance has odds of one to 6 x 10^13. The hash
has no key, so whoever may choose ids can make two that share one. That gains no more than using one id twice: with the
same billing fields the second is a duplicate, with others it is quarantined and told.

Where an identity is looked for, from the newest to the oldest:

    recent    a dict over what was remembered last, a thousand or two
    loose     a hash index: 28 bytes for each of up to RUN_MIN identities or so, and the only entries whole in memory
    sieves    over the large runs: 2 bytes for each identity; see engine/sieve.py
    outlines  of the runs that the sieve does not clear: 2.25 bytes each, a file that the system keeps in memory or not
    rows      of what the outline does not clear either: 16 bytes each, a file

The whole answer is exact: a row holds all that the outline leaves out. All but the recent ones are asked for a batch at a
time (`expect`), because numpy has a price per call, not per identity. A row may not be here yet, after a takeover: then
`expect` says which rows it must see (`doubts`), and nothing is said of it before it has.

What the defaults carry: 50 million identities per partition in the window (1.4 million a day, 16 events a second on
average) in 2.6 bytes of memory each (`make bench-dedup`, which also tells the time), 50 partitions of that in 7 GiB. The
bound is 2^32 records per partition and window.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import xxhash

from engine.catalog import SKEW_US, TOO_OLD_US
from engine.outcomes import DedupSegment
from engine.runs import ENTRY_BYTES, KEY_BYTES, Batch, Loose, Run
from engine.sieve import Sieve, Sought, suspects

WINDOW_US: Final = TOO_OLD_US + SKEW_US
BUCKET_US: Final = 7 * 86_400 * 1_000_000
RECENT_MAX: Final = 1_024  # is indexed in a quarter of a millisecond; more leave the cache, and cost more each
RUN_MIN: Final = 1 << 20  # identities in a generation; fewer, and a search would look at more runs
FEW: Final = 64  # looks, of each identity at each part, are made one by one
_CAPACITIES: Final = (1 << 12, 1 << 16, 1 << 20)  # of loose entries: a small partition should not pay for a large one
OFFSETS: Final = 1 << 32  # an entry holds an offset modulo this


def identity(account: str, source: str, event_id: str) -> bytes:
    """12 bytes that stand for (account, source, id). None of the three holds a NUL."""
    return xxhash.xxh3_128_digest(f"{account}\x00{source}\x00{event_id}".encode())[:KEY_BYTES]


class Place(NamedTuple):
    """A row of a sealed run."""

    bucket: int
    generation: int
    row: int


class RowsAway(Exception):
    """Whether the identity is known cannot be said before these rows are here: `Dedup.supply` them, then ask again."""

    def __init__(self, places: frozenset[Place]) -> None:
        super().__init__(f"{len(places)} rows of sealed runs have not been brought yet")
        self.places = places


class Closed(NamedTuple):
    """A generation that does not grow any more, to be sealed."""

    bucket: int
    generation: int
    pieces: tuple[memoryview, ...]


class SieveWork(NamedTuple):
    """A run that stands behind no sieve yet."""

    run: Run
    beside: Sieve | None  # with whose runs it is to share one

    def done(self) -> Sieve:
        """The sieve to be. It takes long, and may run in another thread."""
        return Sieve.over((self.run,)) if self.beside is None else self.beside.beside(self.run)


class _Found(NamedTuple):
    bucket: int
    value: bytes  # fingerprint and offset


_UNSOUGHT: Final = _Found(0, b"")
_Expected = _Found | frozenset[Place] | None


class _Generation:
    """Loose entries. The last one of its bucket grows."""

    def __init__(self) -> None:
        self.parts: list[Loose] = []
        self.closed = False

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)

    def append(self, entries: bytes, *, eager: bool) -> None:
        """`eager`: this generation will be large."""
        while entries:
            if not self.parts:
                self.parts.append(Loose(_CAPACITIES[-1 if eager else 0]))
            elif self.parts[-1].free == 0:
                self._make_room()
            fitting = self.parts[-1].free * ENTRY_BYTES
            self.parts[-1].append(entries[:fitting])
            entries = entries[fitting:]

    def _make_room(self) -> None:
        """A part that is full moves into a larger one: each part more is a look more for each identity sought."""
        last = self.parts[-1]
        capacity = next((each for each in _CAPACITIES if each > last.capacity), None)
        if capacity is None:
            self.parts.append(Loose(_CAPACITIES[-1]))
        else:
            self.parts[-1] = last.grown(capacity)

    def load(self, entries: bytes) -> None:
        """Entries of checkpoints."""
        part = Loose(max(_CAPACITIES[0], 1 << (len(entries) // ENTRY_BYTES - 1).bit_length()))
        part.append(entries)
        part.take()
        part.index()
        self.parts.append(part)


class _Bucket:
    def __init__(self) -> None:
        self.loose: dict[int, _Generation] = {}
        self.runs: dict[int, Run] = {}
        self.bare: list[Run] = []  # behind no sieve: small, or not there yet

    @property
    def growing(self) -> _Generation:
        number = max(self.loose, default=-1)
        if number < 0 or self.loose[number].closed:
            number = max(number, max(self.runs, default=-1)) + 1
            self.loose[number] = _Generation()
        return self.loose[number]

    def put(self, run: Run) -> None:
        self.loose.pop(run.generation, None)
        self.runs[run.generation] = run
        self.bare.append(run)


class Dedup:
    """One partition's memory."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}
        self._sieves: list[Sieve] = []  # they may hold runs that are forgotten
        self._newest = 0  # bucket
        self._ends_us = BUCKET_US  # log time
        self._recent: dict[bytes, bytes] = {}  # identity -> fingerprint; of the newest bucket, in no index yet
        self._offsets = array("Q")  # of the recent ones, in their order: numpy reads it as it stands
        self._appended = 0  # how many of them the growing generation has
        self._deep = False  # there is more than the recent ones
        self._expected: dict[bytes, _Expected] = {}
        self._doubts: frozenset[Place] | None = None  # of the expected ones; None: not gathered yet

    # -------------------------------------------------------------------------------------------------- the hot path

    def expect(self, keys: Sequence[bytes]) -> None:
        """Search for identities that are about to be asked for. No answer depends on it."""
        self._expected = {}
        if len(self._recent) >= RECENT_MAX:
            self._index_recent()
        self._expected, self._doubts = dict.fromkeys(keys), None
        if self._deep and keys:
            self._expected.update(self._search(keys))

    def mark(self, key: bytes) -> bytes | None:
        """The fingerprint of a remembered identity; None: it is new. Raises RowsAway."""
        fingerprint = self._recent.get(key)
        if fingerprint is not None:
            return fingerprint
        if self._expected.get(key, _UNSOUGHT) is None:
            return None
        found = self._sought(key)
        return None if found is None else found.value[:4]

    def find(self, key: bytes) -> tuple[bytes, int] | None:
        """(fingerprint, offset modulo 2^32) of a remembered identity. Raises RowsAway. Among the recent ones it counts its
        way to the offset, which only corrections and explanations ask for."""
        fingerprint = self._recent.get(key)
        if fingerprint is not None:
            place = next(at for at, recent in enumerate(self._recent) if recent == key)
            return fingerprint, self._offsets[place] % OFFSETS
        found = self._sought(key)
        return None if found is None else (found.value[:4], int.from_bytes(found.value[4:]))

    def _sought(self, key: bytes) -> _Found | None:
        """Of one that is not recent. Raises RowsAway."""
        found = self._expected.get(key, _UNSOUGHT)
        if found is _UNSOUGHT:
            if len(self._recent) >= 2 * RECENT_MAX:
                self._index_recent()
            found = self._search([key]).get(key) if self._deep else None
        if isinstance(found, frozenset):
            raise RowsAway(found)
        return found

    def remember(self, key: bytes, fingerprint: bytes, offset: int, log_time_us: int) -> None:
        """Record a rated event. The identity must not be remembered already; log time never goes back."""
        if log_time_us >= self._ends_us:
            self._index_recent()
            self._newest = log_time_us // BUCKET_US
            self._ends_us = (self._newest + 1) * BUCKET_US
        self._recent[key] = fingerprint
        self._offsets.append(offset)

    def _append_recent(self) -> None:
        """What the growing generation does not have yet."""
        if len(self._recent) > self._appended:
            bucket = self._buckets.setdefault(self._newest, _Bucket())
            bucket.growing.append(self._recent_entries(self._appended), eager=bool(bucket.runs))
            self._appended = len(self._recent)

    def _recent_entries(self, first: int) -> bytes:
        """Of the recent ones but for the `first`."""
        entries = np.empty((len(self._recent) - first, ENTRY_BYTES // 4), np.uint32)
        entries[:, :3] = np.frombuffer(b"".join(islice(self._recent, first, None)), np.uint32).reshape(-1, 3)
        entries[:, 3] = np.frombuffer(b"".join(islice(self._recent.values(), first, None)), np.uint32)
        offsets = np.frombuffer(self._offsets, np.uint64, len(entries), first * self._offsets.itemsize)
        entries[:, 4] = offsets.astype(">u4").view(np.uint32)
        return entries.tobytes()

    def _index_recent(self) -> None:
        """From now on they are found like any other."""
        if not self._recent:
            return
        self._append_recent()
        for bucket in self._buckets.values():
            for generation in bucket.loose.values():
                for part in generation.parts:
                    part.index()
        for key, offset in zip(self._recent, self._offsets, strict=True) if self._expected else ():
            if key in self._expected:
                value = self._recent[key] + (offset % OFFSETS).to_bytes(4)
                self._expected[key] = _Found(self._newest, value)
        self._drop_recent()
        self._deep = True

    def _drop_recent(self) -> None:
        self._recent, self._offsets, self._appended = {}, array("Q"), 0

    # ------------------------------------------------------------------------------------------------------ searching

    def _search(self, keys: Sequence[bytes]) -> dict[bytes, _Expected]:
        """Those that are known, or may be; all but the recent ones."""
        parts = [
            (number, part)
            for number, bucket in self._buckets.items()
            for generation in bucket.loose.values()
            for part in generation.parts
        ]
        if len(keys) * (len(parts) + sum(len(bucket.runs) for bucket in self._buckets.values())) < FEW:
            runs = [run for bucket in self._buckets.values() for run in bucket.runs.values()]
            loose, found = _one_by_one_in_loose(keys, parts), _one_by_one_suspects(keys, runs)
        else:
            batch = Batch(keys)
            loose, found = _in_loose(batch, parts), self._suspects(batch)
        answers: dict[bytes, _Expected] = dict(loose)
        doubts: dict[bytes, set[Place]] = {}
        for key, run, places in found:
            for place in places:
                row = run.row(place)
                if row is None:
                    doubts.setdefault(key, set()).add(Place(run.bucket, run.generation, place))
                elif row[:8] == key[4:]:
                    answers[key] = _Found(run.bucket, bytes(row[8:]))
        for key, rows in doubts.items():
            answers.setdefault(key, frozenset(rows))  # an identity is in one place only
        return answers

    def _suspects(self, batch: Batch) -> Iterator[tuple[bytes, Run, range]]:
        """Rows that may be those of an identity."""
        for at, runs in suspects(self._sieves, Sought(batch)) if self._sieves else ():
            head = int(batch.heads[at])
            for run in runs:
                places = run.places(head)
                if places and run.bucket in self._buckets:
                    yield batch.keys[at], run, places
        for bucket in self._buckets.values():
            for run in bucket.bare:
                for at in range(len(batch)) if run.large else run.suspects(batch.heads):
                    yield batch.keys[at], run, run.places(int(batch.heads[at]))

    def doubts(self) -> frozenset[Place]:
        """The rows without which what is expected cannot be told from what is known."""
        if self._doubts is None:  # asked before every slice of some hundreds that are expected
            doubtful = (found for found in self._expected.values() if isinstance(found, frozenset))
            self._doubts = frozenset().union(*doubtful)
        return self._doubts

    def supply(self, rows: Iterable[tuple[Place, bytes]]) -> None:
        """Rows that were missing; then what is expected is searched for again."""
        for place, row in rows:
            bucket = self._buckets.get(place.bucket)
            if bucket is not None and place.generation in bucket.runs:
                bucket.runs[place.generation].brought[place.row] = row
        doubtful = [key for key, found in self._expected.items() if isinstance(found, frozenset)]
        self._expected.update(dict.fromkeys(doubtful))
        self._expected.update(self._search(doubtful))
        self._doubts = None

    # ----------------------------------------------------------------------------------------------------- forgetting

    def forget(self, log_time_us: int) -> None:
        """Drop the buckets whose end lies a window or more before log time."""
        floor = self.bucket_min(log_time_us)
        gone = [number for number in self._buckets if number < floor]
        for number in gone:
            del self._buckets[number]
        if self._newest < floor:
            self._drop_recent()
        if gone:
            self._expected = {key: _without(gone, found) for key, found in self._expected.items()}
            self._doubts = None
            self._sieves = [sieve for sieve in self._sieves if any(run.bucket in self._buckets for run in sieve.runs)]

    @staticmethod
    def bucket_min(log_time_us: int) -> int:
        """The earliest bucket still remembered at that log time."""
        return (log_time_us - WINDOW_US) // BUCKET_US

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def take_fresh(self) -> list[DedupSegment]:
        """What was remembered since the last call, for the checkpoint. Generations that are large or over are closed."""
        self._append_recent()
        segments = []
        for number, bucket in sorted(self._buckets.items()):
            for name, generation in sorted(bucket.loose.items()):
                fresh = b"".join(part.take() for part in generation.parts)
                if fresh:
                    segments.append(DedupSegment(number, name, fresh))
                if generation.count >= RUN_MIN or number < self._newest:
                    generation.closed = True
        return segments

    def load(self, segments: Iterable[DedupSegment], runs: Iterable[Run] = ()) -> None:
        """Take over what checkpoints hold. Entries may be in any order within a generation."""
        gathered: dict[tuple[int, int], list[bytes]] = {}
        for segment in segments:
            gathered.setdefault((segment.bucket, segment.generation), []).append(segment.entries)
        for (number, name), parts in gathered.items():
            bucket = self._buckets.setdefault(number, _Bucket())
            bucket.loose.setdefault(name, _Generation()).load(b"".join(parts))
        for run in runs:
            self._buckets.setdefault(run.bucket, _Bucket()).put(run)
        for bucket in self._buckets.values():
            for name, generation in bucket.loose.items():
                generation.closed = name < max([*bucket.loose, *bucket.runs]) or generation.count >= RUN_MIN
        self._newest = max(self._buckets, default=0)
        self._ends_us = (self._newest + 1) * BUCKET_US
        self._deep = bool(self._buckets)

    def entries(self) -> bytes:
        """Every entry, by bucket and identity: the part of the state's bytes that the memory makes up (law D4). Raises
        ValueError when rows are elsewhere."""
        self._append_recent()
        parts = []
        for number, bucket in sorted(self._buckets.items()):
            loose = [bytes(part.entries()) for generation in bucket.loose.values() for part in generation.parts]
            sealed = [run.entries() for run in bucket.runs.values()]
            parts.append(number.to_bytes(8) + _by_identity(b"".join((*loose, *sealed))))
        return b"".join(parts)

    # ------------------------------------------------------------------------------------------- sealing, beside rating

    def closed(self) -> list[Closed]:
        """Generations to be sealed, oldest first: each is to be replaced by its run (`adopt`). Nothing hurries."""
        return [
            Closed(number, name, tuple(part.entries() for part in generation.parts))
            for number, bucket in sorted(self._buckets.items())
            for name, generation in sorted(bucket.loose.items())
            if generation.closed
        ]

    def adopt(self, run: Run) -> None:
        """The run takes the place of its loose generation. Whatever is forgotten by now is not remembered again."""
        bucket = self._buckets.get(run.bucket)
        if bucket is not None and run.generation in bucket.loose:
            bucket.put(run)
            self._deep = True

    def away(self) -> list[Run]:
        """Runs whose rows are elsewhere, newest first: `bring` them when there is time."""
        runs = [run for bucket in self._buckets.values() for run in bucket.runs.values() if run.rows is None]
        return sorted(runs, key=lambda run: (run.bucket, run.generation), reverse=True)

    @property
    def needs_work(self) -> bool:
        """Whether a run is away, or behind no sieve."""
        return any(
            run.rows is None or (run.large and run in bucket.bare)
            for bucket in self._buckets.values()
            for run in bucket.runs.values()
        )

    def unsieved(self) -> SieveWork | None:
        """A large run to be put behind a sieve. Until then it is asked about every identity, which is slow."""
        for bucket in self._buckets.values():
            for run in bucket.bare:
                if run.large:
                    return SieveWork(run, next((sieve for sieve in self._sieves if sieve.takes(run)), None))
        return None

    def put_sieve(self, work: SieveWork, sieve: Sieve) -> None:
        """What came of the work; one at a time."""
        self._sieves = [other for other in self._sieves if other is not work.beside] + [sieve]
        bucket = self._buckets.get(work.run.bucket)
        if bucket is not None and work.run in bucket.bare:
            bucket.bare.remove(work.run)

    def sizes(self) -> dict[str, int]:
        """Bytes of memory by part, all but the recent identities and what runs map from files."""
        parts = [part for bucket in self._buckets.values() for loose in bucket.loose.values() for part in loose.parts]
        return {"sieves": sum(sieve.nbytes for sieve in self._sieves), "loose": sum(part.nbytes for part in parts)}

    def __len__(self) -> int:
        self._append_recent()
        return sum(
            sum(generation.count for generation in bucket.loose.values())
            + sum(run.count for run in bucket.runs.values())
            for bucket in self._buckets.values()
        )


def _one_by_one_in_loose(keys: Sequence[bytes], parts: list[tuple[int, Loose]]) -> Iterator[tuple[bytes, _Found]]:
    for key in keys:
        for number, part in parts:
            value = part.get(key)
            if value is not None:
                yield key, _Found(number, value)


def _one_by_one_suspects(keys: Sequence[bytes], runs: list[Run]) -> Iterator[tuple[bytes, Run, range]]:
    for key in keys:
        head = int.from_bytes(key[:4])
        for run in runs:
            yield key, run, run.places(head)


def _in_loose(batch: Batch, parts: list[tuple[int, Loose]]) -> Iterator[tuple[bytes, _Found]]:
    for number, part in parts:
        for at, value in part.find(batch):
            yield batch.keys[at], _Found(number, value)


def _without(gone: list[int], found: _Expected) -> _Expected:
    """What is left of an answer when some buckets are forgotten."""
    if isinstance(found, _Found):
        return None if found.bucket in gone else found
    if isinstance(found, frozenset):
        return frozenset(place for place in found if place.bucket not in gone) or None
    return None


def _by_identity(entries: bytes) -> bytes:
    return np.sort(np.frombuffer(entries, f"S{ENTRY_BYTES}")).tobytes()
