"""Tokens that inference engines made and nobody is charged for: their counters against what was rated, by replica and minute.

Three tellers: an engine's counters (how many), served records (whose, where, when, how it ended), rated lines (billed). A
request is followed by its id. Nothing is estimated but the minute: between two scrapes, and over a request's stretch, tokens
are taken to come evenly, so a minute may be off by what was under way at its edges, and sums over longer stretches are not.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from engine.cost.served import Served, Status
from engine.cost.telemetry import Metric, Reading, Sample, SourceKind, increase

MINUTE_US: Final = 60_000_000


class Side(StrEnum):
    """Which tokens."""

    PROMPT = "prompt"
    GENERATED = "generated"


_COUNTERS: Final = {Side.PROMPT: Metric.PROMPT, Side.GENERATED: Metric.GENERATED}


class Rated(Struct, frozen=True, gc=False):
    """What was billed of one request. None: it was billed, and nobody says how many tokens."""

    prompt: int | None = None
    generated: int | None = None


class Tokens(Struct, gc=False):
    """Of one replica, side and minute: counted = rated + short + aborted + failed + missing + running + unseen."""

    counted: int = 0  # by the engine
    rated: int = 0
    short: int = 0  # more served than was rated of the same requests; below 0: more rated
    aborted: int = 0  # of requests that their caller stopped, and no event bills
    failed: int = 0  # of requests that broke, and no event bills
    missing: int = 0  # of requests that ended well, and no event bills
    running: int = 0  # of requests that have not ended, as far as they are known

    @property
    def unseen(self) -> int:
        """What the engine counted and no served record tells of: streams that were cut off, records that are missing."""
        told = self.rated + self.short + self.aborted + self.failed + self.missing + self.running
        return self.counted - told

    @property
    def unbilled(self) -> int:
        """All that the engine counted and no line bills, but what is still under way."""
        return self.counted - self.rated - self.running


class Unbilled(Struct):
    """What came of it. `minutes`: by (replica, side, start of the minute)."""

    minutes: dict[tuple[str, Side, int], Tokens]
    resets: dict[str, int]  # engines that began to count anew, and how often: what they counted before is not all known
    uncounted: dict[str, int]  # requests of replicas of which no counter is known
    unplaced: int  # requests that were billed, and of which no record says where they ran

    def total(self, replica: str | None = None, side: Side = Side.GENERATED) -> Tokens:
        """Over all minutes, of one replica or all."""
        total = Tokens()
        for (name, which, _), tokens in self.minutes.items():
            if which is side and replica in (None, name):
                for field in Tokens.__struct_fields__:
                    setattr(total, field, getattr(total, field) + getattr(tokens, field))
        return total


Curve = Callable[[int], int]  # how many tokens there were before an instant
_Name = tuple[str, str, int]  # replica, request, attempt


def reconcile(samples: Iterable[Sample], served: Iterable[Served], rated: Mapping[str, Rated]) -> Unbilled:
    """`rated` is by the id of the usage event, which is the request's. The order of nothing matters.

    Of each replica only the stretch between its first and its last counter is looked at."""
    found = Unbilled({}, {}, {}, 0)
    spans = _count(samples, found)
    executions = _newest(served)
    billed = _allotted(executions, rated)
    known = set()
    for execution in executions:
        known.add(execution.request)
        if execution.replica not in {replica for replica, _ in spans}:
            found.uncounted[execution.replica] = found.uncounted.get(execution.replica, 0) + 1
            continue
        for side in Side:
            span = spans.get((execution.replica, side))
            if span is not None:
                _place(execution, side, span, billed.get(_name(execution)), found)
    found.unplaced = len(rated.keys() - known)
    return found


def _newest(served: Iterable[Served]) -> list[Served]:
    newest: dict[_Name, Served] = {}
    for record in served:
        before = newest.get(_name(record))
        if before is None or record.seq > before.seq:
            newest[_name(record)] = record
    return list(newest.values())


def _name(execution: Served) -> _Name:
    return execution.replica, execution.request, execution.attempt


def _allotted(executions: Iterable[Served], rated: Mapping[str, Rated]) -> dict[_Name, Rated]:
    """What was billed of each execution. A request may have several (it was tried again, or computed on two replicas), and is
    billed once: that is of the one that gave the answer, up to what it made, then of the others; what is more, of the first."""
    by_request: dict[str, list[Served]] = {}
    for execution in executions:
        if execution.request in rated:
            by_request.setdefault(execution.request, []).append(execution)
    found: dict[_Name, Rated] = {}
    for request, several in by_request.items():
        several.sort(key=lambda each: (each.status is Status.OK, each.last_us, _name(each)), reverse=True)
        billed = rated[request]
        prompts = _parts(billed.prompt, [0 if each.first_us is None else each.prompt for each in several])
        generated = _parts(billed.generated, [each.output for each in several])
        found.update(zip(map(_name, several), map(Rated, prompts, generated), strict=True))
    return found


def _parts(billed: int | None, made: list[int]) -> list[int | None]:
    if billed is None:
        return [None] * len(made)
    parts = []
    for tokens in made:
        parts.append(min(billed, tokens))
        billed -= parts[-1]
    return [parts[0] + billed, *parts[1:]]


def _count(samples: Iterable[Sample], found: Unbilled) -> dict[tuple[str, Side], tuple[int, int]]:
    """Counters into minutes; of each replica and side the stretch that they cover."""
    engines = sorted((each for each in samples if each.kind is SourceKind.ENGINE), key=lambda each: each.time_us)
    ranks: dict[str, set[str]] = {}
    for sample in engines:
        ranks.setdefault(sample.key, set()).add(sample.rank)
    before: dict[tuple[str, Side], Reading] = {}
    spans: dict[tuple[str, Side], tuple[int, int]] = {}
    for sample in engines:
        # As the plug-in names replicas: each rank is one, where there are several.
        replica = sample.key if len(ranks[sample.key]) == 1 else f"{sample.key}/{sample.rank}"
        for side, metric in _COUNTERS.items():
            value = sample.values.get(metric)
            if value is None:
                continue
            reading = Reading(sample.time_us, value)
            step = increase(before.get((replica, side)), reading)
            if step is not None:
                begin, end, by = step.from_us, step.to_us, step.by
                found.resets[replica] = found.resets.get(replica, 0) + (step.reset and side is Side.GENERATED)
                _spread(_line(begin, end, by), begin, end, _add(found, replica, side, "counted"))
            before[replica, side] = reading
            first, _ = spans.get((replica, side), (sample.time_us, 0))
            spans[replica, side] = (first, sample.time_us)
    found.resets = {replica: resets for replica, resets in found.resets.items() if resets}
    return spans


def _place(execution: Served, side: Side, span: tuple[int, int], rated: Rated | None, found: Unbilled) -> None:
    if side is Side.GENERATED:
        tokens = execution.output
        begin = execution.scheduled_us if execution.first_us is None else execution.first_us
        billed = None if rated is None else rated.generated
    else:
        tokens = execution.prompt
        # An engine counts a prompt when it has its first token; one that never had it is not counted.
        if execution.first_us is None:
            return
        begin = execution.first_us
        billed = None if rated is None else rated.prompt
    end = execution.last_us if side is Side.GENERATED else begin
    parts = {"rated": tokens} if rated is not None else {_UNBILLED[execution.status]: tokens}
    if billed is not None:
        parts = {"rated": billed, "short": tokens - billed}
    for field, amount in parts.items():
        _spread(_line(begin, end, amount), *span, _add(found, execution.replica, side, field))


_UNBILLED: Final = {
    Status.OK: "missing",
    Status.ABORTED: "aborted",
    Status.FAILED: "failed",
    Status.RUNNING: "running",
}


def _line(begin: int, end: int, tokens: int) -> Curve:
    """Evenly over [begin, end); all at once where it is an instant."""

    def before(at_us: int) -> int:
        if at_us <= begin:
            return 0
        return tokens if at_us >= end else tokens * (at_us - begin) // (end - begin)

    return before


def _spread(curve: Curve, begin: int, end: int, add: Callable[[int, int], None]) -> None:
    """What the curve has in each minute of [begin, end)."""
    at = begin
    while at < end:
        minute = at - at % MINUTE_US
        until = min(minute + MINUTE_US, end)
        tokens = curve(until) - curve(at)
        if tokens:
            add(minute, tokens)
        at = until


def _add(found: Unbilled, replica: str, side: Side, field: str) -> Callable[[int, int], None]:
    def add(minute: int, tokens: int) -> None:
        place = found.minutes.setdefault((replica, side, minute), Tokens())
        setattr(place, field, getattr(place, field) + tokens)

    return add
