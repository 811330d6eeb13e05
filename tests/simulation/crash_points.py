"""One fixed workload, and a process that dies at a given step of it: for trying every step, one after the other.

A step is each passage of a gate: before and after every call of store, log, membership, roster and receiver, and each
time a process lets others run (between two slices of rating, between two slices of a cut). Nothing else fails.
"""

import hashlib
import re
from random import Random
from typing import Final

from msgspec import Struct

from engine.snapshot import account_fields, encode_account
from loadtest.oracle.records import partition_of
from tests.simulation.checks import stored_folds
from tests.simulation.sim_receivers import ReceiverFaults
from tests.simulation.simulate import no_collections, play
from tests.simulation.traffic import Traffic
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import Plan, Process, World

SECONDS: Final = 1.5
# What says at which offset a thing was set, or how far log time came: a crash puts other owners and ticks into the log.
_of_the_log: Final = re.compile(r"woken_us|scopes_since .*|cap_windows .*: since|stream .*: offset").fullmatch
PLAN: Final = Plan(
    shards=2,
    controllers=1,
    partitions=2,
    hosts=2,
    pace=1.0,
    skew_max_us=0,
    delay_share=0.0,
    delay_max_s=0.0,
    slice_events=3,
    fetch_records=10,
    fetch_wait_s=0.1,
    checkpoint_s=0.4,
    dirty_max=1_000,
    attempts_max=10_000,
    held_max=1_000,
    calm_start=False,
    receiver=ReceiverFaults(latency_s=0.02, timeout_s=0.5, retry_after_max_s=1.0),
)


class Listing(World):
    """A world that keeps the sites of its steps."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(PLAN, Random(1), loop)
        self.sites: list[str] = []

    def step(self, process: Process, site: str) -> None:
        self.sites.append(site)
        super().step(process, site)


class Crashed(Struct):
    """What came of a run with one crash, or none."""

    site: str  # of the step at which a process died
    sites: list[str]  # of all steps until all had come to rest
    state: str  # of all accounts, hashed: the same for every run, or something was lost or counted twice
    told: list[str]  # ids of the alerts that the receiver has
    violations: list[str]


def crash(at: int | None) -> Crashed:
    """Play the workload; whoever takes step `at` (the first is 1) dies there and is followed by a new process."""
    with no_collections():
        return _crash(at)


def _crash(at: int | None) -> Crashed:
    loop = VirtualLoop()
    world = Listing(loop)
    world.crash_at = at
    traffic = Traffic(Random(7), partitions=PLAN.partitions, events=30, accounts=3, seconds=SECONDS, pace=PLAN.pace)
    # When a forwarded event arrives depends on who forwards it; all else in the log is where and when it always is.
    traffic.writes = [
        write
        for write in traffic.writes
        if write.key is not None and write.partition in (None, partition_of(write.key, PLAN.partitions))
    ]
    play(loop, world, traffic, None, [], SECONDS)
    state = hashlib.sha256()
    for fold in stored_folds(world).values():
        for name in sorted(fold.account_ids()):
            account = fold.account(name)
            assert account is not None
            fields = account_fields(encode_account(account))
            state.update(repr(sorted((name, fields[name]) for name in fields if not _of_the_log(name))).encode())
    return Crashed(
        world.crashed_at,
        world.sites[: world.steps_to_rest],
        state.hexdigest(),
        sorted(world.receivers.taken),
        world.violations,
    )
