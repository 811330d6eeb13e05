"""How it stands: for load balancers, for Prometheus, and for clients that go straight to a door.

`/livez` and `/readyz` are public and say yes or no, nothing more. `/metrics` needs a key with the scope `read`: what it
shows tells a stranger how busy a company is. No series names an account.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.door_wire import PartitionStatus, Status, StatusView
from actors.web.cost_metrics import cost_metrics
from actors.web.wire import Call, Example, KeyScope, Reply, Route, Services

STATUS_WITHIN_S: Final = 1.0
READY_FOR_S: Final = 0.5  # an answer is given again for this long: anybody may ask, and each look asks every shard
METRICS_MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LiveAnswer(Struct):
    live: bool


class ReadyAnswer(Struct):
    """`ready`: keys can be verified, and every partition has an owner that answers."""

    ready: bool


class RoutingEntry(Struct):
    partition: int
    host: str
    port: int
    epoch: int


class RoutingAnswer(Struct):
    """`partitions` and murmur2 of the account (as Kafka's default partitioner has it) say which entry is an account's."""

    partitions: int
    routes: list[RoutingEntry]


class Health:
    """What one replica knows of itself and finds out about the shards."""

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tallygate_http_requests", "Requests answered.", ["replica", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tallygate_http_request_seconds",
            "From the request's headers to its answer.",
            ["replica", "route"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._replica = replica
        self._series: dict[tuple[int, int], tuple[Counter, Histogram]] = {}  # looking one up by labels costs 2 us
        self._ready = False
        self._ready_until_s = float("-inf")
        self._looking = False

    def observe(self, route: Route, status: int, seconds: float) -> None:
        """Count one answered request."""
        series = self._series.get((id(route), status))
        if series is None:
            name = f"{route.method} {route.path}"
            series = self._requests.labels(self._replica, name, str(status)), self._seconds.labels(self._replica, name)
            self._series[id(route), status] = series
        series[0].inc()
        series[1].observe(seconds)

    async def live(self, call: Call) -> Reply:
        """GET /livez: whoever can answer lives."""
        return Reply(LiveAnswer(True))

    async def ready(self, call: Call) -> Reply:
        """GET /readyz. Whoever comes while somebody looks has the last answer: a shard that is silent holds up one of them."""
        clock = call.services.clock
        if clock.boot_s() >= self._ready_until_s and not self._looking:
            self._looking = True
            try:
                self._ready = await _all_ready(call.services)
                self._ready_until_s = clock.boot_s() + READY_FOR_S
            finally:
                self._looking = False
        return Reply(ReadyAnswer(self._ready), 200 if self._ready else 503)

    async def metrics(self, call: Call) -> Reply:
        """GET /metrics: this replica's own series, those of every shard, and of cost, whichever replica is asked."""
        shards = _Shards(await call.services.doors.ask_every_shard(Status(), STATUS_WITHIN_S))
        registry = CollectorRegistry()
        registry.register(shards)
        registry.register(await cost_metrics(call.services))
        return Reply(generate_latest(self._registry) + generate_latest(registry), media_type=METRICS_MEDIA)

    async def routing(self, call: Call) -> Reply:
        """GET /v1/routes."""
        doors = call.services.doors
        entries = [RoutingEntry(route.partition, route.host, route.port, route.epoch) for route in doors.routes()]
        return Reply(RoutingAnswer(call.services.settings.kafka.partitions, entries))


async def _all_ready(services: Services) -> bool:
    if not services.keys.fresh:
        return False
    answers = await services.doors.ask_every_shard(Status(), STATUS_WITHIN_S)
    ready = {status.partition for _, status in _partitions(answers) if status.stage == "ready"}
    return len(ready) == services.settings.kafka.partitions


def _partitions(views: Iterable[StatusView]) -> Iterator[tuple[str, PartitionStatus]]:
    for view in views:
        for status in view.partitions:
            yield view.shard, status


_ByShard = dict[str, tuple[str, Callable[[StatusView], float]]]
_ByPartition = dict[str, tuple[str, Callable[[PartitionStatus], float | None]]]
_Money = dict[str, tuple[str, Callable[[PartitionStatus], dict[str, str]]]]


class _Shards(Collector):
    """The shards' own figures, as they gave them a moment ago."""

    def __init__(self, views: Sequence[StatusView]) -> None:
        self._views = views

    def collect(self) -> Iterable[Metric]:
        yield from self._by_shard()
        yield from self._by_partition()

    def _by_shard(self) -> Iterator[Metric]:
        answering = GaugeMetricFamily("tallygate_shards_answering", "Shards that answered this scrape.")
        answering.add_metric([], len(self._views))
        yield answering
        gauges: _ByShard = {
            "tallygate_lease_remaining_seconds": ("How long the shard may still answer.", lambda v: v.lease_left_s),
            "tallygate_shard_resident_bytes": ("Memory of the shard's process.", lambda v: v.rss_bytes),
            "tallygate_outbox_pending": ("Alerts waiting to be told.", lambda v: v.alerts_waiting),
        }
        for name, (text, figure) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=["shard"])
            for view in self._views:
                gauge.add_metric([view.shard], figure(view))
            yield gauge
        counters: _ByShard = {
            "tallygate_shard_cpu_seconds": ("CPU time of the shard's process.", lambda v: v.cpu_s),
            "tallygate_alerts_told": ("Alerts told.", lambda v: v.alerts_told),
        }
        for name, (text, figure) in counters.items():
            counter = CounterMetricFamily(name, text, labels=["shard"])
            for view in self._views:
                counter.add_metric([view.shard], figure(view))
            yield counter
        checks = CounterMetricFamily("tallygate_checks", "Checks answered.", labels=["shard", "decision"])
        for view in self._views:
            for decision, number in sorted(view.checks.items()):
                checks.add_metric([view.shard, decision], number)
        yield checks

    def _by_partition(self) -> Iterator[Metric]:
        statuses = list(_partitions(self._views))
        gauges: _ByPartition = {
            "tallygate_shard_epoch": ("The partition's epoch.", lambda s: s.epoch),
            "tallygate_kafka_lag_records": ("Records behind the end of the log.", lambda s: s.lag_records),
            "tallygate_next_offset": ("The next record to be rated.", lambda s: s.next_offset),
            "tallygate_checkpoint_offset": ("The next record after a crash.", lambda s: s.checkpointed_offset),
            "tallygate_checkpoint_age_seconds": ("Since the last checkpoint.", lambda s: s.checkpoint_age_s),
            "tallygate_log_time_seconds": ("Log time, since 1970.", lambda s: s.log_time_us / 1e6),
            "tallygate_holds_open": ("Open holds.", lambda s: s.open_holds),
            "tallygate_leases_open": ("Leases that hold something.", lambda s: s.leases_open),
            "tallygate_accounts": ("Accounts of the partition.", lambda s: s.accounts),
        }
        for name, (text, figure) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=["shard", "partition"])
            for shard, status in statuses:
                if (value := figure(status)) is not None:
                    gauge.add_metric([shard, str(status.partition)], value)
            yield gauge
        bounds: _Money = {
            "tallygate_leased_amount": ("The most that open leases have left.", lambda s: s.leased),
            "tallygate_unheld_bound_amount": (
                "The most that may still be used of what was allowed without a hold: how far it may pass a limit.",
                lambda s: s.unheld,
            ),
        }
        for name, (text, amounts) in bounds.items():
            gauge = GaugeMetricFamily(name, text, labels=["shard", "partition", "currency"])
            for shard, status in statuses:
                for currency, amount in sorted(amounts(status).items()):
                    gauge.add_metric([shard, str(status.partition), currency], float(amount))
            yield gauge
        stage = GaugeMetricFamily(
            "tallygate_shard_owned", "1: the partition is at this stage.", labels=["shard", "partition", "stage"]
        )
        events = CounterMetricFamily(
            "tallygate_events_consumed", "Records by outcome.", labels=["shard", "partition", "outcome"]
        )
        for shard, status in statuses:
            stage.add_metric([shard, str(status.partition), status.stage], 1)
            for outcome, number in sorted(status.counts.items()):
                events.add_metric([shard, str(status.partition), outcome], number)
        yield stage
        yield events


def health_routes(health: Health) -> tuple[Route, ...]:
    """The routes of one replica's health."""
    return (
        Route(
            method="GET",
            path="/livez",
            scope=None,
            handler=health.live,
            summary="Whether this replica runs",
            description="200 as long as the replica answers at all.",
            tags=("operations",),
            example=Example(response={"live": True}),
            response=LiveAnswer,
        ),
        Route(
            method="GET",
            path="/readyz",
            scope=None,
            handler=health.ready,
            summary="Whether checks can be answered",
            description="200 when keys can be verified and every partition has an owner that answers; else 503.",
            tags=("operations",),
            example=Example(response={"ready": True}),
            response=ReadyAnswer,
            also={503: "Not ready; the body says `ready` false."},
        ),
        Route(
            method="GET",
            path="/metrics",
            scope=KeyScope.READ,
            handler=health.metrics,
            summary="Metrics for Prometheus",
            description=(
                "This replica's requests, the figures of every shard, and what GPUs cost within the last day, whichever "
                "replica answers. No series names an account. Give Prometheus a key with the scope `read` as its bearer token."
            ),
            tags=("operations",),
            example=Example(),
            response_media="text/plain",
        ),
        Route(
            method="GET",
            path="/v1/routes",
            scope=KeyScope.CHECK,
            handler=health.routing,
            summary="Where each partition's owner listens",
            description=(
                "For clients inside the deployment that go straight to a door. The partition of an account is "
                "(murmur2(account) & 0x7fffffff) mod `partitions`. An entry with a lower epoch than one seen is stale."
            ),
            tags=("operations",),
            example=Example(
                response={"partitions": 8, "routes": [{"partition": 0, "host": "10.0.0.7", "port": 7411, "epoch": 3}]}
            ),
            response=RoutingAnswer,
        ),
    )
