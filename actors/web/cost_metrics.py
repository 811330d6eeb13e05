"""What GPUs cost, and how far its attribution has come, for Prometheus. A float is good enough for a picture; what is owed is
asked of the routes."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.cost_store import CostStatus, CostSum
from actors.ports import StoreRefused, StoreUnavailable
from actors.web.wire import Services
from engine.cost.gpu_rates import HOUR_US
from engine.money import PICO

DAY_US: Final = 24 * HOUR_US


class CostMetrics(Collector):
    """Sums of the hours that began within the last day, by model, bucket and currency. No series names an account."""

    def __init__(self, statuses: Sequence[CostStatus], sums: Sequence[CostSum]) -> None:
        self._statuses = statuses
        self._sums = sums

    def collect(self) -> Iterable[Metric]:
        yield self._of_partitions(
            "tallygate_cost_next_offset", "Records of `served` that are attributed.", "next_offset", 1
        )
        yield self._of_partitions(
            "tallygate_cost_settled_seconds", "Up to where costs have settled, since 1970.", "settled_us", 1_000_000
        )
        amount = GaugeMetricFamily(
            "tallygate_cost_day_amount",
            "What hours that began within the last day cost, as far as it is known.",
            labels=["model", "bucket", "currency"],
        )
        unknown = GaugeMetricFamily(
            "tallygate_cost_day_unknown",
            "Shares and windows of them whose cost is not known.",
            labels=["model", "bucket"],
        )
        by_place: dict[tuple[str, str], int] = {}
        for each in self._sums:
            if each.currency:
                amount.add_metric([each.model, each.bucket, each.currency], each.amount / PICO)
            place = (each.model, each.bucket)
            by_place[place] = by_place.get(place, 0) + each.unknown
        for place, number in sorted(by_place.items()):
            unknown.add_metric(place, number)
        yield amount
        yield unknown

    def _of_partitions(self, name: str, text: str, field: str, per: int) -> Metric:
        gauge = GaugeMetricFamily(name, text, labels=["partition"])
        for status in self._statuses:
            gauge.add_metric([str(status.partition)], getattr(status, field) / per)
        return gauge


async def cost_metrics(services: Services) -> CostMetrics:
    """As Postgres has them now. Nothing where it is away: then there is no series, and no 0."""
    store: Any = services.costs
    now_us = services.clock.wall_us()
    try:
        return CostMetrics(await store.statuses(), await store.sums(now_us - DAY_US, now_us, by=["model"]))
    except (StoreUnavailable, StoreRefused):
        return CostMetrics([], [])
