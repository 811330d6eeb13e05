"""What GPUs cost by the hour, from when on, and what a model's tokens take of them: one document, numbered and replaced as a
whole. Wire format: README, "Cost"."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from engine.cost.served import TIME_US_MAX, GpuPart
from engine.events import TEXT_MAX, Malformed
from engine.money import NotADecimal, parse_amount

HOUR_US: Final = 3_600_000_000
PPM: Final = 1_000_000
RATES_MAX: Final = 10_000
VERSION_MAX: Final = 1 << 31
PICOSECONDS_MAX: Final = 10**15  # a token that takes a quarter of an hour is a slip of units

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Picoseconds = Annotated[int, msgspec.Meta(ge=0, le=PICOSECONDS_MAX)]


class GpuRate(Struct, forbid_unknown_fields=True, frozen=True):
    """From this instant on a GPU of this kind costs so much an hour, and beside it `overhead_ppm` millionths of that."""

    kind: _Name
    from_us: Annotated[int, msgspec.Meta(ge=0, le=TIME_US_MAX)]
    per_hour: str
    overhead_ppm: Annotated[int, msgspec.Meta(ge=0, le=100 * PPM)] = 0


class Profile(Struct, forbid_unknown_fields=True, frozen=True):
    """How long a replica works for a model's tokens, when it does nothing else: measured, in picoseconds."""

    prefill_token_ps: _Picoseconds  # each token of the prompt that is computed
    decode_token_ps: _Picoseconds  # each token made behind the first
    context_read_ps: _Picoseconds  # each token of the context that is read to make one


class RateDocument(Struct, forbid_unknown_fields=True, frozen=True):
    """The document as it is published. The highest version counts, for everything that is not closed."""

    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    rates: Annotated[tuple[GpuRate, ...], msgspec.Meta(max_length=RATES_MAX)]
    profiles: dict[_Name, Profile] = {}


_decoder: Final = msgspec.json.Decoder(RateDocument)


class _Schedule:
    """The rates of one kind, and what a GPU would have cost up to each change, in pico-units × microseconds per hour."""

    def __init__(self, rates: Iterable[tuple[int, int]]) -> None:
        self.starts: list[int] = []
        self.rates: list[int] = []
        self.sums: list[int] = []
        for start, rate in rates:
            self.sums.append(self.sums[-1] + self.rates[-1] * (start - self.starts[-1]) if self.starts else 0)
            self.starts.append(start)
            self.rates.append(rate)

    def until(self, instant_us: int) -> int:
        at = bisect_right(self.starts, instant_us) - 1
        return self.sums[at] + self.rates[at] * (instant_us - self.starts[at])


class GpuRates:
    """A document, compiled."""

    def __init__(self, document: RateDocument) -> None:
        """Raises Malformed for an amount that is none, and for two rates of a kind from one instant."""
        self.document: Final = document
        self.version: Final = document.version
        self.currency: Final = document.currency
        self.profiles: Final = document.profiles
        by_kind: dict[str, list[tuple[int, int, int]]] = {}
        for rate in document.rates:
            try:
                pico = parse_amount(rate.per_hour)
            except NotADecimal as error:
                raise Malformed(f"rates: {rate.kind[:40]}, per_hour: {error}") from error
            if pico < 0:
                raise Malformed(f"rates: {rate.kind[:40]}, per_hour: {rate.per_hour[:40]} is below 0")
            by_kind.setdefault(rate.kind, []).append((rate.from_us, pico, pico * rate.overhead_ppm))
        for kind, dated in by_kind.items():
            dated.sort()
            for before, after in pairwise(dated):
                if before[0] == after[0]:
                    raise Malformed(f"rates: {kind[:40]} has two from {after[0]} on")
        self._gpu = {kind: _Schedule((at, pico) for at, pico, _ in dated) for kind, dated in by_kind.items()}
        self._overhead = {kind: _Schedule((at, over) for at, _, over in dated) for kind, dated in by_kind.items()}

    def changes(self, gpus: Iterable[GpuPart], begin_us: int, end_us: int) -> set[int]:
        """The instants inside (begin_us, end_us) at which a rate of these GPUs begins."""
        found: set[int] = set()
        for kind in {part.kind for part in gpus}:
            schedule = self._gpu.get(kind)
            if schedule is not None:
                found.update(start for start in schedule.starts if begin_us < start < end_us)
        return found

    def cost(self, gpus: Iterable[GpuPart], begin_us: int, end_us: int) -> tuple[int, int] | None:
        """Pico-units that these GPUs cost in [begin_us, end_us), and their overhead; None where a rate is not known.

        It is a difference of a sum since ever, rounded down: so the costs of adjoining stretches, and of adjoining parts
        of a GPU, add up to that of the whole."""
        cost = overhead = 0
        for part in gpus:
            schedule = self._gpu.get(part.kind)
            if schedule is None or begin_us < schedule.starts[0]:
                return None
            cost += _between(schedule, part, begin_us, end_us, HOUR_US)
            overhead += _between(self._overhead[part.kind], part, begin_us, end_us, HOUR_US * PPM)
        return cost, overhead


def _between(schedule: _Schedule, part: GpuPart, begin_us: int, end_us: int, scale: int) -> int:
    whole = part.of * scale
    begin, end = schedule.until(begin_us), schedule.until(end_us)
    upper = end * part.end // whole - begin * part.end // whole
    return upper - (end * part.begin // whole - begin * part.begin // whole)


def parse_rates(value: bytes) -> GpuRates:
    """The document in these bytes. Raises Malformed, naming the field."""
    try:
        document = _decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from error
    return GpuRates(document)
