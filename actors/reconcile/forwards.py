"""R-forwards: usage that was found in another partition than its account's stands in the log of the account's own.

Its place in the log that it came to leaves nothing else, and the fold of its own partition knows only what came: a record
lost on the way is a lost charge that no other reconciler can see. It is durable there before a checkpoint goes beyond the
record that it was made of (docs/commit-order.md, step 3), so of all that was folded none may still be under way.

What is kept until it is found is a third of a kilobyte a record.
"""

from collections.abc import AsyncIterator
from typing import Final

from msgspec import Struct

from actors.drift import ABSENT, Drift
from actors.ports import record_digest
from actors.rebuild import Reader
from actors.reconcile.rated import CLOCKS_APART_MS
from engine.outcomes import Forward

CHECK: Final = "forwards"


class _Sent(Struct, frozen=True, order=True, gc=False):
    partition: int  # that it was found in
    offset: int
    append_ms: int
    account: str


class Forwards:
    """What the partitions that were folded have sent on to others."""

    def __init__(self) -> None:
        self._sent: dict[int, dict[bytes, _Sent]] = {}  # by the partition that it was sent to, and digest

    def add(self, partition: int, forward: Forward, append_ms: int) -> None:
        """`append_ms` is when the record in the wrong `partition` was appended."""
        sent = _Sent(partition, forward.offset, append_ms, forward.key.decode())
        self._sent.setdefault(forward.partition, {}).setdefault(record_digest(forward.key, forward.value), sent)

    async def lost(self, reader: Reader, topic: str) -> AsyncIterator[Drift]:
        """What is not in the log where it belongs, if it would have to be there still. Raises LogDamaged, LogUnavailable."""
        for home, sent in sorted(self._sent.items()):
            first, end = await reader.bounds(topic, home)
            since_ms = min(each.append_ms for each in sent.values()) - CLOCKS_APART_MS
            begin = max(first, await reader.offset_from(topic, home, max(0, since_ms)))
            left = dict(sent)
            async for record in reader.read(topic, home, begin, end):
                left.pop(record_digest(record.key, record.value), None)
            if left and first > 0:  # retention takes what is older than the first record that it has left
                oldest = await reader.read_one(topic, home, first)
                held_ms = None if oldest is None else oldest.timestamp + CLOCKS_APART_MS
                left = {key: each for key, each in left.items() if held_ms is not None and each.append_ms >= held_ms}
            for each in sorted(left.values()):
                what = f"usage of offset {each.offset}, forwarded to partition {home}"
                yield Drift(CHECK, each.partition, each.account, what, "its record in the log there", ABSENT)
