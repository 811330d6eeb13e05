"""What a shard answers to whom asks about an account, and when it says nothing: on simulated doors, time moved by hand."""

import asyncio
from collections.abc import Awaitable

import msgspec
import orjson
import pytest

from actors.door_wire import (
    AccountView,
    AlertsView,
    Answer,
    Applied,
    AppliedView,
    BadQuestion,
    Balance,
    BalanceView,
    CarriedOn,
    CarryOn,
    Check,
    Checked,
    CloseLease,
    Describe,
    Extend,
    ExtendLease,
    FieldLimit,
    FindRated,
    LeaseAnswered,
    LeaseClosed,
    NotFound,
    Payers,
    Question,
    RatedAt,
    RecentAlerts,
    Recovering,
    Release,
    Released,
    ReratedView,
    ShowPayers,
    ShowRerated,
    Status,
    StatusView,
    TakeLease,
    TooLate,
    WrongOwner,
)
from engine.corrections import AMEND, CANCEL
from engine.events import Grant, Leases, OpenAccount, Owner, SetScope, Slices, Tick, command_digest
from engine.holds import read_token
from engine.money import parse_amount
from tests.actors.shard_rig import CONTROL_KEY, Process, Rig

PATIENCE_S = 5.0


@pytest.fixture
async def process(rig: Rig) -> Process:
    """Ready for partition 0, where `rig.account(0)` has three dollars; a call costs one."""
    rig.control(0, Grant(rig.open(0), "grant", "lot", "paid", "3", "USD"))
    return await ready(rig, "a", 0)


async def ready(rig: Rig, name: str, *partitions: int, lease_s: float = float("inf")) -> Process:
    process = rig.process(name)
    await process.join(*partitions, lease_s=lease_s)
    process.run()
    await rig.clock.until(lambda: all(process.stage(number) == "ready" for number in partitions), 20)
    return process


async def told(rig: Rig, answer: Awaitable[Answer]) -> Answer:
    """The answer, with time passing as it takes."""
    task = asyncio.ensure_future(answer)
    await rig.clock.until(task.done, 60)
    return await task


async def checked(rig: Rig, process: Process, ttl_ms: int | None = 60_000, n: int = 1) -> Checked:
    question = Check(rig.account(0), type="call", n=n, ttl_ms=ttl_ms)
    answer = await told(rig, process.shard.answer(question, PATIENCE_S))
    assert isinstance(answer, Checked), answer
    return answer


def held_event(rig: Rig, token: str, event_id: str, *, final: bool = True) -> None:
    event = orjson.loads(rig.event(rig.account(0), event_id)) | {"hold": token, "holdfinal": final}
    rig.broker.append("usage", rig.account(0).encode(), orjson.dumps(event))


# ------------------------------------------------------------------------------------------------- checks and holds


async def test_a_check_without_a_hold_is_answered_at_once(rig: Rig, process: Process) -> None:
    answer = process.shard.answer_now(Check(rig.account(0), type="call"))
    assert isinstance(answer, Checked)
    assert (answer.allowed, answer.price, answer.hold, answer.version) == (True, "1", None, 1)
    assert answer.wallet is not None
    assert (answer.wallet.booked, answer.wallet.held, answer.wallet.available) == ("3", "0", "3")
    as_of = answer.as_of
    assert (as_of.partition, as_of.epoch, as_of.offset, as_of.lag_records) == (0, 1, rig.end(0), 0)


async def test_the_first_hold_waits_until_its_slice_is_in_the_log_and_the_next_does_not(
    rig: Rig, process: Process
) -> None:
    account = rig.account(0)
    question = Check(account, type="call", ttl_ms=60_000)
    assert process.shard.answer_now(question) is None
    assert rig.controls(0, Slices) == [], "asking whether it can be answered at once writes nothing"
    first = await checked(rig, process)
    assert first.allowed and first.hold is not None and first.wallet is not None
    (slices,) = rig.controls(0, Slices)
    assert isinstance(slices, Slices)
    assert slices.epoch == 1 and [name for name, _ in slices.of] == [account]
    assert slices.linger_us >= 185_000_000, "two minutes of hold, five seconds, a minute of delay"
    assert first.as_of.offset == rig.end(0), "approved only behind the slice"
    hold = read_token(CONTROL_KEY, first.hold.token)
    assert (hold.account, hold.id) == (account, first.hold.id)
    assert 59_000 <= first.hold.valid_for_ms <= 60_000
    assert first.hold.expires_in_ms - first.hold.valid_for_ms == 5_000
    assert first.wallet.held == "1"


async def test_all_that_wait_for_slices_wait_for_one_record(rig: Rig, process: Process) -> None:
    rig.control(0, Grant(rig.account(0), "more", "more", "paid", "1000", "USD"))
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    question = Check(rig.account(0), type="call", ttl_ms=60_000)
    asking = [asyncio.ensure_future(process.shard.answer(question, PATIENCE_S)) for _ in range(3)]
    await rig.clock.until(lambda: all(task.done() for task in asking), 60)
    answers = [task.result() for task in asking]
    assert all(isinstance(answer, Checked) and answer.allowed for answer in answers)
    assert len(rig.controls(0, Slices)) == 1


async def test_a_hold_is_settled_by_its_event_and_released_by_its_holder(rig: Rig, process: Process) -> None:
    first, second = await checked(rig, process), await checked(rig, process)
    assert first.hold is not None and second.hold is not None
    held_event(rig, first.hold.token, "e1")
    await rig.clock.until(lambda: process.counts(0).get("rated") == 1, 5)
    assert open_holds(process) == 1
    released = process.shard.answer_now(Release(second.hold.token))
    assert isinstance(released, Released) and released.was_open
    assert open_holds(process) == 0
    again = process.shard.answer_now(Release(second.hold.token))
    assert isinstance(again, Released) and not again.was_open
    balance = process.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert (balance.wallet.booked, balance.wallet.held) == ("2", "0")


async def test_a_hold_is_extended_in_time(rig: Rig, process: Process) -> None:
    first = await checked(rig, process, ttl_ms=10_000)
    assert first.hold is not None
    await rig.clock.advance(5)
    answer = await told(rig, process.shard.answer(Extend(first.hold.token, 60_000), PATIENCE_S))
    assert isinstance(answer, Checked) and answer.allowed and answer.hold is not None
    assert answer.hold.id == first.hold.id
    assert answer.hold.valid_for_ms > 59_000


async def test_an_abandoned_hold_is_reclaimed_by_a_tick_once_nothing_of_it_can_be_reported(
    rig: Rig, process: Process
) -> None:
    answer = await checked(rig, process, ttl_ms=10_000)
    ticks = len(rig.controls(0, Tick))
    assert answer.allowed
    await rig.clock.advance(74)
    assert open_holds(process) == 1, "valid for 10 s, expired after 15, reported until 75"
    assert len(rig.controls(0, Tick)) == ticks
    await rig.clock.advance(4)
    assert open_holds(process) == 0
    assert len(rig.controls(0, Tick)) > ticks, "nothing else moved log time"


def open_holds(process: Process) -> int:
    (partition,) = process.shard.status().partitions
    return partition.open_holds


# ------------------------------------------------------------------------------------------------------- ownership


async def test_a_successor_withholds_what_was_approved_until_it_is_reported(rig: Rig, process: Process) -> None:
    await rig.clock.advance(250)  # what was approved may lie in any segment since its slice could have been made
    holds = [await checked(rig, process) for _ in range(3)]
    for task in process.tasks:
        task.cancel()
    rig.database.members["a"].lease_until_s = 0.0
    successor = await ready(rig, "b", 0)
    denied = await checked(rig, successor)
    assert (denied.allowed, denied.reason, denied.transient) == (False, "withheld", True)
    for number, hold in enumerate(holds):
        assert hold.hold is not None
        if number < 2:
            held_event(rig, hold.hold.token, f"e{number}")
    await rig.clock.until(lambda: successor.counts(0).get("rated") == 2, 5)
    balance = successor.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert (balance.wallet.booked, balance.wallet.held) == ("1", "1")
    await rig.clock.advance(250)
    balance = successor.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert (balance.wallet.booked, balance.wallet.held) == ("1", "0"), "nothing of it can be reported any more"


async def test_a_shard_that_dies_between_slice_and_approval_leaves_the_slice_withheld(rig: Rig) -> None:
    rig.control(0, Grant(rig.open(0), "grant", "lot", "paid", "1", "USD"))

    async def gate(site: str) -> None:
        if site == "append.after" and rig.controls(0, Slices):
            await asyncio.Event().wait()

    dying = rig.process("a", gate)
    await dying.join(0)
    dying.run()
    await rig.clock.until(lambda: dying.stage(0) == "ready", 20)
    asking = asyncio.ensure_future(dying.shard.answer(Check(rig.account(0), type="call", ttl_ms=1000), PATIENCE_S))
    await rig.clock.until(lambda: bool(rig.controls(0, Slices)), 5)
    for task in dying.tasks:
        task.cancel()
    asking.cancel()
    rig.database.members["a"].lease_until_s = 0.0
    successor = await ready(rig, "b", 0)
    assert (await checked(rig, successor)).reason == "withheld"


async def test_who_owns_nothing_sends_on(rig: Rig, process: Process) -> None:
    for question in (Check(rig.account(1)), Balance(rig.account(1)), Describe(rig.account(1))):
        assert process.shard.answer_now(question) == WrongOwner(1)
    assert process.shard.answer_now(Applied(1, 0)) == WrongOwner(1)


async def test_a_lease_that_ran_out_closes_the_door(rig: Rig) -> None:
    rig.control(0, Grant(rig.open(0), "grant", "lot", "paid", "3", "USD"))
    process = await ready(rig, "a", 0, lease_s=10)
    token = (await checked(rig, process)).hold
    assert token is not None
    await rig.clock.advance(10)
    questions: list[Question] = [
        Check(rig.account(0), type="call"),
        Extend(token.token, 1_000),
        Release(token.token),
        Balance(rig.account(0)),
        Describe(rig.account(0)),
        Applied(0, 0),
        RecentAlerts(rig.account(0), 0),
        FindRated(rig.account(0), "test", "e1"),
    ]
    for question in questions:
        answer = process.shard.answer_now(question)
        assert isinstance(answer, Recovering), question
        assert answer.booked == ("3" if isinstance(question, Check | Balance | Describe) else None)
    process.assign(0, lease_s=10)
    assert isinstance(process.shard.answer_now(Check(rig.account(0), type="call")), Checked)


async def test_who_wakes_and_renews_its_lease_is_silent_about_what_another_has_claimed(rig: Rig) -> None:
    """The heartbeat is back before the loop has looked at what it says."""
    rig.control(0, Grant(rig.open(0), "grant", "lot", "paid", "3", "USD"))
    process = await ready(rig, "a", 0, lease_s=10)
    question = Check(rig.account(0), type="call")
    await rig.clock.advance(20)
    now_s = rig.clock.boot_s()
    process.lease.extend(now_s + 10, frozenset(), frozenset({0}), now_s)
    assert isinstance(process.shard.answer_now(question), Checked), "it is to be handed over, and is still ours"
    process.lease.extend(now_s + 10, frozenset(), frozenset(), now_s)
    assert isinstance(process.shard.answer_now(question), Recovering)


async def test_an_answer_that_was_found_as_the_lease_ran_out_is_not_given(
    rig: Rig, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = iter([True, False])
    monkeypatch.setattr(process.lease, "valid", lambda: next(valid))
    assert isinstance(process.shard.answer_now(Check(rig.account(0), type="call")), Recovering)


async def test_an_owner_that_has_read_of_a_higher_one_is_silent(rig: Rig, process: Process) -> None:
    rig.control(0, Owner(7))
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    for question in (Check(rig.account(0), type="call", ttl_ms=1000), Balance(rig.account(0))):
        assert isinstance(process.shard.answer_now(question), Recovering)


async def test_after_a_commit_of_unknown_outcome_the_shard_goes_on_under_its_new_epoch(
    rig: Rig, process: Process
) -> None:
    assert (await checked(rig, process)).as_of.epoch == 1
    process.store.commit_faults = ["unknown_not_done"]
    rig.use(rig.account(0), "e1")
    await rig.clock.until(lambda: rig.database.partition(0).epoch == 2, 20)
    await rig.clock.advance(1)
    answer = await checked(rig, process)
    assert answer.as_of.epoch == 2
    assert (answer.allowed, answer.reason) == (False, "withheld"), "what it approved before belongs to a closed slice"


async def test_an_epoch_that_could_not_be_announced_is_announced_when_kafka_is_back(rig: Rig, process: Process) -> None:
    async def gate(site: str) -> None:
        if site == "settle_commit.after":
            rig.broker.down = True

    process.store.commit_faults = ["unknown_done"]
    process.store._gate = gate
    rig.use(rig.account(0), "e1")
    await rig.clock.until(lambda: rig.database.partition(0).epoch == 2, 20)
    await rig.clock.advance(1)
    assert isinstance(process.shard.answer_now(Balance(rig.account(0))), Recovering)
    rig.broker.down = False
    await rig.clock.advance(1)
    assert rig.controls(0, Owner)[-1] == Owner(2)
    assert isinstance(process.shard.answer_now(Balance(rig.account(0))), BalanceView)


async def test_nothing_is_approved_behind_the_cut_of_a_partition_that_is_given_back(rig: Rig, process: Process) -> None:
    answers: list[Answer | None] = []

    async def gate(site: str) -> None:
        if site == "commit.before":
            answers.append(process.shard.answer_now(Check(rig.account(0), type="call", ttl_ms=1000)))
            answers.append(process.shard.answer_now(Balance(rig.account(0))))

    process.store._gate = gate
    rig.use(rig.account(0), "e1")
    process.assign()
    await rig.clock.until(lambda: process.view(0) is None, 20)
    assert isinstance(answers[-2], Recovering)
    assert isinstance(answers[-1], BalanceView)
    assert process.shard.answer_now(Balance(rig.account(0))) == WrongOwner(0)


async def test_who_waits_for_a_slice_of_a_lost_partition_is_sent_on(rig: Rig, process: Process) -> None:
    rig.broker.down = True
    asking = asyncio.ensure_future(process.shard.answer(Check(rig.account(0), type="call", ttl_ms=1000), PATIENCE_S))
    await rig.clock.advance(1)
    process.assign()
    await rig.clock.until(asking.done, 10)
    assert await asking == WrongOwner(0)


async def test_who_waits_for_an_offset_of_a_lost_partition_is_sent_on(rig: Rig, process: Process) -> None:
    asking = asyncio.ensure_future(process.shard.answer(Applied(0, rig.end(0) + 9), PATIENCE_S))
    process.assign()
    await rig.clock.until(asking.done, 10)
    assert await asking == WrongOwner(0)


async def test_a_slice_that_takes_too_long_is_no_answer(rig: Rig, process: Process) -> None:
    rig.broker.down = True
    assert await process.shard.answer(Check(rig.account(0), type="call", ttl_ms=1000), 0.05) == TooLate()
    rig.broker.down = False
    assert (await checked(rig, process)).allowed


# ------------------------------------------------------------------------------------------------------ other questions


async def test_a_command_is_answered_when_it_is_folded(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    offset = rig.control(0, SetScope(account, "declare", "team:red"))
    digest = command_digest(msgspec.json.encode(SetScope(account, "declare", "team:red")))
    answer = await told(rig, process.shard.answer(Applied(0, offset, account, "declare", digest), PATIENCE_S))
    assert isinstance(answer, AppliedView) and answer.answer == "applied"
    assert answer.as_of.offset > offset
    reused = process.shard.answer_now(Applied(0, offset, account, "declare", b"another"))
    assert isinstance(reused, AppliedView) and reused.answer == "key_reused"
    refused = rig.control(0, OpenAccount(account, "again", "basic"))
    answer = await told(rig, process.shard.answer(Applied(0, refused, account, "again"), PATIENCE_S))
    assert isinstance(answer, AppliedView) and answer.answer == "account_exists"
    unasked = process.shard.answer_now(Applied(0, offset))
    assert isinstance(unasked, AppliedView) and unasked.answer is None
    assert await process.shard.answer(Applied(0, rig.end(0)), 0.05) == TooLate()


async def test_everything_known_of_an_account_is_told(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    rig.control(0, SetScope(account, "declare", "team:red", "past_due"))
    rig.alarm(0, "low")
    rig.use(account, "e1")
    await checked(rig, process)
    view = process.shard.answer_now(Describe(account))
    assert isinstance(view, AccountView)
    assert (view.account, view.plan, view.currency, view.rated, view.open_holds) == (account, "basic", "USD", 1, 1)
    assert (view.wallet.booked, view.wallet.held, view.wallet.available) == ("2", "1", "1")
    (lot,) = view.lots
    assert (lot.lot, lot.kind, lot.granted, lot.remaining, lot.expired) == ("lot", "paid", "3", "2", "0")
    assert [(scope.scope, scope.standing, scope.spent) for scope in view.scopes] == [
        ("", "active", "1"),
        ("team:red", "past_due", "0"),
    ]
    (rule,) = view.rules
    assert (rule.rule, rule.on) == ("low", {"measure": "balance", "threshold": "0", "clear": "0", "direction": "down"})
    (usage,) = view.usage
    assert (usage.price, usage.cell, usage.quantity, usage.amount) == ("call", (), "1", "1")


async def test_the_unknown_are_not_found(rig: Rig, process: Process) -> None:
    nobody = next(name for name in map(str, range(100)) if process.shard.answer_now(Balance(name)) != WrongOwner(1))
    assert isinstance(process.shard.answer_now(Balance(nobody)), NotFound)
    assert isinstance(process.shard.answer_now(Describe(nobody)), NotFound)
    assert isinstance(process.shard.answer_now(FindRated(nobody, "test", "e1")), NotFound)
    assert isinstance(process.shard.answer_now(ShowPayers(nobody, 0, "")), NotFound)
    check = process.shard.answer_now(Check(nobody, type="call"))
    assert isinstance(check, Checked) and check.reason == "unknown_account"


async def test_alerts_are_told_from_a_sequence_on(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    for number in range(4):
        rig.use(account, f"e{number}")
    rig.alarm(0, "empty")
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    answer = process.shard.answer_now(RecentAlerts(account, 0))
    assert isinstance(answer, AlertsView)
    (body,) = answer.bodies
    assert orjson.loads(body)["data"]["sequence"] == 1
    nothing = process.shard.answer_now(RecentAlerts(account, 1))
    assert isinstance(nothing, AlertsView) and nothing.bodies == ()


async def test_a_rated_event_is_found_at_its_offset(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    offset = rig.use(account, "e1")
    rig.use(account, "e1")  # a duplicate is no second place
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    question = FindRated(account, "test", "e1")
    answer = process.shard.answer_now(question)
    assert isinstance(answer, RatedAt)
    assert (answer.offset, answer.plan, answer.zone, answer.anchor_day) == (offset, "basic", "UTC", 1)
    await rig.clock.until(lambda: process.shard.partitions()[0].checkpointed_offset == rig.end(0), 5)
    committed = process.shard.answer_now(question)
    assert isinstance(committed, RatedAt)
    assert (answer.checkpointed, committed.checkpointed) == (False, True)
    for unknown in (FindRated(account, "test", "e2"), FindRated(account, "elsewhere", "e1")):
        found = process.shard.answer_now(unknown)
        assert isinstance(found, RatedAt) and (found.offset, found.checkpointed) == (None, False)


async def test_who_pays_around_an_instant_is_told_with_the_caps_that_count(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    rig.use(account, "e1")
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    view = process.shard.answer_now(ShowPayers(account, rig.clock.wall_us(), ""))
    assert isinstance(view, Payers)
    assert view.start_us <= rig.clock.wall_us() < view.end_us
    paid = sum(parse_amount(amount) for _, _, amount in view.lots) + parse_amount(view.debt)
    assert paid == sum(map(parse_amount, view.charged.values())) > 0
    before = process.shard.answer_now(ShowPayers(account, 0, "team:red"))
    assert isinstance(before, Payers) and (before.charged, before.lots, before.debt) == ({}, (), "0")


async def test_where_an_event_was_corrected_is_found_with_it(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    original = orjson.loads(rig.event(account, "e1"))
    offsets = [rig.use(account, "e1")]
    for revision in range(3):
        parts = {"original": original} if revision == 2 else {"original": original, "amended": original}
        kind = CANCEL if revision == 2 else AMEND
        body = original | {"id": f"c{revision}", "type": kind, "data": parts | {"revision": revision}}
        offsets.append(rig.broker.append("usage", account.encode(), orjson.dumps(body))[1])
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    found = process.shard.answer_now(FindRated(account, "test", "e1"))
    assert isinstance(found, RatedAt)
    assert [found.offset, *found.corrected] == offsets


async def test_an_offset_is_whole_although_memory_holds_half_of_it(rig: Rig, process: Process) -> None:
    account = rig.account(0)
    rig.broker.skip_offsets(0, (1 << 32) - rig.end(0) - 1)
    offsets = [rig.use(account, f"e{number}") for number in range(3)]
    assert offsets == [(1 << 32) - 1, 1 << 32, (1 << 32) + 1]
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    answers = [process.shard.answer_now(FindRated(account, "test", f"e{number}")) for number in range(3)]
    assert [answer.offset for answer in answers if isinstance(answer, RatedAt)] == offsets


async def test_the_status_counts(rig: Rig, process: Process) -> None:
    for _ in range(4):
        await checked(rig, process)
    status = process.shard.answer_now(Status())
    assert isinstance(status, StatusView)
    assert status.checks == {"allowed": 3, "credit_depleted": 1}
    (partition,) = status.partitions
    assert (partition.stage, partition.open_holds, partition.accounts, partition.lag_records) == ("ready", 3, 1, 0)


# -------------------------------------------------------------------------------------------------------- bad questions


@pytest.mark.parametrize(
    ("field", "question"),
    [
        ("account", Check("")),
        ("account", Check("a\x00b")),
        ("account", Balance("é" * 129)),
        ("scope", Check("account-0", scope="a//b")),
        ("scope", Check("account-0", scope="/".join("abcdefghi"))),
        ("type", Check("account-0", type="")),
        ("type", Check("account-0", ttl_ms=1_000)),
        ("feature", Check("account-0", feature="x" * 257)),
        ("data", Check("account-0", data={str(number): "v" for number in range(65)})),
        ("data.model", Check("account-0", data={"model": "x" * 129})),
        ("reach.model", Check("account-0", reach={"model": ("a", "")})),
        ("reach.model", Check("account-0", reach={"model": ()})),
        ("reach.model", Check("account-0", data={"model": "a"}, reach={"model": ("b",)})),
        ("reach", Check("account-0", reach={"a": tuple("abcdefghij" * 11), "b": tuple("abcdefghij" * 11)})),
        ("n", Check("account-0", n=0)),
        ("ttl", Check("account-0", type="call", ttl_ms=600_001)),
        ("ttl", Check("account-0", type="call", ttl_ms=0)),
        ("bounds.0.fields", Check("account-0", bounds=(FieldLimit((), "1"),))),
        ("bounds.1.fields", Check("account-0", bounds=(FieldLimit(("a",), "1"), FieldLimit(("b", "a"), "1")))),
        ("bounds.0.up_to", Check("account-0", bounds=(FieldLimit(("a",), "1e9"),))),
        ("bounds.0.up_to", Check("account-0", bounds=(FieldLimit(("a",), "-1"),))),
        ("account", FindRated("", "s", "e")),
        ("source", FindRated("account-0", "", "e")),
        ("id", FindRated("account-0", "s", "x" * 257)),
        ("scope", ShowPayers("account-0", 0, "team red")),
        ("time_us", ShowPayers("account-0", -1, "")),
        ("time_us", ShowPayers("account-0", 1 << 57, "")),
        ("token", Release("forged")),
        ("token", Extend("", 1_000)),
    ],
)
async def test_what_breaks_a_limit_is_named(rig: Rig, process: Process, field: str, question: Question) -> None:
    if isinstance(question, Check | Balance | FindRated | ShowPayers) and question.account == "account-0":
        question = msgspec.structs.replace(question, account=rig.account(0))
    answer = process.shard.answer_now(question)
    assert isinstance(answer, BadQuestion), answer
    assert answer.field == field


async def test_a_fault_of_the_engine_is_no_yes(
    rig: Rig, process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.admission.Desk.check", lambda *_: 1 / 0)
    assert process.shard.answer_now(Check(rig.account(0), type="call")) == Recovering(0, 250)
    assert "ZeroDivisionError" in caplog.text


async def test_a_dry_run_of_a_re_rating_is_answered_by_the_owner(rig: Rig, process: Process) -> None:
    answer = await told(rig, process.shard.answer(ShowRerated(rig.account(0), None, 1, 0, 1 << 60), PATIENCE_S))
    assert isinstance(answer, ReratedView)
    assert (answer.account, answer.plan, answer.currency) == (rig.account(0), "basic", "USD")
    assert isinstance(
        process.shard.answer_now(ShowRerated("nobody" + rig.account(0), None, 1, 0, 1)), NotFound | WrongOwner
    )


# ------------------------------------------------------------------------------------------------------------- leases


async def leased(rig: Rig, process: Process, requests: int = 1, least: int = 1) -> LeaseAnswered:
    question = TakeLease(Check(rig.account(0), type="call", ttl_ms=60_000), requests, least)
    answer = await told(rig, process.shard.answer(question, PATIENCE_S))
    assert isinstance(answer, LeaseAnswered), answer
    return answer


async def closed(rig: Rig, process: Process, token: str, events: int) -> LeaseClosed:
    answer = await told(rig, process.shard.answer(CloseLease(token, events), PATIENCE_S))
    assert isinstance(answer, LeaseClosed), answer
    return answer


async def test_a_lease_is_in_the_log_before_it_is_given(rig: Rig, process: Process) -> None:
    question = TakeLease(Check(rig.account(0), type="call", ttl_ms=60_000), 2, 1)
    assert process.shard.answer_now(question) is None
    assert rig.controls(0, Leases) == [], "asking whether it can be answered at once grants nothing"
    answer = await leased(rig, process, 2)
    lease = answer.lease
    assert answer.checked.allowed and lease is not None
    (record,) = rig.controls(0, Leases)
    assert record == Leases(1, (lease.token,), ())
    assert answer.checked.as_of.offset == rig.end(0), "given only behind its record"
    hold = read_token(CONTROL_KEY, lease.token)
    assert (hold.id, hold.requests, lease.requests) == (lease.id, 1, 1)  # of three dollars at most half
    (bound,) = lease.bounds
    assert (bound.fields, bound.up_to, bound.granted) == ((), "1", "1")
    (price,) = lease.prices
    assert (price.meter, price.unit) == ("calls", "1")
    assert 59_000 <= lease.valid_for_ms <= 60_000
    assert lease.expires_in_ms - lease.valid_for_ms == 5_000
    assert lease.report_within_ms - lease.expires_in_ms == 60_000
    assert answer.checked.wallet is not None
    assert (answer.checked.wallet.held, answer.checked.wallet.available) == ("1", "2")
    (status,) = process.shard.status().partitions
    assert (status.leases_open, status.leased, status.unheld) == (1, {"USD": "1"}, {})


async def test_a_lease_is_extended_and_closed_behind_its_last_event(rig: Rig, process: Process) -> None:
    rig.control(0, Grant(rig.account(0), "more", "more", "paid", "7", "USD"))
    await rig.clock.until(lambda: process.shard.partitions()[0].next_offset == rig.end(0), 5)
    first = (await leased(rig, process, 1)).lease
    assert first is not None
    grown = await told(rig, process.shard.answer(ExtendLease(first.token, 2, 1, 60_000), PATIENCE_S))
    assert isinstance(grown, LeaseAnswered) and grown.lease is not None
    assert (grown.lease.id, grown.lease.requests) == (first.id, 3)
    held_event(rig, first.token, "e1")
    waiting = await closed(rig, process, grown.lease.token, 2)
    assert (waiting.is_open, waiting.events_rated) == (True, 1)
    held_event(rig, grown.lease.token, "e2")
    await rig.clock.until(lambda: process.counts(0).get("rated") == 2, 5)
    records = len(rig.controls(0, Leases))
    over = await closed(rig, process, first.token, 9)
    assert (over.is_open, over.events_rated) == (False, 2)
    assert len(rig.controls(0, Leases)) == records, "the first word stands; another is not written"
    balance = process.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert (balance.wallet.booked, balance.wallet.held) == ("8", "0")
    refused = await told(rig, process.shard.answer(ExtendLease(first.token, 1, 1, 60_000), PATIENCE_S))
    assert isinstance(refused, LeaseAnswered)
    assert (refused.checked.reason, refused.lease) == ("hold_not_open", None)


async def test_an_extension_that_the_log_takes_too_late_is_told_so_and_holds_nothing(
    rig: Rig, process: Process
) -> None:
    """Kafka is away for longer than the lease can still be reported."""
    brief = TakeLease(Check(rig.account(0), type="call", ttl_ms=1_000), 1, 1)
    granted = await told(rig, process.shard.answer(brief, PATIENCE_S))
    assert isinstance(granted, LeaseAnswered) and granted.lease is not None
    first = granted.lease
    records = len(rig.controls(0, Leases))
    rig.broker.down = True
    asking = asyncio.ensure_future(process.shard.answer(ExtendLease(first.token, 0, 1, 60_000), 600.0))
    await rig.clock.advance(first.report_within_ms / 1000 + 2)
    assert not asking.done()
    rig.broker.down = False
    rig.broker.append("usage", rig.account(0).encode(), rig.event(rig.account(0), "later"))
    await rig.clock.until(asking.done, 20)
    answer = asking.result()
    assert isinstance(answer, LeaseAnswered), answer
    assert (answer.checked.allowed, answer.checked.reason, answer.lease) == (False, "hold_not_open", None)
    assert len(rig.controls(0, Leases)) == records + 1, "it is in the log, and changes nothing there"
    (status,) = process.shard.status().partitions
    assert (status.leases_open, status.leased) == (0, {})


async def test_a_refused_lease_writes_nothing_and_says_why(rig: Rig, process: Process) -> None:
    answer = await leased(rig, process, 3, 2)
    assert (answer.checked.allowed, answer.checked.reason, answer.lease) == (False, "strict", None)
    assert answer.checked.transient
    assert rig.controls(0, Leases) == []
    assert process.shard.status().checks == {"strict": 1}


@pytest.mark.parametrize(
    ("requests", "least", "check", "field"),
    [
        (0, 1, {}, "requests"),
        (1_000_001, 1, {}, "requests"),
        (3, 0, {}, "least"),
        (3, 4, {}, "least"),
        (1, 1, {"type": None}, "type"),
        (1, 1, {"ttl_ms": None}, "type"),
        (1, 1, {"n": 2}, "n"),
        (1, 1, {"feature": "f"}, "n"),
        (1, 1, {"scope": "a//b"}, "scope"),
        (1, 1, {"ttl_ms": 10**9}, "ttl"),
    ],
)
async def test_a_lease_that_makes_no_sense_is_refused_by_field(
    rig: Rig, process: Process, requests: int, least: int, check: dict[str, object], field: str
) -> None:
    of = Check(rig.account(0), **({"type": "call", "ttl_ms": 60_000} | check))  # type: ignore[arg-type]
    answer = await told(rig, process.shard.answer(TakeLease(of, requests, least), PATIENCE_S))
    assert isinstance(answer, BadQuestion)
    assert answer.field == field


async def test_a_hold_is_no_lease_and_a_lease_no_hold(rig: Rig, process: Process) -> None:
    hold, lease = (await checked(rig, process)).hold, (await leased(rig, process)).lease
    assert hold is not None and lease is not None
    for question in (ExtendLease(hold.token, 1, 1, 60_000), CloseLease(hold.token, 1)):
        answer = await told(rig, process.shard.answer(question, PATIENCE_S))
        assert isinstance(answer, BadQuestion) and answer.field == "token"
    bad = await told(rig, process.shard.answer(CloseLease(lease.token, -1), PATIENCE_S))
    assert isinstance(bad, BadQuestion) and bad.field == "events"
    released = process.shard.answer_now(Release(lease.token))
    assert isinstance(released, Released) and not released.was_open
    extended = process.shard.answer_now(Extend(lease.token, 60_000))
    assert isinstance(extended, Checked) and extended.reason == "hold_not_open"


async def test_a_lease_whose_owner_was_replaced_before_it_was_written_was_never_given(
    rig: Rig, process: Process
) -> None:
    rig.broker.down = True
    question = TakeLease(Check(rig.account(0), type="call", ttl_ms=60_000), 1, 1)
    asking = asyncio.ensure_future(process.shard.answer(question, PATIENCE_S))
    await rig.clock.advance(0.5)
    assert not asking.done()
    rig.broker.down = False
    rig.control(0, Owner(9))
    await rig.clock.until(asking.done, 20)
    assert isinstance(asking.result(), Recovering | WrongOwner | TooLate)
    assert not isinstance(asking.result(), LeaseAnswered)


async def test_a_successor_closes_what_its_predecessor_granted(rig: Rig, process: Process) -> None:
    lease = (await leased(rig, process)).lease
    assert lease is not None
    for task in process.tasks:
        task.cancel()
    rig.database.members["a"].lease_until_s = 0.0
    other = await ready(rig, "b", 0)
    balance = other.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert balance.wallet.held == "1"
    assert (await closed(rig, other, lease.token, 0)).is_open is False
    balance = other.shard.answer_now(Balance(rig.account(0)))
    assert isinstance(balance, BalanceView)
    assert balance.wallet.held == "0"


# -------------------------------------------------------------------------------------------------- running streams


async def carried_on(rig: Rig, process: Process, token: str, **more: object) -> Answer:
    event = orjson.loads(rig.event(rig.account(0), "stream")) | {"hold": token}
    question = CarryOn(token, orjson.dumps(event), 60_000, **more)  # type: ignore[arg-type]
    return await told(rig, process.shard.answer(question, PATIENCE_S))


async def test_a_running_stream_is_told_what_its_hold_covers(rig: Rig, process: Process) -> None:
    hold = (await checked(rig, process, n=2)).hold
    assert hold is not None
    answer = await carried_on(rig, process, hold.token)
    assert isinstance(answer, CarriedOn)
    (covered,) = answer.covered
    assert (answer.action, covered.fields, covered.left) == ("continue", (), "1")
    assert answer.checked.hold is not None and answer.checked.hold.id == hold.id
    held_event(rig, hold.token, "stream")
    await rig.clock.until(lambda: process.counts(0).get("rated") == 1, 5)
    stopped = await carried_on(rig, process, hold.token)
    assert isinstance(stopped, CarriedOn)
    assert (stopped.action, stopped.checked.reason) == ("continue", "hold_not_open")


async def test_a_stream_that_makes_no_sense_is_refused_by_field(rig: Rig, process: Process) -> None:
    hold, lease = (await checked(rig, process)).hold, (await leased(rig, process)).lease
    assert hold is not None and lease is not None
    for token, more, field in (
        (lease.token, {}, "token"),
        (hold.token, {"cheaper": ({},) * 9}, "cheaper"),
        (hold.token, {"cheaper": ({"model": ""},)}, "cheaper.0.model"),
        (hold.token, {"cheaper": ({str(number): "x" for number in range(65)},)}, "cheaper.0"),
        (hold.token, {"ahead": (FieldLimit(("a",), "x"),)}, "bounds.0.up_to"),
    ):
        answer = await carried_on(rig, process, token, **more)
        assert isinstance(answer, BadQuestion)
        assert answer.field == field
    for event in (b"{}", rig.event(rig.account(0), "e").replace(b'"call"', b'"unheard"')):
        bad = await told(rig, process.shard.answer(CarryOn(hold.token, event, 60_000), PATIENCE_S))
        assert isinstance(bad, BadQuestion)
        assert bad.field == "event"
