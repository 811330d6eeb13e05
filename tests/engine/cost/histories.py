"""Random histories of a few replicas: what a partition's two topics would hold, and what it must come to."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from engine.cost.attribution import TOPIC, Attribution, Horizons, SetAside
from engine.cost.gpu_rates import HOUR_US
from engine.cost.served import GpuPart, ReplicaUp, Served, Status, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.events import seal

S: Final = 1_000_000
KEY: Final = b"k" * 32
PARTITION: Final = 3
START_US: Final = 500_000 * HOUR_US
HORIZONS: Final = Horizons()


class Arrival(NamedTuple):
    """One record, and when it happened; it may arrive in any order inside the lateness bound."""

    at_us: int
    value: bytes
    key: bytes
    sample: bool = False  # a record of `gpu-telemetry`, else of `served`


def rates_document(version: int = 1, per_hour: str = "2.49") -> dict[str, Any]:
    return {
        "version": version,
        "currency": "USD",
        "rates": [
            {"kind": "h100", "from_us": 0, "per_hour": per_hour, "overhead_ppm": 123_457},
            {"kind": "h100", "from_us": START_US + 95 * S + 7, "per_hour": "3.000000000007"},
            {"kind": "a100", "from_us": 0, "per_hour": "1.1"},
        ],
        "profiles": {
            "llama": {"prefill_token_ps": 20_000_000, "decode_token_ps": 50_000_000, "context_read_ps": 43_000}
        },
    }


def rates_record(version: int = 1, per_hour: str = "2.49", partition: int = PARTITION) -> bytes:
    return seal(KEY, TOPIC, partition, msgspec.json.encode(rates_document(version, per_hour)))


def served_record(served: Served | ReplicaUp) -> Arrival:
    key, value = encode_served(served)
    at_us = served.last_us if isinstance(served, Served) else served.up_us
    return Arrival(at_us, value, key)


def history(random: Random, requests: int, span_s: int = 200) -> list[Arrival]:
    """Three replicas for so many seconds: one on two GPUs that comes up and goes, two on parts of a third GPU; batches,
    equal instants, phases without length, aborted ones, records that replace others, duplicates, samples."""
    two = (GpuPart("GPU-1", "h100"), GpuPart("GPU-2", "h100"))
    end_us = START_US + span_s * S
    found = [
        served_record(ReplicaUp("both", "llama", two, START_US + 3, START_US + 20 * S, end_us - 30 * S)),
        served_record(ReplicaUp("both", "llama", two, START_US + 3, seq=0)),
        served_record(ReplicaUp("both", "llama", two, START_US + 3, START_US + 20 * S, end_us - 30 * S, seq=1)),
        served_record(ReplicaUp("part-a", "llama", (GpuPart("GPU-3", "a100", 0, 3, 7),), START_US, START_US)),
        served_record(ReplicaUp("part-b", "odd", (GpuPart("GPU-3", "a100", 3, 7, 7),), START_US, START_US + 5 * S)),
    ]
    for number in range(requests):
        replica = random.choice(["both", "both", "part-a", "part-b"])
        # Well before the end, where the first replica holds its GPUs: what ran outside has no known cost.
        begin = START_US + 4 + random.randrange(0, (span_s - 80) * 10) * S // 10
        first = begin + random.choice([0, 0, random.randrange(2 * S), S])
        last = first + random.choice([0, random.randrange(40 * S), 10 * S])
        prompt = random.randrange(1, 5_000)
        base = Served(
            *(f"req-{number}", replica, random.choice(["llama", "odd"]), begin, first, last),
            *(
                prompt,
                random.choice([0, prompt, random.randrange(prompt)]),
                random.choice([0, 1, random.randrange(900)]),
            ),
            random.choice([Status.OK, Status.OK, Status.ABORTED, Status.FAILED]),
            random.choice(["acme", "zen", None]),
            feature=random.choice(["chat", None]),
        )
        if random.random() < 0.1:
            base = msgspec.structs.replace(base, first_us=None, output=0)
        found.append(served_record(base))
        if random.random() < 0.1:
            found.append(
                served_record(msgspec.structs.replace(base, seq=1, last_us=base.last_us + 5 * S, account="acme"))
            )
        if random.random() < 0.1:
            found.append(found[-1])
    for gpu in ("GPU-1", "GPU-2", "GPU-3", "GPU-of-nobody"):
        for at in range(0, span_s, 15):
            if random.random() < 0.9:
                instant = START_US + at * S
                metric = random.choice([Metric.GRAPHICS_ACTIVE, Metric.BUSY])
                sample = Sample(SourceKind.GPU, gpu, instant, {metric: random.choice([0, 970, 40]), Metric.POWER: 5})
                key, value = encode_sample(sample)
                found.append(Arrival(instant, value, key, sample=True))
    return found


class Fold(Protocol):
    """What records are applied to."""

    @property
    def counts(self) -> Counter[str]: ...

    def apply(self, value: bytes | None, key: bytes | None, append_us: int) -> None: ...

    def apply_sample(self, value: bytes | None, key: bytes | None, append_us: int) -> None: ...


def apply(fold: Fold, arrival: Arrival, append_us: int) -> None:
    """As the cost actor does: what is set aside changes nothing."""
    try:
        if arrival.sample:
            fold.apply_sample(arrival.value, arrival.key, append_us)
        else:
            fold.apply(arrival.value, arrival.key, append_us)
    except SetAside:
        fold.counts["set_aside"] += 1


def apply_all(fold: Attribution, arrivals: Sequence[Arrival], append_us: int) -> None:
    """All of them, and the samples again where a GPU became known behind them."""
    for arrival in arrivals:
        apply(fold, arrival, append_us)
    read_again(fold, arrivals, append_us)


def read_again(fold: Attribution, arrivals: Sequence[Arrival], append_us: int) -> None:
    """The samples, if they are wanted."""
    if fold.take_samples_from_us() is not None:
        for arrival in arrivals:
            if arrival.sample:
                apply(fold, arrival, append_us)


def new_fold(horizons: Horizons = HORIZONS) -> Attribution:
    return Attribution(PARTITION, KEY, horizons)
