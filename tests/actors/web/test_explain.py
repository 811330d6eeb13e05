"""A charge over HTTP: explained to whom it concerns, and where there is none the reason is said."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import pytest

from actors.door_wire import CapView, FindRated, NotFound, Payers, RatedAt, Recovering, ShowPayers, TooLate
from actors.explain import Charge, Charges, EventGone, LinesAway, VersionLost
from actors.keys import KeyScope
from actors.records import AlertRecord, Big, DeadLetterRecord, Text, read_cursor
from actors.web import explain
from actors.web.app import App
from engine.catalog import CatalogueDocument, PlanDefinition, document_json
from engine.events import UsageEvent
from engine.meters import ConditionDefinition, MeterDefinition
from tests.actors.proof_rig import RATED, ProofRig
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import AS_OF, START_US, Stage, token
from tests.engine.bench import DAY, TOPIC, Bench, per_unit, us

TARGET = "/v1/events/e-2/rating?account=acme&source=gateway-1"
SENT = UsageEvent("e-2", "gateway-1", "use", "acme", START_US, {"model": "x", "units": 1})
PAYERS = Payers(
    1_772_323_200_000_000,
    1_773_529_200_000_000,
    {"tiered": "500"},
    (("welcome", "promo", "40"),),
    "460",
    "0",
    (CapView("team", "team:red", False, "900", "260", "month", None, "", 1_775_001_600_000_000),),
    AS_OF,
)
MONTHLY = {"window": "month", "unit": ""}
FOUND = RatedAt(0, True, "plan", "Europe/Berlin", 15, AS_OF)


class Books:
    """What the store has."""

    def __init__(self) -> None:
        self.documents: dict[int, bytes] = {}
        self.letters: list[DeadLetterRecord] = []
        self.alerts_at: list[int] = []  # offsets
        self.sought: list[tuple[int, bytes]] = []

    async def catalogue(self, version: int) -> Any:
        return SimpleNamespace(body=self.documents[version])

    async def catalogue_at(self, instant_us: int) -> Any:
        """All are in force from the start on; the last one counts."""
        version = max((number for number in self.documents if instant_us >= START_US), default=None)
        return None if version is None else SimpleNamespace(version=version, body=self.documents[version])

    async def dead_letters_holding(self, partition: int, part: bytes) -> list[DeadLetterRecord]:
        self.sought.append((partition, part))
        return self.letters

    async def alerts(self, account: str, limit: int, cursor: str) -> tuple[list[AlertRecord], None]:
        """Newest first, from the cursor on."""
        assert (account, limit) == ("acme", 200)
        end, _ = read_cursor("alerts", cursor, tuple[Big, Text], ())
        return [crossed(offset) for offset in self.alerts_at if offset < end], None


def crossed(offset: int) -> AlertRecord:
    body = orjson.dumps({"type": "alert.crossed", "data": {"offset": offset}})
    return AlertRecord(f"alert_{offset}", offset, body, START_US, 0, None, None, "")


class Shown:
    """An account with two events, of which the second reaches into the second tier; told and to be asked for."""

    def __init__(self, most: str | None = None) -> None:
        """`most`: the dollars that a month owes."""
        self.stage = Stage()
        bench = self.bench = Bench()
        bench.open()
        if most is not None:
            bench.cap(most, beyond="waived")
        for number, units in ((1, 8), (2, 7)):
            assert bench.use(units, "tiered", id=f"e-{number}", subject="acme", odd={"a": 1}) == "rated"
        rig = self.rig = ProofRig(bench)
        rig.checkpoint()
        self.offset = len(bench.log) - 1
        self.books = Books()
        self.books.alerts_at = [self.offset + 1, self.offset, self.offset - 1]
        self.books.documents[1] = document_json(bench.documents[1])
        self.charges: Any = Charges(rig.reader, self.books, TOPIC, RATED)
        self.found(
            msgspec.structs.replace(FOUND, offset=self.offset, as_of=msgspec.structs.replace(AS_OF, partition=0))
        )

        self.stage.doors.answers[ShowPayers] = PAYERS

    def asked(self) -> Any:
        return self.stage.doors.answers[FindRated]

    def found(self, answer: Any) -> None:
        self.stage.doors.answers[FindRated] = answer

    def client(self, *scopes: KeyScope, account: str | None = None) -> Client:
        services = self.stage.services
        services.charges, services.records = self.charges, self.books
        return Client(App(explain.ROUTES, services), self.stage.keys.add(*scopes, account=account))

    async def refused(self, target: str = TARGET) -> tuple[int, dict[str, Any]]:
        answer = await self.client(KeyScope.READ).get(target)
        return answer.status, answer.json()


@pytest.fixture
def shown() -> Shown:
    return Shown()


class Says:
    """Stands in for the topics: the same charge, or the same fault, to every question."""

    def __init__(self, outcome: Charge | Exception) -> None:
        self._outcome = outcome

    async def of(self, *_: Any) -> Charge:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


async def test_what_a_cap_waives_is_told_beside_the_lines() -> None:
    """$240, then $260, of which $60 are owed."""
    shown = Shown("300")
    answer = await shown.client(KeyScope.READ).get(TARGET)
    told = answer.json()
    assert (told["amount"], told["due"]) == ("260", "60")
    assert told["waived"] == [{"cap": "monthly", "offset": shown.offset, "amount": "-200"}]
    assert [line["price"] for line in told["lines"]] == ["tiered"]


async def test_every_number_of_a_charge_is_shown(shown: Shown) -> None:
    answer = await shown.client(KeyScope.READ, account="acme").get(TARGET)
    assert answer.status == 200, answer.body
    told = answer.json()
    event = told.pop("event")
    assert event["data"] == {"model": "tiered", "units": 7}
    assert event.keys() == {"specversion", "id", "source", "type", "time", "subject", "data"}
    (line,) = told.pop("lines")
    assert told.pop("as_of")["partition"] == 0
    assert told.pop("alerts") == [{"type": "alert.crossed", "data": {"offset": shown.offset}}]
    assert told == {
        "account": "acme",
        "source": "gateway-1",
        "id": "e-2",
        "amount": "260",
        "currency": "USD",
        "partition": 0,
        "offset": shown.offset,
        "appended": "2026-03-10T12:00:00Z",
        "rated_at": "2026-03-10T12:00:00Z",
        "usage_basis": "measured",
        "tags": {},
        "rated_by": "time",
        "adjusts": None,
        "plan": "plan",
        "version": 1,
        "period": {
            "zone": "Europe/Berlin",
            "anchor_day": 15,
            "start": "2026-02-14T23:00:00Z",
            "end": "2026-03-14T23:00:00Z",
        },
        "hold": None,
        "corrections": [],
        "waived": [],
        "due": "260",
        "paid_by": {
            "start": "2026-03-01T00:00:00Z",
            "end": "2026-03-14T23:00:00Z",
            "charged": {"tiered": "500"},
            "lots": [{"lot": "welcome", "kind": "promo", "amount": "40"}],
            "debt": "460",
            "refunded": "0",
            "waived": "0",
        },
        "caps": [{"cap": "team", "scope": "team:red", "hard": False, "amount": "900", "spent": "260"} | MONTHLY],
        "set_aside": [],
        "epoch": 0,
        "final": True,
    }
    second = {"tier": 2, "above": "10", "up_to": "50", "amount": "40", "per": "1", "quantity": "5", "charged": "200"}
    second["flat"] = "0"
    assert line["tiers"][1] == second
    del line["tiers"]
    assert line == {
        "price": "tiered",
        "meter": "units",
        "counts": "units",
        "where": {"model": "tiered"},
        "cell": {"model": "tiered"},
        "quantity": "7",
        "used_before": "8",
        "used_after": "15",
        "own": "260",
        "repricing": "0",
        "beyond": "0",
        "amount": "260",
        "version": 1,
        "agreed_since": None,
        "included": None,
        "due": None,
        "commitment": None,
    }
    (_, asked), (_, then) = shown.stage.doors.asked
    assert asked == FindRated("acme", "gateway-1", "e-2")
    assert then == ShowPayers("acme", us("2026-03-10T12:00:00+00:00"), "")


async def test_what_corrections_changed_is_shown_and_what_is_due(shown: Shown) -> None:
    bench = shown.bench
    event = bench.log[shown.offset].value
    assert event is not None
    less = orjson.dumps(orjson.loads(event) | {"data": {"model": "tiered", "units": 1}})
    assert bench.correct(event, less) == "amended"
    assert bench.correct(less, None, 1) == "cancelled"
    shown.rig.checkpoint()
    shown.found(msgspec.structs.replace(shown.asked(), corrected=(shown.offset + 1, shown.offset + 2)))
    told = (await shown.client(KeyScope.READ).get(TARGET)).json()
    assert (told["amount"], told["due"]) == ("260", "0")
    amend, cancel = told["corrections"]
    assert (amend["kind"], amend["offset"], amend["amount"]) == ("amend", shown.offset + 1, "-230")
    taken, put = amend["lines"]
    assert (taken["quantity"], taken["amount"], taken["used_before"], taken["used_after"]) == (
        *("-7", "-260", "15", "8"),
    )
    assert [tier["quantity"] for tier in taken["tiers"]] == ["-2", "-5"]
    assert (put["quantity"], put["amount"], put["beyond"]) == ("1", "30", "0")
    assert (cancel["kind"], cancel["amount"]) == ("cancel", "-30")


async def test_a_hold_is_told_without_its_token(shown: Shown) -> None:
    charge = await shown.charges.of(FindRated("acme", "gateway-1", "e-2"), shown.stage.doors.answers[FindRated])
    (line,) = charge.lines
    sealed = token("acme")
    event = msgspec.structs.replace(charge.event, hold=sealed)
    value = orjson.dumps(orjson.loads(charge.value) | {"hold": sealed, "holdfinal": False})
    settled = msgspec.structs.replace(line, line=msgspec.structs.replace(line.line, settled="over_hold"))
    shown.charges = Says(msgspec.structs.replace(charge, event=event, value=value, lines=[settled]))
    answer = await shown.client(KeyScope.READ).get(TARGET)
    told = answer.json()
    assert told["rated_by"] == "hold"
    assert told["hold"] == {
        "id": "3.7.41",
        "scope": "team:red",
        "admitted": "2026-11-22T10:00:00Z",
        "settled": "over_hold",
    }
    assert told["event"]["holdfinal"] is False and sealed.encode() not in answer.body
    assert shown.stage.doors.asked[-1][1] == ShowPayers("acme", line.line.time_us, "team:red"), (
        "the hold's scope counts"
    )


async def test_what_came_for_a_closed_period_is_shown_as_its_adjustment(shown: Shown) -> None:
    """Who pays is asked of where it was posted, not of where it was used."""
    charge = await shown.charges.of(FindRated("acme", "gateway-1", "e-2"), shown.stage.doors.answers[FindRated])
    (line,) = charge.lines
    posted_us = line.line.time_us + 60 * DAY
    told_late = msgspec.structs.replace(line.line, adjusts=us("2026-02-01T00:00:00+00:00"), log_time_us=posted_us)
    shown.charges = Says(msgspec.structs.replace(charge, lines=[msgspec.structs.replace(line, line=told_late)]))
    told = (await shown.client(KeyScope.READ).get(TARGET)).json()
    assert (told["adjusts"], told["amount"]) == ("2026-02-01T00:00:00Z", "260")
    assert shown.stage.doors.asked[-1][1] == ShowPayers("acme", posted_us, "", told_late.adjusts)


async def test_who_pays_is_null_while_the_owner_cannot_say(shown: Shown) -> None:
    shown.stage.doors.answers[ShowPayers] = Recovering(3, 250)
    told = (await shown.client(KeyScope.READ).get(TARGET)).json()
    assert (told["paid_by"], told["caps"], told["amount"]) == (None, [], "260")


async def test_what_came_under_the_same_id_with_other_content_is_shown_beside_it(shown: Shown) -> None:
    conflict = msgspec.structs.replace(letter(), reason="id_conflict", detail="rated before")
    shown.books.letters = [letter(id="other"), conflict]
    told = (await shown.client(KeyScope.READ).get(TARGET)).json()
    (aside,) = told["set_aside"]
    next_step = aside.pop("next_step")
    assert aside == {"partition": 3, "offset": 17, "reason": "id_conflict", "detail": "rated before"}
    assert "needs an id of its own" in next_step


async def test_another_account_s_charge_is_as_absent_as_any(shown: Shown) -> None:
    bound = shown.client(KeyScope.READ, account="globex")
    foreign, nobody = [await bound.get(TARGET.replace("acme", name)) for name in ("acme", "nobody")]
    assert foreign.status == 404
    assert foreign.without_request_id == nobody.without_request_id
    assert shown.stage.doors.asked == []


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (NotFound(AS_OF), 404, "no such account"),
        (Recovering(3, 250), 503, "not ready yet"),
        (TooLate(), 503, "did not answer in time"),
    ],
)
async def test_an_owner_that_cannot_say_is_no_charge(shown: Shown, answer: Any, status: int, said: str) -> None:
    shown.found(answer)
    refused, told = await shown.refused()
    assert refused == status and said in told["detail"]


@pytest.mark.parametrize(
    ("fault", "checkpointed", "status", "said"),
    [
        (EventGone(), True, 410, "does not hold the event any more"),
        (LinesAway(SENT), True, 410, "does not hold the event's lines any more"),
        (LinesAway(SENT), False, 503, "on their way"),
        (VersionLost("catalogue version 1 is not in the store"), True, 503, "version 1 is not in the store"),
    ],
)
async def test_what_is_missing_is_said(
    shown: Shown, fault: Exception, checkpointed: bool, status: int, said: str
) -> None:
    shown.charges = Says(fault)
    shown.found(msgspec.structs.replace(FOUND, offset=17, checkpointed=checkpointed))
    refused, told = await shown.refused()
    assert refused == status and said in told["detail"]
    assert status != 410 or "partition 3, offset 17" in told["detail"]


@pytest.mark.parametrize("status", ["refused", "completed", None])
async def test_an_event_that_no_meter_counts_is_no_charge_and_not_lost(shown: Shown, status: str | None) -> None:
    meters = {"units": MeterDefinition("use", "count", when={"status": ConditionDefinition(one_of=("completed",))})}
    plans = {"plan": PlanDefinition("USD", {"units": per_unit("1")})}
    shown.books.documents[2] = document_json(CatalogueDocument(meters, plans))
    shown.charges = Says(LinesAway(msgspec.structs.replace(SENT, data={"status": status})))
    refused, told = await shown.refused()
    if status == "refused":
        assert refused == 404 and told["type"].endswith("not-counted")
        assert "no meter of catalogue version 2 counts it" in told["detail"]
    else:
        assert refused == 410


async def test_an_event_that_only_tells_of_a_session_adds_no_time(shown: Shown) -> None:
    meters = {"units": MeterDefinition("use", "duration", session="session")}
    shown.books.documents[2] = document_json(CatalogueDocument(meters, {"plan": PlanDefinition("USD", {})}))
    shown.charges = Says(LinesAway(SENT))
    refused, told = await shown.refused()
    assert refused == 404 and told["type"].endswith("adds-no-time")
    assert "accrued_us" in told["next_step"]


def letter(**event: Any) -> DeadLetterRecord:
    value = orjson.dumps({"id": "e-2", "source": "gateway-1", "subject": "acme"} | event)
    return DeadLetterRecord(3, 17, START_US, "no_price", "plan p has no price", b"acme", value, START_US)


async def test_an_event_that_was_set_aside_says_why_and_what_to_do(shown: Shown) -> None:
    shown.found(msgspec.structs.replace(FOUND, offset=None, checkpointed=False))
    strange = msgspec.structs.replace(letter(), value=b"e-2")
    shown.books.letters = [strange, letter(id="e-22"), letter(source="e-2"), letter()]
    status, told = await shown.refused()
    assert (status, told["type"]) == (404, "/problems/dead-lettered")
    assert "(no_price): plan p has no price (partition 3, offset 17)" in told["detail"]
    assert "Publish a catalogue in which the account's plan has a price for it" in told["next_step"]
    assert "/v1/dead-letters/3/17/redrive" in told["next_step"]
    assert shown.books.sought == [(3, b"e-2")]


@pytest.mark.parametrize(
    "other",
    [
        lambda: msgspec.structs.replace(letter(), key=b"globex"),
        lambda: msgspec.structs.replace(letter(subject="globex"), key=None),
        lambda: msgspec.structs.replace(letter(), value=None),
    ],
    ids=["key", "subject", "empty"],
)
async def test_what_was_set_aside_for_another_account_is_not_told(
    shown: Shown, other: Callable[[], DeadLetterRecord]
) -> None:
    behind = msgspec.structs.replace(AS_OF, lag_records=12)
    shown.found(msgspec.structs.replace(FOUND, offset=None, as_of=behind))
    shown.books.letters = [other()]
    status, told = await shown.refused()
    assert (status, told["type"]) == (404, "/problems/not-rated")
    assert "12 records of its partition are still to be rated" in told["detail"]


@pytest.mark.parametrize(
    "target",
    [
        "/v1/events/e/rating?account=acme",
        "/v1/events/e/rating?source=s",
        "/v1/events/e/rating?account=acme&source=",
        "/v1/events/e/rating?account=acme&source=" + "x" * 257,
        "/v1/events/e/rating?account=acme&source=s&more=1",
    ],
)
async def test_who_and_where_from_must_be_said(shown: Shown, target: str) -> None:
    status, told = await shown.refused(target)
    assert (status, told["type"]) == (400, "/problems/invalid-request")
    assert told["field"] in ("account", "source", "more")
