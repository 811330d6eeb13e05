"""What checkpoints cost: one shard on real Kafka and Postgres rates a prefilled topic, with and without them.

    on      as in production
    no-op   the same cuts are made and encoded, and the store says that they are committed
    off     no cut is made before the end

The contenders take turns, each run in a process and with tables of its own, so that what else the machine does falls on
all. The rate of a run is records over the time from owning every partition to having rated the last record. `make
bench-checkpoint` writes build/bench-checkpoint.json; the figure is the median over the rounds of on / no-op.
"""

import argparse
import asyncio
import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.assembly import ControllerProcess, ShardProcess, kafka_log, postgres_store
from actors.clock import SystemClock
from actors.deployment import lay_ground
from actors.ports import Checkpoint, Outgoing
from actors.postgres import PostgresStore
from actors.publication import publish
from config.catalogue import load_file
from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.supervisor import Supervisor
from engine.events import seal
from loadtest.deployment import CATALOGUE_FILE
from loadtest.machine import machine
from loadtest.probes import customers

CONTENDERS: Final = ("on", "no-op", "off")
BATCH: Final = 2_000
LOOK_EVERY_S: Final = 0.01
RUN_TIMEOUT_S: Final = 300.0
NEVER: Final = {"checkpoint_interval_s": 10.0, "checkpoint_dirty_max": 1_000_000}  # as seldom as an operator may set it


class BenchOptions(Struct, frozen=True):
    """How much to rate, how often, and where to write."""

    rounds: int = 5
    events: int = 100_000
    customers: int = 5_000
    report: Path = Path("build/bench-checkpoint.json")
    run_dir: Path = Path("build/run-bench-checkpoint")


class Run(Struct):
    """One contender, once."""

    records_per_s: float
    checkpoints: int  # committed, or said to be
    accounts: int  # in them


class NoStore(PostgresStore):
    """Claims and loads as ever; a commit is no more than its count."""

    commits = 0
    accounts = 0

    async def commit(self, checkpoint: Checkpoint) -> None:
        self.commits += 1
        self.accounts += len(checkpoint.accounts)


class CountedStore(PostgresStore):
    """The real one, counted."""

    commits = 0
    accounts = 0

    async def commit(self, checkpoint: Checkpoint) -> None:
        await super().commit(checkpoint)
        self.commits += 1
        self.accounts += len(checkpoint.accounts)


def figures_of(rounds: Sequence[Mapping[str, Run]]) -> dict[str, Any]:
    """Medians over the rounds; a ratio is taken within its round."""

    def ratios(least: str) -> list[float]:
        return [round(each["on"].records_per_s / each[least].records_per_s, 3) for each in rounds]

    return {
        "on_to_no_op": statistics.median(ratios("no-op")),
        "on_to_off": statistics.median(ratios("off")),
        "on_to_no_op_each": ratios("no-op"),
        "on_to_off_each": ratios("off"),
        "records_per_s": {
            name: round(statistics.median(each[name].records_per_s for each in rounds)) for name in CONTENDERS
        },
        "rounds": [msgspec.to_builtins(dict(each)) for each in rounds],
    }


# ------------------------------------------------------------------------------------------------------------- one run


def _in_a_process(given: dict[str, Any], contender: str, lock_dir: str, ends: dict[int, int], told: Connection) -> None:
    settings = Settings.model_validate(given)
    told.send(msgspec.to_builtins(uvloop.run(_one_run(settings, contender, Path(lock_dir), ends))))


async def _one_run(settings: Settings, contender: str, lock_dir: Path, ends: Mapping[int, int]) -> Run:
    postgres, clock = settings.postgres, SystemClock()
    assert postgres.dsn is not None
    kind = NoStore if contender == "no-op" else CountedStore
    store = kind(postgres.dsn.get_secret_value(), postgres.schema_name, settings.lease.lease_s)
    process = ShardProcess("bench", settings, lock_dir, store)
    controller = ControllerProcess("bench", settings)
    await process.start()
    await controller.start()
    try:

        async def reached(done: Callable[[dict[int, int]], bool]) -> float:
            while not done({view.partition: view.next_offset for view in process.shard.partitions()}):
                halted = [view.halt_reason for view in process.shard.partitions() if view.stage == "halted"]
                if halted:
                    raise RuntimeError(f"{contender}: {halted[0]}")
                await clock.sleep(LOOK_EVERY_S)
            return clock.boot_s()

        async with asyncio.timeout(RUN_TIMEOUT_S):
            began_s = await reached(lambda places: places.keys() == ends.keys())
            ended_s = await reached(lambda places: all(places[number] >= end for number, end in ends.items()))
    finally:
        await controller.stop()
        await process.stop()
    return Run(round(sum(ends.values()) / (ended_s - began_s), 1), store.commits, store.accounts)


# --------------------------------------------------------------------------------------------------------------- bench


class _Bench:
    def __init__(self, given: Settings, options: BenchOptions, say: Callable[[str], None]) -> None:
        shard = given.shard.model_copy(update={"shards": 1})
        self._given = given.model_copy(update={"shard": shard})
        self._options = options
        self._say = say
        self._clock = SystemClock()

    async def run(self) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "machine": machine(),
            "options": msgspec.to_builtins(self._options, enc_hook=str),
            "partitions": self._given.kafka.partitions,
        }
        self._say(f"filling the topic with {self._options.events:,} events of {self._options.customers:,} customers")
        ends = await self._fill()
        rounds = []
        for number in range(self._options.rounds):
            # Who comes first changes from round to round: the broker's and the database's caches are nobody's alone.
            order = CONTENDERS[number % 3 :] + CONTENDERS[: number % 3]
            runs = {contender: await self._run(contender, number, ends) for contender in order}
            self._say(f"round {number + 1}: " + ", ".join(f"{name} {runs[name].records_per_s:,.0f}/s" for name in runs))
            rounds.append(runs)
        return figures | figures_of(rounds)

    async def _run(self, contender: str, number: int, ends: dict[int, int]) -> Run:
        schema = f"bench_{contender.replace('-', '_')}_{number}"
        settings = self._given.model_copy(
            update={"postgres": self._given.postgres.model_copy(update={"schema_name": schema})}
        )
        if contender == "off":
            shard = settings.shard.model_copy(update=NEVER)
            settings = settings.model_copy(update={"shard": shard})
        settings = await lay_ground(settings)
        store = postgres_store(settings)
        await store.start()
        try:
            await store.publish_catalogue(1, self._catalogue)
        finally:
            await store.stop()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe(duplex=False)
        lock_dir = str(self._options.run_dir.resolve() / "locks")
        child = context.Process(target=_in_a_process, args=(settings.reveal(), contender, lock_dir, ends, theirs))
        child.start()
        theirs.close()
        try:
            told = await asyncio.to_thread(mine.recv)
        except EOFError:
            raise RuntimeError(f"{contender}: the run broke; its error stands above") from None
        finally:
            await asyncio.to_thread(child.join)
        return msgspec.convert(told, Run)

    async def _fill(self) -> dict[int, int]:
        """Catalogue, customers and their usage, in the topic; where it ends."""
        settings = await lay_ground(self._given)
        log, store = kafka_log(settings), postgres_store(settings)
        await log.start()
        await store.start()
        try:
            document = load_file(CATALOGUE_FILE)
            key, topic = settings.control_key_bytes(), settings.kafka.topic_usage
            await publish(document, store=store, log=log, clock=self._clock, topic=topic, control_key=key)
            body = await store.catalogue(1)
            assert body is not None
            self._catalogue = body
            crowd = customers("cus", self._options.customers, settings.kafka.partitions)
            for start in range(0, len(crowd), BATCH):
                await log.append(
                    [
                        Outgoing(
                            "usage",
                            seal(key, topic, customer.partition, orjson.dumps(command)),
                            customer.account.encode(),
                            customer.partition,
                        )
                        for customer in crowd[start : start + BATCH]
                        for command in customer.commands()
                    ]
                )
            chosen = Random(1).choices(crowd, k=self._options.events)
            for start in range(0, len(chosen), BATCH):
                await log.append([customer.use(self._clock.wall_us()) for customer in chosen[start : start + BATCH]])
            return {number: (await log.bounds(number))[1] for number in range(settings.kafka.partitions)}
        finally:
            await store.stop()
            await log.stop()


def run(settings: Settings, options: BenchOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        figures = uvloop.run(_Bench(fresh_stack(supervisor, settings), options, say).run())
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def main() -> None:
    """`make bench-checkpoint`."""
    default = BenchOptions()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=default.rounds, help="each has a run of every contender")
    parser.add_argument("--events", type=int, default=default.events, help="usage events in the topic")
    parser.add_argument("--customers", type=int, default=default.customers, help="that they are spread over")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    options = BenchOptions(asked.rounds, asked.events, asked.customers, asked.report)
    console = Console()
    figures = run(load_settings(), options, lambda line: console.print(line, highlight=False, markup=False))
    console.print_json(data=figures)


if __name__ == "__main__":
    main()
