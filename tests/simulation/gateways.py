"""Gateways on virtual time: they ask before they spend, and report what they used within their holds.

They ask the simulated shards through `Shard.answer`, sometimes one that owned the partition a moment ago. A reply may
be lost with the process that gave it. Their wallets are nearly empty, so that every hold too many is an overspend.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, Final

import orjson
from msgspec import Struct

from actors.door_wire import (
    Answer,
    AsOf,
    CarriedOn,
    CarryOn,
    Check,
    Checked,
    Extend,
    FieldLimit,
    LeaseAnswered,
    LeaseClosed,
    Question,
    Release,
    Released,
)
from engine.account import Account
from engine.events import seal
from engine.holds import Hold, read_token
from engine.limits import ROOT, STANDINGS
from engine.money import parse_amount
from engine.partition import Partition
from engine.reasons import Reason
from engine.snapshot import decode_account, encode_account
from loadtest.oracle.records import partition_of
from loadtest.workload import cloud_time
from tests.simulation.holders import LEASING_GATEWAYS, GivenLease, Returns, hold_leases
from tests.simulation.invariants import Breach
from tests.simulation.terms import FEATURE
from tests.simulation.traffic import CONTROL_KEY, TOPIC
from tests.simulation.world import Process, ShardSlot, World

PACE_MAX: Final = 30.0  # beyond it a lease alone would outlast what a slice may linger
ASK_MAX_S: Final = 1.0
USING_MAX_S: Final = 2.0  # after the last question
MODELS: Final = ("atlas-large", "atlas-small")
FEATURED_SHARE: Final = 0.1  # of the callers ask for a feature that no plan has; in as many seeds a cap meters it
ROUNDING_PICO: Final = 4  # must stay free where leases reach prices that they are not held on; the figures leave it out
ASKING: Final = ("gateway-0", "gateway-1")  # accounts of every seed that asks
# What an account must have to be denied so.
FOUNDED: Final[dict[str, Callable[[Account], bool]]] = {
    Reason.SUSPENDED: lambda account: account.scopes[ROOT].standing == "suspended",
    Reason.PAST_DUE: lambda account: account.scopes[ROOT].standing == "past_due",
    Reason.MODEL_NOT_ENTITLED: lambda account: "model" in account.scopes[ROOT].allowed,
    Reason.RATE_LIMITED: lambda account: bool(account.rate_limits),
    Reason.OVER_CEILING: lambda account: any(cap.window.kind == "request" for cap in account.caps.values()),
    Reason.CAP_REACHED: lambda account: any(cap.hard for cap in account.caps.values()),
}


class Given(Struct):
    """An answer to a check, as it left the shard."""

    account: str
    as_of: AsOf
    now_us: int  # by the clock of whoever answered, and not behind the log
    allowed: bool
    reason: str | None
    booked: int | None
    available: int | None
    price: int
    hold: Hold | None


class Gateways:
    """Callers of one world. `given` is every answer, in the order in which they were given."""

    NAMES: Final = ("answers", "overspend", "holds", "leases")

    def __init__(self, world: World, random: Random, seconds: float, *, leasing: bool = False) -> None:
        self.given: list[Given] = []
        self.leases: list[GivenLease] = []
        self._world = world
        self._random = random
        self._seconds = seconds
        self._leasing = leasing
        self._sent = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._epochs: dict[int, int] = {}  # the highest that has answered
        self._released: dict[str, list[tuple[AsOf, bool]]] = {}  # hold -> each answer to its release: was it open?
        self._accounts_of_holds: dict[str, str] = {}  # of those released
        self._captured: dict[str, int] = {}  # hold -> offset of the first final event of it that was rated
        self._owners: dict[int, str] = {}  # partition -> incarnation, as it was known last
        count = random.randint(2, 4)
        self.accounts = [f"gateway-{number}" for number in range(count)]
        self.sloppy = set(self.accounts[: random.randint(0, 1)])  # reports of it may come late, or after a release

    # ------------------------------------------------------------------------------------------------------ traffic

    def setup(self) -> Iterator[tuple[int, bytes]]:
        """(partition, value): accounts with wallets that a few requests empty."""
        metered = Random(f"a feature {self._random.getstate()}").random() < FEATURED_SHARE
        for account in self.accounts:
            amount = f"0.{self._random.randint(5, 99):02}"
            opening = {"kind": "open_account", "account": account, "command_key": f"open-{account}", "plan": "starter"}
            paying = {"kind": "grant", "account": account, "command_key": f"pay-{account}", "lot": "prepaid"}
            paying |= {"lot_kind": "paid", "amount": amount, "currency": "USD"}
            home = partition_of(account.encode(), self._world.plan.partitions)
            metering = {"kind": "set_cap", "account": account, "command_key": f"meter-{account}", "cap": FEATURE}
            metering |= {"meter": "output_tokens", "amount": "60000", "window": "day"}
            for body in (opening, paying, metering) if metered else (opening, paying):
                yield home, seal(CONTROL_KEY, TOPIC, home, orjson.dumps(body))

    async def run(self) -> None:
        """Until the seed's time is over, and what was asked by then has been used or was forgotten."""
        callers = [self._begin(self._call(Random(self._random.random()))) for _ in range(self._random.randint(3, 8))]
        for account in self.accounts * LEASING_GATEWAYS if self._leasing else ():
            work = hold_leases(self._world, account, self._ask, self._report_leased, Random(self._random.random()))
            callers.append(self._begin(work))
        await asyncio.sleep(self._seconds)
        for caller in callers:
            caller.cancel()
        await asyncio.sleep(USING_MAX_S)
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                self._world.violated(f"a caller broke: {type(ended).__name__}: {ended}")

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=f"gateway {len(self._tasks)}")
        self._tasks.append(task)
        return task

    async def _call(self, random: Random) -> None:
        featured = Random(f"a feature {random.getstate()}").random() < FEATURED_SHARE
        while True:
            await self._world.loop.sleep(random.uniform(0.0, 0.3))
            account = random.choice(self.accounts)
            tokens = random.randint(1, 4) * 4_000
            bounds = FieldLimit(("input_tokens",), str(tokens)), FieldLimit(("output_tokens",), str(tokens))
            ttl_s = random.uniform(0.1, 1.0) * self._world.plan.pace
            model = random.choice(MODELS)
            check = Check(
                account,
                type="llm.request",
                data={"model": model},
                bounds=bounds,
                feature=FEATURE if featured else None,
                ttl_ms=int(ttl_s * 1000),
            )
            answer = await self._ask(account, check, random)
            if isinstance(answer, Checked) and answer.hold is not None:
                self._begin(self._use(account, model, tokens, answer.hold.token, Random(random.random())))

    async def _use(self, account: str, model: str, tokens: int, token: str, random: Random) -> None:
        hold = read_token(CONTROL_KEY, token)
        fate = random.choice(["use", "use", "use", "use", "stream", "extend", "release", "crash"])
        if fate == "crash":
            return
        if fate == "release":
            for _ in range(random.randint(1, 2)):
                await self._ask(account, Release(token), random)
            return
        if fate == "extend" and self._leasing:
            token, tokens = await self._go_on(account, model, tokens, token, random)
            hold = read_token(CONTROL_KEY, token)
        elif fate == "extend":
            answer = await self._ask(account, Extend(token, int(0.5 * self._world.plan.pace * 1000)), random)
            if isinstance(answer, Checked) and answer.hold is not None:
                token = answer.hold.token
                hold = read_token(CONTROL_KEY, token)
        parts = 1 if fate != "stream" else random.randint(2, 3)
        left_s = (hold.report_until_us - self._world.clock.wall_us()) / 1e6 / self._world.plan.pace
        if account in self.sloppy and random.random() < 0.3:
            left_s += 1.0
        elif random.random() < 0.4:
            left_s -= 0.02  # as late as may be
        else:
            left_s *= random.random()
        await self._world.loop.sleep(max(0.0, left_s))
        share = tokens if random.random() < 0.7 else random.randrange(tokens + 1)
        for part in range(parts):
            used = share // parts + (share % parts if part == 0 else 0)
            await self._report(account, model, used, token, final=part == parts - 1)
        if account in self.sloppy and random.random() < 0.3:
            await asyncio.sleep(random.choice([0.0, 0.3]))
            await self._ask(account, Release(token), random)

    async def _go_on(self, account: str, model: str, tokens: int, token: str, random: Random) -> tuple[str, int]:
        """A long stream: it has used all that it asked for, and asks for as much again. The token to go on with, and what
        may be used by it in all."""
        event: dict[str, Any] = {"specversion": "1.0", "id": "long", "source": "gateways", "type": "llm.request"}
        event |= {"time": cloud_time(self._world.clock.wall_us()), "subject": account, "hold": token}
        event |= {"data": {"model": model, "input_tokens": tokens, "output_tokens": tokens}}
        ahead = FieldLimit(("input_tokens",), str(tokens)), FieldLimit(("output_tokens",), str(tokens))
        question = CarryOn(token, orjson.dumps(event), int(0.5 * self._world.plan.pace * 1000), ahead)
        answer = await self._ask(account, question, random)
        if isinstance(answer, CarriedOn) and answer.action == "continue" and answer.checked.hold is not None:
            return answer.checked.hold.token, 2 * tokens
        return token, tokens

    async def _report_leased(self, account: str, model: str, tokens: int, token: str) -> None:
        await self._report(account, model, tokens, token, final=True)

    async def _report(self, account: str, model: str, tokens: int, token: str, *, final: bool) -> None:
        world = self._world
        while world.broker.down or not world.broker.sound:
            await asyncio.sleep(0.05)
        self._sent += 1
        event: dict[str, Any] = {"specversion": "1.0", "id": f"held-{self._sent}", "source": "gateways"}
        event |= {"type": "llm.request", "subject": account, "time": cloud_time(world.clock.wall_us())}
        event |= {"hold": token, "holdfinal": final}
        event |= {"data": {"model": model, "input_tokens": tokens, "output_tokens": tokens}}
        world.broker.append("usage", account.encode(), orjson.dumps(event))

    # -------------------------------------------------------------------------------------------------------- asking

    async def _ask(self, account: str, question: Question, random: Random) -> Answer | None:
        """None: no answer came, and what was asked may have happened."""
        slot = self._slot_of(partition_of(account.encode(), self._world.plan.partitions), random)
        if slot is None or slot.process is None or slot.shard is None:
            return None
        reply: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        task = slot.process.spawn(self._serve(slot, slot.process, question, reply))
        task.add_done_callback(lambda _: None if reply.done() else reply.set_result(None))
        await asyncio.wait([reply], timeout=ASK_MAX_S)
        return reply.result() if reply.done() else None

    async def _serve(
        self, slot: ShardSlot, process: Process, question: Question, reply: "asyncio.Future[Answer | None]"
    ) -> None:
        """In the shard's process: it ends with it."""
        shard, lease = slot.shard, slot.lease
        assert shard is not None
        await process.gate("door.before")
        answer = await shard.answer(question, ASK_MAX_S)
        if isinstance(answer, Checked):
            if not lease.valid():
                self._world.breached("answers", f"{process.name} answered beyond its lease: {answer.as_of}")
            self._note(question, answer, process)
        elif isinstance(answer, LeaseAnswered | LeaseClosed):
            self._note_lease(answer, process, is_valid=lease.valid())
        elif isinstance(answer, Released) and isinstance(question, Release):
            hold = read_token(CONTROL_KEY, question.token)
            self._accounts_of_holds[hold.id] = hold.account
            self._released.setdefault(hold.id, []).append((answer.as_of, answer.was_open))
        await process.gate("door.after")
        if not reply.done():
            reply.set_result(answer)

    def _note_lease(self, answer: LeaseAnswered | LeaseClosed, process: Process, *, is_valid: bool) -> None:
        as_of = answer.as_of if isinstance(answer, LeaseClosed) else answer.checked.as_of
        if not is_valid:
            self._world.breached("answers", f"{process.name} answered beyond its lease: {as_of}")
        self._note_epoch(as_of, process)
        if isinstance(answer, LeaseAnswered) and answer.lease is not None:
            lease = read_token(CONTROL_KEY, answer.lease.token)
            self.leases.append(GivenLease(lease.account, as_of, lease))

    def _note_epoch(self, as_of: AsOf, process: Process) -> None:
        if as_of.epoch < self._epochs.get(as_of.partition, 0):
            self._world.breached("answers", f"{process.name} answered at {as_of}, after a later owner had")
        self._epochs[as_of.partition] = max(as_of.epoch, self._epochs.get(as_of.partition, 0))

    def _note(self, question: Question, answer: Checked, process: Process) -> None:
        as_of = answer.as_of
        self._note_epoch(as_of, process)
        if not isinstance(question, Check):
            return
        wallet = answer.wallet
        self.given.append(
            Given(
                question.account,
                as_of,
                max(as_of.log_time_us, process.clock.wall_us()),
                answer.allowed,
                answer.reason,
                None if wallet is None else parse_amount(wallet.booked),
                None if wallet is None else parse_amount(wallet.available),
                parse_amount(answer.price or "0"),
                None if answer.hold is None else read_token(CONTROL_KEY, answer.hold.token),
            )
        )

    def _slot_of(self, partition: int, random: Random) -> ShardSlot | None:
        """The owner's, or the last one's: a routing table is never quite new."""
        known = self._owners.get(partition)
        owner = self._world.database.partition(partition).owner
        if owner is not None:
            self._owners[partition] = owner
        name = known if random.random() < 0.3 else owner
        for slot in self._world.shards:
            if slot.process is not None and slot.process.name == name and slot.process.alive:
                return slot
        return None

    # ------------------------------------------------------------------------------------------------------- verdict

    def verdict(self, folds: dict[int, Partition]) -> Iterator[Breach]:
        """Every breach. `folds` are fresh: the log is folded into them, and looked at on the way."""
        late: set[str] = set()
        overspent: dict[str, str] = {}  # account -> when it was first below zero
        for number, fold in folds.items():
            yield from self._follow(number, fold, late, overspent)
        for sentence in self._fates():
            yield "holds", sentence
        if not self._world.fired.keys().isdisjoint([("clock_jump", ""), ("host_jump", "")]):
            return  # clocks further apart than the margin promise nothing
        for account_id in self.accounts:
            if account_id in overspent and account_id not in late | self._released_before_used():
                sentence = f"{overspent[account_id]}, though all its usage was held and reported in time"
                yield "overspend", f"{account_id}: {sentence}"

    def _released_before_used(self) -> set[str]:
        """Accounts whose callers said that a hold was not used, and used it."""
        return {
            self._accounts_of_holds[hold_id]
            for hold_id, releases in self._released.items()
            if hold_id in self._captured and any(was_open for _, was_open in releases)
        }

    def _fates(self) -> Iterator[str]:
        """A hold that was released was open until then, and is open no more."""
        for hold_id, releases in self._released.items():
            opened = [as_of for as_of, was_open in releases if was_open]
            if len(opened) > 1:
                yield f"hold {hold_id} was released at {opened[0]}, and again at {opened[1]}"
            captured = self._captured.get(hold_id)
            for as_of in opened:
                if captured is not None and captured < as_of.offset:
                    yield f"hold {hold_id} was captured at offset {captured}, and released at {as_of}"

    def _follow(self, number: int, fold: Partition, late: set[str], overspent: dict[str, str]) -> Iterator[Breach]:
        answers = sorted(
            (given for given in self.given if given.as_of.partition == number), key=lambda given: given.as_of.offset
        )
        leases = sorted(
            (given for given in self.leases if given.as_of.partition == number), key=lambda given: given.as_of.offset
        )
        returns, accounts = Returns(), {given.account for given in leases}
        for record in self._world.broker.topic("usage", number).records:
            while answers and answers[0].as_of.offset <= record.offset:
                yield from (("answers", sentence) for sentence in _inconsistent(answers.pop(0), fold))
            while leases and leases[0].as_of.offset <= record.offset:
                yield from (("leases", sentence) for sentence in _not_in_the_log(leases.pop(0), fold))
            used_of = None
            rated = fold.counts.get("rated", 0)
            fold.apply(record.offset, record.timestamp, record.key, record.value)
            value = record.value or b""
            if b'"gateways"' in value and value.startswith(b"{"):
                event = orjson.loads(value)
                hold = read_token(CONTROL_KEY, event["hold"])
                if fold.log_time_us > hold.report_until_us:
                    late.add(event["subject"])
                used_of = hold.id if hold.is_lease else None
                is_rated = fold.counts.get("rated", 0) > rated
                if event["holdfinal"] and not hold.is_lease and is_rated:
                    if hold.id in self._captured:
                        yield (
                            "holds",
                            f"hold {hold.id} was captured at offset {self._captured[hold.id]}, and at {record.offset}",
                        )
                    self._captured.setdefault(hold.id, record.offset)
                if is_rated and fold.log_time_us <= hold.report_until_us and hold.id in self._world.reclaimed:
                    yield "holds", f"hold {hold.id} was used in time at offset {record.offset}, and had expired"
                if event["subject"] not in overspent:
                    account = fold.account(event["subject"])
                    balance = 0 if account is None else account.derive().allocation.balance
                    if balance < 0:  # at that moment: what is given later may cover it
                        overspent[event["subject"]] = f"overspent by {-balance} pico at offset {record.offset}"
            for account_id in accounts:
                yield from (("leases", sentence) for sentence in returns.follow(fold, account_id, used_of))
        for given in answers:
            yield from (("answers", sentence) for sentence in _inconsistent(given, fold))
        for lease in leases:
            yield from (("leases", sentence) for sentence in _not_in_the_log(lease, fold))


def _not_in_the_log(given: GivenLease, fold: Partition) -> Iterator[str]:
    """A lease that was given before its record was read or behind its close, or is not what the record says."""
    account = fold.account(given.account)
    known = None if account is None else account.leases.of.get(given.lease.id)
    if fold.log_time_us > given.lease.report_until_us:
        return
    if known is None or known.sent is not None or known.hold.requests < given.lease.requests:
        yield f"lease {given.lease.id} of {given.account} was given at {given.as_of}, where the log has {known}"


def _inconsistent(given: Given, fold: Partition) -> Iterator[str]:
    """What an answer says that the log up to its offset does not."""
    where = f"{given.account}: the answer at offset {given.as_of.offset} of partition {given.as_of.partition}"
    if given.as_of.epoch != fold.epoch:
        yield f"{where} is of epoch {given.as_of.epoch}, the log is at {fold.epoch}"
    account = fold.account(given.account)
    if account is None:
        if given.reason != Reason.UNKNOWN_ACCOUNT:
            yield f"{where} knows an account that is not open: {given.reason}"
        return
    standing = account.scopes[ROOT].standing
    if given.allowed and standing != STANDINGS[0]:
        yield f"{where} approved, though the account is {standing}"
    if given.reason in FOUNDED and not FOUNDED[given.reason](account):
        yield f"{where} denies as {given.reason}, and nothing of the account says so"
    balance = _balance(account, fold, given.now_us)
    if given.booked != balance:
        yield f"{where} says {given.booked} is booked, it is {balance}"
    if given.hold is not None:
        slice_ = account.slices.get(given.as_of.epoch)
        quantities = slice_.quantities if slice_ is not None and slice_.closed_us is None else {}
        short = {price: held for price, held in given.hold.held().items() if quantities.get(price, 0) < held}
        if short:
            yield f"{where} approved {short} beyond its slice {quantities}"
        if given.available is not None and given.available < 0:
            yield f"{where} approved with {given.available} left"
    left = None if given.available is None else given.available - ROUNDING_PICO
    owes = left is not None and balance - left > _paying_at_first(account)  # a later lot need not settle debt (law C4)
    if given.reason == Reason.CREDIT_DEPLETED and left is not None and given.price <= left and not owes:
        yield f"{where} denies {given.price} with {given.available} available"
    if given.reason == Reason.WITHHELD and not any(each.closed_us is not None for each in account.slices.values()):
        yield f"{where} withholds, though no slice is closed"


def _paying_at_first(account: Account) -> int:
    """What is left in the lots that were there from the first one's beginning on."""
    first_us = min((lot.effective_us for lot in account.lots.values()), default=0)
    remaining = account.derive().allocation.remaining
    return sum(remaining.get(name, 0) for name, lot in account.lots.items() if lot.effective_us == first_us)


def _balance(account: Account, fold: Partition, now_us: int) -> int:
    """Of that instant: a lot may have begun by the clock of whoever answers, and not by log time."""
    behind_us = fold.log_time_us
    turns = [instant for lot in account.lots.values() for instant in lot.boundaries if behind_us < instant <= now_us]
    if turns or (account.recurring and now_us > behind_us):
        account = decode_account(encode_account(account), fold._book)
        account.wake(now_us)
    return account.derive().allocation.balance


def open_too_long(world: World) -> Iterator[str]:
    """Holds that should have been reclaimed by now."""
    for slot in world.shards:
        if slot.shard is None or slot.process is None:
            continue
        for owned in slot.shard._owned.values():
            due_us = owned.fold.desk.next_reclaim_us()
            slack_us = round(3_000_000 * world.plan.pace) + 2 * world.plan.skew_max_us
            if owned.speaks and due_us is not None and due_us + slack_us < world.clock.wall_us():
                yield f"partition {owned.number}: a hold is open that was to be reclaimed at {due_us}"
