"""Postgres as the simulator has it: one `SimDatabase` shared by all, and one set of ports on it per process.

Every call passes its gate before and after the effect, where the simulator may delay, stop or kill it; the effect
itself is one step, as a transaction is. Time is the given clock's and stands for the database's own.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from actors.ports import (
    AccountRow,
    AlertRow,
    CatalogueTaken,
    Checkpoint,
    Claim,
    Clock,
    CommandRow,
    CommitUnknown,
    DeadLetterRow,
    DedupSegment,
    Delivery,
    Doorway,
    Fenced,
    LastRecord,
    Member,
    PartitionImage,
    PostingRow,
    PreviousOwner,
    Renewal,
    StillOwned,
    StoreUnavailable,
)
from tests.simulation.sim_log import Gate, open_gate

CommitFault = Literal["unavailable", "unknown_done", "unknown_not_done"]


class SimOutboxRow(Struct):
    """An alert and how far its telling has come."""

    partition: int
    alert: AlertRow
    attempts: int = 0
    delivered: bool = False
    given_up: bool = False
    error: str = ""


class SimPartitionRow(Struct):
    """All that one partition has in the database."""

    epoch: int = 0
    ckpt_seq: int = 0
    next_offset: int = 0
    last: LastRecord | None = None
    blob: bytes | None = None
    owner: str | None = None
    previous_owners: list[str] = []
    accounts: dict[str, AccountRow] = {}
    dedup: list[DedupSegment] = []
    commands: dict[int, CommandRow] = {}
    postings: list[PostingRow] = []
    dead_letters: dict[int, DeadLetterRow] = {}


class SimMemberRow(Struct):
    """One start of a simulated process. The lease is in seconds of the clock."""

    shard: str
    host: str
    lock_path: str
    pid: int
    lease_until_s: float
    door: tuple[str, int] | None = None
    dead: bool = False


class SimDatabase:
    """The database. While `down`, every call raises `StoreUnavailable`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.down = False
        self.partitions: dict[int, SimPartitionRow] = {}
        self.outbox: dict[str, SimOutboxRow] = {}
        self.catalogues: dict[int, bytes] = {}
        self.members: dict[str, SimMemberRow] = {}
        self.assignment: dict[int, str] = {}
        self.term = 0
        self.controller = ""
        self.controller_lease_until_s = float("-inf")

    def check_up(self) -> None:
        """Raise `StoreUnavailable` during an outage."""
        if self.down:
            raise StoreUnavailable("the simulated Postgres is away")

    def partition(self, partition: int) -> SimPartitionRow:
        """The partition's row, made on first touch."""
        return self.partitions.setdefault(partition, SimPartitionRow())

    def lease_left_s(self, incarnation: str) -> float:
        """How long this incarnation may still speak; negative when it may not."""
        row = self.members.get(incarnation)
        return float("-inf") if row is None else row.lease_until_s - self.clock.boot_s()

    def lives(self, incarnation: str | None) -> bool:
        """Whether it has neither left nor been declared dead, and its lease runs."""
        row = self.members.get(incarnation or "")
        return row is not None and not row.dead and row.lease_until_s > self.clock.boot_s()


class SimStore:
    """The `Store` port of one simulated process. Each commit takes the first of `commit_faults`, if any, and fails so."""

    def __init__(self, database: SimDatabase, gate: Gate = open_gate) -> None:
        self.commit_faults: list[CommitFault] = []
        self._database = database
        self._gate = gate
        self._owners: dict[int, str] = {}

    async def start(self) -> None:
        await self._enter("store.start")

    async def stop(self) -> None:
        self._owners = {}

    async def _enter(self, call: str) -> None:
        await self._gate(f"{call}.before")
        self._database.check_up()

    async def claim(self, partition: int, incarnation: str, *, patient: bool = False) -> Claim:
        await self._enter("claim")
        if self._database.assignment.get(partition) != incarnation:
            raise Fenced(f"partition {partition} is not assigned to {incarnation}")
        row = self._database.partition(partition)
        if patient and row.owner not in (None, incarnation) and self._database.lives(row.owner):
            raise StillOwned(f"partition {partition} is still in the hands of {row.owner}")
        earlier = {*row.previous_owners} | ({row.owner} if row.owner else set())
        speaking = []
        for name in sorted(earlier - {incarnation}):
            lease_left_s = self._database.lease_left_s(name)
            if lease_left_s > 0:
                member = self._database.members[name]
                speaking.append(PreviousOwner(name, member.host, member.lock_path, lease_left_s))
        row.previous_owners = [previous.incarnation for previous in speaking]
        row.owner = incarnation
        row.epoch += 1
        claim = Claim(partition, row.epoch, row.ckpt_seq, row.next_offset, row.last, row.blob, speaking)
        self._owners[partition] = incarnation
        await self._gate("claim.after")
        return claim

    async def load(self, partition: int, command_log_time_min_us: int) -> PartitionImage:
        await self._enter("load")
        row = self._database.partition(partition)
        image = PartitionImage(
            epoch=row.epoch,
            ckpt_seq=row.ckpt_seq,
            accounts=[row.accounts[account] for account in sorted(row.accounts)],
            dedup=sorted(row.dedup, key=lambda segment: segment.bucket),
            commands=[
                command for _, command in sorted(row.commands.items()) if command.log_time_us >= command_log_time_min_us
            ],
            engine_errors=sorted(
                offset for offset, letter in row.dead_letters.items() if letter.reason == "engine_error"
            ),
            alerts=self._waiting(partition),
        )
        await self._gate("load.after")
        return image

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        await self._enter("waiting_alerts")
        waiting = self._waiting(partition)
        await self._gate("waiting_alerts.after")
        return waiting

    def _waiting(self, partition: int) -> list[AlertRow]:
        waiting = [
            told.alert
            for told in self._database.outbox.values()
            if told.partition == partition and not told.delivered and not told.given_up
        ]
        return sorted(waiting, key=lambda alert: (alert.offset, alert.alert_id))

    async def commit(self, checkpoint: Checkpoint) -> None:
        await self._enter("commit")
        fault = self.commit_faults.pop(0) if self.commit_faults else None
        if fault == "unavailable":
            raise StoreUnavailable("the simulated Postgres broke off before COMMIT")
        row = self._database.partition(checkpoint.partition)
        if (row.epoch, row.ckpt_seq) != (checkpoint.epoch, checkpoint.ckpt_seq - 1):
            self._owners.pop(checkpoint.partition, None)
            raise Fenced(f"partition {checkpoint.partition}: epoch {checkpoint.epoch} or its checkpoint is over")
        if fault != "unknown_not_done":
            self._write(row, checkpoint)
        if fault is not None:
            raise CommitUnknown("the simulated Postgres broke off at COMMIT")
        await self._gate("commit.after")

    def _write(self, row: SimPartitionRow, cut: Checkpoint) -> None:
        row.ckpt_seq, row.next_offset, row.last, row.blob = cut.ckpt_seq, cut.next_offset, cut.last, cut.blob
        row.accounts.update({account.account: account for account in cut.accounts})
        row.dedup = [segment for segment in [*row.dedup, *cut.dedup] if segment.bucket >= cut.dedup_bucket_min]
        for command in cut.commands:
            row.commands.setdefault(command.offset, command)
        row.postings.extend(cut.postings)
        for alert in cut.alerts:
            self._database.outbox.setdefault(alert.alert_id, SimOutboxRow(cut.partition, alert))
        for letter in cut.dead_letters:
            row.dead_letters.setdefault(letter.offset, letter)

    async def settle_commit(self, partition: int, epoch: int, ckpt_seq: int) -> tuple[int, bool]:
        await self._enter("settle_commit")
        row = self._database.partition(partition)
        ours = partition in self._owners and row.owner == self._owners[partition] and row.epoch >= epoch
        if not ours or row.ckpt_seq not in (ckpt_seq - 1, ckpt_seq):
            self._owners.pop(partition, None)
            raise Fenced(f"partition {partition}: epoch {epoch} is over")
        row.epoch += 1
        settled = row.epoch, row.ckpt_seq == ckpt_seq
        await self._gate("settle_commit.after")
        return settled

    async def release(self, partition: int, epoch: int) -> None:
        await self._enter("release")
        row = self._database.partition(partition)
        self._owners.pop(partition, None)
        if row.epoch != epoch:
            raise Fenced(f"partition {partition}: epoch {epoch} is over")
        row.epoch += 1
        row.owner = None
        await self._gate("release.after")

    async def record_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        await self._enter("record_deliveries")
        for delivery in deliveries:
            row = self._database.outbox.get(delivery.alert_id)
            if row is not None:
                row.attempts = max(row.attempts, delivery.attempts)
                row.delivered = row.delivered or delivery.delivered
                row.given_up = row.given_up or delivery.given_up
                row.error = delivery.error
        await self._gate("record_deliveries.after")

    async def catalogue(self, version: int) -> bytes | None:
        await self._enter("catalogue")
        body = self._database.catalogues.get(version)
        await self._gate("catalogue.after")
        return body

    async def latest_catalogue_version(self) -> int | None:
        await self._enter("latest_catalogue_version")
        version = max(self._database.catalogues, default=None)
        await self._gate("latest_catalogue_version.after")
        return version

    async def publish_catalogue(self, version: int, body: bytes) -> None:
        await self._enter("publish_catalogue")
        if self._database.catalogues.setdefault(version, body) != body:
            raise CatalogueTaken(f"catalogue version {version} exists with another body")
        await self._gate("publish_catalogue.after")

    async def answer(self, account: str, command_key: str) -> str | None:
        await self._enter("answer")
        found = [
            command
            for row in self._database.partitions.values()
            for command in row.commands.values()
            if (command.account, command.command_key) == (account, command_key) and command.answer != "key_reused"
        ]
        newest = max(found, key=lambda command: command.offset, default=None)
        await self._gate("answer.after")
        return None if newest is None else newest.answer


class SimMembership:
    """The `Membership` port of one simulated process."""

    def __init__(self, database: SimDatabase, lease_s: float, gate: Gate = open_gate) -> None:
        self._database = database
        self._lease_s = lease_s
        self._gate = gate

    async def start(self) -> None:
        self._database.check_up()

    async def stop(self) -> None:
        pass

    async def register(
        self,
        incarnation: str,
        shard: str,
        host: str,
        lock_path: str,
        pid: int,
        door_host: str | None = None,
        door_port: int | None = None,
    ) -> None:
        await self._gate("register.before")
        self._database.check_up()
        known = self._database.members.get(incarnation)
        if known is not None and known.dead:
            raise Fenced(f"incarnation {incarnation} is dead")
        until_s = self._database.clock.boot_s() + self._lease_s
        if known is None:
            door = None if door_host is None or door_port is None else (door_host, door_port)
            self._database.members[incarnation] = SimMemberRow(shard, host, lock_path, pid, until_s, door)
        else:
            known.lease_until_s = until_s
        await self._gate("register.after")

    async def renew(self, incarnation: str) -> Renewal:
        await self._gate("renew.before")
        self._database.check_up()
        row = self._database.members.get(incarnation)
        if row is None or row.dead:
            raise Fenced(f"incarnation {incarnation} is dead or was never registered")
        row.lease_until_s = self._database.clock.boot_s() + self._lease_s
        mine = frozenset(p for p, owner in self._database.assignment.items() if owner == incarnation)
        await self._gate("renew.after")
        return Renewal(mine, self._lease_s)

    async def leave(self, incarnation: str) -> None:
        await self._gate("leave.before")
        self._database.check_up()
        row = self._database.members.get(incarnation)
        if row is not None:
            row.dead = True
            row.lease_until_s = min(row.lease_until_s, self._database.clock.boot_s())
        await self._gate("leave.after")


class SimDirectory:
    """The `Directory` port of one simulated process."""

    def __init__(self, database: SimDatabase, gate: Gate = open_gate) -> None:
        self._database = database
        self._gate = gate

    async def start(self) -> None:
        self._database.check_up()

    async def stop(self) -> None:
        pass

    async def doorways(self) -> list[Doorway]:
        await self._gate("doorways.before")
        self._database.check_up()
        owned: dict[str, dict[int, int]] = {}
        for number, row in sorted(self._database.partitions.items()):
            if row.owner is not None:
                owned.setdefault(row.owner, {})[number] = row.epoch
        found = [
            Doorway(incarnation, *member.door, owned.get(incarnation, {}))
            for incarnation, member in self._database.members.items()
            if member.door is not None and not member.dead and self._database.lease_left_s(incarnation) > 0
        ]
        await self._gate("doorways.after")
        return found


class SimRoster:
    """The `Roster` port of one simulated controller."""

    def __init__(self, database: SimDatabase, gate: Gate = open_gate) -> None:
        self._database = database
        self._gate = gate

    async def start(self) -> None:
        self._database.check_up()

    async def stop(self) -> None:
        pass

    async def take_office(self, controller: str, lease_s: float) -> int | None:
        await self._gate("take_office.before")
        self._database.check_up()
        now_s = self._database.clock.boot_s()
        if self._database.controller != controller and self._database.controller_lease_until_s > now_s:
            return None
        self._database.term += 1
        self._database.controller = controller
        self._database.controller_lease_until_s = now_s + lease_s
        term = self._database.term
        await self._gate("take_office.after")
        return term

    async def stay_in_office(self, term: int, lease_s: float) -> None:
        await self._gate("stay_in_office.before")
        self._check_term(term)
        self._database.controller_lease_until_s = self._database.clock.boot_s() + lease_s
        await self._gate("stay_in_office.after")

    async def resign(self, term: int) -> None:
        await self._gate("resign.before")
        self._database.check_up()
        if self._database.term == term:
            self._database.controller_lease_until_s = self._database.clock.boot_s()
        await self._gate("resign.after")

    async def members(self) -> list[Member]:
        await self._gate("members.before")
        self._database.check_up()
        assigned = self._database.assignment.items()
        owners = [(number, row.owner) for number, row in self._database.partitions.items()]
        members = [
            Member(
                incarnation,
                row.shard,
                row.host,
                row.lock_path,
                self._database.lease_left_s(incarnation),
                frozenset(partition for partition, owner in assigned if owner == incarnation),
                frozenset(partition for partition, owner in owners if owner == incarnation),
            )
            for incarnation, row in self._database.members.items()
            if not row.dead
        ]
        await self._gate("members.after")
        return members

    async def assign(self, term: int, partitions: dict[int, str]) -> None:
        await self._gate("assign.before")
        self._check_term(term)
        self._database.assignment.update(partitions)
        await self._gate("assign.after")

    async def declare_dead(self, term: int, incarnation: str) -> None:
        await self._gate("declare_dead.before")
        self._check_term(term)
        row = self._database.members.get(incarnation)
        if row is not None:
            row.dead = True
        await self._gate("declare_dead.after")

    def _check_term(self, term: int) -> None:
        self._database.check_up()
        if self._database.term != term:
            raise Fenced(f"term {term} is over")
