"""A fleet against a desk that counts money: it obeys denials, settles what it was allowed, and journals both."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import orjson

from actors.clock import SystemClock
from config.catalogue import load_file
from engine.catalog import document_json
from engine.cost.served import Status
from loadtest.fronts import Ask, Bound, Refused, Unanswered, Usage
from loadtest.gateways import Fate, Fleet, Request, fates, requests, wallets
from loadtest.journal import CheckAnswer, Journal, judge_usage
from loadtest.oracle.accounts import Rated
from loadtest.workload import Workload

CATALOGUE_FILE = Path(__file__).parents[2] / "config" / "catalogue.example.yaml"


def said(allowed: bool, hold: str | None = None, transient: bool = False) -> CheckAnswer:
    reason = None if allowed else "withheld" if transient else "credit_depleted"
    token = None if hold is None else f"token {hold}"
    return CheckAnswer(allowed, reason, transient, 0.01 if transient else None, 1, 1, 0, 1, 0, 0, 1, 1, hold, token, 5)


class Desk:
    """Holds in a dict: what each may still use of each field."""

    def __init__(self) -> None:
        self.held: dict[str, Counter[str]] = {}
        self.over: list[str] = []
        self.final: Counter[str] = Counter()
        self.released: list[str] = []
        self.rated: list[Rated] = []
        self.denied: set[str] = set()
        self.withheld_once: set[str] = set()
        self.withheld_s = 0.01
        self.extends = True
        self.away = 0

    async def check(self, ask: Ask) -> CheckAnswer:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unanswered("away")
        if ask.account in self.withheld_once:
            self.withheld_once.remove(ask.account)
            return msgspec.structs.replace(said(False, transient=True), retry_after_s=self.withheld_s)
        if ask.account in self.denied:
            return said(False)
        hold = f"hold-{len(self.held)}"
        self.held[f"token {hold}"] = Counter({bound.fields[0]: bound.up_to for bound in ask.bounds})
        return said(True, hold)

    async def extend(self, token: str, bounds: tuple[Bound, ...], ttl_s: float) -> CheckAnswer:
        if not self.extends:
            return said(False)
        self.held[token].update({bound.fields[0]: bound.up_to for bound in bounds})
        return said(True, token.removeprefix("token "))

    async def capture(self, usage: Usage) -> None:
        for name in ("input_tokens", "output_tokens"):
            self.held[usage.token][name] -= usage.data[name]
            if self.held[usage.token][name] < 0:
                self.over.append(usage.id)
        self.final[usage.token] += usage.final
        self.rated.append(Rated(usage.account, usage.source, usage.id, {}))

    async def release(self, token: str) -> None:
        if token in self.released:
            raise Refused("released before")
        self.released.append(token)


def some(fate: Fate, count: int, account: str = "acme") -> list[Request]:
    return [
        Request(number, 0.0, account, "atlas-mini", 100 + number, 300 + number, 512, fate) for number in range(count)
    ]


async def worked(desk: Desk, stream: list[Request]) -> tuple[Fleet, Journal]:
    fleet = Fleet(desk, SystemClock(), Journal(), run="r", ttl_s=5.0, gateways=4, slots_each=2)
    await fleet.run(stream)
    assert judge_usage(fleet.journal, desk.rated, fleet.sources) == []
    assert desk.over == [], "no usage beyond its hold"
    return fleet, fleet.journal


async def test_an_answer_is_captured_once_and_finally() -> None:
    desk = Desk()
    _, journal = await worked(desk, some(Fate.ANSWERED, 20))
    assert len(desk.rated) == 20 and all(desk.final[token] == 1 for token in desk.held)
    assert all(sent.acknowledged for sent in journal.sent) and len(journal.check_ms) == 20
    assert len({event.source for event in desk.rated}) > 1, "more than one gateway worked"


async def test_a_stream_is_captured_in_parts_that_add_up_to_the_request() -> None:
    desk = Desk()
    await worked(desk, some(Fate.STREAMED, 5))
    assert len(desk.rated) == 15 and set(desk.final.values()) == {1}
    assert [left["output_tokens"] for left in desk.held.values()] == [0] * 5
    assert [left["input_tokens"] for left in desk.held.values()] == [0] * 5


async def test_a_stream_that_may_not_grow_ends_at_its_bound() -> None:
    desk = Desk()
    desk.extends = False
    _, journal = await worked(desk, some(Fate.STREAMED, 3))
    assert journal.counts["cut_short"] == 3 and set(desk.final.values()) == {1}


async def test_an_aborted_request_is_released_and_a_crashed_gateway_says_nothing() -> None:
    desk = Desk()
    _, journal = await worked(desk, some(Fate.ABORTED, 2) + some(Fate.CRASHED, 3))
    assert (len(desk.released), desk.rated, journal.allowed) == (2, [], 5)


async def test_whatever_a_model_ran_is_told_of_also_where_nobody_pays() -> None:
    told: list[tuple[str, str, int, str]] = []
    desk = Desk()

    def ran(account: str, event: str, _model: str, _prompt: int, output: int, status: Status) -> None:
        told.append((account, event, output, status.value))

    fleet = Fleet(desk, SystemClock(), Journal(), run="r", ttl_s=5.0, ran=ran)
    stream = some(Fate.STREAMED, 1) + some(Fate.ABORTED, 1, "b") + some(Fate.CRASHED, 1, "c")
    await fleet.run(stream)
    assert sorted(told) == [
        ("acme", "r-0-0", 100, "ok"),
        ("acme", "r-0-1", 100, "ok"),
        ("acme", "r-0-2", 100, "ok"),
        ("b", "r-0-0", 0, "aborted"),
        ("c", "r-0-0", 300, "aborted"),
    ]
    assert {event.id for event in desk.rated} == {"r-0-0", "r-0-1", "r-0-2"}, "those of a usage event bear its id"


async def test_a_denial_is_obeyed_and_a_passing_one_is_asked_once_more() -> None:
    desk = Desk()
    desk.denied, desk.withheld_once = {"poor"}, {"late", "poor"}
    _, journal = await worked(desk, some(Fate.ANSWERED, 1, "poor") + some(Fate.ANSWERED, 1, "late"))
    assert (journal.allowed, journal.denied, journal.counts["asked_again"]) == (1, 1, 2)
    assert [event.account for event in desk.rated] == ["late"]


async def test_a_denial_that_lasts_is_not_waited_for() -> None:
    desk = Desk()
    desk.withheld_once, desk.withheld_s = {"late"}, 30.0
    _, journal = await worked(desk, some(Fate.ANSWERED, 1, "late"))
    assert (journal.allowed, journal.denied, journal.counts["asked_again"]) == (0, 1, 0)


async def test_who_gets_no_answer_sends_no_usage() -> None:
    desk = Desk()
    desk.away = 1
    _, journal = await worked(desk, some(Fate.ANSWERED, 3))
    assert (journal.counts["unanswered"], len(desk.rated), len(journal.decided)) == (1, 2, 2)


async def test_what_the_api_refuses_is_a_fault() -> None:
    desk = Desk()
    desk.released.append("token hold-0")
    fleet = Fleet(desk, SystemClock(), Journal(), run="r", ttl_s=5.0)
    await fleet.run(some(Fate.ABORTED, 1))
    assert fleet.journal.faults == ["account acme, request 0: released before"]


def test_the_requests_of_a_workload_have_every_fate_and_room_above_their_output() -> None:
    catalogue = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
    workload = Workload(3, 3_000, 30, None, 10.0, catalogue=catalogue, prefix="gw")
    made = list(requests(workload))
    assert len(made) == 3_000 and {request.fate for request in made} == set(Fate)
    assert list(fates(3, 3_000)) == [request.fate for request in made]
    assert all(request.output_max > request.output_tokens for request in made)
    assert {request.account for request in made} <= set(workload.customers)
    assert workload.customers[0] == "gw_0001"
    assert [request.number for request in requests(workload, first=5_000)][::2_999] == [5_000, 7_999]
    streamed = sum(request.fate is Fate.STREAMED for request in made)
    assert 200 < streamed < 400


def test_every_wallet_is_opened_and_filled() -> None:
    catalogue = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
    workload = Workload(3, 100, 9, None, 10.0, catalogue=catalogue, prefix="gw")
    commands = wallets(workload)
    assert [command["kind"] for command in commands] == ["open_account", "grant"] * 9
    assert len({command["command_key"] for command in commands}) == 18
