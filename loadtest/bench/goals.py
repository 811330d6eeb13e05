"""What the bench is held against: each goal, what was found, and whether it was met."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

Path = tuple[str, ...]  # into `parts` of build/bench.json


class Goal(Struct, frozen=True):
    """One line of the table; `met` is None where nothing was measured."""

    what: str
    wanted: str
    found: float | None
    met: bool | None


class _Wanted(Struct, frozen=True):
    what: str
    path: Path
    bound: float
    at_least: bool

    def of(self, parts: Mapping[str, Any]) -> Goal:
        found = _at(parts, self.path)
        met = None if found is None else (found >= self.bound if self.at_least else found <= self.bound)
        return Goal(self.what, f"{'≥' if self.at_least else '≤'} {self.bound:g}", found, met)


HALF: Final = ("one_shard", "ramp", "half")
CONTENDERS: Final = ("patterns", "contenders")
PAIRS: Final = ("patterns", "pairs")
HTTP: Final = ("check", "http", "concurrency_16")
WANTED: Final = (
    _Wanted(
        "one shard, Kafka → rated, checkpointed: records/s per core, as a share of the bare consume + decode loop",
        ("one_shard", "saturation", "ratio_per_core"),
        0.3,
        True,
    ),
    _Wanted(
        "whole stack on this machine, exact: events/s that it keeps up with",
        ("one_shard", "ramp", "saturation_per_s"),
        25_000,
        True,
    ),
    _Wanted(
        "cost of an event, 1,000 to 1,000,000 customers (Zipf 1.1): times", ("scale", "customers_times"), 1.3, False
    ),
    _Wanted(
        "check over HTTP: throughput, as a share of the same routes' without the door",
        (*HTTP, "beside_no_door", "share_of_rate"),
        0.75,
        True,
    ),
    _Wanted(
        "check over HTTP: p50, times the same routes' without the door",
        (*HTTP, "beside_no_door", "times_p50"),
        1.3,
        False,
    ),
    _Wanted("check over HTTP: throughput, as a share of a no-op's", (*HTTP, "share_of_rate"), 0.75, True),
    _Wanted("check over HTTP: p50, times a no-op's", (*HTTP, "times_p50"), 1.3, False),
    _Wanted("check at a door at half of saturation: p50, ms", (*HALF, "check_ms", "p50"), 0.5, False),
    _Wanted("check at a door at half of saturation: p99, ms", (*HALF, "check_ms", "p99"), 5, False),
    _Wanted("Kafka append → webhook received at half of saturation: p50, ms", (*HALF, "webhook_ms", "p50"), 60, False),
    _Wanted("Kafka append → webhook received at half of saturation: p99, ms", (*HALF, "webhook_ms", "p99"), 300, False),
    *(
        _Wanted(
            f"ours {way} beside the pattern {name}: the better of check and alert, times",
            (*PAIRS, name, "best"),
            10,
            True,
        )
        for name, way in (
            *(("olap_query", "over HTTP"), ("sql_timer", "over HTTP")),
            *(("redis", "at a door"), ("in_process", "by lease")),
        )
    ),
    _Wanted("requests beyond the cap, ours over HTTP", (*CONTENDERS, "ours_http", "overspend_requests"), 0, False),
    _Wanted("requests beyond the cap, ours at a door", (*CONTENDERS, "ours_door", "overspend_requests"), 0, False),
    _Wanted("requests beyond the cap, ours by lease", (*CONTENDERS, "ours_lease", "overspend_requests"), 0, False),
    _Wanted("pico lost after a SIGKILL of a shard", (*CONTENDERS, "ours_door", "after_kill", "lost_pico"), 0, False),
    _Wanted("pico lost after a SIGKILL of a gateway", (*CONTENDERS, "ours_lease", "after_kill", "lost_pico"), 0, False),
)


def goals_of(figures: Mapping[str, Any]) -> list[Goal]:
    """Every goal, measured or not."""
    return [wanted.of(figures["parts"]) for wanted in WANTED]


def missed(goals: Sequence[Goal]) -> list[str]:
    """A sentence for each that was measured and not met."""
    return [f"{goal.what}: {goal.found:g}, wanted {goal.wanted}" for goal in goals if goal.met is False]


def _at(parts: Mapping[str, Any], path: Path) -> float | None:
    found: Any = parts
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found if isinstance(found, int | float) else None
