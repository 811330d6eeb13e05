import orjson
import pytest

from actors.door_wire import CarriedOn, CarryOn, Checked, CoveredView, FieldLimit, NotFound, Recovering
from engine.events import parse_usage
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import ALLOWED, AS_OF, Stage, token

EVENT = {"id": "s1", "type": "llm.tokens", "data": {"model": "large", "output_tokens": 3900}}
GOES_ON = CarriedOn("continue", (CoveredView(("output_tokens",), "1000"),), ALLOWED)


async def test_a_stream_is_put_to_the_owner_with_all_that_it_has_used(stage: Stage, client: Client) -> None:
    stage.doors.answers[CarryOn] = GOES_ON
    asked = {
        "token": token(),
        "event": EVENT,
        "ahead": [{"fields": ["output_tokens"], "up_to": 1000}],
        "cheaper": [{"model": "small"}],
        "ttl_s": 30,
    }
    answer = await client.post("/v1/holds/meter", asked)
    assert answer.status == 200
    told = answer.json()
    assert (told["action"], told["covered"]) == ("continue", [{"fields": ["output_tokens"], "left": "1000"}])
    assert told["check"]["hold"]["token"] == "a-token"
    ((account, question),) = stage.doors.asked
    assert isinstance(question, CarryOn)
    assert (account, question.ttl_ms, question.cheaper) == ("acme", 30_000, ({"model": "small"},))
    assert question.ahead == (FieldLimit(("output_tokens",), "1000"),)
    event = parse_usage(question.event)
    assert (event.id, event.scope, event.hold, event.hold_final) == ("s1", "team:red", token(), False)
    assert not stage.appender.records, "without a seq nothing of it is usage yet"


@pytest.mark.parametrize("final", [False, True])
async def test_with_a_seq_it_is_usage_and_the_last_settles(stage: Stage, client: Client, final: bool) -> None:
    stage.doors.answers[CarryOn] = GOES_ON
    answer = await client.post("/v1/holds/meter", {"token": token(), "event": EVENT, "seq": 4, "final": final})
    assert answer.json()["action"] == ("settled" if final else "continue")
    (record,) = stage.appender.records
    assert record.key == b"acme"
    sent = orjson.loads(record.value or b"")
    assert (sent["seq"], sent["holdfinal"], sent["data"]) == (4, final, EVENT["data"])
    assert len(stage.doors.asked) == (0 if final else 1)


async def test_a_stream_without_a_seq_is_settled_by_one_event(stage: Stage, client: Client) -> None:
    answer = await client.post("/v1/holds/meter", {"token": token(), "event": EVENT, "final": True})
    assert answer.json() == {"action": "settled", "covered": [], "alternative": None, "check": None}
    (record,) = stage.appender.records
    assert "seq" not in orjson.loads(record.value or b"")


async def test_what_stops_it_is_said_and_what_would_still_run(stage: Stage, client: Client) -> None:
    refused = Checked(False, AS_OF, reason="credit_depleted")
    stage.doors.answers[CarryOn] = CarriedOn("cheaper", (), refused, {"model": "small"})
    told = (await client.post("/v1/holds/meter", {"token": token(), "event": EVENT})).json()
    assert (told["action"], told["alternative"]) == ("cheaper", {"model": "small"})
    assert told["check"]["reason"] == "credit_depleted"
    stage.doors.answers[CarryOn] = NotFound(AS_OF)
    told = (await client.post("/v1/holds/meter", {"token": token(), "event": EVENT})).json()
    assert (told["action"], told["check"]["reason"]) == ("stop", "unknown_account")


async def test_an_owner_that_is_not_ready_stops_nobody(stage: Stage, client: Client) -> None:
    """503, to be asked again: what was covered still is. Nothing becomes usage without an answer."""
    stage.doors.answers[CarryOn] = Recovering(3, 200)
    answer = await client.post("/v1/holds/meter", {"token": token(), "event": EVENT, "seq": 1})
    assert answer.status == 503
    assert not stage.appender.records


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seq": -1}, "seq"),
        ({"final": True, "ahead": [{"fields": ["a"], "up_to": 1}]}, "final"),
        ({"cheaper": [{}] * 9}, "cheaper"),
        ({"event": EVENT | {"time": "noon"}}, "event"),
        ({"event": EVENT | {"data": []}}, "event"),
    ],
)
async def test_a_question_that_cannot_be_read_is_refused_by_field(
    stage: Stage, client: Client, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/holds/meter", {"token": token(), "event": EVENT} | change)
    assert answer.status == 400
    assert field in answer.json()["field"] + answer.json()["detail"]
    assert not stage.doors.asked and not stage.appender.records


async def test_a_foreign_hold_is_absent(stage: Stage, bound: Client) -> None:
    answer = await bound.post("/v1/holds/meter", {"token": token("globex"), "event": EVENT})
    assert answer.status == 404
    assert not stage.doors.asked


async def test_who_pays_may_not_replace_what_is_to_be_paid(stage: Stage, bound: Client) -> None:
    stage.doors.answers[CarryOn] = GOES_ON
    asked = {"token": token("acme"), "event": EVENT}
    refused = await bound.post("/v1/holds/meter", asked | {"seq": 1_000_000_000, "final": True})
    assert (refused.status, refused.json()["type"], refused.json()["field"]) == (403, "/problems/key-bound", "seq")
    assert not stage.doors.asked and not stage.appender.records
    assert (await bound.post("/v1/holds/meter", asked)).json()["action"] == "continue"
    assert (await bound.post("/v1/holds/meter", asked | {"final": True})).json()["action"] == "settled"
