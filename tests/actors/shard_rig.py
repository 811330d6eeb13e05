"""A shard on simulated doors and a clock moved by hand: the stage of the tests of shard, takeover, commit and lease."""

import asyncio
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any

import msgspec
import orjson

from actors.lease import Lease
from actors.outbox import Outbox, OutboxSettings
from actors.owned import Owned
from actors.ports import PartitionImage
from actors.shard import PartitionView, Shard
from actors.takeover import take_over
from config.settings import KafkaSettings, LeaseSettings, ShardSettings
from engine.catalog import Catalogue
from engine.events import (
    CONTROL_BODY_START,
    CONTROL_MAGIC,
    CatalogueMarker,
    Control,
    OnBalance,
    OpenAccount,
    SetRule,
    parse_control,
    seal,
)
from engine.placement import partition_for
from loadtest.workload import cloud_time
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_log import Gate, SimBroker, SimLog, SimRecord, open_gate
from tests.simulation.sim_receivers import ReceiverFaults, SimReceivers
from tests.simulation.sim_runs import SimDisk, SimLocalRuns
from tests.simulation.sim_store import SimDatabase, SimMembership, SimStore

TOPIC = "usage"
CONTROL_KEY = b"a control key of thirty-two bytes"
CATALOGUE = orjson.dumps(
    {
        "meters": {"calls": {"event_type": "call", "aggregation": "count"}},
        "plans": {
            "basic": {"currency": "USD", "prices": {"call": {"meter": "calls", "model": "per_unit", "amount": "1"}}}
        },
    }
)
LEASES = LeaseSettings()


class KnownDeaths:
    """The port `Deaths`: whoever's lock is named here is dead."""

    def __init__(self) -> None:
        self.locks: set[str] = set()

    def proven(self, host: str, lock_path: str) -> bool:
        return lock_path in self.locks


class Process:
    """One shard process on the rig."""

    def __init__(self, rig: "Rig", name: str, gate: Gate, faults: ReceiverFaults, settings: ShardSettings) -> None:
        self.name = name
        self.lease = Lease(rig.clock)
        self.log = SimLog(rig.broker, rig.clock, gate)
        self.store = SimStore(rig.database, gate)
        self.membership = SimMembership(rig.database, LEASES.lease_s, gate)
        self.deaths = KnownDeaths()
        self.receivers = SimReceivers(rig.clock, Random(1), faults)
        self.tasks: list[asyncio.Task[None]] = []
        self.library: dict[int, Catalogue] = {}
        self._rig = rig
        self.shard = Shard(
            name,
            clock=rig.clock,
            log=self.log,
            store=self.store,
            lease=self.lease,
            deaths=self.deaths,
            outbox=lambda shard: Outbox(
                rig.clock, self.receivers, self.store, OutboxSettings(), permitted=shard.may_speak, spawn=self.spawn
            ),
            control_key=CONTROL_KEY,
            kafka=KafkaSettings(),
            settings=settings,
            leases=LEASES,
            local=SimLocalRuns(rig.disk, gate),
            spawn=self.spawn,
        )

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self.tasks.append(task)
        return task

    async def join(self, *partitions: int, lease_s: float = float("inf")) -> None:
        """Register; the assignment and the lease name these partitions from now on."""
        await self.membership.register(self.name, self.name, "host", f"/run/{self.name}.lock", 1)
        self._rig.database.members[self.name].lease_until_s = self._rig.clock.boot_s() + lease_s
        self.assign(*partitions, lease_s=lease_s)

    def assign(self, *partitions: int, lease_s: float = float("inf")) -> None:
        """Exactly these partitions, as the controller and a renewal would tell it."""
        held = self._rig.database.assignment
        for partition in [number for number, owner in held.items() if owner == self.name]:
            del held[partition]
        held.update(dict.fromkeys(partitions, self.name))
        self.lease.extend(self._rig.clock.boot_s() + lease_s, frozenset(partitions))

    def run(self) -> asyncio.Task[None]:
        return self.spawn(self.shard.run())

    def declare_dead(self) -> None:
        """As the controller does it, and as the next renewal tells it."""
        self._rig.database.members[self.name].dead = True
        self.lease.fenced = True

    def view(self, partition: int) -> PartitionView | None:
        return next((view for view in self.shard.partitions() if view.partition == partition), None)

    def stage(self, partition: int) -> str:
        view = self.view(partition)
        return view.stage if view else "not owned"

    def counts(self, partition: int) -> dict[str, int]:
        view = self.view(partition)
        return view.counts if view else {}

    async def take(self, partition: int) -> tuple[Owned, PartitionImage]:
        """The takeover by itself, without the shard's loop."""
        return await take_over(
            partition,
            self.name,
            topic=TOPIC,
            control_key=CONTROL_KEY,
            library=self.library,
            store=self.store,
            log=self.log,
            clock=self._rig.clock,
        )


class Rig:
    """One broker, one database, any number of processes."""

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        self.clock = HandClock()
        self.broker = SimBroker(self.clock, partitions)
        self.database = SimDatabase(self.clock)
        self.disk = SimDisk()
        self.database.catalogues[1] = CATALOGUE
        self._processes: list[Process] = []

    def process(
        self,
        name: str = "a",
        gate: Gate = open_gate,
        faults: ReceiverFaults | None = None,
        settings: ShardSettings | None = None,
    ) -> Process:
        process = Process(self, name, gate, faults or ReceiverFaults(), settings or ShardSettings())
        self._processes.append(process)
        return process

    async def close(self) -> None:
        """Break off everything, as the end of the world does."""
        tasks = [task for process in self._processes for task in process.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def account(self, partition: int) -> str:
        """The id of an account that lives there."""
        names = (f"account-{number}" for number in range(1_000))
        return next(name for name in names if partition_for(name.encode(), self.partitions) == partition)

    def control(self, partition: int, control: Control) -> int:
        """Append a sealed control record; its offset."""
        value = seal(CONTROL_KEY, TOPIC, partition, msgspec.json.encode(control))
        return self.broker.append("usage", None, value, partition)[1]

    def open(self, partition: int) -> str:
        """A catalogue and one account in the partition; its id."""
        account = self.account(partition)
        self.control(partition, CatalogueMarker(1, 0))
        self.control(partition, OpenAccount(account, f"open-{account}", "basic"))
        return account

    def alarm(self, partition: int, rule: str = "empty") -> None:
        """A rule that is crossed as soon as it is set: the account has no credit."""
        self.control(partition, SetRule(self.account(partition), f"set-{rule}", rule, OnBalance("0")))

    def event(self, account: str, event_id: str) -> bytes:
        time = cloud_time(self.clock.wall_us())
        return orjson.dumps(
            {"specversion": "1.0", "id": event_id, "source": "test", "type": "call", "subject": account, "time": time}
            | {"data": {}}
        )

    def use(self, account: str, event_id: str, partition: int | None = None) -> int:
        """Append a usage event; its offset."""
        return self.broker.append("usage", account.encode(), self.event(account, event_id), partition)[1]

    def controls(self, partition: int, kind: type[Control]) -> list[Control]:
        """The control records of one kind in the log."""
        return [control for control in map(_control, self.records(partition)) if isinstance(control, kind)]

    def records(self, partition: int, role: str = "usage") -> list[SimRecord]:
        return self.broker.topic(role, partition).records

    def end(self, partition: int) -> int:
        return self.broker.topic("usage", partition).end

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line of the topic `rated`."""
        for partition in range(self.partitions):
            for block in self.records(partition, "rated"):
                for line in (block.value or b"").splitlines():
                    yield orjson.loads(line)


def _control(record: SimRecord) -> Control | None:
    value = record.value or b""
    return parse_control(value[CONTROL_BODY_START:]) if value.startswith(CONTROL_MAGIC) else None
