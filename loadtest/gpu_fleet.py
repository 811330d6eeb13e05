"""A generated GPU fleet that serves a run's requests: what its replicas, its exporters and its landlord would say.

Real are the records, their topics, and that every request that was rated was served by one of these replicas. The times that
it took are drawn from what its tokens take, and end when the request was told."""

import zlib
from collections.abc import Sequence
from itertools import cycle
from typing import Final

import msgspec
import orjson
from msgspec import Struct

from actors.ports import Appender, Clock, LogUnavailable, Outgoing
from config.settings import Settings
from engine.cost.attribution import TOPIC
from engine.cost.gpu_rates import HOUR_US, PPM, GpuRate, Profile, RateDocument
from engine.cost.served import GpuPart, ReplicaUp, Served, Status, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.events import seal
from engine.money import parse_amount
from engine.placement import partition_for

BEAT_S: Final = 0.5  # what was served since leaves together
SAMPLE_EVERY_US: Final = 5_000_000
COLD_US: Final = 2_000_000  # a replica holds its GPUs so long before it takes requests
PREFILL_US: Final = 20  # of a token of the prompt
DECODE_US: Final = 5_000  # of a token made, in a batch of many
BUSY_PERMILLE: Final = 930
RETRY_S: Final = 0.2
PER_HOUR: Final = {"h100-sxm": "2.49", "l40s": "0.99"}
OVERHEAD_PPM: Final = 80_000  # network, people, spares
FEATURES: Final = ("chat", "search", "agents")
SERVING: Final = frozenset(
    {"event", "wrong_partition", "keyless"}
)  # kinds of a workload's sends that are a first telling


class Kind(Struct, frozen=True):
    """Replicas that are all alike."""

    model: str
    replicas: int
    gpus: int  # of each, by tensor parallelism
    kind: str


FLEET: Final = (
    Kind("atlas-large", 6, 8, "h100-sxm"),
    Kind("atlas-small", 6, 2, "h100-sxm"),
    Kind("atlas-mini", 4, 1, "l40s"),
    Kind("spare", 1, 1, "h100-sxm"),  # paid for, and serves nothing
)
# One GPU that is cut in two: a replica of the smallest model on either part.
CUT: Final = ("atlas-mini", "h100-sxm", ((0, 3), (3, 7)), 7)


class GpuFleet:
    """Up from `start` to `end`; `serve` is told of each request when it has ended."""

    def __init__(self, settings: Settings, clock: Clock, appender: Appender) -> None:
        """`appender` takes records for the topics `served` and `gpu-telemetry`."""
        self.up_us = self.down_us = 0
        self.served = 0
        self._settings = settings
        self._clock = clock
        self._appender = appender
        self._ups: list[ReplicaUp] = []
        self._next = {kind.model: cycle(_names(kind.model)) for kind in FLEET}
        self._records: list[Served] = []
        self._last_us: dict[str, int] = {}  # when a replica was last asked for something
        self._sampled_us = 0
        self._ending = False

    async def start(self) -> None:
        """Publish what the GPUs cost. They have just been started, and take requests from now on."""
        key, partitions = self._settings.control_key_bytes(), self._settings.kafka.partitions
        document = msgspec.json.encode(rates())
        await self._append(
            [Outgoing("served", seal(key, TOPIC, each, document), b"rates", each) for each in range(partitions)]
        )
        self.up_us = self._clock.wall_us() - COLD_US
        self._ups = replicas(self.up_us)
        await self._append([self._outgoing(up) for up in self._ups])

    def note(self, kinds: Sequence[str], records: Sequence[Outgoing], _offsets: Sequence[int]) -> None:
        """Usage events that became durable, as a driver acknowledges them: each was a request that a replica had served."""
        for kind, record in zip(kinds, records, strict=True):
            if kind in SERVING:
                event = orjson.loads(record.value or b"")
                data = event["data"]
                tokens = data["input_tokens"], data["output_tokens"]
                self.serve(event["subject"], event["id"], data["model"], *tokens, Status.OK)

    def serve(self, account: str, request: str, model: str, prompt: int, output: int, status: Status) -> None:
        """A request has just ended, and a replica of its model ran it."""
        now_us = self._clock.wall_us()
        ready_us, last_us = self.up_us + COLD_US, now_us
        first_us = max(ready_us, last_us - max(0, output - 1) * DECODE_US)
        scheduled_us = max(ready_us, first_us - prompt * PREFILL_US)
        replica = next(self._next[model])
        self._last_us[replica] = now_us
        self._records.append(
            Served(
                *(request, replica, model, scheduled_us, first_us if output else None, last_us, prompt, 0, output),
                status=status,
                account=account,
                feature=FEATURES[zlib.crc32(request.encode()) % len(FEATURES)],
            )
        )
        self.served += 1

    async def run(self) -> None:
        """Tell what was served, and how busy the GPUs were, until `end`."""
        while not self._ending:
            await self._clock.sleep(BEAT_S)
            await self._tell()

    async def _tell(self) -> None:
        records, self._records = self._records, []
        told = [self._outgoing(record) for record in records]
        now_us = self._clock.wall_us()
        if now_us - self._sampled_us >= SAMPLE_EVERY_US:
            told += self._samples(now_us)
            self._sampled_us = now_us
        await self._append(told)

    def _samples(self, now_us: int) -> list[Outgoing]:
        found = []
        for up in self._ups:
            busy = now_us - self._last_us.get(up.replica, 0) < SAMPLE_EVERY_US
            for part in up.gpus:
                values = {Metric.GRAPHICS_ACTIVE: BUSY_PERMILLE if busy else 0}
                key, value = encode_sample(Sample(SourceKind.GPU, part.gpu, now_us, values))
                found.append(Outgoing("gpu-telemetry", value, key))
        return found

    async def end(self) -> None:
        """The GPUs are given back, and nothing is told any more. `run` ends with it."""
        self._ending = True
        await self._tell()
        self.down_us = self._clock.wall_us()
        downs = [msgspec.structs.replace(up, down_us=self.down_us, seq=1) for up in self._ups]
        await self._append([self._outgoing(down) for down in downs])

    def bill(self) -> int:
        """Pico-units: what the landlord asks for the time from up to down, and what there is to pay beside it."""
        counts: dict[str, int] = {}
        for kind in FLEET:
            counts[kind.kind] = counts.get(kind.kind, 0) + kind.replicas * kind.gpus
        counts[CUT[1]] += 1
        return sum(count * gpu_bill(kind, self.up_us, self.down_us) for kind, count in counts.items())

    def _outgoing(self, record: Served | ReplicaUp) -> Outgoing:
        key, value = encode_served(record)
        return Outgoing("served", value, key, partition_for(key, self._settings.kafka.partitions))

    async def _append(self, records: Sequence[Outgoing]) -> None:
        while records:
            try:
                await self._appender.append(records)
            except LogUnavailable:
                await self._clock.sleep(RETRY_S)
            else:
                return


def gpu_bill(kind: str, up_us: int, down_us: int) -> int:
    """One GPU's price for [up, down), and its overhead: each is what has run up since 1970 at the one instant, less that at
    the other, in whole pico."""
    pico = parse_amount(PER_HOUR[kind])
    overhead = pico * OVERHEAD_PPM
    price = pico * down_us // HOUR_US - pico * up_us // HOUR_US
    return price + overhead * down_us // (HOUR_US * PPM) - overhead * up_us // (HOUR_US * PPM)


def rates() -> RateDocument:
    """What the fleet's GPUs cost, and what tokens take of them."""
    return RateDocument(
        version=1,
        currency="USD",
        rates=tuple(GpuRate(kind, 0, amount, OVERHEAD_PPM) for kind, amount in PER_HOUR.items()),
        profiles={
            "atlas-large": Profile(20_000_000, 50_000_000, 43_000),
            "atlas-small": Profile(8_000_000, 25_000_000, 20_000),
        },
    )


def _names(model: str) -> list[str]:
    count = sum(kind.replicas for kind in FLEET if kind.model == model)
    parts = len(CUT[2]) if model == CUT[0] else 0
    return [f"{model}-{number}" for number in range(count + parts)]


def replicas(up_us: int) -> list[ReplicaUp]:
    """All of the fleet, up from that instant on."""
    found = []
    for kind in FLEET:
        for name in _names(kind.model)[: kind.replicas]:
            gpus = tuple(GpuPart(f"GPU-{name}-{number}", kind.kind) for number in range(kind.gpus))
            found.append(ReplicaUp(name, kind.model, gpus, up_us, up_us + COLD_US))
    model, kind_name, parts, of = CUT
    for name, (begin, end) in zip(_names(model)[-len(parts) :], parts, strict=True):
        part = GpuPart("GPU-cut", kind_name, begin, end, of)
        found.append(ReplicaUp(name, model, (part,), up_us, up_us + COLD_US))
    return found
