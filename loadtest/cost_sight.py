"""How long after a request was told its cost stands where somebody reads it.

A request is told when the broker appends its record to the topic `served`. Its cost stands, in every hour that it ran in,
    on the topic    when the broker appends the line to `costs`
    in the margin   when a checkpoint that has read that line is seen in Postgres: in the rows of `GET /v1/margin` and
                    `tallygate margin --live`. Looked at every LOOK_EVERY_S, so the figure is too high by that at most
    over HTTP       when an answer of `GET /v1/margin` has it (of the requests that somebody asked for: `saw`)

The first comes of the broker's clock alone; the others hold the clock of whoever looks against it."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from actors.assembly import margin_store, topic_reader
from actors.ports import Clock, Record, StoreUnavailable
from config.settings import Settings
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, parse_line
from engine.cost.served import Served, parse_served
from engine.events import Malformed
from engine.placement import partition_for
from loadtest.report import percentiles

LOOK_EVERY_S: Final = 0.05

Execution = tuple[str, str, int]  # replica, request, attempt


class Look(Struct, frozen=True):
    """A checkpoint of the margin of one partition, when it was first seen."""

    seen_us: int
    costs_offsets: tuple[int, ...]


class Line(Struct, frozen=True):
    """Where the first line that knows a cost stands."""

    append_us: int
    partition: int
    offset: int
    account: str


class Delays(Struct):
    """Milliseconds, one for each execution that was told; and of how many nothing was seen."""

    topic: list[float]
    margin: list[float]
    http: list[float]
    unseen: int = 0

    def figures(self) -> dict[str, dict[str, float | None]]:
        """By where it stands: p50, p99, the longest, of how many."""
        places = {"topic": self.topic, "margin": self.margin, "http": self.http}
        return {
            name: {**percentiles(values), "max": round(max(values), 3) if values else None, "samples": len(values)}
            for name, values in places.items()
        }


class CostSight:
    """Looks while a run goes on, and says behind it what there was to see."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._looks: dict[int, list[Look]] = {}
        self._seen_us: dict[str, int] = {}

    async def watch(self) -> None:
        """Look at the margin's checkpoints, until cancelled."""
        store = margin_store(self._settings)
        await store.start()
        try:
            while True:
                try:
                    statuses = await store.statuses()
                except StoreUnavailable:
                    statuses = []
                seen_us = self._clock.wall_us()
                for status in statuses:
                    looks = self._looks.setdefault(status.partition, [])
                    if not looks or looks[-1].costs_offsets != status.costs_offsets:
                        looks.append(Look(seen_us, status.costs_offsets))
                await self._clock.sleep(LOOK_EVERY_S)
        finally:
            await store.stop()

    def saw(self, request: str) -> None:
        """An answer over HTTP has just had its cost. `request`: of one execution only."""
        self._seen_us.setdefault(request, self._clock.wall_us())

    async def delays(self) -> Delays:
        """Of all that the topics hold. Raises LogUnavailable."""
        kafka = self._settings.kafka
        reader = topic_reader(self._settings)
        await reader.start()
        try:
            served = [
                record for each in range(kafka.partitions) for record in await reader.read_all(kafka.topic_served, each)
            ]
            costs = {
                each: await reader.read_all(kafka.topic_costs, each)
                for each in range(await reader.partitions(kafka.topic_costs))
            }
        finally:
            await reader.stop()
        return delays(served, costs, self._looks, self._seen_us, kafka.partitions)


def delays(
    served: Iterable[Record],
    costs: Mapping[int, Sequence[Record]],
    looks: Mapping[int, Sequence[Look]],
    seen_us: Mapping[str, int],
    partitions: int,
) -> Delays:
    """Of each execution, from the first record of it on. `costs` and `looks` are by partition; `looks` in order of time."""
    told = _told(served)
    lines = _first_lines(costs)
    read = {
        # Claimed, and not yet committed by anybody: none of them is read.
        (number, each): _running_max([look.costs_offsets[each] if look.costs_offsets else 0 for look in of])
        for number, of in looks.items()
        for each in costs
    }
    found = Delays([], [], [])
    for execution, (append_us, record) in told.items():
        stands = [lines.get((*execution, hour_us)) for hour_us in _hours(record)]
        known = [line for line in stands if line is not None]
        if len(known) < len(stands):
            found.unseen += 1
            continue
        found.topic.append((max(line.append_us for line in known) - append_us) / 1_000)
        margin_us = [_seen_in_margin(line, looks, read, partitions) for line in known]
        if any(each is None for each in margin_us):
            found.unseen += 1
        else:
            found.margin.append((max(each or 0 for each in margin_us) - append_us) / 1_000)
        if record.request in seen_us:
            found.http.append((seen_us[record.request] - append_us) / 1_000)
    return found


def _told(served: Iterable[Record]) -> dict[Execution, tuple[int, Served]]:
    """When each execution was first told, and what of it."""
    found: dict[Execution, tuple[int, Served]] = {}
    for record in served:
        try:
            told = parse_served(record.value, record.key)
        except Malformed:
            continue  # rates, or what no cost actor takes either
        if isinstance(told, Served):
            found.setdefault((told.replica, told.request, told.attempt), (record.timestamp * 1_000, told))
    return found


def _first_lines(costs: Mapping[int, Sequence[Record]]) -> dict[tuple[str, str, int, int], Line]:
    """Of each execution and hour the first line that knows its cost."""
    found: dict[tuple[str, str, int, int], Line] = {}
    for partition, records in costs.items():
        for record in records:
            for text in (record.value or b"").splitlines():
                try:
                    line = parse_line(text)
                except msgspec.MsgspecError:
                    continue
                if isinstance(line, RequestLine) and line.amount is not None:
                    name = (line.replica, line.request, line.attempt, line.hour_us)
                    place = Line(record.timestamp * 1_000, partition, record.offset, line.account or "")
                    found.setdefault(name, place)
    return found


def _hours(served: Served) -> range:
    """The hours that it ran in; it takes no time only where it ended."""
    begin_us, behind_us = served.scheduled_us, max(served.last_us, served.scheduled_us + 1)
    return range(begin_us - begin_us % HOUR_US, behind_us, HOUR_US)


def _running_max(values: Sequence[int]) -> list[int]:
    found: list[int] = []
    for value in values:  # an owner that follows another begins further back
        found.append(max(value, found[-1]) if found else value)
    return found


def _seen_in_margin(
    line: Line,
    looks: Mapping[int, Sequence[Look]],
    read: Mapping[tuple[int, int], Sequence[int]],
    partitions: int,
) -> int | None:
    home = partition_for(line.account.encode(), partitions)
    offsets = read.get((home, line.partition), ())
    first = bisect_right(offsets, line.offset)
    return looks[home][first].seen_us if first < len(offsets) else None
