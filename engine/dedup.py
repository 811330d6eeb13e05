"""The memory of rated events: identity -> fingerprint and offset, in 20 bytes each (law D1).

Identities live in buckets of seven days of log time; a bucket is forgotten as a whole, at an instant that depends on
log time alone. Within a bucket, recent identities are in a dict; when it is full it becomes a sorted run, and runs of
like size merge, so a bucket of n identities has about log2(n / RECENT_MAX) runs.

An entry: 12 bytes of xxh3-128 over account, source, id; 4 bytes fingerprint of the billing fields; 4 bytes offset
modulo 2^32 (big-endian), which names one offset as long as a partition holds fewer than 2^32 records in the window.
"""

from typing import Final

import numpy as np
import xxhash

from engine.outcomes import DedupSegment

WINDOW_US: Final = 35 * 86_400 * 1_000_000
BUCKET_US: Final = 7 * 86_400 * 1_000_000
RECENT_MAX: Final = 65_536
ENTRY_BYTES: Final = 20
_KEY_BYTES: Final = 12
_OFFSETS: Final = 1 << 32

_Run = np.ndarray[tuple[int], np.dtype[np.bytes_]]


def identity(account: str, source: str, event_id: str) -> bytes:
    """12 bytes that stand for (account, source, id). None of the three holds a NUL."""
    return xxhash.xxh3_128_digest(f"{account}\x00{source}\x00{event_id}".encode())[:_KEY_BYTES]


class _Bucket:
    def __init__(self) -> None:
        self.recent: dict[bytes, bytes] = {}  # identity -> fingerprint + offset
        self.runs: list[tuple[_Run, bytes]] = []  # sorted identities, and their entries in the same order
        self.fresh: list[bytes] = []  # entries since the last checkpoint

    def find(self, key: bytes) -> bytes | None:
        value = self.recent.get(key)
        if value is not None:
            return value
        probe = np.frombuffer(key, dtype=f"S{_KEY_BYTES}")
        for keys, entries in self.runs:
            index = int(keys.searchsorted(probe[0]))
            start = index * ENTRY_BYTES
            if entries[start : start + _KEY_BYTES] == key:
                return entries[start + _KEY_BYTES : start + ENTRY_BYTES]
        return None

    def add(self, key: bytes, value: bytes) -> None:
        self.recent[key] = value
        if len(self.recent) >= RECENT_MAX:
            self.seal()

    def seal(self) -> None:
        """Turn the recent identities into a run, and merge runs of like size."""
        if not self.recent:
            return
        entries = b"".join(key + value for key, value in sorted(self.recent.items()))
        self.recent = {}
        while self.runs and len(self.runs[-1][1]) <= 2 * len(entries):
            entries = _sorted_entries(self.runs.pop()[1] + entries)
        self.runs.append((_keys(entries), entries))


def _keys(entries: bytes) -> _Run:
    table = np.frombuffer(entries, dtype=np.dtype([("key", f"S{_KEY_BYTES}"), ("value", "S8")]))
    return np.ascontiguousarray(table["key"])


def _sorted_entries(entries: bytes) -> bytes:
    table = np.frombuffer(entries, dtype=np.dtype([("key", f"V{_KEY_BYTES}"), ("value", "V8")]))
    order = np.argsort(_keys(entries), kind="stable")
    return table[order].tobytes()


class Dedup:
    """One partition's memory."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def find(self, key: bytes) -> tuple[bytes, int] | None:
        """(fingerprint, offset modulo 2^32) of a remembered identity."""
        for bucket in self._buckets.values():
            value = bucket.find(key)
            if value is not None:
                return value[:4], int.from_bytes(value[4:])
        return None

    def remember(self, key: bytes, fingerprint: bytes, offset: int, log_time_us: int) -> None:
        """Record a rated event. The identity must not be remembered already."""
        number = log_time_us // BUCKET_US
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket()
        value = fingerprint + (offset % _OFFSETS).to_bytes(4)
        bucket.add(key, value)
        bucket.fresh.append(key + value)

    def forget(self, log_time_us: int) -> None:
        """Drop the buckets whose end lies a window or more before log time."""
        floor = self.bucket_min(log_time_us)
        for number in [number for number in self._buckets if number < floor]:
            del self._buckets[number]

    @staticmethod
    def bucket_min(log_time_us: int) -> int:
        """The earliest bucket still remembered at that log time."""
        return (log_time_us - WINDOW_US) // BUCKET_US

    def take_fresh(self) -> list[DedupSegment]:
        """What was remembered since the last call, for the checkpoint."""
        segments = []
        for number, bucket in sorted(self._buckets.items()):
            if bucket.fresh:
                segments.append(DedupSegment(number, b"".join(bucket.fresh)))
                bucket.fresh = []
        return segments

    def load(self, segments: list[DedupSegment]) -> None:
        """Take over what checkpoints hold. Entries may be in any order within a bucket."""
        gathered: dict[int, list[bytes]] = {}
        for segment in segments:
            gathered.setdefault(segment.bucket, []).append(segment.entries)
        for number, parts in gathered.items():
            bucket = self._buckets.setdefault(number, _Bucket())
            entries = _sorted_entries(b"".join(parts))
            bucket.runs.append((_keys(entries), entries))

    def entries(self) -> bytes:
        """Every entry, by bucket and identity: the part of the state's bytes that the memory makes up (law D4)."""
        parts = []
        for number, bucket in sorted(self._buckets.items()):
            recent = b"".join(key + value for key, value in bucket.recent.items())
            joined = b"".join(entries for _, entries in bucket.runs) + recent
            parts.append(number.to_bytes(8) + _sorted_entries(joined))
        return b"".join(parts)

    def __len__(self) -> int:
        return sum(
            len(bucket.recent) + sum(len(entries) // ENTRY_BYTES for _, entries in bucket.runs)
            for bucket in self._buckets.values()
        )
