"""From what one machine was measured to do to what a month's events need: shards, Kafka, Postgres, and what ends first.

The model is arithmetic over core-microseconds per event and role, taken from a step of the ramp that kept up. It is checked
where it can be: what it foretells for the measured machine is held against that machine's measured saturation.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

from msgspec import Struct

MONTH_S: Final = 30 * 86_400
PEAK: Final = 10  # times the mean: what must still be rated without falling behind
BUSY_MAX: Final = 0.6  # of a core, so that takeovers and checkpoints find room
USAGE_BYTES: Final = 230  # of an event in the log, before compression
RATED_BYTES: Final = 350  # of its lines in the topic `rated`
COMPRESSION: Final = 3.0
REPLICAS: Final = 3
RETENTION_S: Final = 45 * 86_400
DIRTY_US: Final = 20.0  # of Postgres for one changed account in a checkpoint
CHECKPOINT_S: Final = 10.0  # the longest interval, which is what a shard with many dirty accounts comes to
POSTGRES_CORES: Final = 16  # of the largest database that one would not have to think about
PARTITIONS_MAX: Final = 1_024  # and so shards
EVENTS_A_MONTH: Final = (1_000_000_000, 10_000_000_000, 100_000_000_000)


class Costs(Struct, frozen=True):
    """Core-microseconds that an event takes, by role."""

    shard_us: float
    broker_us: float
    postgres_us: float
    others_us: float  # Ray, the load and the bench: on a machine that measures itself, they are there too

    @property
    def all_us(self) -> float:
        return self.shard_us + self.broker_us + self.postgres_us + self.others_us


class Need(Struct, frozen=True):
    """What so many events a month need at their peak."""

    events_a_month: int
    mean_per_s: float
    peak_per_s: float
    shards: int
    broker_cores: float
    postgres_cores: float
    kafka_mb_per_s: float  # written by producers and shards together, on all replicas
    kafka_tb: float  # kept, on all replicas
    first_to_end: str


def costs_of(step: Mapping[str, Any]) -> Costs:
    """From a step of the ramp: cores by role over events a second. Raises ValueError when it did not keep up."""
    if not step["kept_up"] or not step["rated_per_s"]:
        raise ValueError("the costs of an event are those of a step that kept up")
    each = {role: cores * 1_000_000 / step["rated_per_s"] for role, cores in step["cores"].items()}
    others = sum(us for role, us in each.items() if role not in ("shard", "broker", "postgres"))
    return Costs(each.get("shard", 0.0), each.get("broker", 0.0), each.get("postgres", 0.0), others)


def foretold_per_s(costs: Costs, cores: int) -> float:
    """Where the machine itself is full: one shard has one core at most, and all roles share them all."""
    return 1_000_000 * min(1 / costs.shard_us, cores / costs.all_us)


def need_of(events_a_month: int, costs: Costs, customers: int) -> Need:
    """`customers` are those that use something within one checkpoint interval.

    Shards and brokers are added as they are needed; what cannot be added to is the one database, which takes every
    partition's checkpoints, and the number of partitions. The nearer of the two is the first to end."""
    mean = events_a_month / MONTH_S
    peak = mean * PEAK
    shard_cores = peak * costs.shard_us / 1_000_000
    dirty_per_s = min(peak, customers / CHECKPOINT_S)
    postgres_cores = max(peak * costs.postgres_us, dirty_per_s * DIRTY_US) / 1_000_000
    broker_cores = peak * costs.broker_us / 1_000_000
    bytes_each = (USAGE_BYTES + RATED_BYTES) / COMPRESSION * REPLICAS
    share = {
        "one Postgres": postgres_cores / (BUSY_MAX * POSTGRES_CORES),
        "a shard per partition": shard_cores / (BUSY_MAX * PARTITIONS_MAX),
    }
    return Need(
        events_a_month,
        round(mean, 1),
        round(peak, 1),
        max(2, ceil(round(shard_cores / BUSY_MAX, 6))),  # two: one must be able to die
        round(broker_cores / BUSY_MAX, 1),
        round(postgres_cores / BUSY_MAX, 1),
        round(peak * bytes_each / 1e6, 1),
        round(mean * RETENTION_S * bytes_each / 1e12, 1),
        max(share, key=lambda name: share[name]),
    )


def model(ramp: Mapping[str, Any], cores: int, customers: Sequence[int] = (1_000_000,) * 3) -> dict[str, Any]:
    """The costs of the highest step that kept up, what they foretell of this machine, and what months need."""
    kept = [step for step in ramp["steps"] if step["kept_up"]]
    costs = costs_of(kept[-1])
    foretold = foretold_per_s(costs, cores)
    return {
        "core_us_per_event": {
            "shard": round(costs.shard_us, 1),
            "broker": round(costs.broker_us, 1),
            "postgres": round(costs.postgres_us, 1),
            "others": round(costs.others_us, 1),
        },
        "foretold_saturation_per_s": round(foretold),
        "measured_saturation_per_s": ramp["saturation_per_s"],
        "foretold_over_measured": round(foretold / ramp["saturation_per_s"], 2),
        "months": [
            {name: getattr(need, name) for name in need.__struct_fields__}
            for need in (
                need_of(events, costs, active) for events, active in zip(EVENTS_A_MONTH, customers, strict=True)
            )
        ],
    }
