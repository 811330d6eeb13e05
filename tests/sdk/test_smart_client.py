"""The smart client between real doors and the real app of the API: the same answers, from whichever it is."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from actors.door_client import Route
from actors.door_wire import BadQuestion, Check, Checked, Extend, FieldLimit, NotFound, Release, Released
from tallygate_sdk import OPEN, AsyncClient, Bound, Hold, Refused, SmartClient
from tallygate_sdk import Check as Asking
from tests.actors.web.fakes import ALLOWED, AS_OF, token
from tests.sdk.door_rig import TOKEN, Rig, Shard
from tests.sdk.serving import Served
from tests.sdk.test_client import WHOLE


class House:
    """The API, whose routing table names one real door."""

    def __init__(self, at: Served, shard: Shard) -> None:
        self.at = at
        self.shard = shard
        at.stage.doors.routes = lambda: [  # type: ignore[method-assign]
            Route(number, "shard-0.1", "127.0.0.1", shard.port, 7) for number in range(4)
        ]


@pytest.fixture
async def house(at: Served) -> AsyncIterator[House]:
    rig = Rig()
    yield House(at, await rig.shard(7))
    await rig.stop()


async def test_a_check_goes_to_the_door_and_says_what_http_would_say(house: House) -> None:
    house.shard.says = lambda asked: ALLOWED
    async with SmartClient(house.at.url, house.at.key, TOKEN) as client:
        smart = await client.check(WHOLE)
        assert (client.answered_by_doors, client.sent_by_http) == (1, 0)
        assert house.at.paths == ["/v1/routes"]
        client._doors.close()
        house.at.stage.doors.routes = list  # type: ignore[method-assign]
        plain = await client.check(WHOLE)
        assert (client.answered_by_doors, client.sent_by_http) == (1, 1)
    assert smart == plain
    ((_, by_http),) = house.at.stage.doors.asked
    assert house.shard.heard == [by_http], "the owner is asked the very same"


@pytest.mark.parametrize("told", [NotFound(AS_OF), Checked(False, AS_OF, reason="unknown_account")])
async def test_a_denial_is_the_same_from_either(house: House, told: NotFound | Checked) -> None:
    house.shard.says = lambda asked: told
    house.at.stage.doors.answers[Check] = told
    async with SmartClient(house.at.url, house.at.key, TOKEN) as client:
        smart = await client.check(Asking("acme"), on_away=OPEN)
    async with AsyncClient(house.at.url, house.at.key) as client:
        assert smart == await client.check(Asking("acme"))
    assert (smart.allowed, smart.reason, smart.decided_by) == (False, "unknown_account", "service")


async def test_a_hold_is_extended_and_released_at_its_own_door(house: House) -> None:
    house.shard.says = lambda asked: Released(True, AS_OF) if isinstance(asked, Release) else ALLOWED
    async with SmartClient(house.at.url, house.at.key, TOKEN) as client:
        decision = await client.check(Asking("acme", hold_s=5))
        assert decision.hold is not None
        assert (await client.extend(decision.hold, hold_s=2, bounds=[Bound(("p",), 7)])).allowed
        assert (await client.release(decision.hold)).was_open
        assert (await client.balance("acme")).balance.available == Decimal("12.47")
        assert client.answered_by_doors == 4
        assert (await client.release(token())).was_open, "a token alone goes by HTTP"
    assert house.shard.heard[1:3] == [Extend("a-token", 2000, (FieldLimit(("p",), "7"),)), Release("a-token")]
    assert house.at.paths[-2:] == ["/v1/customers/acme/balance", "/v1/holds/release"]


async def test_what_the_door_cannot_read_is_a_refusal(house: House) -> None:
    house.shard.says = lambda asked: BadQuestion("bounds.0.fields", "stands in two bounds")
    async with SmartClient(house.at.url, house.at.key, TOKEN) as client:
        with pytest.raises(Refused, match=r"bounds\.0\.fields: stands in two bounds"):
            await client.check(Asking("acme"), on_away=OPEN)


async def test_without_a_door_it_goes_by_http_within_the_same_deadline(house: House) -> None:
    house.shard.says = lambda asked: None
    async with SmartClient(house.at.url, house.at.key, TOKEN) as client:
        decision = await client.check(Asking("acme"), deadline_s=1.5)
        assert decision.decided_by == "service" and client.sent_by_http == 1
        house.at.script = [503] * 100
        assert (await client.check(Asking("acme"), deadline_s=0.8)).decided_by == "policy"
        hold = Hold("3.7.41", token(), 1, 2)
        house.at.script = []
        assert (await client.extend(hold)).allowed and (await client.release(hold)).was_open
