"""The client for asyncio: the same promises as the blocking one, which tests/sdk/test_client.py tells at length."""

import asyncio
from decimal import Decimal

import pytest

from actors.door_wire import Answer, Checked, Recovering
from actors.door_wire import Check as Asked
from tallygate_sdk import OPEN, AsyncClient, BadKey, Check, NotFound, Refused, Unavailable
from tests.actors.web.fakes import AS_OF, token
from tests.sdk.serving import Served
from tests.sdk.test_client import WHOLE, usage


async def test_every_operation_is_there(at: Served) -> None:
    async with AsyncClient(at.url, at.key) as client:
        decision = await client.check(WHOLE)
        assert decision.hold is not None and decision.hold.token == "a-token"
        (outcome,) = await client.checks([Check("acme")])
        assert outcome.answer is not None and outcome.answer.allowed
        assert (await client.report([usage()])).accepted == 1
        assert (await client.capture(usage(hold=token()))).hold_id == "3.7.41"
        assert (await client.extend(token())).allowed
        assert (await client.carry_on(usage(hold=token(), final=False), [])).action == "continue"
        assert (await client.release(token())).was_open
        assert (await client.balance("acme")).balance.booked == Decimal("12.5")
    assert len(at.stage.appender.records) == 2


@pytest.mark.parametrize("fault", [503, 500, "cut"])
async def test_what_nobody_answered_is_put_again(at: Served, fault: int | str) -> None:
    at.script = [fault, fault]
    async with AsyncClient(at.url, at.key) as client:
        assert (await client.check(Check("acme"))).decided_by == "service"
    assert len(at.paths) == 3


async def test_the_deadline_ends_it_and_then_the_policy_decides(at: Served) -> None:
    at.script = ["silent"] * 4
    async with AsyncClient(at.url, at.key, check_deadline_s=0.2) as client:
        closed = await client.check(Check("acme"))
        opened = await client.check(Check("acme"), on_away=OPEN)
        stopped = await client.carry_on(usage(hold=token(), final=False), [])
        with pytest.raises(Unavailable, match="nobody answered"):
            await client.report([usage()], deadline_s=0.2)
    assert (closed.allowed, closed.reason, closed.decided_by) == (False, "unavailable", "policy")
    assert (opened.allowed, opened.decided_by, stopped.action) == (True, "policy", "stop")


async def test_an_owner_that_is_being_replaced_is_waited_for(at: Served) -> None:
    answers: list[Answer] = [Recovering(3, 10, "12.5"), Checked(True, AS_OF)]
    at.stage.doors.answers[Asked] = lambda question: answers.pop(0)
    async with AsyncClient(at.url, at.key) as client:
        assert (await client.check(Check("acme"))).as_of is not None


async def test_what_is_refused_is_raised_at_once(at: Served) -> None:
    async with AsyncClient(at.url, at.key) as client:
        with pytest.raises(Refused, match=r"n: .*>= 1"):
            await client.check(Check("acme", n=0), on_away=OPEN)
        with pytest.raises(NotFound):
            await client.release("no token")
    async with AsyncClient(at.url, "tg_test_wrong") as client:
        with pytest.raises(BadKey):
            await client.check(Check("acme"), on_away=OPEN)
    assert len(at.paths) == 3


async def test_many_calls_run_side_by_side(at: Served) -> None:
    async with AsyncClient(at.url, at.key) as client:
        decisions = await asyncio.gather(*(client.check(Check("acme")) for _ in range(30)))
    assert all(decision.decided_by == "service" for decision in decisions)
