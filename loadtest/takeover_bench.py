"""How long callers wait for a right answer after a SIGKILL, in a move, and after a cold start.

    shard   one of two shards of 10,000 customers each is killed, and the other takes over
    move    before the next trial half of the partitions go back to the shard that has come back: from the last right
            answer of the one owner to the first of the other, asked every 20 ms
    alone   the only shard is killed, and made anew
    node    the raylet of one of three nodes is killed, with the shard that it bears
    cold    everything starts over a checkpoint of 100,000 customers with ten meters each

In the first three usage of all customers flows meanwhile, and the last events of the customers that are asked about are
in the log, but in no checkpoint, when the signal is sent. Time runs from the signal to the first answer that names the
balance which the log makes, from a new owner, for every partition that was lost: detection, routing and the caller's
own retries are in it. `make bench-takeover` runs all on a stack of its own, and writes build/bench-takeover.json.
"""

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import orjson
import psutil
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.assembly import doors, kafka_log, postgres_store
from actors.clock import SystemClock
from actors.cluster import Cluster, ShardStatus
from actors.deployment import all_ready, lay_ground, until
from actors.door_client import Doors
from actors.kafka import KafkaLog
from actors.ports import Clock, Outgoing
from actors.publication import publish
from config.catalogue import load_file
from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ray_local import RayLocal, RayNode, record_ray, start_ray, start_ray_node
from config.stack.supervisor import Supervisor
from engine.events import seal
from loadtest.cold_state import COUNTERS, store_customers
from loadtest.machine import machine
from loadtest.probes import Customer, customers, probes, rightly_answered, watch_moves
from loadtest.report import percentiles

CATALOGUE_FILE: Final = Path(__file__).resolve().parents[1] / "config" / "catalogue.example.yaml"
SCENARIOS: Final = ("shard", "alone", "node", "cold")
PROBES: Final = 4  # customers per partition that are asked about
BATCH: Final = 2_000
LOAD_EVERY_S: Final = 0.05
SETTLE_S: Final = 1.0  # between everything's being back and the next trial
AT_REST_TIMEOUT_S: Final = 300.0
REBALANCE_S: Final = 0.5  # instead of half a minute, or most of the bench would be waiting


class BenchOptions(Struct, frozen=True):
    """What to measure, and where to write."""

    scenarios: tuple[str, ...] = SCENARIOS
    trials: int = 20
    customers: int = 20_000  # of two shards
    events_per_s: int = 500
    cold_customers: int = 100_000
    report: Path = Path("build/bench-takeover.json")
    run_dir: Path = Path("build/run-bench-takeover")


class Trial(Struct):
    """One kill. Seconds from the signal, of the partition that was last in each."""

    right_s: float  # the first right answer
    claimed_s: float  # its claim: death seen, assignment heard
    ready_s: float  # its owner speaks
    partitions: int


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Over all trials."""
    return {
        "trials": len(trials),
        "right_answers_s": percentiles([trial.right_s for trial in trials], (50, 99)),
        "worst_s": max(trial.right_s for trial in trials),
        "claimed_s": percentiles([trial.claimed_s for trial in trials], (50, 99)),
        "ready_s": percentiles([trial.ready_s for trial in trials], (50, 99)),
        "each": msgspec.to_builtins(list(trials)),
    }


class Load:
    """Usage of random customers at a steady rate, into the log."""

    def __init__(self, log: KafkaLog, clock: Clock, of: Sequence[Customer], events_per_s: int) -> None:
        self._log = log
        self._clock = clock
        self._of = of
        self._each = max(1, round(events_per_s * LOAD_EVERY_S))
        self._random = Random(1)
        self.sent = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began_s = self._clock.boot_s()
            chosen = self._random.choices(self._of, k=self._each)
            await self._log.append([customer.use(self._clock.wall_us()) for customer in chosen])
            self.sent += len(chosen)
            await self._clock.sleep(max(0.0, began_s + LOAD_EVERY_S - self._clock.boot_s()))


class _Scene:
    """One deployment: its actors, its customers, and who asks about them."""

    def __init__(self, settings: Settings, cluster: Cluster, log: KafkaLog, asked: Doors, clock: Clock) -> None:
        self.settings = settings
        self.cluster = cluster
        self.log = log
        self.asked = asked
        self.clock = clock
        self.probes = probes(settings.kafka.partitions, PROBES)
        self.silences: list[float] = []  # seconds; one per partition that moved between two that live
        self._load: asyncio.Task[None] | None = None

    async def populate(self, count: int, events_per_s: int) -> None:
        """Open that many customers, use each once, and go on using them."""
        crowd = customers("cus", count, self.settings.kafka.partitions)
        key, topic = self.settings.control_key_bytes(), self.settings.kafka.topic_usage
        records = []
        for customer in [*self.probes, *crowd]:
            name = customer.account.encode()
            for command in customer.commands():
                value = seal(key, topic, customer.partition, orjson.dumps(command))
                records.append(Outgoing("usage", value, name, customer.partition))
            records.append(customer.use(self.clock.wall_us()))
        for start in range(0, len(records), BATCH):
            await self.log.append(records[start : start + BATCH])
        await self.at_rest()
        await self.right(self.probes)
        self._load = asyncio.create_task(Load(self.log, self.clock, crowd, events_per_s).run())

    async def right(self, wanted: Sequence[Customer], above: Mapping[int, int] | None = None) -> dict[int, float]:
        """When each partition answered rightly about all of these, by the boot clock."""
        moments = await asyncio.gather(
            *(
                rightly_answered(self.asked, self.clock, probe, 0 if above is None else above[probe.partition])
                for probe in wanted
            )
        )
        found: dict[int, float] = {}
        for probe, moment_s in zip(wanted, moments, strict=True):
            found[probe.partition] = max(moment_s, found.get(probe.partition, 0.0))
        return found

    async def kill(self, victim: ShardStatus, pid: int) -> Trial:
        """SIGKILL to `pid`, which takes `victim` with it; returns when all that it owned is answered rightly."""
        epochs = {view.partition: view.epoch for view in victim.partitions}
        lost = [probe for probe in self.probes if probe.partition in epochs]
        await self.log.append([probe.use(self.clock.wall_us()) for probe in lost])
        killed_s = self.clock.boot_s()
        os.kill(pid, signal.SIGKILL)
        answered = await self.right(lost, epochs)
        heirs = {
            view.partition: view
            for status in await self.cluster.statuses()
            for view in status.partitions
            if view.partition in epochs and status.incarnation != victim.incarnation
        }
        claims = [view.claimed_s or 0.0 for view in heirs.values()]
        ready = [view.ready_s or 0.0 for view in heirs.values()]
        return Trial(
            round(max(answered.values()) - killed_s, 3),
            round(max(claims) - killed_s, 3),
            round(max(ready) - killed_s, 3),
            len(lost) // PROBES,
        )

    async def balanced(self, shards: int) -> bool:
        """Whether every shard lives, and each speaks for about as many partitions."""
        statuses = await self.cluster.statuses()
        held = [sum(view.stage == "ready" for view in status.partitions) for status in statuses]
        return len(held) == shards and sum(held) == self.settings.kafka.partitions and max(held) - min(held) < 2

    async def at_rest(self) -> None:
        """Return once what is in the log now is in checkpoints: a takeover then replays about a second, not a backlog."""
        ends = {number: (await self.log.bounds(number))[1] for number in range(self.settings.kafka.partitions)}

        async def checkpointed() -> bool:
            views = [view for status in await self.cluster.statuses() for view in status.partitions]
            done = {view.partition: view.checkpointed_offset for view in views}
            return all(done.get(number, -1) >= end for number, end in ends.items())

        await until(checkpointed, "the log to be in checkpoints", AT_REST_TIMEOUT_S)

    async def ready_for_the_next(self, shards: int) -> None:
        """Return once everybody is back, nothing is behind, and nothing has moved for a moment."""
        one_each = {probe.partition: probe for probe in self.probes}.values()
        watching = [
            asyncio.create_task(watch_moves(self.asked, self.clock, probe, self.silences)) for probe in one_each
        ]
        try:
            await until(lambda: self.balanced(shards), "every shard to own its part")
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        await self.clock.sleep(SETTLE_S)
        await self.at_rest()

    async def close(self) -> None:
        if self._load is not None:
            self._load.cancel()
            await asyncio.gather(self._load, return_exceptions=True)


class _Bench:
    def __init__(
        self,
        supervisor: Supervisor,
        local: RayLocal,
        given: Settings,
        options: BenchOptions,
        say: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._local = local
        self._given = given
        self._options = options
        self._say = say
        self._clock = SystemClock()

    async def run(self) -> dict[str, Any]:
        measure = {"shard": self._shard, "alone": self._alone, "node": self._node, "cold": self._cold}
        figures: dict[str, Any] = {"machine": machine(), "options": msgspec.to_builtins(self._options, enc_hook=str)}
        for scenario in self._options.scenarios:
            self._say(f"{scenario}: begins")
            figures |= await measure[scenario]()
        return figures

    def _settings(self, scenario: str, shards: int) -> Settings:
        """Tables and topics of its own."""
        given = self._given
        kafka = given.kafka.model_copy(
            update={
                "topic_usage": f"usage-{scenario}",
                "topic_rated": f"rated-{scenario}",
                "topic_dead_letters": f"dead-letters-{scenario}",
            }
        )
        return given.model_copy(
            update={
                "kafka": kafka,
                "postgres": given.postgres.model_copy(update={"schema_name": f"bench_{scenario}"}),
                "shard": given.shard.model_copy(update={"shards": shards}),
                "lease": given.lease.model_copy(update={"rebalance_after_s": REBALANCE_S}),
            }
        )

    @asynccontextmanager
    async def _grounds(self, scenario: str, shards: int) -> AsyncIterator[tuple[Settings, KafkaLog]]:
        """Tables, topics and catalogue, and a log to write to."""
        settings = await lay_ground(self._settings(scenario, shards))
        log, store = kafka_log(settings), postgres_store(settings)
        await log.start()
        try:
            await store.start()
            try:
                await publish(
                    load_file(CATALOGUE_FILE),
                    store=store,
                    log=log,
                    clock=self._clock,
                    topic=settings.kafka.topic_usage,
                    control_key=settings.control_key_bytes(),
                )
            finally:
                await store.stop()
            yield settings, log
        finally:
            await log.stop()

    @asynccontextmanager
    async def _scene(self, scenario: str, shards: int) -> AsyncIterator[_Scene]:
        """A deployment with shards that run."""
        async with self._grounds(scenario, shards) as (settings, log):
            cluster = Cluster(settings, self._supervisor.run_dir / "locks", f"bench-{scenario}")
            await cluster.start()
            try:
                record_ray(self._supervisor)
                await until(lambda: all_ready(cluster, settings.kafka.partitions), "every partition to be ready")
                asked = doors(settings)
                await asked.start()
                scene = _Scene(settings, cluster, log, asked, self._clock)
                try:
                    yield scene
                finally:
                    await scene.close()
                    await asked.stop()
            finally:
                record_ray(self._supervisor)
                await cluster.stop()

    async def _shard(self) -> dict[str, Any]:
        trials = []
        async with self._scene("shard", 2) as scene:
            await scene.populate(self._options.customers, self._options.events_per_s)
            for number in range(self._options.trials):
                await scene.ready_for_the_next(2)
                owners = await scene.cluster.statuses()
                victim = owners[number % len(owners)]
                trials.append(await scene.kill(victim, victim.pid))
                self._say(f"shard: trial {number + 1}: {trials[-1]}")
                record_ray(self._supervisor)
        return {
            "shard": summary(trials) | {"customers_per_shard": self._options.customers // 2},
            "move": {"moves": len(scene.silences), "silent_s": percentiles(scene.silences, (50, 99))},
        }

    async def _alone(self) -> dict[str, Any]:
        trials = []
        async with self._scene("alone", 1) as scene:
            await scene.populate(self._options.customers // 2, self._options.events_per_s)
            for number in range(max(1, self._options.trials // 4)):
                await scene.ready_for_the_next(1)
                (victim,) = await scene.cluster.statuses()
                trials.append(await scene.kill(victim, victim.pid))
                self._say(f"alone: trial {number + 1}: {trials[-1]}")
                record_ray(self._supervisor)
        return {"alone": summary(trials)}

    async def _node(self) -> dict[str, Any]:
        """Every trial costs a node, which is replaced before the next."""
        trials: list[Trial] = []
        losses = max(1, self._options.trials // 4)
        nodes = [start_ray_node(self._supervisor, self._local, f"bench-{number}", 1) for number in range(2)]
        async with self._scene("node", 3) as scene:
            await scene.populate(self._options.customers, self._options.events_per_s)
            for number in range(losses):
                await scene.ready_for_the_next(3)
                borne = _borne(await scene.cluster.statuses(), nodes)
                if borne is None:
                    if not trials:
                        raise RuntimeError("no shard runs on a node that may be killed")
                    self._say(f"node: every shard runs on the head node by now: {len(trials)} losses of {losses}")
                    break
                victim, node = borne
                trials.append(await scene.kill(victim, node.raylet_pid))
                self._say(f"node: trial {number + 1}: {trials[-1]}")
                nodes.remove(node)
                if number + 1 < losses:
                    nodes.append(start_ray_node(self._supervisor, self._local, f"bench-{number + 2}", 1))
        for node in nodes:
            self._supervisor.stop(node.pid)
        return {"node": summary(trials)}

    async def _cold(self) -> dict[str, Any]:
        """From nothing but Ray, Kafka and Postgres to a right answer of every partition."""
        settings = await lay_ground(self._settings("cold", 2))
        crowd = customers("cold", self._options.cold_customers, settings.kafka.partitions)
        self._say(f"cold: storing {len(crowd):,} customers")
        await store_customers(settings, crowd, self._clock.wall_us())
        asked = doors(settings)
        await asked.start()
        cluster = Cluster(settings, self._supervisor.run_dir / "locks", "bench-cold")
        wanted = Random(1).sample(crowd, min(len(crowd), PROBES * settings.kafka.partitions))
        began_s = self._clock.boot_s()
        starting = asyncio.create_task(cluster.start())
        try:
            answered = await asyncio.gather(*(rightly_answered(asked, self._clock, each) for each in wanted))
            await starting
            record_ray(self._supervisor)
            await until(lambda: all_ready(cluster, settings.kafka.partitions), "every partition to be ready")
            views = [view for status in await cluster.statuses() for view in status.partitions]
        finally:
            await asyncio.gather(starting, return_exceptions=True)
            record_ray(self._supervisor)
            await asked.stop()
            await cluster.stop()
        ready = [view.ready_s or 0.0 for view in views]
        claims = [view.claimed_s or 0.0 for view in views]
        figures = {
            "customers": len(crowd),
            "counters": len(crowd) * COUNTERS,
            "right_answers_s": round(max(answered) - began_s, 3),
            "every_partition_ready_s": round(max(ready) - began_s, 3),
            "claimed_s": round(max(claims) - began_s, 3),
            "shards": 2,
        }
        return {"cold": figures}


def _borne(statuses: Sequence[ShardStatus], nodes: Sequence[RayNode]) -> tuple[ShardStatus, RayNode] | None:
    """A shard whose process one of these nodes' raylets has started, and that node; None: Ray put all of them elsewhere."""
    for status in statuses:
        parents = {parent.pid for parent in psutil.Process(status.pid).parents()}
        for node in nodes:
            if node.raylet_pid in parents and status.partitions:
                return status, node
    return None


def run(settings: Settings, options: BenchOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        local = start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own, which would skip our clean-up
        figures = uvloop.run(_Bench(supervisor, local, prepared, options, say).run())
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def main() -> None:
    """`make bench-takeover`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = BenchOptions()
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="measure only this; once per scenario")
    parser.add_argument("--trials", type=int, default=default.trials, help="kills of a shard; a quarter of the others")
    parser.add_argument("--customers", type=int, default=default.customers, help="of two shards together")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    options = BenchOptions(
        scenarios=tuple(asked.only or SCENARIOS), trials=asked.trials, customers=asked.customers, report=asked.report
    )
    console = Console()
    figures = run(load_settings(), options, lambda line: console.print(line, highlight=False, markup=False))
    console.print_json(data=figures)


if __name__ == "__main__":
    main()
