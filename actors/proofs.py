"""The acts of proof, each beside the running deployment and only reading: seal a base, rebuild, reconcile, try a
catalogue on logged usage.

Here the doors are opened and the partitions walked; what is proven stands in `actors/sealed_base.py`, `actors/rebuild.py`,
`actors/reconcile/` and `actors/dryrun.py`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from actors.assembly import stored_checkpoints, topic_reader
from actors.checkpoints import Checkpoints
from actors.dryrun import Comparison, Draft, DryRun, Shadow
from actors.kafka import TopicReader
from actors.rebuild import Fold, Stored, find_base, read_stored
from actors.reconcile.forwards import Forwards
from actors.reconcile.rated import CLOCKS_APART_MS, RatedTopic, sets_of
from actors.reconcile.run import Reconciler, Report, read_facts
from actors.sealed_base import Base, BaseHead, base_path, seal_base
from config.settings import Settings
from engine.catalog import check_succession, read_document
from engine.partition import Partition

Say = Callable[[str], None]


class NoSuchPartition(ValueError):
    """It was never claimed; the message names those that were."""


class PartitionsMissing(Exception):
    """What is stored is not of all partitions of the topic, or of more: nothing can be said of the whole."""


async def seal(
    settings: Settings, folder: Path, partition: int | None, say: Say
) -> AsyncIterator[tuple[Path, BaseHead]]:
    """Each file written, and what it is of."""
    control_key = settings.control_key_bytes()
    async with AsyncExitStack() as doors:
        checkpoints = await _checkpoints(settings, doors)
        for number in await _chosen(settings, checkpoints, partition):
            say(f"Partition {number}: sealing")
            head = await checkpoints.read(
                number,
                lambda checkpoint: seal_base(
                    checkpoint,
                    folder,
                    topic=settings.kafka.topic_usage,
                    partitions=settings.kafka.partitions,
                    control_key=control_key,
                ),
            )
            yield base_path(folder, number), head


async def rebuild(settings: Settings, bases: Path | None, partition: int | None, say: Say) -> AsyncIterator[Fold]:
    """Each partition, folded to the end of its newest checkpoint."""
    async with AsyncExitStack() as doors:
        checkpoints = await _checkpoints(settings, doors)
        reader = await _reader(settings, doors)
        for number in await _chosen(settings, checkpoints, partition):
            say(f"Partition {number}: reading its checkpoint")
            stored = await checkpoints.read(number, read_stored)
            base = find_base(bases, number, settings.control_key_bytes())
            fold = _fold(settings, checkpoints, reader, stored, base)
            await fold.run(_progress(fold, say))
            yield fold


async def reconcile(
    settings: Settings, bases: Path | None, partition: int | None, *, share: float, seed: int, say: Say
) -> AsyncIterator[Report]:
    """How each partition stands, once all are folded: what one has forwarded must be in the log of another."""
    forwards, reports = Forwards(), dict[int, Report]()
    async with AsyncExitStack() as doors:
        checkpoints = await _checkpoints(settings, doors)
        reader = await _reader(settings, doors)
        for number in await _chosen(settings, checkpoints, partition):
            say(f"Partition {number}: reading its checkpoint")
            base = find_base(bases, number, settings.control_key_bytes())
            stored, facts = await checkpoints.read(
                number, partial(read_facts, start=base.head.next_offset if base else 0)
            )
            fold = _fold(settings, checkpoints, reader, stored, base)
            rated = RatedTopic(reader, settings.kafka.topic_rated, number)
            one = Reconciler(fold, stored, facts, rated, forwards, share=share, seed=seed)
            reports[number] = await one.run(_progress(fold, say))
        say("Looking for what was forwarded")
        async for drift in forwards.lost(reader, settings.kafka.topic_usage):
            reports[drift.partition].take([drift])
    for report in reports.values():
        yield report


async def committed_lines(settings: Settings, from_ms: int, say: Say) -> AsyncIterator[tuple[Partition, list[bytes]]]:
    """Of each partition its accounts as they are stored, and the rated lines up to there that were told since then, in
    the order of the log."""
    topic = settings.kafka.topic_rated
    async with AsyncExitStack() as doors:
        checkpoints = await _checkpoints(settings, doors)
        reader = await _reader(settings, doors)
        for number in await _chosen(settings, checkpoints, None):
            say(f"Partition {number}: reading its checkpoint")
            stored = await checkpoints.read(number, read_stored)
            fold = _fold(settings, checkpoints, reader, stored, None)
            begin = await reader.offset_from(topic, number, max(0, from_ms - CLOCKS_APART_MS))
            _, end = await reader.bounds(topic, number)
            say(f"Partition {number}: reading rated lines")
            blocks = (
                [block.value or b"" async for block in reader.read(topic, number, begin, end)] if begin < end else []
            )
            sets = sets_of(blocks, 0, fold.end)
            lines = [line for offset in sorted(sets) for _, line in sorted(sets[offset].lines.items())]
            yield fold.stored_partition(), lines


async def dry_run(
    settings: Settings,
    bases: Path | None,
    partition: int | None,
    draft: Draft,
    say: Say,
    hear: Callable[[int, bytes], None] = lambda number, line: None,
) -> AsyncIterator[DryRun]:
    """What each partition's usage would have been charged under a draft. `hear` is told each line of it, with its partition.

    Raises BadCatalogue when the draft could not follow what is published, and TooLate."""
    async with AsyncExitStack() as doors:
        checkpoints = await _checkpoints(settings, doors)
        reader = await _reader(settings, doors)
        newest = await checkpoints.latest_catalogue_version()
        published = None if newest is None else await checkpoints.catalogue(newest)
        if published is not None:
            check_succession(read_document(published), draft.document)
        for number in await _chosen(settings, checkpoints, partition):
            say(f"Partition {number}: reading its checkpoint")
            stored = await checkpoints.read(number, read_stored)
            base = find_base(bases, number, settings.control_key_bytes())
            fold = _fold(settings, checkpoints, reader, stored, base)
            shadow = Shadow(
                draft,
                fold,
                base,
                topic=settings.kafka.topic_usage,
                partitions=settings.kafka.partitions,
                control_key=settings.control_key_bytes(),
            )
            told = partial(hear, number)
            yield await Comparison(fold, shadow, draft.to_us, told).run(_progress(fold, say))


def _progress(fold: Fold, say: Say) -> Callable[[int], None]:
    def folded(offset: int) -> None:
        say(f"Partition {fold.number}: folded to offset {offset:,} of {fold.end:,}")

    return folded


def _fold(settings: Settings, checkpoints: Checkpoints, reader: TopicReader, stored: Stored, base: Base | None) -> Fold:
    return Fold(
        reader,
        stored,
        base,
        topic=settings.kafka.topic_usage,
        partitions=settings.kafka.partitions,
        control_key=settings.control_key_bytes(),
        load=checkpoints.catalogue,
    )


async def _checkpoints(settings: Settings, doors: AsyncExitStack) -> Checkpoints:
    checkpoints = stored_checkpoints(settings)
    await checkpoints.start()
    doors.push_async_callback(checkpoints.stop)
    return checkpoints


async def _reader(settings: Settings, doors: AsyncExitStack) -> TopicReader:
    reader = topic_reader(settings)
    await reader.start()
    doors.push_async_callback(reader.stop)
    return reader


async def _chosen(settings: Settings, checkpoints: Checkpoints, partition: int | None) -> list[int]:
    """All partitions of the topic, or the one asked for. Raises NoSuchPartition and PartitionsMissing: what is stored does
    not say by itself how much of it there must be."""
    known = await checkpoints.partitions()
    if partition is None:
        return _complete(settings, known)
    if partition not in known:
        raise NoSuchPartition(f"partition {partition} was never claimed; there are {_listed(known) or 'none'}")
    return [partition]


def _complete(settings: Settings, known: list[int]) -> list[int]:
    """Every partition has its row from the moment on at which the deployment first owned it."""
    wanted = list(range(settings.kafka.partitions))
    if known == wanted:
        return wanted
    missing, foreign = (sorted(set(one) - set(other)) for one, other in ((wanted, known), (known, wanted)))
    faults = []
    if missing:
        faults.append(f"nothing is stored of partition {_listed(missing)} of topic {settings.kafka.topic_usage}")
    if foreign:
        faults.append(f"partition {_listed(foreign)} is stored, but kafka.partitions is {len(wanted)}")
    raise PartitionsMissing(
        f"{'; '.join(faults)} (schema {settings.postgres.schema_name}): see that the settings name the deployment's own "
        "database, schema and partitions, and that it has been up; else restore what is missing. --partition looks at one"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
