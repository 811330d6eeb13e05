"""Postgres as the simulator has it: one `SimDatabase` shared by all, and one set of ports on it per process.

Every call passes its gate before and after the effect, where the simulator may delay, stop or kill it; the effect
itself is one step, as a transaction is. Time is the given clock's and stands for the database's own.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import asyncpg
import msgspec
from msgspec import Struct

from actors.ports import (
    RUN_PART_ROWS,
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
    Place,
    PostingRow,
    PreviousOwner,
    Renewal,
    RunHead,
    StillOwned,
    StoreUnavailable,
)
from actors.postgres import translated
from engine.runs import ROW_BYTES
from tests.simulation.sim_log import Gate, open_gate

CommitFault = Literal["unavailable", "unknown_done", "unknown_not_done", "unknown_late"]
LOCK_MAX_S = 1.2  # how long a statement waits for a row: the lease, as in the real sessions
HEARD_AFTER_S = 0.05  # a change of the assignment, by whoever waits for it


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
    claimed_offset: int = 0  # where the owner's claim found it: from here on it writes all lines anew
    previous_owners: list[str] = []
    accounts: dict[str, AccountRow] = {}
    dedup: list[DedupSegment] = []
    runs: dict[tuple[int, int], tuple[RunHead, bytes]] = {}  # by bucket and generation: head and rows
    commands: dict[int, CommandRow] = {}
    postings: list[PostingRow] = []
    dead_letters: dict[int, DeadLetterRow] = {}
    in_doubt: "asyncio.Event | None" = None  # a dead session still commits, and holds the row until this is set


class SimMemberRow(Struct):
    """One start of a simulated process. The lease is in seconds of the clock."""

    shard: str
    host: str
    lock_path: str
    pid: int
    lease_until_s: float
    door: tuple[str, int] | None = None
    dead: bool = False
    draining: bool = False


class SimDatabase:
    """The database. While `down`, every call fails; while `full` or `read_only`, every call that writes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.down = False
        self.full = False
        self.read_only = False
        self.sessions = 0  # grows when all connections are cut
        self.replica: dict[
            int, SimPartitionRow
        ] = {}  # the partitions as a replica shows them that has stopped following
        self.partitions: dict[int, SimPartitionRow] = {}
        self.outbox: dict[str, SimOutboxRow] = {}
        self.catalogues: dict[int, bytes] = {}
        self.members: dict[str, SimMemberRow] = {}
        self.assignment: dict[int, str] = {}
        self.assigned = 0  # how often the assignment was written
        self.term = 0
        self.controller = ""
        self.controller_lease_until_s = float("-inf")

    def check_up(self, writes: bool = True) -> None:
        """Raise during an outage what the real doors make of the database's own error."""
        if self.down:
            raise StoreUnavailable("the simulated Postgres is away")
        if writes and self.full:
            raise translated(asyncpg.DiskFullError("simulated: could not extend file"))
        if writes and self.read_only:
            raise translated(asyncpg.ReadOnlySQLTransactionError("simulated: an old primary after a failover"))

    def cut_connections(self) -> None:
        """Whoever waits for an answer gets none, though the effect may be there."""
        self.sessions += 1

    def stop_following(self) -> None:
        """From now on the replica shows what is there now."""
        self.replica = {
            number: msgspec.structs.replace(
                row,
                accounts=dict(row.accounts),
                dedup=list(row.dedup),
                runs=dict(row.runs),
                commands=dict(row.commands),
                dead_letters=dict(row.dead_letters),
            )
            for number, row in self.partitions.items()
        }

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


class _Port:
    """What a process calls: every call enters by one gate and leaves by another."""

    def __init__(self, database: SimDatabase, gate: Gate = open_gate) -> None:
        self._database = database
        self._gate = gate

    async def start(self) -> None:
        self._database.check_up(writes=False)

    async def stop(self) -> None:
        pass

    async def _enter(self, call: str, writes: bool = True) -> int:
        """The session in which the effect takes place."""
        await self._gate(f"{call}.before")
        self._database.check_up(writes)
        return self._database.sessions

    async def _leave(self, call: str, session: int) -> None:
        """Raises when the session was cut before the answer came."""
        await self._gate(f"{call}.after")
        if session != self._database.sessions:
            raise StoreUnavailable("simulated: the connection was cut")


class SimStore(_Port):
    """The `Store` port of one simulated process. Each commit takes the first of `commit_faults`, if any, and fails so."""

    def __init__(self, database: SimDatabase, gate: Gate = open_gate) -> None:
        super().__init__(database, gate)
        self.commit_faults: list[CommitFault] = []
        self.late_s = 0.5  # after which a commit `unknown_late` takes effect
        self.flaky: Callable[[], bool] = lambda: False  # whether a call for sealed runs fails
        self.stale_loads = 0  # so many loads are answered by the replica
        self._owners: dict[int, str] = {}

    async def start(self) -> None:
        await self._leave("store.start", await self._enter("store.start", writes=False))

    async def stop(self) -> None:
        self._owners = {}

    async def _locked(self, partition: int) -> SimPartitionRow:
        """The row, once no dead session holds it any more."""
        row = self._database.partition(partition)
        if row.in_doubt is not None:
            try:
                async with asyncio.timeout(LOCK_MAX_S):
                    await row.in_doubt.wait()
            except TimeoutError:
                raise translated(asyncpg.LockNotAvailableError("simulated: a dead session holds the row")) from None
            self._database.check_up()
        return row

    async def claim(self, partition: int, incarnation: str, *, patient: bool = False) -> Claim:
        session = await self._enter("claim")
        if self._database.assignment.get(partition) != incarnation:
            raise Fenced(f"partition {partition} is not assigned to {incarnation}")
        row = await self._locked(partition)
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
        row.claimed_offset = row.next_offset
        row.epoch += 1
        claim = Claim(partition, row.epoch, row.ckpt_seq, row.next_offset, row.last, row.blob, speaking)
        self._owners[partition] = incarnation
        await self._leave("claim", session)
        return claim

    async def load(self, partition: int, command_log_time_min_us: int) -> PartitionImage:
        session = await self._enter("load", writes=False)
        row = self._database.partition(partition)
        if self.stale_loads:
            self.stale_loads -= 1
            row = self._database.replica.get(partition, row)
        image = PartitionImage(
            epoch=row.epoch,
            ckpt_seq=row.ckpt_seq,
            accounts=[row.accounts[account] for account in sorted(row.accounts)],
            dedup=sorted(row.dedup, key=lambda segment: segment.bucket),
            runs=[head for _, (head, _) in sorted(row.runs.items())],
            commands=[
                command for _, command in sorted(row.commands.items()) if command.log_time_us >= command_log_time_min_us
            ],
            engine_errors=sorted(
                offset for offset, letter in row.dead_letters.items() if letter.reason == "engine_error"
            ),
            alerts=self._waiting(partition),
        )
        await self._leave("load", session)
        return image

    async def waiting_alerts(self, partition: int) -> list[AlertRow]:
        session = await self._enter("waiting_alerts", writes=False)
        waiting = self._waiting(partition)
        await self._leave("waiting_alerts", session)
        return waiting

    def _waiting(self, partition: int) -> list[AlertRow]:
        waiting = [
            told.alert
            for told in self._database.outbox.values()
            if told.partition == partition and not told.delivered and not told.given_up
        ]
        return sorted(waiting, key=lambda alert: (alert.offset, alert.alert_id))

    async def commit(self, checkpoint: Checkpoint) -> None:
        session = await self._enter("commit")
        fault = self.commit_faults.pop(0) if self.commit_faults else None
        if fault == "unavailable":
            raise StoreUnavailable("the simulated Postgres broke off before COMMIT")
        row = await self._locked(checkpoint.partition)
        if (row.epoch, row.ckpt_seq) != (checkpoint.epoch, checkpoint.ckpt_seq - 1):
            self._owners.pop(checkpoint.partition, None)
            raise Fenced(f"partition {checkpoint.partition}: epoch {checkpoint.epoch} or its checkpoint is over")
        if fault == "unknown_late":
            self._write_later(row, checkpoint)
        elif fault != "unknown_not_done":
            self._write(row, checkpoint)
        if fault is not None:
            raise CommitUnknown("the simulated Postgres broke off at COMMIT")
        await self._leave_commit(session)

    async def _leave_commit(self, session: int) -> None:
        try:
            await self._leave("commit", session)
        except StoreUnavailable as error:
            raise CommitUnknown(str(error)) from error

    def _write_later(self, row: SimPartitionRow, cut: Checkpoint) -> None:
        """The client is gone, the backend still commits; until then it holds the row."""

        def take_effect() -> None:
            self._write(row, cut)
            row.in_doubt = None
            ended.set()

        ended = row.in_doubt = asyncio.Event()
        asyncio.get_running_loop().call_later(self.late_s, take_effect)

    def _write(self, row: SimPartitionRow, cut: Checkpoint) -> None:
        row.ckpt_seq, row.next_offset, row.last, row.blob = cut.ckpt_seq, cut.next_offset, cut.last, cut.blob
        row.accounts.update({account.account: account for account in cut.accounts})
        row.dedup = [segment for segment in [*row.dedup, *cut.dedup] if segment.bucket >= cut.dedup_bucket_min]
        row.runs = {name: run for name, run in row.runs.items() if name[0] >= cut.dedup_bucket_min}
        for command in cut.commands:
            row.commands.setdefault(command.offset, command)
        row.postings.extend(cut.postings)
        for alert in cut.alerts:
            self._database.outbox.setdefault(alert.alert_id, SimOutboxRow(cut.partition, alert))
        for letter in cut.dead_letters:
            row.dead_letters.setdefault(letter.offset, letter)

    async def seal(self, partition: int, epoch: int, head: RunHead, rows: bytes) -> None:
        session = await self._enter("seal")
        self._fail_perhaps()
        row = await self._locked(partition)
        if row.epoch != epoch:
            raise Fenced(f"partition {partition}: epoch {epoch} is over")
        row.runs.setdefault((head.bucket, head.generation), (head, rows))
        row.dedup = [each for each in row.dedup if (each.bucket, each.generation) not in row.runs]
        await self._leave("seal", session)

    async def run_part(self, partition: int, bucket: int, generation: int, part: int) -> bytes | None:
        session = await self._enter("run_part", writes=False)
        self._fail_perhaps()
        run = self._database.partition(partition).runs.get((bucket, generation))
        size = RUN_PART_ROWS * ROW_BYTES
        await self._leave("run_part", session)
        return None if run is None else run[1][part * size : (part + 1) * size] or None

    async def run_rows(self, partition: int, places: Sequence[Place]) -> list[bytes | None]:
        session = await self._enter("run_rows", writes=False)
        self._fail_perhaps()
        runs = [self._database.partition(partition).runs.get((place.bucket, place.generation)) for place in places]
        await self._leave("run_rows", session)
        return [
            None if run is None else run[1][place.row * ROW_BYTES : (place.row + 1) * ROW_BYTES]
            for run, place in zip(runs, places, strict=True)
        ]

    def _fail_perhaps(self) -> None:
        if self.flaky():
            raise StoreUnavailable("simulated: the memory of rated events cannot be reached")

    async def settle_commit(self, partition: int, epoch: int, ckpt_seq: int) -> tuple[int, bool]:
        session = await self._enter("settle_commit")
        row = await self._locked(partition)
        ours = partition in self._owners and row.owner == self._owners[partition] and row.epoch >= epoch
        if not ours or row.ckpt_seq not in (ckpt_seq - 1, ckpt_seq):
            self._owners.pop(partition, None)
            raise Fenced(f"partition {partition}: epoch {epoch} is over")
        row.epoch += 1
        settled = row.epoch, row.ckpt_seq == ckpt_seq
        await self._leave("settle_commit", session)
        return settled

    async def release(self, partition: int, epoch: int) -> None:
        session = await self._enter("release")
        row = await self._locked(partition)
        self._owners.pop(partition, None)
        if row.epoch != epoch:
            raise Fenced(f"partition {partition}: epoch {epoch} is over")
        row.epoch += 1
        row.owner = None
        await self._leave("release", session)

    async def record_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        session = await self._enter("record_deliveries")
        for delivery in deliveries:
            row = self._database.outbox.get(delivery.alert_id)
            if row is not None:
                row.attempts = max(row.attempts, delivery.attempts)
                row.delivered = row.delivered or delivery.delivered
                row.given_up = row.given_up or delivery.given_up
                row.error = delivery.error
        await self._leave("record_deliveries", session)

    async def catalogue(self, version: int, *, hurried: bool = False) -> bytes | None:
        session = await self._enter("catalogue", writes=False)
        body = self._database.catalogues.get(version)
        await self._leave("catalogue", session)
        return body

    async def latest_catalogue_version(self) -> int | None:
        session = await self._enter("latest_catalogue_version", writes=False)
        version = max(self._database.catalogues, default=None)
        await self._leave("latest_catalogue_version", session)
        return version

    async def publish_catalogue(self, version: int, body: bytes) -> None:
        session = await self._enter("publish_catalogue")
        if self._database.catalogues.setdefault(version, body) != body:
            raise CatalogueTaken(f"catalogue version {version} exists with another body")
        await self._leave("publish_catalogue", session)

    async def answer(self, account: str, command_key: str) -> str | None:
        session = await self._enter("answer", writes=False)
        found = [
            command
            for row in self._database.partitions.values()
            for command in row.commands.values()
            if (command.account, command.command_key) == (account, command_key) and command.answer != "key_reused"
        ]
        newest = max(found, key=lambda command: command.offset, default=None)
        await self._leave("answer", session)
        return None if newest is None else newest.answer


class SimMembership(_Port):
    """The `Membership` port of one simulated process."""

    def __init__(self, database: SimDatabase, lease_s: float, gate: Gate = open_gate) -> None:
        super().__init__(database, gate)
        self._lease_s = lease_s
        self._seen = 0

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
        session = await self._enter("register")
        known = self._database.members.get(incarnation)
        if known is not None and known.dead:
            raise Fenced(f"incarnation {incarnation} is dead")
        until_s = self._database.clock.boot_s() + self._lease_s
        if known is None:
            door = None if door_host is None or door_port is None else (door_host, door_port)
            self._database.members[incarnation] = SimMemberRow(shard, host, lock_path, pid, until_s, door)
        else:
            known.lease_until_s = until_s
        await self._leave("register", session)

    async def renew(self, incarnation: str) -> Renewal:
        session = await self._enter("renew")
        row = self._database.members.get(incarnation)
        if row is None or row.dead:
            raise Fenced(f"incarnation {incarnation} is dead or was never registered")
        row.lease_until_s = self._database.clock.boot_s() + self._lease_s
        mine = frozenset(p for p, owner in self._database.assignment.items() if owner == incarnation)
        owned = frozenset(p for p, row in self._database.partitions.items() if row.owner == incarnation)
        await self._leave("renew", session)
        return Renewal(mine, self._lease_s, owned)

    async def assignment_changed(self, within_s: float) -> None:
        clock = self._database.clock
        until_s = clock.boot_s() + within_s
        while self._database.assigned == self._seen and clock.boot_s() < until_s:
            await clock.sleep(min(HEARD_AFTER_S, max(0.0, until_s - clock.boot_s())))
        self._seen = self._database.assigned
        await self._gate("sleep")

    async def leave(self, incarnation: str) -> None:
        session = await self._enter("leave")
        row = self._database.members.get(incarnation)
        if row is not None:
            row.dead = True
            row.lease_until_s = min(row.lease_until_s, self._database.clock.boot_s())
        await self._leave("leave", session)


class SimDirectory(_Port):
    """The `Directory` port of one simulated process."""

    async def doorways(self) -> list[Doorway]:
        session = await self._enter("doorways", writes=False)
        owned: dict[str, dict[int, int]] = {}
        for number, row in sorted(self._database.partitions.items()):
            if row.owner is not None:
                owned.setdefault(row.owner, {})[number] = row.epoch
        found = [
            Doorway(incarnation, *member.door, owned.get(incarnation, {}))
            for incarnation, member in self._database.members.items()
            if member.door is not None and not member.dead and self._database.lease_left_s(incarnation) > 0
        ]
        await self._leave("doorways", session)
        return found


class SimRoster(_Port):
    """The `Roster` port of one simulated controller."""

    async def take_office(self, controller: str, lease_s: float) -> int | None:
        session = await self._enter("take_office")
        now_s = self._database.clock.boot_s()
        if self._database.controller != controller and self._database.controller_lease_until_s > now_s:
            return None
        self._database.term += 1
        self._database.controller = controller
        self._database.controller_lease_until_s = now_s + lease_s
        term = self._database.term
        await self._leave("take_office", session)
        return term

    async def stay_in_office(self, term: int, lease_s: float) -> None:
        session = await self._enter("stay_in_office")
        self._check_term(term)
        self._database.controller_lease_until_s = self._database.clock.boot_s() + lease_s
        await self._leave("stay_in_office", session)

    async def resign(self, term: int) -> None:
        session = await self._enter("resign")
        if self._database.term == term:
            self._database.controller_lease_until_s = self._database.clock.boot_s()
        await self._leave("resign", session)

    async def members(self) -> list[Member]:
        session = await self._enter("members", writes=False)
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
                row.draining,
            )
            for incarnation, row in self._database.members.items()
            if not row.dead
        ]
        await self._leave("members", session)
        return members

    async def assign(self, term: int, partitions: dict[int, str]) -> None:
        session = await self._enter("assign")
        self._check_term(term)
        self._database.assignment.update(partitions)
        self._database.assigned += 1
        await self._leave("assign", session)

    async def declare_dead(self, term: int, incarnation: str) -> None:
        session = await self._enter("declare_dead")
        self._check_term(term)
        row = self._database.members.get(incarnation)
        if row is not None:
            row.dead = True
        await self._leave("declare_dead", session)

    async def set_draining(self, incarnation: str, draining: bool) -> bool:
        session = await self._enter("set_draining")
        row = self._database.members.get(incarnation)
        found = row is not None and not row.dead
        if row is not None and found:
            row.draining = draining
        await self._leave("set_draining", session)
        return found

    def _check_term(self, term: int) -> None:
        if self._database.term != term:
            raise Fenced(f"term {term} is over")
