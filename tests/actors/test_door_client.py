"""Asking through real sockets: what is asked again, what must not be, and how the client finds a moved owner."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from actors.door import Door
from actors.door_client import Doors, DoorSettings, DoorUnavailable, Route
from actors.door_wire import (
    Answer,
    Applied,
    AppliedView,
    AsOf,
    Balance,
    BalanceView,
    CarriedOn,
    CarryOn,
    Check,
    Checked,
    Extend,
    ExtendLease,
    LeaseAnswered,
    NotFound,
    Question,
    Recovering,
    Release,
    Status,
    StatusView,
    TakeLease,
    WalletView,
    WrongOwner,
    door_token,
)
from actors.ports import Doorway, StoreUnavailable
from engine.placement import partition_for

TOKEN = door_token(b"k" * 32)
WALLET = WalletView("USD", "1", "0", "1", None)
SETTINGS = DoorSettings(refresh_s=0.05, pause_s=0.01, connect_timeout_s=0.5)
WITHIN_S = 5.0
PARTITIONS = 4
CUT = object()  # instead of an answer: the connection breaks


def as_of(epoch: int = 1, partition: int = 0) -> AsOf:
    return AsOf(partition, epoch, 10, 20, 0)


def view(epoch: int = 1) -> BalanceView:
    return BalanceView(WALLET, as_of(epoch))


class Shard:
    """A door whose answers are given in advance; the last one is repeated."""

    def __init__(self, name: str, *answers: object) -> None:
        self.name = name
        self.port = 0
        self.asked: list[Question] = []
        self.answers = list(answers) or [view()]
        self.silent = asyncio.Event()  # never set: who waits for it waits until the deadline
        self.door = Door(self, name, TOKEN)

    def answer_now(self, question: Question) -> Answer | None:
        if isinstance(question, Status):
            return StatusView(self.name, self.name, 1, 1.0, 1.0, {}, (), 0, 0)
        self.asked.append(question)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is CUT:
            for connection in list(self.door.connections):
                connection.cut()
            return None
        return answer  # type: ignore[return-value]

    async def answer(self, question: Question, within_s: float) -> Answer:
        await self.silent.wait()
        raise AssertionError

    def owns(self, epochs: dict[int, int]) -> Doorway:
        return Doorway(self.name, "127.0.0.1", self.port, epochs)


class Table:
    """The port `Directory`, written by the test."""

    def __init__(self) -> None:
        self.rows: list[Doorway] = []
        self.away = False
        self.reads = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def doorways(self) -> list[Doorway]:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return list(self.rows)


class World:
    """Shards, the routing table, and one client."""

    def __init__(self) -> None:
        self.table = Table()
        self.doors = Doors(self.table, TOKEN, PARTITIONS, SETTINGS)
        self._shards: list[Shard] = []

    async def shard(self, *answers: object, name: str = "a") -> Shard:
        shard = Shard(name, *answers)
        shard.port = await shard.door.start("127.0.0.1")
        self._shards.append(shard)
        return shard

    async def start(self, *rows: Doorway) -> None:
        self.table.rows = list(rows)
        await self.doors.start()

    async def stop(self) -> None:
        await self.doors.stop()
        for shard in self._shards:
            await shard.door.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


async def test_an_account_is_asked_at_its_owner(world: World) -> None:
    shards = [await world.shard(name=f"shard-{number}") for number in range(PARTITIONS)]
    await world.start(*(shard.owns({number: 7}) for number, shard in enumerate(shards)))
    for account in ("acme", "globex", "initech", "umbrella", "hooli"):
        assert await world.doors.ask(account, Balance(account), WITHIN_S) == view()
        assert shards[partition_for(account.encode(), PARTITIONS)].asked[-1] == Balance(account)
    assert world.doors.routes()[2] == Route(2, "shard-2", "127.0.0.1", shards[2].port, 7)


async def test_many_questions_share_few_connections(world: World) -> None:
    shard = await world.shard()
    await world.start(shard.owns({0: 1}))
    answers = await asyncio.gather(*(world.doors.ask_partition(0, Balance(str(n)), WITHIN_S) for n in range(500)))
    assert answers == [view()] * 500
    assert len(shard.door.connections) == SETTINGS.connections
    assert sorted(int(question.account) for question in shard.asked if isinstance(question, Balance)) == list(
        range(500)
    )


async def test_a_moved_partition_is_followed(world: World) -> None:
    old, new = await world.shard(WrongOwner(0), name="old"), await world.shard(view(2), name="new")
    await world.start(old.owns({0: 1}))
    asking = asyncio.ensure_future(world.doors.ask_partition(0, Check("acme"), WITHIN_S))
    await world.until(lambda: len(old.asked) >= 2)
    world.table.rows = [old.owns({}), new.owns({0: 2})]
    assert await asking == view(2)


async def test_of_two_that_claim_a_partition_the_later_owner_is_asked(world: World) -> None:
    old, new = await world.shard(name="old"), await world.shard(name="new")
    await world.start(new.owns({0: 3}), old.owns({0: 2}))
    await world.doors.ask_partition(0, Balance("acme"), WITHIN_S)
    assert old.asked == []


async def test_an_owner_that_comes_late_is_waited_for(world: World) -> None:
    shard = await world.shard()
    await world.start()
    asking = asyncio.ensure_future(world.doors.ask_partition(0, Check("acme"), WITHIN_S))
    await asyncio.sleep(0.1)
    world.table.rows = [shard.owns({0: 1})]
    assert await asking == view()


async def test_nobody_within_the_deadline_is_said_so(world: World) -> None:
    await world.start()
    with pytest.raises(DoorUnavailable, match="partition 0: no shard owns it") as raised:
        await world.doors.ask_partition(0, Check("acme"), 0.1)
    assert raised.value.retry_after_s > 0


async def test_who_is_not_there_any_more_is_not_reached(world: World) -> None:
    shard = await world.shard()
    await shard.door.stop()
    await world.start(shard.owns({0: 1}))
    with pytest.raises(DoorUnavailable, match="a could not be reached"):
        await world.doors.ask_partition(0, Check("acme"), 0.2)


@pytest.mark.parametrize(
    "question",
    [
        Check("acme"),
        Extend("token", 1),
        Release("token"),
        TakeLease(Check("acme"), 1, 1),
        CarryOn("token", b"{}", 1),
        ExtendLease("token", 1, 1, 1),
    ],
)
async def test_what_may_have_been_received_is_not_asked_again(world: World, question: Question) -> None:
    shard = await world.shard(CUT, view())
    await world.start(shard.owns({0: 1}))
    with pytest.raises(DoorUnavailable, match="it may have happened"):
        await world.doors.ask_partition(0, question, WITHIN_S)
    assert shard.asked == [question]


async def test_what_changes_nothing_is_asked_again_over_a_new_connection(world: World) -> None:
    shard = await world.shard(CUT, CUT, CUT, view())
    await world.start(shard.owns({0: 1}))
    assert await world.doors.ask_partition(0, Balance("acme"), WITHIN_S) == view()
    assert len(shard.asked) == 4


async def test_a_check_after_a_broken_connection_finds_a_new_one(world: World) -> None:
    shard = await world.shard(view())
    await world.start(shard.owns({0: 1}))
    for _ in range(4):
        assert await world.doors.ask_partition(0, Check("acme"), WITHIN_S) == view()
        for connection in list(shard.door.connections):
            connection.cut()
        await asyncio.sleep(0.05)


async def test_an_answer_that_does_not_come_is_unknown_at_the_deadline(world: World) -> None:
    shard = await world.shard(None)
    await world.start(shard.owns({0: 1}))
    with pytest.raises(DoorUnavailable, match="no answer within the deadline"):
        await world.doors.ask_partition(0, Check("acme"), 0.1)
    with pytest.raises(DoorUnavailable):
        await world.doors.ask_partition(0, Balance("acme"), 0.1)


@pytest.mark.parametrize("question", [Check("acme"), Extend("token", 1), Balance("acme"), Release("token")])
async def test_a_recovering_owner_is_told_of_at_once(world: World, question: Question) -> None:
    shard = await world.shard(Recovering(0, 250, "3"), view())
    await world.start(shard.owns({0: 1}))
    assert await world.doors.ask_partition(0, question, WITHIN_S) == Recovering(0, 250, "3")


async def test_who_waits_for_an_offset_waits_for_a_recovering_owner(world: World) -> None:
    applied = AppliedView("applied", as_of())
    shard = await world.shard(Recovering(0, 250), Recovering(0, 250), applied, Recovering(0, 250))
    await world.start(shard.owns({0: 1}))
    assert await world.doors.ask_partition(0, Applied(0, 7), WITHIN_S) == applied
    assert await world.doors.ask_partition(0, Applied(0, 8), 0.1) == Recovering(0, 250), "until the deadline"


async def test_an_owner_below_one_that_has_spoken_is_not_believed(world: World) -> None:
    shard = await world.shard(view(5), view(4), NotFound(as_of(4)), view(6))
    await world.start(shard.owns({0: 5}))
    assert await world.doors.ask_partition(0, Balance("acme"), WITHIN_S) == view(5)
    assert await world.doors.ask_partition(0, Check("acme"), WITHIN_S) == view(6)
    shard.answers = [view(5), view(5), view(7)]
    assert await world.doors.ask_partition(0, Check("acme"), WITHIN_S) == view(7)


@pytest.mark.parametrize(
    "answered",
    [
        lambda epoch: CarriedOn("continue", (), Checked(True, as_of(epoch))),
        lambda epoch: LeaseAnswered(Checked(True, as_of(epoch))),
    ],
)
async def test_nor_is_it_where_the_decision_stands_inside_the_answer(
    world: World, answered: Callable[[int], Answer]
) -> None:
    shard = await world.shard(view(5), answered(4), answered(6))
    await world.start(shard.owns({0: 5}))
    assert await world.doors.ask_partition(0, Balance("acme"), WITHIN_S) == view(5)
    assert await world.doors.ask_partition(0, CarryOn("token", b"{}", 1), WITHIN_S) == answered(6)


async def test_the_deadline_says_that_only_a_replaced_owner_answered(world: World) -> None:
    shard = await world.shard(view(5))
    world.doors = Doors(world.table, TOKEN, PARTITIONS, DoorSettings(pause_s=WITHIN_S))  # one try before the deadline
    await world.start(shard.owns({0: 5}))
    assert await world.doors.ask_partition(0, Balance("acme"), WITHIN_S) == view(5)
    shard.answers = [view(4)]
    with pytest.raises(DoorUnavailable, match="its owner has been replaced"):
        await world.doors.ask_partition(0, Check("acme"), 1.0)


async def test_too_many_questions_at_once_are_refused_at_once(world: World) -> None:
    shard = await world.shard(None)
    world.doors = Doors(world.table, TOKEN, PARTITIONS, DoorSettings(in_flight_max=2))
    await world.start(shard.owns({0: 1}))
    waiting = [asyncio.ensure_future(world.doors.ask_partition(0, Balance("acme"), 0.3)) for _ in range(2)]
    await world.until(lambda: len(shard.asked) == 2)
    with pytest.raises(DoorUnavailable, match="2 questions are waiting"):
        await world.doors.ask_partition(0, Balance("acme"), WITHIN_S)
    for failed in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(failed, DoorUnavailable)
    shard.answers = [view()]
    assert await world.doors.ask_partition(0, Balance("acme"), WITHIN_S) == view()


async def test_a_wrong_token_reaches_nobody(world: World) -> None:
    shard = await world.shard()
    world.doors = Doors(world.table, door_token(b"x" * 32), PARTITIONS, SETTINGS)
    await world.start(shard.owns({0: 1}))
    with pytest.raises(DoorUnavailable, match="could not be reached"):
        await world.doors.ask_partition(0, Check("acme"), 0.2)
    assert shard.asked == []


async def test_a_door_that_leads_to_another_shard_is_not_used(world: World) -> None:
    shard = await world.shard(name="reborn")
    await world.start(Doorway("dead", "127.0.0.1", shard.port, {0: 1}))
    with pytest.raises(DoorUnavailable, match="dead could not be reached"):
        await world.doors.ask_partition(0, Check("acme"), 0.2)
    assert shard.asked == []


async def test_postgres_away_closes_no_door(world: World) -> None:
    shard = await world.shard()
    await world.start(shard.owns({0: 1}))
    world.table.away = True
    reads = world.table.reads
    await world.until(lambda: world.table.reads > reads + 1)
    assert await world.doors.ask_partition(0, Check("acme"), WITHIN_S) == view()


async def test_every_shard_is_asked_those_without_partitions_too_and_the_dead_are_left_out(world: World) -> None:
    owner, spare, dead = (
        await world.shard(name="owner"),
        await world.shard(name="spare"),
        await world.shard(name="dead"),
    )
    await dead.door.stop()
    await world.start(owner.owns({0: 1}), spare.owns({}), dead.owns({1: 1}))
    statuses = await world.doors.ask_every_shard(Status(), 0.5)
    assert [status.shard for status in statuses] == ["owner", "spare"]


async def test_who_waits_when_the_client_stops_is_told(world: World) -> None:
    shard = await world.shard(None)
    await world.start(shard.owns({0: 1}))
    asking = asyncio.ensure_future(world.doors.ask_partition(0, Check("acme"), WITHIN_S))
    await world.until(lambda: bool(shard.asked))
    await world.doors.stop()
    with pytest.raises(DoorUnavailable):
        await asking
