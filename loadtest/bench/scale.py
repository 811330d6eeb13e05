"""How the cost of an event grows with customers and with prices, and what a second shard gains.

    customers   the engine over 1,000 to 1,000,000 idle customers, Zipf 1.1 and uniform beside it: decoding, the memory of
                rated events, thawing, rating and the checkpoint's encoding, whose interval grows with what has changed, as
                a shard's does; as many events as are measured are rated before, so that whoever comes often has come. What
                Postgres would write is told as the number of dirty accounts per cut
    prices      the same with 1 to 1,000 prices in the plan
    shards      the whole stack over a full log with one shard and with two, exact

`python -m loadtest.bench.scale` writes build/bench/scale.json.
"""

import argparse
import gc
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.shard import CHANGED_PER_S
from config.settings import Settings, ShardSettings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ray_local import start_ray
from config.stack.supervisor import Supervisor
from engine.catalog import load_catalogue
from engine.events import CatalogueMarker, seal
from engine.partition import Partition, foresee
from loadtest.bench.feeder import Order
from loadtest.bench.saturation import FILL_PER_S, fill, pace_of, rate_to_the_end
from loadtest.bench.stage import Say, staged
from loadtest.engine_bench import (
    AHEAD,
    CATALOGUE,
    EVENT_TYPE,
    KEY,
    START_MS,
    TOPIC,
    cut_off,
    event,
    idle_rows,
    name_of,
    prepared,
)
from loadtest.machine import machine

ZIPF: Final = 1.1
PER_S: Final = 10_000  # records that are about a second of rating


class Scale(Struct, frozen=True):
    """How far, and where the figures go."""

    customers: Sequence[int] = (1_000, 100_000, 1_000_000)
    prices: Sequence[int] = (1, 10, 100, 1_000)
    shards: Sequence[int] = (1, 2)
    events: int = 40_000  # measured at each point of customers and prices
    shard_events: int = 60_000  # in the log that the shards rate
    report: Path = Path("build/bench/scale.json")
    run_dir: Path = Path("build/run-bench-scale")


class Cost(Struct, frozen=True):
    """Of an event, in microseconds of processor time; and how many accounts a checkpoint would write."""

    us: float
    dirty_per_cut: float


def drawn(customers: int, events: int, zipf: float, seed: int = 1) -> list[int]:
    """Whose events they are: ranks by a Zipf law, 0 for all alike, over names in no order."""
    source = np.random.default_rng(seed)
    shares = 1 / np.arange(1, customers + 1) ** zipf
    names = source.permutation(customers)
    chosen: list[int] = names[source.choice(customers, size=events, p=shares / shares.sum())].tolist()
    return chosen


def rate_all(fold: Partition, first: int, keys: Sequence[bytes], values: Sequence[bytes]) -> list[int]:
    """Rate them, with a checkpoint's cut when a shard's would be due, and one at the end; the dirty accounts of each."""
    dirty: list[int] = []
    since = 0
    for start in range(0, len(values), AHEAD):
        chunk = range(start, min(start + AHEAD, len(values)))
        fold.expect([seen for at in chunk if (seen := foresee(first + at, keys[at], values[at])) is not None])
        for at in chunk:
            fold.apply(first + at, START_MS, keys[at], values[at])
        since += len(chunk)
        if since >= PER_S * _interval_s(fold.dirty_accounts) or start + AHEAD >= len(values):
            dirty.append(fold.dirty_accounts)
            cut_off(fold)
            since = 0
    return dirty


def _interval_s(dirty: int) -> float:
    """Between two checkpoints, as `Shard` has it."""
    settings = ShardSettings()
    return min(max(settings.checkpoint_interval_s, dirty / CHANGED_PER_S), settings.checkpoint_interval_max_s)


def cost_of(fold: Partition, first: int, keys: Sequence[bytes], values: Sequence[bytes], warm: int = 0) -> Cost:
    """Rate them all; the first `warm` are not counted."""
    before = fold.counts.get("rated", 0)
    rate_all(fold, first, keys[:warm], values[:warm])
    gc.collect()
    began_s = time.process_time()
    dirty = rate_all(fold, first + warm, keys[warm:], values[warm:])
    spent_s = time.process_time() - began_s
    assert fold.counts.get("rated", 0) - before == len(values), fold.counts
    return Cost(round(spent_s * 1e6 / (len(values) - warm), 2), round(sum(dirty) / len(dirty), 1))


def by_customers(counts: Sequence[int], events: int, say: Say) -> list[dict[str, Any]]:
    """Each count with skewed and with uniform customers, over idle accounts that the first event of each thaws."""
    found = []
    for count in counts:
        row: dict[str, Any] = {"customers": count}
        for name, zipf in (("zipf", ZIPF), ("uniform", 0.0)):
            fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, CATALOGUE)})
            fold.load(prepared(0).header(), idle_rows(count), [], [])
            draw = random.Random(2)
            names = [name_of(number) for number in drawn(count, 2 * events, zipf)]
            values = [event(number, account, draw) for number, account in enumerate(names)]
            keys = [account.encode() for account in names]
            row[name] = msgspec.to_builtins(cost_of(fold, 0, keys, values, warm=events))
        say(f"{count:,} customers: {row['zipf']['us']} µs an event, uniform {row['uniform']['us']} µs")
        found.append(row)
    return found


def many_prices(count: int) -> bytes:
    """A catalogue of one meter whose plan has a price for each of so many models."""
    return orjson.dumps(
        {
            "meters": {
                "tokens": {
                    "event_type": EVENT_TYPE,
                    "aggregation": "sum",
                    "field": "input_tokens",
                    "group_by": ["model"],
                }
            },
            "plans": {
                "plan": {
                    "currency": "USD",
                    "prices": {
                        f"price-{number}": {
                            "meter": "tokens",
                            "where": {"model": f"model-{number}"},
                            "model": "per_unit",
                            "amount": "3",
                            "per": "1000000",
                        }
                        for number in range(count)
                    },
                }
            },
        }
    )


def by_prices(counts: Sequence[int], events: int, say: Say) -> list[dict[str, Any]]:
    """A thousand customers, each of whom uses the plan's models in turn."""
    found = []
    for count in counts:
        body = many_prices(count)
        fold = prepared_with(body, customers=1_000)
        first = fold.counts["applied"] + 1
        accounts = [name_of(number) for number in drawn(1_000, events, ZIPF)]
        values = list(_of_models(accounts, count))
        cost = cost_of(fold, first, [account.encode() for account in accounts], values)
        say(f"{count:,} prices: {cost.us} µs an event")
        found.append({"prices": count, "us": cost.us})
    return found


def prepared_with(catalogue: bytes, customers: int) -> Partition:
    """A partition under that catalogue, its customers open and paid up."""
    fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, catalogue)})
    bodies = [msgspec.json.encode(CatalogueMarker(1, 0))]
    for number in range(customers):
        account = name_of(number)
        bodies.append(orjson.dumps({"kind": "open_account", "account": account, "command_key": "1", "plan": "plan"}))
        grant = {"kind": "grant", "account": account, "command_key": "2", "lot": "wallet", "lot_kind": "paid"}
        bodies.append(orjson.dumps(grant | {"amount": "1000000", "currency": "USD"}))
    for offset, body in enumerate(bodies):
        fold.apply(offset, START_MS, None, seal(KEY, TOPIC, 0, body))
    assert fold.counts.get("applied", 0) == len(bodies) - 1, fold.counts
    cut_off(fold)
    return fold


def _of_models(accounts: Sequence[str], count: int) -> Iterator[bytes]:
    for number, account in enumerate(accounts):
        yield orjson.dumps(
            {
                "specversion": "1.0",
                "id": f"request-{number}",
                "source": "gateway-1",
                "type": EVENT_TYPE,
                "time": "2026-09-01T12:00:00.000000Z",
                "subject": account,
                "data": {"model": f"model-{number % count}", "input_tokens": 1 + number % 4_000},
            }
        )


async def by_shards(
    supervisor: Supervisor, given: Settings, counts: Sequence[int], events: int, say: Say
) -> list[dict[str, Any]]:
    """The same full log, rated by one shard and by more. Raises NotExact."""
    found = []
    for count in counts:
        async with staged(supervisor, given, f"shards-{count}", say, shards=count) as stage:
            await fill(stage, Order(1, events, 2_000, events / FILL_PER_S, "full"))
            async with stage.rating(f"shards-{count}") as cluster:
                samples, _ = await rate_to_the_end(stage, cluster)
                await stage.settled(cluster)
            exact = await stage.exact()
        pace = pace_of(samples, samples[-1].records)
        say(f"{count} shards: {pace['records_per_s']:,} records/s")
        found.append({"shards": count, **pace, "rated": exact.rated})
    return found


def run(settings: Settings, options: Scale, say: Say) -> dict[str, Any]:
    """All figures, which are written to `options.report` too."""
    facts = machine()
    customers = by_customers(options.customers, options.events, say)
    figures: dict[str, Any] = {
        "machine": facts,
        "options": msgspec.to_builtins(options, enc_hook=str),
        "customers": customers,
        "customers_times": round(customers[-1]["zipf"]["us"] / customers[0]["zipf"]["us"], 3),
        "customers_times_uniform": round(customers[-1]["uniform"]["us"] / customers[0]["uniform"]["us"], 3),
        "prices": by_prices(options.prices, options.events, say),
    }
    if options.shards:
        with Supervisor(options.run_dir, say=say) as supervisor:
            prepared_settings = fresh_stack(supervisor, settings)
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2))
            working = by_shards(supervisor, prepared_settings, options.shards, options.shard_events, say)
            figures["shards"] = uvloop.run(working)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def main() -> None:
    """The part alone."""
    default = Scale()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=default.events, help="measured at each point")
    parser.add_argument("--shard-events", type=int, default=default.shard_events, help="that the shards rate")
    parser.add_argument("--customers-max", type=int, default=default.customers[-1], help="leave out what is above")
    parser.add_argument("--no-stack", action="store_true", help="the engine alone: no shards")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    options = Scale(
        customers=tuple(count for count in default.customers if count <= asked.customers_max),
        shards=() if asked.no_stack else default.shards,
        events=asked.events,
        shard_events=asked.shard_events,
        report=asked.report,
    )
    console = Console()
    run(load_settings(), options, lambda line: console.print(line, highlight=False, markup=False))


if __name__ == "__main__":
    main()
