"""One seed, from its plan to its verdict: chaos, then everybody is healed, then everything must come to rest and agree."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from tests.simulation.back_office import BackOffice
from tests.simulation.catalogues import DRAWN, documents
from tests.simulation.chaos import Strike, draw_log_away, draw_strikes, tells
from tests.simulation.checks import fold_all, fresh_folds, unrest, verify
from tests.simulation.gateways import ASKING, PACE_MAX, Gateways, open_too_long
from tests.simulation.invariants import orphans
from tests.simulation.reached import reached
from tests.simulation.sim_receivers import ReceiverFaults
from tests.simulation.sim_store import SimPartitionRow
from tests.simulation.traffic import OPENINGS, Traffic, draw_jumps, skewed
from tests.simulation.virtual_loop import NobodyWaits, TimeStandsStill, VirtualLoop, run_virtually
from tests.simulation.world import Plan, World, mended_engine, short_limits

SEALING_SEEDS: Final = 7  # one seed in so many seals the memory of rated events
LEASING_SEEDS: Final = 5  # in one seed of so many gateways decide by leases, and ask
SANDBOX_SEEDS: Final = 11  # one seed in so many is a sandbox, whose clock jumps; nobody asks there
QUIET_MAX_S: Final = 20.0
REFILL_MAX_S: Final = 2.0  # an outbox that holds few alerts in memory reads the next ones this much later
LOOK_EVERY_S: Final = 0.2
STOP_MAX_S: Final = 20.0


class Outcome(Struct):
    """What came of a seed."""

    seed: int
    violations: list[str]
    trace: str  # equal for equal runs
    fired: Counter[tuple[str, str]]
    looked: Counter[str]
    reached: Counter[str]  # of tests/simulation/reached.py
    steps: int
    commits: int
    rated: int
    virtual_s: float
    approved: int
    denied: Counter[str]
    world: str = ""  # the option of the command line that names another world than that of shards

    def told(self) -> str:
        """For a person: what went wrong, and how to see it again."""
        sentences = [f"seed {self.seed}: {len(self.violations)} violations", *self.violations[:12]]
        return "\n  ".join([*sentences, f"again: {again(self.seed, self.world)}"])


def lost(seed: int, why: str) -> Outcome:
    """Of a seed that could not be run to its end."""
    return Outcome(seed, [why], "", Counter(), Counter(), Counter(), 0, 0, 0, 0.0, 0, Counter())


def again(seed: int, world: str = "") -> str:
    """The one command that repeats a seed."""
    return " ".join(["python -m tests.simulation.run", *([world] if world else []), f"--seed {seed}"])


def draw_plan(random: Random) -> Plan:
    pace = random.choice([1.0, 1.0, 30.0, 3_000.0, 100_000.0, 1_000_000.0])
    troubled = random.random() < 0.5
    return Plan(
        shards=skewed(random, 2, 3),
        controllers=random.randint(1, 2),
        partitions=skewed(random, 2, 4),
        hosts=random.randint(1, 2),
        pace=pace,
        skew_max_us=random.choice([0, 500_000, 3_000_000]) if pace == 1.0 else 0,
        delay_share=random.choice([0.02, 0.1, 0.3]),
        delay_max_s=random.choice([0.02, 0.1, 0.4]),
        slice_events=random.choice([1, 3, 20, 20]),
        fetch_records=random.choice([2, 10, 100]),
        fetch_wait_s=random.choice([0.1, 0.2, 0.3]),
        checkpoint_s=random.choice([0.2, 0.5, 1.0]),
        dirty_max=random.choice([3, 1000]),
        attempts_max=random.choice([10_000, 10_000, 3]),
        held_max=random.choice([2, 6, 1000]),
        catalogue=random.randint(0, DRAWN),
        calm_start=random.random() < 0.85,
        receiver=ReceiverFaults(
            answer_lost=random.choice([0.0, 0.3]) if troubled else 0.0,
            hang=random.choice([0.0, 0.2]) if troubled else 0.0,
            busy=random.choice([0.0, 0.3]) if troubled else 0.0,
            gone=random.choice([0.0, 0.05]) if troubled else 0.0,
            moved=random.choice([0.0, 0.2]) if troubled else 0.0,
            latency_s=random.choice([0.005, 0.05]),
            timeout_s=0.5,
            retry_after_max_s=1.0,
        ),
    )


def simulate(seed: int, faults: bool = True, beside: Sequence[Strike] = ()) -> Outcome:
    """Run a seed, with faults `beside` its own. Everything follows from that; a finding is a sentence in `violations`."""
    with no_collections():
        return _simulate(seed, faults, beside)


def _simulate(seed: int, faults: bool, beside: Sequence[Strike]) -> Outcome:
    random = Random(seed)
    plan = msgspec.structs.replace(draw_plan(random), seals=seed % SEALING_SEEDS == 2)
    leasing = seed % LEASING_SEEDS == 2
    if leasing and plan.pace > PACE_MAX:
        plan = msgspec.structs.replace(plan, pace=1.0)
    seconds = random.uniform(1.5, 4.0)
    sandbox = seed % SANDBOX_SEEDS == 4 and not leasing
    if sandbox:  # what its producers stamp may not run ahead of where log time stands still
        plan = msgspec.structs.replace(plan, pace=1.0)
    asked = plan.pace <= PACE_MAX and not sandbox  # gateways ask, and bring usage of their own
    telling = tells(seed)
    traffic = Traffic(
        Random(random.random()),
        partitions=plan.partitions,
        events=40 if telling else skewed(random, 16 if plan.seals else 3, 40 if asked else 80),
        accounts=5 if telling else skewed(random, 1, 7),
        seconds=seconds,
        pace=plan.pace,
        catalogue=plan.catalogue,
        sales=skewed(random, 3, 40) if random.random() < (0.2 if asked else 0.6) else 0,
        rare=random.choice([0, 1, 2, 4]),
        without=[name for name in OPENINGS if random.random() < 0.4 and not telling],
        again=0.3 if plan.seals else 0.0,  # what comes again must be found in what is sealed
        asking=ASKING if asked else (),
        jumps=draw_jumps(Random(f"sandbox {seed}"), seconds) if sandbox else (),
    )
    strikes = draw_strikes(random, seconds, seed)
    if leasing:
        strikes += draw_log_away(seed, seconds)
    strikes = sorted([*strikes, *beside], key=lambda strike: strike.at_s)
    loop = VirtualLoop()
    world = World(plan, Random(random.random()), loop)
    gateways = Gateways(world, Random(random.random()), seconds, leasing=leasing) if asked else None
    office = BackOffice(world, Random(f"office {seed}"), seconds) if traffic.deals else None
    play(loop, world, traffic, gateways, strikes if faults else [], seconds, office)
    for fault, times in world.receivers.met.items():
        world.fired[f"receiver_{fault}", ""] += times
    return Outcome(
        seed=seed,
        violations=world.violations,
        trace=world.trace_digest(),
        fired=world.fired,
        looked=world.looked,
        reached=world.reached,
        steps=world.steps,
        commits=world.commits,
        rated=sum(len(world.broker.topic("rated", number).records) for number in range(plan.partitions)),
        virtual_s=loop.time() - 1000,
        approved=0 if gateways is None else sum(given.hold is not None for given in gateways.given),
        denied=Counter() if gateways is None else Counter(given.reason for given in gateways.given if given.reason),
    )


def play(
    loop: VirtualLoop,
    world: World,
    traffic: Traffic,
    gateways: Gateways | None,
    strikes: list[Strike],
    seconds: float,
    office: BackOffice | None = None,
) -> None:
    """Run the world to its verdict."""
    with short_limits(world), _quiet_logs():
        try:
            run_virtually(loop, _run(world, traffic, gateways, strikes, seconds, office))
        except (NobodyWaits, TimeStandsStill) as error:
            world.violated(f"{type(error).__name__}: {error}")
    world.look("orphans", loop.broken)


async def _run(
    world: World,
    traffic: Traffic,
    gateways: Gateways | None,
    strikes: list[Strike],
    seconds: float,
    office: BackOffice | None,
) -> None:
    loop = asyncio.get_running_loop()
    world.database.catalogues = dict(documents(world.plan.catalogue))
    for controller in world.controllers:
        controller.begin()
    for shard in world.shards:
        shard.begin()
    for partition, value in [*traffic.setup(world.clock.wall_us()), *(gateways.setup() if gateways else ())]:
        world.broker.append("usage", None, value, partition)
    while world.plan.calm_start and any(row.owner is None for row in _rows(world)):
        await asyncio.sleep(LOOK_EVERY_S)
    start_s = loop.time()
    for strike in strikes:
        loop.call_at(start_s + strike.at_s, world.arm, strike)
    beside = [loop.create_task(each.run()) for each in (gateways, office) if each is not None]
    await _produce(world, traffic, start_s)
    for others in beside:
        await others
    await asyncio.sleep(max(0.0, start_s + seconds + 0.3 - loop.time()))
    world.heal()
    await asyncio.sleep(0.5)  # whoever was down is back
    if world.plan.pace > PACE_MAX:
        world.clock.slow_down()
    if not await _comes_to_rest(world):
        return
    with mended_engine():
        _judge(world, gateways)
    await _close(world)


def _judge(world: World, gateways: Gateways | None) -> None:
    folds = fresh_folds(world)
    if gateways is None:
        fold_all(world, folds)
    else:
        for name in gateways.NAMES:
            world.looked[name] += 1
        for name, sentence in gateways.verdict(folds):
            world.breached(name, sentence)
        world.look("holds", open_too_long(world))
    world.look("fold", verify(world, folds))
    world.reached = reached(folds)


def _rows(world: World) -> list[SimPartitionRow]:
    return [world.database.partition(number) for number in range(world.plan.partitions)]


async def _produce(world: World, traffic: Traffic, start_s: float) -> None:
    loop = asyncio.get_running_loop()
    for write in traffic.writes:
        if start_s + write.at_s > loop.time():
            await world.loop.sleep(start_s + write.at_s - loop.time())
        while world.broker.down or not world.broker.sound:
            await asyncio.sleep(0.05)
        value = write.make(traffic.now_us(write.at_s, world.clock.wall_us()))
        world.broker.append("usage", write.key, value, write.partition)


async def _comes_to_rest(world: World) -> bool:
    loop = asyncio.get_running_loop()
    healed_s = loop.time()
    while next(unrest(world), None) is not None:
        quiet_max_s = QUIET_MAX_S + REFILL_MAX_S * len(world.database.outbox) // world.plan.held_max
        if loop.time() > healed_s + quiet_max_s:
            world.violated(f"no rest within {quiet_max_s:.0f} s")
            for reason in unrest(world):
                world.violated(reason)
            await _close(world)
            return False
        await asyncio.sleep(LOOK_EVERY_S)
    return True


async def _close(world: World) -> None:
    """Everybody stops in order; nothing may be left under way, and no partition owned."""
    world.steps_to_rest = world.steps
    for slot in world.shards:
        if slot.shard is not None and slot.process is not None:
            world.look("orphans", orphans(slot.shard, slot.process.tasks()))
    for controller in world.controllers:
        assert controller.controller is not None
        controller.controller.stop()
    stops = [slot.process.spawn(slot.stop()) for slot in world.shards if slot.process is not None]
    _, late = await asyncio.wait(stops, timeout=STOP_MAX_S)
    if late:
        world.violated(f"{len(late)} shards did not stop within {STOP_MAX_S:.0f} s")
    await asyncio.sleep(1.0)  # heartbeats and controllers look for their end before each pause
    for number, row in sorted(world.database.partitions.items()):
        if row.owner is not None:
            world.violated(f"partition {number} was not handed over in order: {row.owner} still owns it")


@contextmanager
def no_collections() -> Iterator[None]:
    """What a run leaves behind is collected when nothing holds it any more: looking for garbage meanwhile finds none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Thousands of warnings about faults that are meant to be."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
