"""Asking the doors, which are the service's own, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.door_wire import Checked, Recovering, TooLate, WrongOwner
from tallygate_sdk import Unavailable
from tallygate_sdk.door_wire import Answer, BalanceQuestion, BalanceView, CheckQuestion
from tallygate_sdk.door_wire import Checked as Told
from tallygate_sdk.doors import DoorAway, Doors
from tests.sdk.door_rig import TOKEN, Rig, as_of


def question(feature: str | None = None) -> CheckQuestion:
    return CheckQuestion("acme", "", None, {}, {}, (), 1, feature, None)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.stop()


@pytest.fixture
async def doors(rig: Rig) -> AsyncIterator[Doors]:
    made = Doors(rig.read_table, TOKEN)
    yield made
    made.close()


async def ask(doors: Doors, within_s: float = 10.0, feature: str | None = None) -> Answer:
    return await doors.ask("acme", question(feature), asyncio.get_running_loop().time() + within_s)


async def test_the_owner_answers_and_the_table_is_read_once(rig: Rig, doors: Doors) -> None:
    rig.owns(await rig.shard(7), partitions=4)
    for _ in range(5):
        answer = await ask(doors)
        assert isinstance(answer, Told) and answer.allowed and answer.as_of.epoch == 7
    balance = await doors.ask("acme", BalanceQuestion("acme"), asyncio.get_running_loop().time() + 10)
    assert isinstance(balance, BalanceView) and balance.wallet.booked == "12.5"
    assert rig.read == 1


async def test_questions_are_pipelined_and_each_gets_its_own_answer(rig: Rig, doors: Doors) -> None:
    rig.owns(await rig.shard(7))
    answers = await asyncio.gather(*(ask(doors, feature=str(number)) for number in range(500)))
    assert [answer.feature for answer in answers if isinstance(answer, Told)] == [str(n) for n in range(500)]
    assert len(rig.shards[0].door.connections) == 2


async def test_a_partition_that_has_moved_is_followed(rig: Rig, doors: Doors) -> None:
    old, new = await rig.shard(7), await rig.shard(8)
    rig.owns(old)
    await ask(doors)
    old.says = lambda asked: WrongOwner(0)
    rig.owns(new)
    answer = await ask(doors)
    assert isinstance(answer, Told) and answer.as_of.epoch == 8 and rig.read == 2


async def test_an_owner_that_has_died_is_replaced(rig: Rig, doors: Doors) -> None:
    old, new = await rig.shard(7), await rig.shard(8)
    rig.owns(old)
    await ask(doors)
    await old.door.stop()
    rig.owns(new)
    answer = await ask(doors)
    assert isinstance(answer, Told) and answer.as_of.epoch == 8


async def test_an_owner_that_has_been_replaced_is_not_believed(rig: Rig, doors: Doors) -> None:
    """It still answers, from a lower epoch than one that has spoken; and a table that is behind does not bring it back."""
    old, new = await rig.shard(7), await rig.shard(8)
    rig.owns(new)
    await ask(doors)
    new.says = lambda asked: Checked(True, as_of(7))
    with pytest.raises(DoorAway, match="its owner has changed"):
        await ask(doors, 0.2)
    rig.owns(old)
    with pytest.raises(DoorAway):
        await ask(doors, 0.2)
    assert old.heard == [], "the table names it with a lower epoch"


@pytest.mark.parametrize("said", [TooLate(), Recovering(0, 250, "1")])
async def test_an_owner_that_is_not_ready_is_left_to_http(rig: Rig, doors: Doors, said: TooLate | Recovering) -> None:
    shard = await rig.shard(7)
    rig.owns(shard)
    shard.says = lambda asked: said
    with pytest.raises(DoorAway, match="not ready"):
        await ask(doors)
    assert len(shard.heard) == 1


async def test_a_question_that_may_have_been_received_is_not_put_again(rig: Rig, doors: Doors) -> None:
    shard = await rig.shard(7)
    rig.owns(shard)
    await ask(doors)
    shard.says = lambda asked: None
    with pytest.raises(DoorAway, match="no answer in time; what was asked may have happened"):
        await ask(doors, 0.2)
    waiting = asyncio.create_task(ask(doors))
    while len(shard.heard) < 3:
        await asyncio.sleep(0.01)
    await shard.door.stop()
    with pytest.raises(DoorAway, match="broke"):
        await waiting
    assert len(shard.heard) == 3


async def test_a_wrong_token_or_a_table_that_cannot_be_read_is_a_door_that_is_away(rig: Rig) -> None:
    rig.owns(await rig.shard(7))
    stranger = Doors(rig.read_table, "wrong")
    with pytest.raises(DoorAway, match="could not be reached"):
        await ask(stranger, 0.3)
    stranger.close()

    async def fail() -> None:
        raise Unavailable("away")

    lost = Doors(fail, TOKEN)  # type: ignore[arg-type]
    with pytest.raises(DoorAway, match="routing table"):
        await ask(lost, 0.2)
    lost.close()


async def test_it_can_be_used_again_after_a_time_without_owners(rig: Rig, doors: Doors) -> None:
    rig.table = rig.table.__class__(1, ())
    with pytest.raises(DoorAway, match="no shard owns it"):
        await ask(doors, 0.2)
    rig.owns(await rig.shard(9))
    assert isinstance(await ask(doors), Told)
