"""How fast one shard rates when the log is full: Kafka → rated, checkpointed, beside the bare loop on the same topic.

The log is filled before the shard starts, so nothing but the shard sets the pace. Its rate is taken from the middle of
the run, where the start's replay and the end's idling do not count, checkpoints and rated lines included.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from actors.cluster import Cluster
from actors.deployment import NotReady
from loadtest.bench.bare import bare_loop
from loadtest.bench.feeder import Order, feed
from loadtest.bench.stage import Stage, counts_of, places_of
from loadtest.bench.watch import Look, cores_between

FILL_PER_S: Final = 50_000  # faster than anybody here writes: the records leave as fast as they can
SETUP_US: Final = 3_000_000
LOOK_EVERY_S: Final = 0.1
MIDDLE: Final = (0.10, 0.95)  # the part of the records that the rate is taken from
STALLED_S: Final = 60.0


class Sample(Struct, frozen=True):
    """How far the shard was; the shard's own words, at one moment."""

    at_s: float
    records: int  # of the log, that the fold has behind it
    rated: int
    cpu_s: float  # of the shard's process


def middle_of(samples: Sequence[Sample], records: int) -> tuple[Sample, Sample]:
    """The first and the last sample of the middle. Raises ValueError where the run was too short to have one."""
    low, high = MIDDLE[0] * records, MIDDLE[1] * records
    within = [sample for sample in samples if low <= sample.records <= high]
    if len(within) < 2 or within[-1].records <= within[0].records or within[-1].cpu_s <= within[0].cpu_s:
        raise ValueError(f"{records:,} records were rated between two looks: give more events")
    return within[0], within[-1]


def pace_of(samples: Sequence[Sample], records: int) -> dict[str, Any]:
    """Records a second in the middle of the run, by the wall clock and per core that the shard's process kept busy."""
    first, last = middle_of(samples, records)
    seconds, cpu_s, count = last.at_s - first.at_s, last.cpu_s - first.cpu_s, last.records - first.records
    return {
        "records": records,
        "measured_records": count,
        "measured_s": round(seconds, 3),
        "records_per_s": round(count / seconds),
        "records_per_core_s": round(count / cpu_s),
        "rated_per_s": round((last.rated - first.rated) / seconds),
        "shard_cores": round(cpu_s / seconds, 3),
    }


def rates_of(samples: Sequence[Sample]) -> dict[str, int | None]:
    """Events a second and per core; None where the log was read between two looks, as in a run that is only for show."""
    try:
        pace = pace_of(samples, samples[-1].records)
    except ValueError:
        return {"events_per_s": None, "events_per_core_s": None}
    return {"events_per_s": pace["records_per_s"], "events_per_core_s": pace["records_per_core_s"]}


async def fill(stage: Stage, order: Order) -> None:
    """The order's commands and then its records, in the log."""
    workload = order.workload(stage.catalogue, stage.settings.kafka.partitions)
    stage.say(f"filling the log with {order.events:,} events of {order.customers:,} customers")
    await stage.send(workload.setup(stage.clock.wall_us() + SETUP_US))
    await (await feed(stage.settings, order, stage.catalogue)).done()


async def rate_to_the_end(stage: Stage, cluster: Cluster) -> tuple[list[Sample], list[Look]]:
    """Watch until what is in the log now has been rated. Raises NotReady when nothing moves any more."""
    ends = await stage.ends()
    watch = stage.watch()
    samples: list[Sample] = []
    moved_s = stage.clock.boot_s()
    while True:
        statuses = await cluster.statuses()
        places = places_of(statuses)
        done = sum(places.values())
        now_s = stage.clock.boot_s()
        if not samples or done > samples[-1].records:
            moved_s = now_s
        samples.append(Sample(now_s, done, counts_of(statuses)["rated"], sum(status.cpu_s for status in statuses)))
        watch.look(samples[-1].rated, sum(ends.values()) - done)
        if all(places.get(number, 0) >= end for number, end in ends.items()):
            return samples, watch.looks
        if now_s - moved_s > STALLED_S:
            halted = [view.halt_reason for status in statuses for view in status.partitions if view.halt_reason]
            raise NotReady(f"the fold has stood at {done:,} records for {STALLED_S:.0f} s {halted[:1]}")
        await stage.clock.sleep(LOOK_EVERY_S)


async def saturate(stage: Stage, cluster: Cluster) -> dict[str, Any]:
    """The shard's pace over the log that `fill` has made, and the bare loop's over the same topic."""
    ends = await stage.ends()
    stage.say(f"one shard rates {sum(ends.values()):,} records")
    samples, looks = await rate_to_the_end(stage, cluster)
    shard = pace_of(samples, sum(ends.values()))
    first, last = middle_of(samples, sum(ends.values()))
    inside = [look for look in looks if first.at_s <= look.at_s <= last.at_s + LOOK_EVERY_S]
    await stage.settled(cluster)
    stage.say("the bare loop reads the same topic")
    kafka = stage.settings.kafka
    assert kafka.bootstrap_servers is not None
    bare = await bare_loop(kafka.bootstrap_servers, kafka.topic_usage, ends)
    return {
        "shard": shard | {"cores": cores_between(inside[0], inside[-1])},
        "bare": bare,
        "ratio_per_core": round(shard["records_per_core_s"] / bare["records_per_core_s"], 3),
    }
