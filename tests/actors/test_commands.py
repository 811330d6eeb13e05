"""A command is answered by the account's owner, after it was read back; without an answer nobody claims to know."""

import asyncio

import msgspec
import pytest

from actors.commands import CommandDesk, CommandUnanswered, CommandUnread, derived_name, new_command_key
from actors.door_wire import Recovering, TooLate
from actors.ports import Outgoing
from engine.catalog import compile_catalogue
from engine.events import CatalogueMarker, Malformed, OpenAccount, seal
from engine.partition import Partition
from tests.actors.web.fakes import START_US, FakeClock
from tests.actors.web.house import KEY, TOPIC, Owner, document

WITHIN_S = 5.0


@pytest.fixture
async def owner() -> Owner:
    made = Owner(FakeClock())
    marker = msgspec.json.encode(CatalogueMarker(1, START_US))
    await made.append([Outgoing("usage", seal(KEY, TOPIC, 0, marker), partition=0)])
    return made


@pytest.fixture
def desk(owner: Owner) -> CommandDesk:
    return CommandDesk(owner, owner, KEY, TOPIC, 1)


def opening(key: str = "k1", **changes: object) -> OpenAccount:
    return msgspec.structs.replace(OpenAccount("acme", key, "starter"), **changes)


async def test_the_answer_is_the_engines_own(desk: CommandDesk, owner: Owner) -> None:
    answered = await desk.submit(opening(), WITHIN_S)
    assert (answered.applied, answered.answer, answered.offset) == (True, "applied", 1)
    assert (answered.partition, answered.epoch, answered.log_time_us) == (0, 1, START_US)
    refused = await desk.submit(opening("k2"), WITHIN_S)
    assert (refused.applied, refused.answer) == (False, "account_exists")


async def test_the_same_key_and_command_is_one_and_another_command_is_told_so(desk: CommandDesk, owner: Owner) -> None:
    await desk.submit(opening(), WITHIN_S)
    assert (await desk.submit(opening(), WITHIN_S)).answer == "applied"
    assert (await desk.submit(opening(plan="none"), WITHIN_S)).answer == "key_reused"
    assert owner.fold.counts == {"catalogue": 1, "applied": 1, "repeated": 1, "refused.key_reused": 1}


async def test_a_command_is_sealed_for_its_accounts_own_partition(owner: Owner) -> None:
    asked: list[Outgoing] = []

    class Log:
        async def append(self, records: list[Outgoing]) -> list[int]:
            asked.extend(records)
            return [0]

    desk = CommandDesk(Log(), owner, KEY, TOPIC, 8)  # type: ignore[arg-type]  # a list is a sequence
    with pytest.raises(CommandUnread):
        await desk.submit(opening(), WITHIN_S)
    (record,) = asked
    number = record.partition
    assert number is not None and 0 <= number < 8
    library = {1: compile_catalogue(1, document())}
    homes = [Partition(each, 8, TOPIC, KEY, library) for each in range(8)]
    for home in homes:
        home.apply(0, START_US // 1000, None, record.value)
    told = [home.counts for home in homes]
    assert told.pop(number) == {"refused.unknown_plan": 1}, "no catalogue is in force, but the command was understood"
    assert told == [{"dead_lettered.bad_mac": 1}] * 7


async def test_what_no_owner_could_read_is_refused_before_it_is_written(desk: CommandDesk, owner: Owner) -> None:
    with pytest.raises(Malformed):
        await desk.submit(opening(plan="x" * 300), WITHIN_S)
    assert len(owner.log) == 1


async def test_a_dead_letter_is_no_answer(desk: CommandDesk, owner: Owner) -> None:
    owner.fold.skips = frozenset({1})
    with pytest.raises(CommandUnread) as lost:
        await desk.submit(opening(), WITHIN_S)
    assert (lost.value.partition, lost.value.offset) == (0, 1)


async def test_without_an_answer_the_key_says_how_to_find_out(desk: CommandDesk, owner: Owner) -> None:
    owner.silent = True
    with pytest.raises(CommandUnanswered) as silent:
        await desk.submit(opening(), WITHIN_S)
    assert (silent.value.command_key, silent.value.appended) == ("k1", True)
    owner.silent = False
    owner.recovering = Recovering(0, 100)
    with pytest.raises(CommandUnanswered) as recovering:
        await desk.submit(opening(), WITHIN_S)
    assert recovering.value.appended
    owner.recovering = None
    assert (await desk.submit(opening(), WITHIN_S)).applied
    assert owner.fold.counts["repeated"] == 2
    owner.away = True
    with pytest.raises(CommandUnanswered) as away:
        await desk.submit(opening("k2"), WITHIN_S)
    assert not away.value.appended


async def test_a_log_or_an_owner_that_hangs_is_given_up_in_time(owner: Owner) -> None:
    class Hanging:
        async def append(self, records: object) -> list[int]:
            await asyncio.Event().wait()
            return []

    class Late:
        async def ask(self, account: str, question: object, within_s: float) -> TooLate:
            return TooLate()

    for appends, owners, appended in ((Hanging(), owner, False), (owner, Late(), True)):
        desk = CommandDesk(appends, owners, KEY, TOPIC, 1)
        with pytest.raises(CommandUnanswered) as unanswered:
            await desk.submit(opening(), 0.05)
        assert unanswered.value.appended is appended


def test_names_follow_from_account_and_key() -> None:
    assert derived_name("lot", "acme", "k1") == derived_name("lot", "acme", "k1")
    names = {derived_name("lot", account, key) for account in ("a", "b") for key in ("1", "2")}
    assert len(names) == 4 and all(name.startswith("lot_") for name in names)
    assert new_command_key() != new_command_key()
