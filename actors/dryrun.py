"""What a draft of the catalogue would have earned: logged usage rated twice, as it was published and under the draft.

Two folds of the same records, by the engine that runs. In the second one the draft takes the place of whatever was in
force from an instant of event time on, exactly as a publication would put it there: counters go on, and what was used
before keeps its prices (law R6). Where nothing was published before that instant, the draft is the first version.
Nothing is written. `actors/shadow.py` goes on with the same two folds as the log grows.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct, structs

from actors.ports import Record
from actors.rebuild import SETTLE_EVERY, Fold, settle
from actors.sealed_base import Base
from actors.web.times import instant
from engine.catalog import SKEW_US, Catalogue, CatalogueDocument, compile_catalogue
from engine.events import CONTROL_MAGIC, BadMac, CatalogueMarker, Malformed, parse_control, parse_usage, seal, unseal
from engine.money import parse_amount
from engine.outcomes import RatedLine
from engine.partition import Partition
from engine.snapshot import decode_partition

_line_decoder: Final = msgspec.json.Decoder(RatedLine)
Hear = Callable[[bytes], None]


class TooLate(ValueError):
    """The base is newer than the instant from which the draft shall be in force; the message says what to do."""


class Takings(Struct):
    """What usage is charged, in pico, as published and under the draft; and how many events were rated either way."""

    before: int = 0
    after: int = 0
    events_before: int = 0
    events_after: int = 0

    def add(self, other: "Takings") -> None:
        self.before += other.before
        self.after += other.after
        self.events_before += other.events_before
        self.events_after += other.events_after

    @property
    def difference(self) -> int:
        return self.after - self.before


class Customer(Struct):
    """One account's takings, on the plan that it had when it was first seen here."""

    account: str
    plan: str
    currency: str
    takings: Takings


class Turn(Struct):
    """Records that come out otherwise: with one outcome as published, and another under the draft."""

    before: str
    after: str
    records: int
    offset: int  # of the first
    detail: str  # why the first one was set aside, where it was; empty of a command


class DryRun(Struct):
    """One partition."""

    partition: int
    start: int
    end: int
    customers: list[Customer]  # those with usage in the time asked about, by name
    turns: list[Turn]


class Draft(Struct, frozen=True):
    """What is tried. `from_us` and `to_us` bound the event time that counts; the draft is in force from `from_us` on."""

    document: CatalogueDocument
    from_us: int | None = None  # None: as far back as the fold goes
    to_us: int | None = None  # None: to the end


class Shadow:
    """The fold under the draft."""

    def __init__(
        self, draft: Draft, fold: Fold, base: Base | None, *, topic: str, partitions: int, control_key: bytes
    ) -> None:
        """Beside `fold`, which starts from the same base. Raises TooLate."""
        self._document = draft.document
        self._fold = fold
        self._topic = topic
        self._control_key = control_key
        self._library: dict[int, Catalogue] = {}
        self.partition = Partition(fold.number, partitions, topic, control_key, self._library)
        self.partition.skips = fold.partition.skips
        self._newest = 0  # version published to this fold; 0: none
        self._drafted = False  # whether the draft is published to it; nothing is behind that
        self.from_us = draft.from_us
        if base is not None and base.head.blob is not None:
            self._load(base, base.head.blob)

    def _load(self, base: Base, blob: bytes) -> None:
        state = decode_partition(blob)
        earliest_us = state.log_time_us + SKEW_US + 1
        if self.from_us is None:
            self.from_us = earliest_us
        if self.from_us < earliest_us:
            raise TooLate(
                f"the base of partition {self._fold.number} may hold usage from that instant on: take an older base, or "
                f"none, or --from {instant(earliest_us)} or later"
            )
        first, later = state.catalogues[:1], state.catalogues[1:]
        known = [*first, *(each for each in later if each[1] < self.from_us)]
        self._library |= {version: self._fold.library[version] for version, _ in known}
        self._newest = known[-1][0] if known else 0
        blob = msgspec.msgpack.encode(structs.replace(state, catalogues=known))
        self.partition.load(blob, base.accounts, base.dedup, base.commands)

    def apply(self, record: Record, outcome: str) -> str:
        """Fold one record that the other fold has folded already, with that outcome; its outcome here."""
        reached = self.from_us is None or record.timestamp * 1000 + SKEW_US >= self.from_us
        if reached and self._newest and not self._drafted:
            self._publish_draft(record)
        marker = self._marker(record)
        if marker is not None:
            if outcome != "catalogue" or self._drafted or (self._newest and self._is_behind(marker)):
                return outcome  # refused there, or in force where the draft is here
            self._drafted = reached and not self._newest
            self._library[marker.version] = (
                self._compiled(marker.version) if self._drafted else self._fold.library[marker.version]
            )
            self._newest = marker.version
        return self.partition.apply(record.offset, record.timestamp, record.key, record.value)

    def _publish_draft(self, record: Record) -> None:
        """Just before the record. A publication appends such a marker to every partition."""
        assert self.from_us is not None
        version = self._newest + 1
        self._library[version] = self._compiled(version)
        body = msgspec.json.encode(CatalogueMarker(version, self.from_us))
        value = seal(self._control_key, self._topic, self.partition.number, body)
        outcome = self.partition.apply(record.offset, self.partition.log_time_us // 1000, None, value)
        assert outcome == "catalogue", "it comes behind all versions, and ahead of all that may have been rated"
        self._drafted, self._newest = True, version

    def _compiled(self, version: int) -> Catalogue:
        return compile_catalogue(version, self._document)

    def _is_behind(self, marker: CatalogueMarker) -> bool:
        return self.from_us is not None and marker.effective_us >= self.from_us

    def _marker(self, record: Record) -> CatalogueMarker | None:
        value = record.value
        if value is None or value[:4] != CONTROL_MAGIC:
            return None
        try:
            control = parse_control(unseal(self._control_key, self._topic, self.partition.number, value))
        except (BadMac, Malformed):
            return None
        return control if isinstance(control, CatalogueMarker) else None


class Comparison:
    """Both folds, and what comes of each record in the two of them."""

    def __init__(self, fold: Fold, shadow: Shadow, to_us: int | None, hear: Hear = lambda line: None) -> None:
        """`hear` is told each rated line under the draft, of whatever time."""
        self._hear = hear
        self._fold = fold
        self._shadow = shadow
        self._to_us = to_us
        self._customers: dict[str, Customer] = {}
        self._turns: dict[tuple[str, str], Turn] = {}
        self._folded = 0
        self._charged: set[str] = set()  # accounts whose takings nobody was told of since they changed
        self.next_offset = fold.start

    @property
    def from_us(self) -> int | None:
        """Event time from which the draft is in force, and counts; None: as far back as the fold goes."""
        return self._shadow.from_us

    @property
    def log_time_us(self) -> int:
        """Up to which both are folded."""
        return self._fold.partition.log_time_us

    async def run(self, say: Callable[[int], None]) -> DryRun:
        """Everything; `say` hears now and then up to which offset. Raises what `Fold.run` raises."""
        await self._fold.run(say, self._seen)
        self.next_offset = self._fold.end
        customers = [self._customers[name] for name in sorted(self._customers)]
        return DryRun(self._fold.number, self._fold.start, self._fold.end, customers, self.turns())

    async def follow(self, end: int, engine_errors: frozenset[int]) -> None:
        """From where it stands up to an offset that the log has. `engine_errors`: offsets whose record broke the engine that
        rated it. Raises what `Fold.records` raises."""
        self._fold.partition.skips = self._shadow.partition.skips = engine_errors
        async for record, outcome in self._fold.records(self.next_offset, end):
            self._seen(record, outcome)
            self.next_offset = record.offset + 1
            if self._folded % SETTLE_EVERY == 0:
                settle(self._fold.partition)
        settle(self._fold.partition)
        settle(self._shadow.partition)
        self.next_offset = end

    def untold(self) -> list[Customer]:
        """Customers whose takings have changed since `told` was called, by name."""
        return [self._customers[name] for name in sorted(self._charged)]

    def told(self) -> None:
        """Somebody has been told of the takings as they are now."""
        self._charged.clear()

    def turns(self) -> list[Turn]:
        """Records that come out otherwise so far."""
        return sorted(self._turns.values(), key=lambda turn: turn.offset)

    def _seen(self, record: Record, before: str) -> None:
        after = self._shadow.apply(record, before)
        was, becomes = self._fold.partition, self._shadow.partition
        if before != after:
            self._turn(record, before, after)
        for partition, is_draft in ((was, False), (becomes, True)):
            is_told = False  # whether a line of the record's own event was seen: others are other prices of it
            for _, text in partition.outputs.lines:
                if is_draft:
                    self._hear(text)
                line = _line_decoder.decode(text)
                is_own = line.correction is None and line.accrued_us is None  # not taken back, nor of no event
                self._charge(partition, line, is_draft=is_draft, is_event=is_own and not is_told)
                is_told = is_told or is_own
            partition.outputs.lines.clear()
        self._folded += 1
        if self._folded % SETTLE_EVERY == 0:
            settle(becomes)

    def _counts(self, time_us: int) -> bool:
        from_us = self._shadow.from_us
        return (from_us is None or time_us >= from_us) and (self._to_us is None or time_us < self._to_us)

    def _charge(self, partition: Partition, line: RatedLine, *, is_draft: bool, is_event: bool) -> None:
        if not self._counts(line.time_us):
            return
        customer = self._customers.get(line.account)
        if customer is None:
            account = partition.account(line.account)
            assert account is not None, "it was charged just now"
            customer = Customer(line.account, account.plan, line.currency, Takings())
            self._customers[line.account] = customer
        self._charged.add(line.account)
        takings, amount = customer.takings, parse_amount(line.amount)
        if is_draft:
            takings.after += amount
            takings.events_after += is_event
        else:
            takings.before += amount
            takings.events_before += is_event

    def _turn(self, record: Record, before: str, after: str) -> None:
        time_us = _event_time(record)
        if time_us is not None and not self._counts(time_us):
            return
        turn = self._turns.get((before, after))
        if turn is None:
            turn = self._turns[before, after] = Turn(before, after, 0, record.offset, self._detail(record.offset))
        turn.records += 1

    def _detail(self, offset: int) -> str:
        """Why the record was set aside, under the draft if it was."""
        for partition in (self._shadow.partition, self._fold.partition):
            letters = partition.outputs.dead_letters
            if letters and letters[-1].offset == offset:
                return letters[-1].detail
        return ""


def _event_time(record: Record) -> int | None:
    """An event's own time; None of what is no event, or states none."""
    try:
        return parse_usage(record.value or b"").time_us
    except Malformed:
        return None
