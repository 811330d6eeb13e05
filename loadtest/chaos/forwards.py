"""Records that lie in a partition which is not their account's. Each is forwarded, and must stand in its own partition's log
with the bytes that it came with: one that does not is a charge that nobody will ever make, and no partition, folded by
itself, can know.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from loadtest.chaos.acknowledged import digest_of
from loadtest.oracle.fold import Oracle
from loadtest.oracle.records import partition_of, read_event


class Forward(NamedTuple):
    """What must have come of a record."""

    partition: int  # where it lies
    offset: int
    home: int  # the partition of its account
    digest: bytes  # of key and value, as they must stand there


class Fold(Oracle):
    """An oracle that notes, by offset, what it turned away, and what belongs elsewhere."""

    def __init__(self, documents: Mapping[int, Any], control_key: bytes, topic: str, partitions: int) -> None:
        super().__init__(documents, control_key, topic, partitions)
        self.dead_letters: dict[int, str] = {}
        self.forwards: list[Forward] = []
        self._of = partitions

    def feed(self, partition: int, offset: int, append_ms: int, key: bytes | None, value: bytes | None) -> str:
        outcome = super().feed(partition, offset, append_ms, key, value)
        kind, _, reason = outcome.partition(".")
        if kind == "dead_lettered":
            self.dead_letters[offset] = reason
        elif kind == "forwarded":
            assert value is not None
            account = read_event(value)["subject"].encode() if key is None else key
            home = partition_of(account, self._of)
            self.forwards.append(Forward(partition, offset, home, digest_of(account, value)))
        return outcome


def nowhere(forwards: Collection[Forward], logs: Mapping[int, Iterable[bytes]]) -> list[str]:
    """Those that never arrived, as sentences. `logs` are the digests of all that stands in the log, by partition."""
    missing: dict[int, set[bytes]] = defaultdict(set)
    for forward in forwards:
        missing[forward.home].add(forward.digest)
    for home, digests in missing.items():
        digests.difference_update(logs.get(home, ()))
    return [
        f"partition {forward.partition}, offset {forward.offset}: expected to be forwarded, found nowhere in partition "
        f"{forward.home}"
        for forward in sorted(forwards)
        if forward.digest in missing[forward.home]
    ]
