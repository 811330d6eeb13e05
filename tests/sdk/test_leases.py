"""The holder of leases against a service that answers as docs/leases.md says, on a clock that the test moves."""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate_sdk import OPEN, AsyncClient, Bound, Check, LeaseHolder
from tallygate_sdk.answers import Lease, LeasedBound
from tallygate_sdk.leases import _Held

ONE = Check(
    "acme",
    scope="team:red",
    type="llm.tokens",
    data={"tier": "standard"},
    reach={"model": ("small", "large")},
    bounds=(Bound(("input_tokens",), 40), Bound(("output_tokens",), 10)),
)
SMALL = {"model": "small"}
UNIT = "0.000015"


class Service:
    """Grants leases of at most `most` requests, and takes note of everything."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.most = 100
        self.reason: str | None = None
        self.away = False
        self.owner_decides: list[str] = []
        self.taken: list[dict[str, Any]] = []
        self.closed: list[tuple[str, int]] = []
        self.checked: list[dict[str, Any]] = []
        self.released: list[str] = []
        self.gate: asyncio.Event | None = None
        self.taking_s = 0.0
        self.client = AsyncClient("http://service", "key", transport=httpx2.MockTransport(self.answer))

    def clock(self) -> float:
        return self.now_s

    def holder(self, **options: Any) -> LeaseHolder:
        wanted: dict[str, Any] = {"requests": 100, "source": "gateway", "clock": self.clock, "drain_s": 0.01}
        return LeaseHolder(self.client, ONE, **(wanted | options))

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        asked = msgspec.json.decode(request.content)
        if self.away:
            return httpx2.Response(503, headers={"retry-after": "1"})
        if request.url.path == "/v1/leases":
            if self.gate is not None:
                await self.gate.wait()
            self.now_s += self.taking_s
            self.taken.append(asked)
            return httpx2.Response(200, json=self.granted(asked))
        if request.url.path == "/v1/leases/close":
            self.closed.append((asked["token"], asked["events"]))
            return httpx2.Response(200, json={"open": False, "events_rated": asked["events"], "as_of": None})
        if request.url.path == "/v1/holds/release":
            self.released.append(asked["token"])
            return httpx2.Response(200, json={"was_open": True, "as_of": None})
        self.checked.append(asked)
        hold = {"id": "0.1.1", "token": "held", "valid_for_s": 60.0, "expires_in_s": 65.0}
        return httpx2.Response(200, json={"allowed": True, "hold": hold})

    def granted(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = min(self.most, asked["requests"])
        if self.reason is not None or number < asked["least"]:
            return {"allowed": False, "reason": self.reason or "strict", "lease": None}
        bounds = [
            {"fields": each["fields"], "up_to": each["up_to"], "granted": str(int(each["up_to"]) * number)}
            for each in asked["bounds"]
        ]
        lease = {
            "id": f"3.7.{len(self.taken)}",
            "token": f"lease-{len(self.taken)}",
            "requests": number,
            "bounds": [{"fields": [], "up_to": "1", "granted": str(number)}, *bounds],
            "prices": [{"price": "out", "meter": "output_tokens", "fields": ["output_tokens"], "unit": UNIT}],
            "owner_decides": self.owner_decides,
            "valid_for_s": asked["ttl_s"],
            "expires_in_s": asked["ttl_s"] + 5,
            "report_within_s": 125.0,
        }
        return {"allowed": True, "reason": None, "lease": lease}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    yield made
    await made.client.close()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_lease_is_asked_for_as_one_request_times_so_many(service: Service) -> None:
    async with service.holder(least=10, ttl_s=30) as holder:
        admission = await holder.admit(data=SMALL)
        assert admission.allowed and admission.by_lease and (holder.leased, holder.asked) == (1, 0)
        holder.settle(admission, SMALL | {"input_tokens": 1, "output_tokens": 1})
    assert service.taken[0] == {
        "account": "acme",
        "scope": "team:red",
        "type": "llm.tokens",
        "data": {"tier": "standard"},
        "reach": {"model": ["small", "large"]},
        "bounds": [{"fields": ["input_tokens"], "up_to": "40"}, {"fields": ["output_tokens"], "up_to": "10"}],
        "requests": 100,
        "least": 10,
        "ttl_s": 30,
    }


async def test_the_event_names_the_lease_and_closing_counts_events(service: Service) -> None:
    holder = service.holder()
    first, second, third = [await holder.admit(data=SMALL, scope="team:red/user:ann") for _ in range(3)]
    data = SMALL | {"tier": "standard", "input_tokens": 12, "output_tokens": 3}
    usage = holder.settle(first, data, id="e1")
    assert (usage.account, usage.type, usage.source, usage.id) == ("acme", "llm.tokens", "gateway", "e1")
    assert (usage.scope, usage.hold, usage.data) == ("team:red/user:ann", "lease-1", data)
    assert first.at_most == 10 * Decimal(UNIT)
    holder.settle(second, data)
    await holder.release(third)
    assert await holder.close()
    assert service.closed == [("lease-1", 2)], "a request that used nothing has no event"


async def test_what_was_not_used_may_be_promised_again_but_a_request_is_counted(service: Service) -> None:
    service.most = 4
    async with service.holder(requests=4) as holder:
        await holder.admit(data=SMALL)
        service.reason = "strict"
        running = [holder.try_admit(data=SMALL) for _ in range(3)]
        assert all(running) and holder.try_admit(data=SMALL) is None, "four requests"
        await settled()
        for admission in running:
            assert admission is not None
            await holder.release(admission)
        again = await holder.admit(data=SMALL)
        assert not again.by_lease and service.checked, "a lease that was spent does not come back"
    assert service.closed == []


async def test_what_is_settled_and_released_as_well_has_ended_once(service: Service) -> None:
    """Else each such request would make room for one more than the lease is of."""
    service.most = 4
    async with service.holder(requests=4) as holder:
        first = await holder.admit(data=SMALL)
        held = first._under
        assert held is not None
        service.reason = "strict"
        others = [holder.try_admit(data=SMALL) for _ in range(2)]
        for admission in (first, *others):
            assert admission is not None
            holder.settle(admission, {"input_tokens": 40, "output_tokens": 10})
            await holder.release(admission)
            await holder.release(admission)
        assert (held.running, held.slots, held.events) == (0, 1, 3)
        holder.settle(first, {"input_tokens": 40, "output_tokens": 10})
        assert (held.running, held.slots, held.events) == (0, 0, 4), "more of it is usage all the same, and counts"
        asked = await holder.admit(data={"model": "huge"})
        holder.settle(asked, {"input_tokens": 1})
        await holder.release(asked)
        assert not asked.by_lease and service.released == [], "its usage settles the hold"


@pytest.mark.parametrize("told", ["NaN", "sNaN", "Infinity", "many", None, True])
async def test_what_is_no_number_gives_nothing_back(service: Service, told: object) -> None:
    service.most = 2
    async with service.holder(requests=2) as holder:
        admission = await holder.admit(data=SMALL)
        usage = holder.settle(admission, {"input_tokens": told, "output_tokens": 1})
        assert usage.hold == "lease-1", "and the event is made all the same"
        held = admission._under
        assert held is not None and held.slots == 1


async def test_a_lease_also_runs_out_in_a_machine_that_slept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service does not wait for it: what it holds for the lease is free again some time behind its end."""
    holder = LeaseHolder(service.client, ONE, requests=10, source="g")
    before_s = holder._clock()
    slept = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: slept(clock) + 3_600 * (clock == time.CLOCK_BOOTTIME))
    assert holder._clock() >= before_s + 3_600


async def test_a_bound_of_all_is_kept_when_one_uses_more(service: Service) -> None:
    async with service.holder(requests=10) as holder:
        admission = await holder.admit(data=SMALL)
        holder.settle(admission, {"input_tokens": 395, "output_tokens": 1})
        service.away = True
        assert holder.try_admit(data=SMALL) is None, "five are left of 400 input tokens, and one may use 40"
        service.away = False


async def test_another_lease_is_taken_ahead_and_the_old_one_closed_behind_its_last_request(service: Service) -> None:
    async with service.holder(requests=10) as holder:
        running = [await holder.admit(data=SMALL) for _ in range(6)]
        await settled()
        while len(service.taken) < 2:
            await asyncio.sleep(0.001)
        await settled()
        running += [await holder.admit(data=SMALL) for _ in range(8)]
        assert all(each.by_lease for each in running) and service.checked == []
        usages = [holder.settle(each, SMALL | {"input_tokens": 40, "output_tokens": 10}) for each in running[1:]]
        assert [usage.hold for usage in usages] == ["lease-1"] * 9 + ["lease-2"] * 4
        await settled()
        assert service.closed == [], "the first request still runs"
        holder.settle(running[0], SMALL | {"input_tokens": 40, "output_tokens": 10})
    assert service.closed[0] == ("lease-1", 10) and ("lease-2", 4) in service.closed


async def test_time_ends_a_lease_counted_from_the_question(service: Service) -> None:
    service.taking_s = 2.0
    async with service.holder(ttl_s=30) as holder:
        first = await holder.admit(data=SMALL)
        service.now_s += 27.9
        service.away = True
        assert holder.try_admit(data=SMALL) is not None
        await settled()
        service.now_s += 0.1
        assert holder.try_admit(data=SMALL) is None
        service.away = False
        holder.settle(first, SMALL | {"input_tokens": 1, "output_tokens": 1})
        assert holder.running == 1


@pytest.mark.parametrize(
    ("data", "scope", "decided"),
    [
        (SMALL, None, True),
        (SMALL, "team:red/user:bob", True),
        (SMALL, "team:red/user:ann", False),
        (SMALL, "team:red/user:ann/key:1", False),
        (SMALL, "team:redder", False),
        (SMALL, "", False),
        ({"model": "huge"}, None, False),
        ({"model": "small", "tier": "gold"}, None, False),
        ({"model": "small", "region": "eu"}, None, False),
        (None, None, True),
    ],
)
async def test_what_a_lease_does_not_cover_is_asked(
    service: Service, data: dict[str, str] | None, scope: str | None, decided: bool
) -> None:
    service.owner_decides = ["team:red/user:ann"]
    async with service.holder() as holder:
        await holder.admit(data=SMALL)
        admission = await holder.admit(data=data, scope=scope)
        assert admission.by_lease is decided and admission.allowed
        if not decided:
            (asked,) = service.checked
            assert asked.get("scope", "") == (ONE.scope if scope is None else scope)
            assert asked["data"] == {"tier": "standard"} | (data or {}) and asked["hold"] == {"ttl_s": 60.0}
            assert "reach" not in asked
            usage = holder.settle(admission, {"input_tokens": 1})
            assert usage.hold == "held" and usage.scope == asked.get("scope", "")
            other = await holder.admit(data=data, scope=scope)
            await holder.release(other)
            assert service.released == ["held"]


async def test_without_a_lease_each_request_is_asked_until_it_is_time_to_ask_again(service: Service) -> None:
    service.reason = "strict"
    async with service.holder() as holder:
        for _ in range(5):
            assert not (await holder.admit(data=SMALL)).by_lease
        assert (len(service.taken), len(service.checked)) == (1, 5)
        service.reason = None
        service.now_s += 1.0
        assert (await holder.admit(data=SMALL)).by_lease


async def test_a_service_that_is_away_leaves_it_to_the_policy(service: Service) -> None:
    service.away = True
    client = AsyncClient("http://service", "key", check_deadline_s=0.1, transport=httpx2.MockTransport(service.answer))
    async with LeaseHolder(client, ONE, requests=10, source="g", on_away=OPEN, clock=service.clock) as holder:
        admission = await holder.admit(data=SMALL)
    assert admission.allowed and admission.decision.decided_by == "policy" and not admission.by_lease
    await client.close()


async def test_many_that_come_at_once_wait_for_one_lease(service: Service) -> None:
    service.gate = asyncio.Event()
    async with service.holder() as holder:
        waiting = [asyncio.create_task(holder.admit(data=SMALL)) for _ in range(40)]
        await settled()
        service.gate.set()
        admissions = await asyncio.gather(*waiting)
        assert all(each.by_lease for each in admissions) and service.checked == []
        assert len(service.taken) == 1
        for each in admissions:
            await holder.release(each)
    assert service.closed[0] == ("lease-1", 0)


async def test_a_lease_that_cannot_be_closed_stops_nobody(service: Service) -> None:
    holder = service.holder()
    holder.settle(await holder.admit(data=SMALL), SMALL | {"input_tokens": 1, "output_tokens": 1})
    service.away = True
    service.client._deadline_s = 0.1
    assert await holder.close()
    assert service.closed == []


@pytest.mark.parametrize("wrong", [{"type": None}, {"hold_s": 5.0}, {"n": 2}])
def test_a_holder_needs_one_request_of_a_type(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="check: name a type"):
        LeaseHolder(None, msgspec.structs.replace(ONE, **wrong), requests=1, source="g")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- the law

BOUNDS = (
    LeasedBound((), Decimal(1), Decimal(8)),
    LeasedBound(("a", "b"), Decimal("1.5"), Decimal("9.25")),
    LeasedBound(("c",), Decimal(3), Decimal(20)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["admit", "settle", "release"]), st.integers(0, 150), st.integers(0, 300))))
def test_used_and_promised_never_exceed_what_was_granted(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is admitted, settled within its bounds, or released, in any order."""
    held = _Held(Lease("1.1.1", "t", 8, BOUNDS, (), (), 60, 65, 125), "", 10.0)
    used = [Decimal(0)] * 3
    for what, a, c in steps:
        if what == "admit":
            room = all(
                used[place] + (held.running + 1) * bound.up_to <= bound.granted for place, bound in enumerate(BOUNDS)
            )
            assert (held.slots > 0) == room
            if room:
                held.slots -= 1
                held.running += 1
        elif held.running and what == "release":
            held.settle(None)
        elif held.running:
            held.settle({"a": Decimal(a) / 100, "b": 0, "c": str(Decimal(c) / 100)})
            for place, amount in enumerate((Decimal(1), Decimal(a) / 100, Decimal(c) / 100)):
                used[place] += amount


def test_a_bound_of_nothing_that_was_used_all_the_same_ends_the_lease() -> None:
    held = _Held(Lease("1.1.1", "t", 8, (LeasedBound(("a",), Decimal(0), Decimal(0)),), (), (), 60, 65, 125), "", 10.0)
    assert held.slots == 8
    held.slots -= 1
    held.running += 1
    held.settle({"a": 1})
    assert held.slots == 0


async def test_nothing_is_admitted_behind_close_also_where_somebody_waits_for_a_lease(service: Service) -> None:
    holder = service.holder(drain_s=5.0)
    running = await holder.admit(data=SMALL)
    closing = asyncio.create_task(holder.close())
    await settled()
    with pytest.raises(RuntimeError, match="leases of acme were closed"):
        holder.try_admit(data=SMALL)
    with pytest.raises(RuntimeError, match="make another holder"):
        await holder.admit(data=SMALL)
    holder.settle(running, {"input_tokens": 1, "output_tokens": 1})
    await closing

    service.gate = asyncio.Event()
    waited = service.holder()
    waiting = asyncio.create_task(waited.admit(data=SMALL))
    await settled()
    closing = asyncio.create_task(waited.close())
    await settled()
    service.gate.set()
    with pytest.raises(RuntimeError, match="were closed"):
        await waiting
    assert await closing
    assert len(service.taken) == 2 and service.closed == [("lease-1", 1), ("lease-2", 0)] and service.checked == []


async def test_who_closes_because_it_was_cancelled_is_told_what_still_runs(service: Service) -> None:
    holder = service.holder(drain_s=0)
    waiting = asyncio.Event()
    found: list[bool] = []

    async def gateway() -> None:
        await holder.admit()  # and never settled
        try:
            await waiting.wait()
        finally:
            found.append(await holder.close())

    task = asyncio.create_task(gateway())
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert found == [False]
