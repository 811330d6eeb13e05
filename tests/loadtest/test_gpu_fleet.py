"""A generated fleet: what it tells is attributed by the engine itself, and comes to its bill."""

from collections.abc import Sequence

import orjson
import pytest
from pydantic import SecretStr

from actors.ports import LogUnavailable, Outgoing
from config.settings import KafkaSettings, Settings
from engine.cost.attribution import Attribution, Horizons
from engine.cost.served import Status
from engine.cost.window import Bucket
from engine.money import parse_amount
from loadtest.gpu_fleet import COLD_US, GpuFleet, gpu_bill, replicas

PARTITIONS = 4
BEGIN_US = 1_781_530_003_000_000  # minutes before a whole hour: no window of a test is beyond it
SETTINGS = Settings(control_key=SecretStr("07" * 32), kafka=KafkaSettings(partitions=PARTITIONS))


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_us = BEGIN_US

    def wall_us(self) -> int:
        return self.now_us

    def boot_s(self) -> float:
        return self.now_us / 1_000_000

    async def sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


class Taken:
    """What the topics were given, with the time of it."""

    def __init__(self, clock: Time) -> None:
        self.records: list[tuple[Outgoing, int]] = []
        self.refusals = 0
        self._clock = clock

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        if self.refusals:
            self.refusals -= 1
            raise LogUnavailable("away")
        self.records += [(record, self._clock.wall_us()) for record in records]
        return [0] * len(records)


def attributed(taken: Taken, now_us: int) -> dict[Bucket, list[int]]:
    """Pico and requests by bucket, as the cost actors of all partitions would find them."""
    found: dict[Bucket, list[int]] = {}
    for number in range(PARTITIONS):
        fold = Attribution(number, SETTINGS.control_key_bytes(), Horizons())
        for record, append_us in taken.records:
            if record.topic == "served" and record.partition == number:
                fold.apply(record.value, record.key, append_us)
        for record, append_us in taken.records:
            if record.topic == "gpu-telemetry":
                fold.apply_sample(record.value, record.key, append_us)
        fold.publish(now_us)
        for key, sums in fold.rows():
            assert not sums.unknown
            before = found.setdefault(key.bucket, [0, 0])
            before[0] += sums.amount
            before[1] += sums.requests
    return found


async def test_what_a_fleet_tells_comes_to_its_bill() -> None:
    clock = Time()
    taken = Taken(clock)
    fleet = GpuFleet(SETTINGS, clock, taken)
    await fleet.start()
    clock.now_us += 7_000_123
    for number in range(50):
        model = ("atlas-large", "atlas-small", "atlas-mini")[number % 3]
        fleet.serve("acme", f"r-{number}", model, 900, number, Status.OK)
        clock.now_us += 40_001
    event = {"id": "e", "subject": "zen", "data": {"model": "atlas-mini", "input_tokens": 5, "output_tokens": 7}}
    records = [Outgoing("usage", orjson.dumps(event), b"zen"), Outgoing("usage", b"not JSON", b"zen")]
    fleet.note(["event", "malformed"], records, [0, 1])
    taken.refusals = 2
    await fleet.end()
    assert (fleet.served, taken.refusals) == (51, 0)
    found = attributed(taken, clock.now_us + 1)
    assert sum(amount for amount, _ in found.values()) == fleet.bill()
    assert found[Bucket.DIRECT][1] == fleet.served
    assert {Bucket.DIRECT, Bucket.COLD_START, Bucket.HARD_IDLE, Bucket.OVERHEAD} <= {
        bucket for bucket, (amount, _) in found.items() if amount
    }


async def test_it_tells_until_it_ends() -> None:
    clock = Time()
    taken = Taken(clock)
    fleet = GpuFleet(SETTINGS, clock, taken)
    await fleet.start()
    told = len(taken.records)
    sleep, beats = clock.sleep, 0

    async def few_beats(seconds: float) -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            await fleet.end()
        await sleep(seconds)

    clock.sleep = few_beats  # type: ignore[method-assign]
    fleet.serve("acme", "r", "atlas-mini", 1, 1, Status.ABORTED)
    await fleet.run()
    assert any(b'"aborted"' in (record.value or b"") for record, _ in taken.records[told:])
    assert fleet.down_us > fleet.up_us


@pytest.mark.parametrize(("kind", "hour"), [("h100-sxm", "2.6892"), ("l40s", "1.0692")])
def test_an_hour_of_a_gpu_costs_its_price_and_the_overhead(kind: str, hour: str) -> None:
    assert gpu_bill(kind, 0, 3_600_000_000) == parse_amount(hour)


def test_the_parts_of_the_cut_gpu_are_all_of_it() -> None:
    parts = [part for up in replicas(BEGIN_US) for part in up.gpus if part.gpu == "GPU-cut"]
    assert sorted((part.begin, part.end, part.of) for part in parts) == [(0, 3, 7), (3, 7, 7)]
    assert all(up.ready_us == BEGIN_US + COLD_US for up in replicas(BEGIN_US))
