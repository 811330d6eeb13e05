"""Publishing a catalogue: the version goes into the store, then a marker into every partition of the log.

A marker takes effect for event times from an instant on that lies behind every event that could already be rated: log
time plus the allowed skew. So no price changes under an event that was charged, and no partition has to wait for another.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.ports import Clock, Outgoing
from actors.web.times import instant
from engine.catalog import (
    SKEW_US,
    BadCatalogue,
    CatalogueDocument,
    CatalogueFault,
    check_succession,
    compile_catalogue,
    document_json,
    read_document,
)
from engine.events import CatalogueMarker, seal

APPEND_US: Final = 60_000_000  # markers are appended within a minute, or the publication fails


class Shelf(Protocol):
    """Where versions are kept; the port `Store` is one. Any call may raise `StoreUnavailable` or `StoreRefused`."""

    async def latest_catalogue_version(self) -> int | None: ...

    async def catalogue(self, version: int) -> bytes | None: ...

    async def publish_catalogue(self, version: int, body: bytes) -> None: ...


class Markers(Protocol):
    """Where markers go; the port `Log` is one. Raises `LogUnavailable`."""

    partitions: int

    async def append(self, records: Sequence[Outgoing]) -> list[int]: ...


class Published(Struct, frozen=True):
    """What was published; `effective_us` is 0 for the first version, which is in force for all time."""

    version: int
    effective_us: int


class Proposed(Struct, frozen=True):
    """What may be published: under which number, from when on, and its stored form."""

    version: int
    effective_us: int
    body: bytes


async def propose(
    document: CatalogueDocument, *, store: Shelf, clock: Clock, effective_us: int | None = None
) -> Proposed:
    """The document as the next version; effective as soon as the law allows, or at `effective_us`. Nothing is written.

    Raises BadCatalogue and StoreUnavailable."""
    compile_catalogue(1, document)  # every fault of the document, before what its predecessor has to say
    earliest_us = clock.wall_us() + SKEW_US + APPEND_US
    latest = await store.latest_catalogue_version()
    body = document_json(document)
    previous = None if latest is None else await store.catalogue(latest)
    if latest is None or previous is None:
        version, effective = 1, 0
    elif previous == body:
        if effective_us is None and latest > 1:
            message = f"version {latest} is this very catalogue; to append its markers again, state its instant as `effective`"
            raise BadCatalogue([CatalogueFault((), message)])
        version, effective = latest, effective_us or 0
    else:
        check_succession(read_document(previous), document)
        version, effective = latest + 1, effective_us or earliest_us
    if version > 1 and effective < earliest_us:
        message = f"must be {instant(earliest_us)} (6 minutes from now) or later, behind every event that may be rated already"
        raise BadCatalogue([CatalogueFault(("effective",), message)])
    return Proposed(version, effective, body)


async def publish(
    document: CatalogueDocument,
    *,
    store: Shelf,
    log: Markers,
    clock: Clock,
    topic: str,
    control_key: bytes,
    effective_us: int | None = None,
) -> Published:
    """Publish under the next number; effective as soon as the law allows, or at `effective_us`.

    Publishing the newest version again, with the instant that the first attempt stated, appends its markers again: that
    heals a publication that broke off, since a partition that has the marker already refuses the second one.
    Raises BadCatalogue, CatalogueTaken (somebody else published meanwhile), StoreUnavailable, LogUnavailable."""
    proposed = await propose(document, store=store, clock=clock, effective_us=effective_us)
    await store.publish_catalogue(proposed.version, proposed.body)
    published = Published(proposed.version, proposed.effective_us)
    await append_markers(published, log, topic, control_key)
    return published


async def append_markers(published: Published, log: Markers, topic: str, control_key: bytes) -> None:
    """Put a stored version into force in every partition. Raises LogUnavailable."""
    marker = msgspec.json.encode(CatalogueMarker(published.version, published.effective_us))
    await log.append(
        [
            Outgoing("usage", seal(control_key, topic, partition, marker), partition=partition)
            for partition in range(log.partitions)
        ]
    )
