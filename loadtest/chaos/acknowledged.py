"""The journal of what Kafka has acknowledged: offset, bytes and identity of every record, one file per partition.

It is written while the run goes on and read by the verifier, which trusts it and nothing of the engine.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson

from actors.ports import Outgoing
from loadtest.oracle.records import partition_of

DIGEST_BYTES: Final = 16
ENTRY: Final = np.dtype([("offset", "<i8"), ("digest", "V16"), ("identity", "<u8")])
NO_IDENTITY: Final = 0  # of a record that is no usage to be rated
MUST_BE_RATED: Final = frozenset(
    ["event", "wrong_partition", "keyless", "duplicate"]
)  # kinds of the workload's records


def digest_of(key: bytes | None, value: bytes | None) -> bytes:
    """Of a record as it went into the log."""
    parts = [b"-" if part is None else b"+%d " % len(part) + part for part in (key, value)]
    return hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()


def identity_of(account: str, source: str, event_id: str) -> int:
    """64 bits of (account, source, id); never NO_IDENTITY."""
    text = "\0".join((account, source, event_id)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1


class Acknowledged:
    """Writes the journal into `folder`, which must be empty or new."""

    def __init__(self, folder: Path, partitions: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ends = dict.fromkeys(range(partitions), 0)  # one past the newest offset acknowledged
        self.events = 0  # distinct usage events are fewer: a duplicate is acknowledged, too
        self._partitions = partitions
        self._files: list[IO[bytes]] = [path_of(folder, number).open("xb") for number in range(partitions)]

    def write(self, kinds: Sequence[str], records: Sequence[Outgoing], offsets: Sequence[int]) -> None:
        """Records of the topic `usage` and where they went; `kinds` as the workload names them."""
        for kind, record, offset in zip(kinds, records, offsets, strict=True):
            partition = record.partition
            if partition is None:
                assert record.key is not None
                partition = partition_of(record.key, self._partitions)
            identity = NO_IDENTITY
            if kind in MUST_BE_RATED:
                assert record.value is not None
                event = orjson.loads(record.value)
                identity = identity_of(event["subject"], event["source"], event["id"])
                self.events += 1
            entry = np.array([(offset, digest_of(record.key, record.value), identity)], ENTRY)
            self._files[partition].write(entry.tobytes())
            self.ends[partition] = max(self.ends[partition], offset + 1)

    def close(self) -> None:
        """What was written can be read from now on; may be called again."""
        for file in self._files:
            file.close()


def path_of(folder: Path, partition: int) -> Path:
    return folder / f"acknowledged-{partition}"


def read_acknowledged(folder: Path, partition: int) -> "np.ndarray[Any, Any]":
    """The entries of a partition, in the order in which they were acknowledged."""
    return np.fromfile(path_of(folder, partition), ENTRY)
