"""The small parts of the demo; the whole of it is run by `make demo` and, on the same code, by tests/integration."""

from collections import Counter
from pathlib import Path

from actors.cluster import ShardStatus
from actors.outbox import OutboxCounts
from actors.shard import PartitionView
from loadtest import demo
from loadtest.demo import CATALOGUE_FILE, DemoOptions, Figures
from loadtest.report import percentiles

FIGURES = {
    "sent", "rated", "duplicate", "dead_lettered", "forwarded", "lost", "double", "oracle_equal", "alerts_missing",
    "alerts_extra", "events_per_s", "append_to_webhook_ms", "takeover_s", "check_ms", "allowed", "denied",
    "overspend", "holds_open_at_end", "gpu_bill", "gpu_cost_of_requests", "cost_visible_ms", "revenue", "rss_mib", "seconds",
}  # fmt: skip


def test_the_report_has_exactly_the_published_figures() -> None:
    """Others read `build/demo.json`: a figure that goes or changes its name breaks them."""
    assert set(Figures.__struct_fields__) == FIGURES | {"details"}


def test_the_defaults_are_the_published_run() -> None:
    options = DemoOptions()
    assert (options.events, options.customers, options.kill) == (200_000, 1_000, True)
    assert options.report == Path("build/demo.json")
    assert CATALOGUE_FILE.exists()


def view(partition: int, counts: dict[str, int]) -> PartitionView:
    return PartitionView(partition, "ready", "", 1, 10, 0, 10, 0.0, 0.0, counts)


def test_counts_are_summed_over_shards_and_partitions() -> None:
    alerts = OutboxCounts(told=0, retried=0, given_up=0, in_flight=0, held=0, left_out=0)
    statuses = [
        ShardStatus("shard-0", "shard-0.a", 1, 1.0, 1.0, [view(0, {"rated": 3, "tick": 1}), view(1, {"rated": 4})], alerts),
        ShardStatus("shard-1", "shard-1.a", 2, 1.0, 1.0, [view(2, {"rated": 5, "duplicate": 2})], alerts),
    ]  # fmt: skip
    assert demo._counts(statuses) == Counter(rated=12, tick=1, duplicate=2)
    assert demo._counts([]) == Counter()


def test_the_percentiles_of_the_delay_are_p50_and_p99() -> None:
    assert set(percentiles([1.0, 2.0, 3.0])) == set(percentiles([])) == {"p50", "p99"}
